"""Load and save the enhancer's two nets, in the layout of the published checkpoints.

    <folder>/unet/{config.json, diffusion_pytorch_model.safetensors}
    <folder>/controlnet/{config.json, diffusion_pytorch_model.safetensors}

Every tensor must be there and none may be left over; plain diffusers would load a UNet
without its pixel attentions, or leave them random, with a warning only.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ControlNetModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from enhancer.controlnet import RGB_HEADS, controlnet_of_config
from enhancer.unet import PacaInit, PacaUNet2DConditionModel, initialize_paca
from runtime.atomic import read_json, write_bytes, write_json
from runtime.errors import DataError

WEIGHTS = "diffusion_pytorch_model.safetensors"
_OLD_WEIGHTS = "diffusion_pytorch_model.bin"
StateDict = dict[str, Tensor]


def load_nets(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[PacaUNet2DConditionModel, ControlNetModel]:
    """Load a trained enhancer: ours, the A-FINE release's DiffEnhancer, or PASD.

    Args:
        folder: holds `unet/` and `controlnet/`.
        device: where the nets go.
        dtype: number format of the weights.
    Returns:
        UNet and ControlNet, in evaluation mode.
    Raises:
        DataError: a file, tensor or shape is missing or unexpected, each named.
    """
    root = Path(folder)
    unet = _load_unet(root / "unet")
    controlnet = _load_controlnet(root / "controlnet")
    if unet.config.block_out_channels != controlnet.config.block_out_channels:
        raise DataError(
            f"{root}: unet and controlnet have different widths "
            f"({unet.config.block_out_channels}, {controlnet.config.block_out_channels}); "
            "they are not from one checkpoint"
        )
    return unet.to(device, dtype).eval(), controlnet.to(device, dtype).eval()


def new_nets(
    base_unet: str | Path,
    *,
    init: PacaInit,
    seed: int,
    conditioning_channels: tuple[int, ...] = (16, 32, 96, 256),
) -> tuple[PacaUNet2DConditionModel, ControlNetModel]:
    """Start an enhancer from the UNet of a plain Stable Diffusion model.

    The ControlNet copies the UNet's input convolution, time embedding, down path and middle;
    its conditioning net is random with a zero last convolution, its output convolutions zero.

    Args:
        base_unet: `unet` folder of the base model.
        init: start of the pixel attentions, see `initialize_paca`.
        seed: of everything that starts random.
        conditioning_channels: widths of the conditioning net; 16, 32, 96, 256 in SD1.5.
    Raises:
        DataError: the folder holds no plain UNet, or one of another family.
    """
    folder = Path(base_unet)
    weights = read_weights(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = PacaUNet2DConditionModel.from_config(_config(folder))
        initialize_paca(unet, init)
        new = {name: tensor for name, tensor in unet.state_dict().items() if _is_paca(name)}
        load_strictly(unet, {**new, **weights}, where=folder)
        controlnet = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=conditioning_channels
        )
    return unet, controlnet


def save_nets(folder: str | Path, unet: nn.Module, controlnet: nn.Module) -> list[Path]:
    """Write both nets in the published layout; each file appears whole.

    Returns:
        The files written.
    """
    root = Path(folder)
    return [
        *save_model(root / "unet", unet),
        *save_model(root / "controlnet", controlnet),
    ]


def save_model(folder: Path, model: Any, *, weights: StateDict | None = None) -> list[Path]:
    """Write one diffusers model: `config.json`, and its weights (or `weights`) as float32."""
    tensors = model.state_dict() if weights is None else weights
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    # not save_file: it puts a file of its own in place, readable to this user only
    write_bytes(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    config = {key: value for key, value in model.config.items() if not key.startswith("_")}
    origin = {"_class_name": type(model).__name__, "_diffusers_version": diffusers.__version__}
    write_json(folder / "config.json", {**_plain(config), **origin})
    return [folder / WEIGHTS, folder / "config.json"]


def read_weights(folder: Path) -> StateDict:
    """Read the weights of a diffusers model folder, safetensors or the older .bin.

    Raises:
        DataError: no weights, or an unreadable file.
    """
    for name in (WEIGHTS, _OLD_WEIGHTS):
        path = folder / name
        if path.is_file():
            try:
                if name == WEIGHTS:
                    return dict(load_file(path))
                return dict(torch.load(path, map_location="cpu", weights_only=True))
            except (SafetensorError, RuntimeError, ValueError, EOFError) as error:
                raise DataError(f"{path}: not readable ({error}); fetch the file again") from None
    raise DataError(f"{folder}: found neither {WEIGHTS} nor {_OLD_WEIGHTS}")


def load_strictly(model: nn.Module, weights: StateDict, *, where: Path) -> None:
    """Load a state dict in which nothing may be missing, left over or of another shape.

    Raises:
        DataError: naming the first such tensors and how many there are.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    missing = sorted(expected.keys() - found.keys())
    if missing and all(_is_paca(name) for name in missing):
        raise DataError(
            f"{where}: {len(missing)} pixel attention tensors are missing; this is a plain Stable "
            "Diffusion UNet: name it as enhancer.base_model, not as a trained enhancer"
        )
    _refuse("missing", missing, where)
    _refuse("unexpected", sorted(found.keys() - expected.keys()), where)
    wrong = [
        f"{name} {found[name]}, expected {expected[name]}"
        for name in sorted(expected)
        if found[name] != expected[name]
    ]
    _refuse("of another shape", wrong, where)
    model.load_state_dict(weights, strict=True, assign=_is_on_meta(model))


def _load_unet(folder: Path) -> PacaUNet2DConditionModel:
    config = _config(folder)
    weights = read_weights(folder)
    with torch.device("meta"):
        unet: PacaUNet2DConditionModel = PacaUNet2DConditionModel.from_config(config)
    load_strictly(unet, weights, where=folder)
    return unet


def _load_controlnet(folder: Path) -> ControlNetModel:
    config = _config(folder)
    weights = read_weights(folder)
    has_rgb_heads = any(name.startswith(RGB_HEADS) for name in weights)
    with torch.device("meta"):
        controlnet = controlnet_of_config(config, has_rgb_heads=has_rgb_heads)
    load_strictly(controlnet, weights, where=folder)
    return controlnet


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json", what="model configuration")
    if not isinstance(config, dict) or "block_out_channels" not in config:
        raise DataError(f"{folder / 'config.json'}: not the configuration of a diffusers model")
    return config


def _is_paca(name: str) -> bool:
    return ".pixel_attentions." in name


def _is_on_meta(model: nn.Module) -> bool:
    return next(model.parameters()).is_meta


def _refuse(what: str, names: Iterable[str], where: Path) -> None:
    listed = list(names)
    if listed:
        shown = ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
        raise DataError(
            f"{where}: {len(listed)} tensors {what}: {shown}; the weights do not fit the model "
            "that config.json describes"
        )


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in config.items()
    }
