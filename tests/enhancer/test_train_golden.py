"""One training step against the reference's loss, gradients and AdamW result."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from enhancer import load_nets
from enhancer.base.denoiser import build_noise_schedule
from enhancer.config import TrainConfig
from enhancer.train.objective import Enhancer, freeze_all_but_trained, per_example_loss
from enhancer.train.trainer import make_optimizer

TOLERANCE = 1e-5


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture
def enhancer(golden: Path, tmp_path: Path) -> Enhancer:
    for net in ("unet", "controlnet"):
        (tmp_path / net).mkdir()
        shutil.copy(golden / f"pasd/tiny_{net}_config.json", tmp_path / net / "config.json")
        shutil.copy(
            golden / f"pasd/tiny_{net}.safetensors",
            tmp_path / net / "diffusion_pytorch_model.safetensors",
        )
    return Enhancer(*load_nets(tmp_path)).train()


def test_step_equals_reference(golden: Path, enhancer: Enhancer) -> None:
    io = load_file(golden / "pasd/train_io.safetensors")
    facts = json.loads((golden / "pasd/train_io.json").read_text())
    freeze_all_but_trained(enhancer)
    before = {name: value.detach().clone() for name, value in enhancer.named_parameters()}

    noisy = build_noise_schedule().add_noise(io["in.latents"], io["in.noise"], io["in.timesteps"])
    assert relative(noisy, io["in.noisy_latents"]) <= TOLERANCE
    predicted = enhancer(
        noisy, io["in.timesteps"], io["in.encoder_hidden_states"], io["in.controlnet_cond"]
    )
    loss = per_example_loss(predicted, io["in.noise"]).mean()
    assert loss.item() == pytest.approx(facts["loss"], rel=TOLERANCE)

    loss.backward()
    trained = {n: p for n, p in enhancer.named_parameters() if p.requires_grad}
    norms = {name: parameter.grad.norm().item() for name, parameter in trained.items()}
    expected = facts["grad_norms_before_clip"]
    assert norms.keys() == expected.keys()
    assert len(norms) == 312 + 340
    largest = max(expected.values())
    for name, norm in expected.items():
        assert abs(norms[name] - norm) <= TOLERANCE * largest, name

    total = torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
    assert total.item() == pytest.approx(facts["total_grad_norm_before_clip"], rel=TOLERANCE)
    for name in (key for key in io if key.startswith("grad_clipped.")):
        gradient = trained[name.removeprefix("grad_clipped.")].grad
        assert relative(gradient, io[name]) <= TOLERANCE

    make_optimizer(list(trained.values()), TrainConfig()).step()
    for name in (key for key in io if key.startswith("after_step.")):
        assert relative(trained[name.removeprefix("after_step.")], io[name]) <= TOLERANCE
    for name, parameter in enhancer.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before[name]), f"frozen {name} changed"
