"""The base model: a linear start that the whole network keeps, a diffusers folder that loads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from enhancer.base.autoencoder import (
    build_autoencoder,
    join_branches,
    linear_reconstruction,
    skeleton_parameters,
    standardize_latents,
)
from enhancer.base.fitting import one_cycle
from enhancer.base.stage import run_base
from enhancer.base.text import load_tokenizer, write_tokenizer
from enhancer.components import base_folder
from enhancer.config import VaeConfig
from enhancer.poses import image_tensor, turned
from enhancer.train.stage import run_train
from runtime.errors import ConfigError, ResourceError
from runtime.metrics import read_metrics
from runtime.settings import RunSettings, load_run
from tests.enhancer.conftest import MakeRun, write_crops

SMALL = {
    "vae": {
        "block_channels": [10, 12, 14, 16], "latent_channels": 8, "linear_steps": 20, "steps": 2,
        "batch_size": 2, "patch_px": 32,
    },
    "unet": {"block_channels": [8, 16], "attention_heads": 2, "norm_groups": 4, "steps": 2},
    "text": {"hidden_size": 16, "layers": 1, "heads": 2},
    "threads": 1,
}  # fmt: skip


@pytest.fixture
def base_run(tmp_path: Path) -> RunSettings:
    write_crops(tmp_path)
    path = tmp_path / "config.resolved.json"
    path.write_text(json.dumps({"seed": 3, "enhancer": {"base_model": "train", "base": SMALL}}))
    return load_run(path)


def images(photo_u8: np.ndarray, px: int = 64) -> torch.Tensor:
    tiles = [photo_u8[i : i + px, i : i + px] for i in range(0, 256, 32)]
    return image_tensor(np.stack(tiles))


def test_whole_network_starts_as_its_trained_skeleton(photo_u8: np.ndarray) -> None:
    torch.manual_seed(0)
    vae = build_autoencoder(VaeConfig()).eval()
    image = images(photo_u8, px=32)
    optimizer = torch.optim.Adam(skeleton_parameters(vae), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        (linear_reconstruction(vae, image) - image).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        linear = linear_reconstruction(vae, image)
        join_branches(vae, image)
        whole = vae.decode(vae.encode(image).latent_dist.mode()).sample
    # SiLU is linear only near zero: within 1 dB of the skeleton (0.4 dB in the demo)
    assert psnr_db(whole, image) > psnr_db(linear, image) - 1.0
    assert psnr_db(linear, image) > 18


def psnr_db(found: torch.Tensor, image: torch.Tensor) -> float:
    return (-10 * ((found - image) / 2).square().mean().log10()).item()


def test_standard_latents_leave_reconstructions_alone(photo_u8: np.ndarray) -> None:
    torch.manual_seed(0)
    vae = build_autoencoder(VaeConfig()).eval()
    image = images(photo_u8)
    with torch.no_grad():
        join_branches(vae, image)
        before = vae.decode(vae.encode(image).latent_dist.mode()).sample
        standardize_latents(vae, image)
        latent = vae.encode(image).latent_dist.mode()
        after = vae.decode(latent).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert (latent * vae.config.scaling_factor).std().item() == pytest.approx(1.0, abs=0.01)
    assert latent.mean(dim=(0, 2, 3)).abs().max() < 1e-4


def test_poses_are_eight_different_ones() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert len({turned(image, pose).tobytes() for pose in range(8)}) == 8


def test_rate_rises_then_falls_to_zero() -> None:
    rates = [one_cycle(step, 100) for step in range(100)]
    assert max(rates) == 1.0
    assert rates.index(1.0) == 9
    assert rates[-1] < 0.01


def test_tokenizer_keeps_all_letters(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, max_length=77)
    tokenizer = load_tokenizer(tmp_path)
    text = "clean, high-resolution, 8k"
    tokens = tokenizer(text).input_ids
    assert tokens[0] == tokenizer.bos_token_id
    assert tokens[-1] == tokenizer.eos_token_id
    shown = tokenizer.decode(tokens, skip_special_tokens=True)
    assert shown.replace(" ", "") == text.replace(" ", "")


def test_stage_writes_a_folder_that_diffusers_loads(base_run: RunSettings) -> None:
    run_base(base_run)
    folder = base_run.root / "base"
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    assert pipeline.vae.config.latent_channels == 8
    assert pipeline.vae_scale_factor == 8
    rows = read_metrics(folder / "metrics.jsonl")
    assert {row["part"] for row in rows} == {"skeleton", "autoencoder", "denoiser"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["autoencoder"]["psnr_db"] > 5
    before = (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    run_base(base_run)
    assert (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == before


def test_stage_repeats_to_the_byte_and_resumes_after_a_part(
    base_run: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = base_run.root / "base"
    run_base(base_run)
    first = (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    (folder / "manifest.json").unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("enhancer.base.stage.train_denoiser", _interrupt)
        run_base(base_run)
    assert (folder / ".state/autoencoder.json").is_file()
    monkeypatch.setattr("enhancer.base.stage.train_autoencoder", _must_not_run)
    run_base(base_run)
    assert (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == first


def test_named_base_model_is_not_trained(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="nothing to train"):
        run_base(make_run())


def _interrupt(*_args: object, **_more: object) -> None:
    raise KeyboardInterrupt


def _must_not_run(*_args: object, **_more: object) -> None:
    raise AssertionError("the autoencoder was already trained")


def test_a_hub_id_is_found_in_the_hubs_cache(
    make_run: MakeRun, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache as the hub's client leaves it: a reference, and files of one revision."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run = make_run()
    values = json.loads(run.path.read_text())
    values["enhancer"]["base_model"] = "somebody/small-diffusion"
    run.path.write_text(json.dumps(values))
    run = load_run(run.path)
    with pytest.raises(ResourceError, match="neither a folder nor a model that could be fetched"):
        base_folder(run)
    model = tmp_path / "hub/models--somebody--small-diffusion"
    shutil.copytree(tiny_base, model / "snapshots/0123abcd")
    (model / "refs").mkdir()
    (model / "refs/main").write_text("0123abcd")
    assert base_folder(run) == model / "snapshots/0123abcd"
    run_train(run, limit=1)
