"""Stable Diffusion 1.5 size with random weights: load, one training step, one sampling step."""

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from enhancer.base.denoiser import build_noise_schedule
from enhancer.checkpoints import new_nets, save_model
from enhancer.config import TrainConfig
from enhancer.sample.latents import denoise_latents
from enhancer.train.objective import Enhancer, freeze_all_but_trained, per_example_loss
from enhancer.train.trainer import make_optimizer


@pytest.mark.slow
def test_one_step_within_24_gb(
    golden: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    config = json.loads((golden / "pasd/config_sd15_unet.json").read_text())
    base = UNet2DConditionModel.from_config(config)
    save_model(tmp_path / "unet", base)
    del base
    start = time.perf_counter()
    enhancer = Enhancer(*new_nets(tmp_path / "unet", init="zero", seed=1)).train()
    load_s = time.perf_counter() - start
    assert freeze_all_but_trained(enhancer) == 609_513_680

    generator = torch.Generator().manual_seed(1)
    latent, noise = (torch.randn(1, 4, 64, 64, generator=generator) for _ in range(2))
    text = torch.randn(1, 77, 768, generator=generator)
    condition01 = torch.rand(1, 3, 512, 512, generator=generator)
    timesteps = torch.tensor([400])
    noisy = build_noise_schedule().add_noise(latent, noise, timesteps)

    start = time.perf_counter()
    loss = per_example_loss(enhancer(noisy, timesteps, text, condition01), noise).mean()
    loss.backward()
    trained = [parameter for parameter in enhancer.parameters() if parameter.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer = make_optimizer(trained, TrainConfig())
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    train_s = time.perf_counter() - start
    assert torch.isfinite(norm)

    enhancer.eval()
    start = time.perf_counter()
    (sampled,) = denoise_latents(
        enhancer.unet, enhancer.controlnet, [(noisy[0], condition01[0], 1)],
        prompt_embeds=text, negative_prompt_embeds=torch.zeros_like(text), slots=1,
    )  # fmt: skip
    sample_s = time.perf_counter() - start
    assert torch.isfinite(sampled).all()
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").unlink()
    record_property("load_s", round(load_s))
    record_property("train_step_s", round(train_s))
    record_property("sampling_step_s", round(sample_s))
    record_property("peak_gb", round(peak_gb, 1))
    assert peak_gb < 24
