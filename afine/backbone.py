"""The visual trunk of CLIP: what A-FINE looks at an image with (paper Sec. 4.1).

Parameters carry the names of the published CLIP files. `ln_post` and the output projection
are not here: no score depends on them.

    symbol  meaning                                      shape
    T       tokens: patches of an image, row by row      -
    C       width of the trunk                           -
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.errors import DataError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_QUICK_GELU = 1.702


@dataclass(frozen=True)
class TrunkShape:
    """Geometry of the trunk.

    Attributes:
        width: channels C.
        layers: number of blocks.
        patch_px: side of a patch, in pixels.
        head_width: channels of one attention head.
        image_px: image side that the position table was made for, in pixels.
    """

    width: int = 768
    layers: int = 12
    patch_px: int = 32
    head_width: int = 64
    image_px: int = 224

    @property
    def table_rows(self) -> int:
        """Rows of the position table: one for the class token, one per patch."""
        return (self.image_px // self.patch_px) ** 2 + 1

    def as_dict(self) -> dict[str, int]:
        """Plain values, for metadata."""
        return asdict(self)


class _Attention(nn.Module):
    """Multi-head self-attention with packed input projections, as CLIP stores them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the tokens of each image, [N, T, C] -> [N, T, C]."""
        batch, tokens, width = x.shape
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (
            part.view(batch, tokens, self.heads, -1).transpose(1, 2)
            for part in packed.split(width, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        joined: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return joined


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        projected: Tensor = self.c_proj(hidden * torch.sigmoid(_QUICK_GELU * hidden))
        return projected


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        stepped: Tensor = x + self.mlp(self.ln_2(x))
        return stepped


class _Blocks(nn.Module):
    """Holder that gives the blocks their published names, `transformer.resblocks.<i>`."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))


class VisionTrunk(nn.Module):
    """CLIP's vision transformer up to the last block, for images of any size.

    Args:
        shape: geometry; ViT-B/32 by default.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: TrunkShape | None = None) -> None:
        super().__init__()
        self.shape = shape or TrunkShape()
        width = self.shape.width
        self.conv1 = nn.Conv2d(3, width, self.shape.patch_px, self.shape.patch_px, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(self.shape.table_rows, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _Blocks(width, width // self.shape.head_width, self.shape.layers)
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(1, 3, 1, 1), persistent=False)

    def features(self, image01: Tensor) -> Iterator[Tensor]:
        """Yield the patch tokens after each block.

        Args:
            image01: [N, 3, H, W] in [0, 1], H and W multiples of the patch side.
        Yields:
            [N, T, C] per block: the residual stream without the class token, before any ReLU.
        """
        patches = self.conv1((image01 - self.mean) / self.std).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1).to(patches.dtype)
        tokens = torch.cat([first, patches], dim=1)
        table = stretch_positions(self.positional_embedding, tokens.shape[1])
        tokens = self.ln_pre(tokens + table)
        for block in self.transformer.resblocks:
            tokens = block(tokens)
            yield tokens[:, 1:]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw random weights in CLIP's proportions; norms are left at one and zero."""
        width, layers = self.shape.width, self.shape.layers
        for name, parameter in sorted(self.named_parameters()):
            if "ln_" in name or name.endswith("bias"):
                continue
            scale = width**-0.5
            if name == "conv1.weight":
                scale = (3 * self.shape.patch_px**2) ** -0.5
            elif "out_proj" in name or "c_proj" in name:
                scale *= (2 * layers) ** -0.5
            elif "c_fc" in name:
                scale = (2 * width) ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()


def stretch_positions(table: Tensor, rows: int) -> Tensor:
    """Stretch the position table along the token axis.

    The release treats the table, class row included, as an image of one channel and resizes
    it; it is not an interpolation over the patch grid. At the native size it is the identity.

    Args:
        table: [R, C].
        rows: number of tokens, class token included.
    Returns:
        [rows, C].
    Source:
        Bicubic kernel with a = -0.75, half-pixel centres, no antialiasing (release).
    """
    if table.shape[0] == rows:
        return table
    image = table.T[None, :, :, None]
    stretched = F.interpolate(image, size=(rows, 1), mode="bicubic", align_corners=False)
    return stretched[0, :, :, 0].T


def fit_to_patches(image01: Tensor, patch_px: int) -> Tensor:
    """Resize images whose sides are no multiples of the patch side up to the next multiple.

    Args:
        image01: [N, 3, H, W] in [0, 1]; not modified.
        patch_px: side of a patch, in pixels.
    Returns:
        The input itself if it fits, else a bicubic resize, not clipped to [0, 1] (release).
    Raises:
        DataError: not a batch of RGB images.
    """
    if image01.ndim != 4 or image01.shape[1] != 3 or not torch.is_floating_point(image01):
        raise DataError(
            "expected images as floats [N, 3, H, W] in [0, 1]; found "
            f"{image01.dtype} {tuple(image01.shape)}"
        )
    height, width = image01.shape[2:]
    size = (-(-height // patch_px) * patch_px, -(-width // patch_px) * patch_px)
    if size == (height, width):
        return image01
    return F.interpolate(image01, size=size, mode="bicubic", align_corners=False)
