"""Reading tensors from the files that CLIP and A-FINE weights come in.

Weights only: no file is unpickled with code. Names are brought to one form, the official
A-FINE one (`finetuned_clip.visual.*`, `natural.*`, ...).
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from runtime.errors import DataError

VISUAL = "visual."
OFFICIAL_GROUPS = (
    "finetuned_clip",
    "natural",
    "fidelity",
    "fidelity_scale",
    "natural_scale",
    "adapter",
)
_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
_HF_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)")
_HF_NAMES = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm.weight": "ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "ln_pre.bias",
}
_HF_PARTS = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}


def read_tensors(path: Path, *, is_whole: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file or folder of weights.

    Args:
        path: safetensors, a pickled state dict or merged A-FINE file, an OpenAI TorchScript
            archive, or a Hugging Face CLIP folder.
        is_whole: keep the text part of CLIP files too.
    Returns:
        Float32 tensors by official name, and the file's metadata (safetensors only).
    Raises:
        DataError: missing, unreadable, or no such file.
    """
    file = _file_of(path)
    metadata: dict[str, str] = {}
    if file.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(file)
    else:
        tensors = _read_pickled(file)
    if any(name.startswith("vision_model.") for name in tensors):
        tensors = _from_hugging_face(tensors)
    elif "visual.conv1.weight" in tensors:
        tensors = {f"finetuned_clip.{name}": value for name, value in tensors.items()}
    if not is_whole:
        tensors = {k: v for k, v in tensors.items() if not _is_text(k)}
    return {k: v.float() for k, v in tensors.items()}, metadata


def visual_tensors(tensors: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Pick the trunk's tensors, under the names of `VisionTrunk`."""
    prefix = f"finetuned_clip.{VISUAL}"
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if not {"conv1.weight", "positional_embedding"} <= found.keys():
        raise DataError(
            f"{where}: no CLIP vision transformer in it (found "
            f"{', '.join(sorted(tensors)[:3]) or 'nothing'}); expected visual.conv1.weight or "
            "vision_model.embeddings.patch_embedding.weight"
        )
    return found


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: weights not found")
        return path
    for name in _FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise DataError(f"{path}: folder holds none of {', '.join(_FOLDER_FILES)}")


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, dict(  # noqa: SIM118
                opened.metadata() or {}
            )
    except safetensors.SafetensorError as error:
        raise DataError(f"{file}: not a readable safetensors file ({error})") from None


def _read_pickled(file: Path) -> dict[str, Tensor]:
    if _is_torchscript(file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive = torch.jit.load(str(file), map_location="cpu")
        return dict(archive.state_dict())
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise DataError(
            f"{file}: not a file of plain tensors ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); convert it to safetensors"
        ) from None
    return _flatten(loaded, where=str(file))


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _flatten(loaded: Any, *, where: str) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise DataError(f"{where}: holds a {type(loaded).__name__}, expected a state dict")
    if "finetuned_clip" in loaded:
        return {
            f"{group}.{name}": value
            for group in OFFICIAL_GROUPS
            for name, value in loaded.get(group, {}).items()
        }
    return {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}


def _is_text(name: str) -> bool:
    return name.startswith("finetuned_clip.") and not name.startswith(f"finetuned_clip.{VISUAL}")


def _from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a Hugging Face CLIP's vision part; its three input projections are packed."""
    prefix = f"finetuned_clip.{VISUAL}"
    named = {prefix + ours: tensors[theirs] for theirs, ours in _HF_NAMES.items()}
    packed: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        match = _HF_LAYER.fullmatch(name)
        if match is None:
            continue
        block, part = f"{prefix}transformer.resblocks.{match[1]}.", match[2]
        for theirs, ours in _HF_PARTS.items():
            if part.startswith(theirs):
                named[block + ours + part.removeprefix(theirs)] = value
        for projection in ("q_proj", "k_proj", "v_proj"):
            if part.startswith(f"self_attn.{projection}."):
                kind = part.rpartition(".")[2]
                packed.setdefault(f"{block}attn.in_proj_{kind}", {})[projection] = value
    for name, parts in packed.items():
        named[name] = torch.cat([parts[p] for p in ("q_proj", "k_proj", "v_proj")])
    return named
