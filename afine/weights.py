"""Files with weights: ours, the official A-FINE file, and the CLIP files that training starts from.

Our file is safetensors with the official names flattened (`finetuned_clip.visual.conv1.weight`,
`natural.proj_feat.weight`, `fidelity.alpha`, `adapter.k`, ...) and the geometry in its metadata.
The official file is one `torch.save` of a dictionary of groups (`afine.pth`).
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from afine.backbone import TrunkShape
from afine.checkpoint_files import OFFICIAL_GROUPS, VISUAL, read_tensors, visual_tensors
from afine.model import AFine
from runtime.atomic import write_bytes
from runtime.errors import DataError

_MODULES = {
    "naturalness": "natural",
    "fidelity": "fidelity",
    "naturalness_scale": "natural_scale",
    "fidelity_scale": "fidelity_scale",
    "adapter": "adapter",
}
_CLIP_HEAD_WIDTH = 64


def load(path: str | Path) -> AFine:
    """Load a trained A-FINE, ready to score on the CPU (move it with `.to(device)`).

    Args:
        path: our safetensors file, or the official merged `afine.pth`.
    Raises:
        DataError: the file is missing, is no A-FINE file, or is of another architecture.
    """
    tensors, metadata = read_tensors(Path(path))
    if not _is_afine(tensors):
        raise DataError(
            f"{path}: no A-FINE weights (found {_sample(tensors)}); a CLIP file holds only the "
            "backbone: name it as afine.model.backbone and train"
        )
    shape = _shape_of(tensors, metadata, where=str(path))
    if "natural.proj_feat.weight" not in tensors:
        raise DataError(f"{path}: 'natural.proj_feat.weight' is missing; the file is incomplete")
    model = AFine(shape, hidden=len(tensors["natural.proj_feat.weight"]))
    _fill(model, tensors, where=str(path))
    return model.eval()


def is_afine_file(path: str | Path) -> bool:
    """Whether a file of weights is a whole A-FINE, not only a CLIP."""
    return _is_afine(read_tensors(Path(path))[0])


def _is_afine(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("natural.") for name in tensors)


def load_backbone(model: AFine, path: str | Path) -> None:
    """Fill the backbone of `model` from a CLIP (or A-FINE) file or folder of the same geometry.

    Raises:
        DataError: the file cannot be read or its geometry differs.
    """
    tensors, _ = read_tensors(Path(path))
    visual = visual_tensors(tensors, where=str(path))
    _check_and_copy(model.backbone, visual, prefix=VISUAL, where=str(path))


def backbone_shape(path: str | Path) -> TrunkShape:
    """Read the geometry of a CLIP file or folder."""
    tensors, metadata = read_tensors(Path(path))
    return _shape_of(tensors, metadata, where=str(path))


def save(model: AFine, path: str | Path) -> None:
    """Write our safetensors file, atomically; equal weights give equal bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in _official(model).items()}
    # one entry only: with several, safetensors writes them in random order
    metadata = {"afine": json.dumps(model.shape.as_dict(), sort_keys=True)}
    write_bytes(path, safetensors.torch.save(dict(sorted(tensors.items())), metadata))


def export_official(weights: Path, out: Path, clip: Path | None = None) -> None:
    """Rewrite a file of weights as the official merged `afine.pth`; see `to_official`."""
    buffer = io.BytesIO()
    torch.save(to_official(load(weights), clip), buffer)
    write_bytes(out, buffer.getvalue())


def to_official(model: AFine, clip: str | Path | None = None) -> dict[str, dict[str, Tensor]]:
    """Arrange the weights as the official merged file does, for `torch.save`.

    The official loaders insist on the names of a whole CLIP, text part included, though no
    score depends on it.

    Args:
        model: the weights.
        clip: CLIP file that the text part is taken from; without it the text part of
            ViT-B/32 is filled with zeros.
    """
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in OFFICIAL_GROUPS}
    for name, value in _official(model).items():
        group, _, key = name.partition(".")
        groups[group][key] = value.detach().cpu().clone()
    for group in ("natural", "fidelity"):
        groups[group]["mean"] = model.backbone.mean.detach().cpu().clone()
        groups[group]["std"] = model.backbone.std.detach().cpu().clone()
    rest = _text_of(clip) if clip else _neutral_text(model.shape)
    groups["finetuned_clip"] = {**rest, **groups["finetuned_clip"]}
    return groups


def _official(model: AFine) -> dict[str, Tensor]:
    """All weights under their official names."""
    named: dict[str, Tensor] = {
        f"finetuned_clip.{VISUAL}{name}": value for name, value in model.backbone.named_parameters()
    }
    for ours, theirs in _MODULES.items():
        module = getattr(model, ours)
        named |= {f"{theirs}.{name}": value for name, value in module.named_parameters()}
    return named


def _fill(model: AFine, tensors: Mapping[str, Tensor], *, where: str) -> None:
    visual = visual_tensors(tensors, where=where)
    _check_and_copy(model.backbone, visual, prefix=f"finetuned_clip.{VISUAL}", where=where)
    for ours, theirs in _MODULES.items():
        prefix = f"{theirs}."
        part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        _check_and_copy(getattr(model, ours), part, prefix=prefix, where=where)


@torch.no_grad()
def _check_and_copy(
    module: torch.nn.Module, tensors: Mapping[str, Tensor], *, prefix: str, where: str
) -> None:
    for name, parameter in module.named_parameters():
        if name not in tensors:
            raise DataError(
                f"{where}: '{prefix}{name}' is missing; the file is of another architecture or "
                "incomplete"
            )
        found = tensors[name]
        if found.shape != parameter.shape:
            raise DataError(
                f"{where}: '{prefix}{name}' is {tuple(found.shape)}, expected "
                f"{tuple(parameter.shape)}; the file is of another architecture"
            )
        parameter.copy_(found)


def _shape_of(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, where: str
) -> TrunkShape:
    """Geometry from the metadata of our files, else from the tensors' shapes."""
    if "afine" in metadata:
        return TrunkShape(**json.loads(metadata["afine"]))
    visual = visual_tensors(tensors, where=where)
    width, _, patch_px, _ = visual["conv1.weight"].shape
    rows = len(visual["positional_embedding"])
    side = round((rows - 1) ** 0.5)
    layers = sum(name.endswith(".ln_1.weight") for name in visual)
    if side * side + 1 != rows or width % _CLIP_HEAD_WIDTH:
        raise DataError(
            f"{where}: position table of {rows} rows and width {width} are no CLIP vision "
            "transformer"
        )
    return TrunkShape(width, layers, patch_px, _CLIP_HEAD_WIDTH, side * patch_px)


def _text_of(clip: str | Path) -> dict[str, Tensor]:
    """Everything of a CLIP file that is not our trunk, under the names of OpenAI."""
    tensors, _ = read_tensors(Path(clip), is_whole=True)
    dropped = {"input_resolution", "context_length", "vocab_size"}
    plain = {name.removeprefix("finetuned_clip."): value for name, value in tensors.items()}
    if "text_projection" not in plain:
        raise DataError(f"{clip}: no text part in the OpenAI layout (found {_sample(plain)})")
    return {name: value.float() for name, value in plain.items() if name not in dropped}


def _neutral_text(shape: TrunkShape) -> dict[str, Tensor]:
    """Zeros with the names and shapes of the text part of CLIP ViT-B/32."""
    width, context, vocabulary, layers, output = 512, 77, 49408, 12, 512
    sizes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (context, width),
        "text_projection": (width, output),
        "logit_scale": (),
        "token_embedding.weight": (vocabulary, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        "visual.proj": (shape.width, output),
        "visual.ln_post.weight": (shape.width,),
        "visual.ln_post.bias": (shape.width,),
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}."
        sizes |= {
            f"{block}attn.in_proj_weight": (3 * width, width),
            f"{block}attn.in_proj_bias": (3 * width,),
            f"{block}attn.out_proj.weight": (width, width),
            f"{block}attn.out_proj.bias": (width,),
            f"{block}mlp.c_fc.weight": (4 * width, width),
            f"{block}mlp.c_fc.bias": (4 * width,),
            f"{block}mlp.c_proj.weight": (width, 4 * width),
            f"{block}mlp.c_proj.bias": (width,),
            **{f"{block}ln_{i}.{part}": (width,) for i in (1, 2) for part in ("weight", "bias")},
        }
    return {name: torch.zeros(size) for name, size in sizes.items()}


def _sample(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted(tensors)[:3]) or "nothing"
