"""The PACA model against the reference implementation's outputs (tests/golden/pasd)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from enhancer import load_nets
from enhancer.checkpoints import new_nets, save_nets
from enhancer.controlnet import RgbConditioningEmbedding, controlnet_of_config
from enhancer.unet import PacaUNet2DConditionModel
from runtime.errors import DataError

TOLERANCE = 1e-5


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert found.shape == expected.shape
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    assert error <= tolerance, f"relative to max: {error:.2e}"


@pytest.fixture(scope="module")
def tiny_folder(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden tiny nets in the published folder layout."""
    folder = tmp_path_factory.mktemp("enhancer")
    for net in ("unet", "controlnet"):
        (folder / net).mkdir()
        shutil.copy(golden / f"pasd/tiny_{net}_config.json", folder / net / "config.json")
        shutil.copy(
            golden / f"pasd/tiny_{net}.safetensors",
            folder / net / "diffusion_pytorch_model.safetensors",
        )
    return folder


@pytest.fixture(scope="module")
def io(golden: Path) -> dict[str, Tensor]:
    return dict(load_file(golden / "pasd/tiny_io.safetensors"))


@torch.no_grad()
def run_case(
    folder: Path, io: dict[str, Tensor], inputs: str, scale: float
) -> tuple[list[Tensor], Tensor, Tensor]:
    unet, controlnet = load_nets(folder)
    sample, t = io[f"{inputs}.in.sample"], io[f"{inputs}.in.timesteps"]
    text = io[f"{inputs}.in.encoder_hidden_states"]
    down, mid = controlnet(
        sample,
        t,
        encoder_hidden_states=text,
        controlnet_cond=io[f"{inputs}.in.controlnet_cond"],
        conditioning_scale=scale,
        return_dict=False,
    )
    noise = unet(
        sample,
        t,
        encoder_hidden_states=text,
        down_block_additional_residuals=down,
        mid_block_additional_residual=mid,
        return_dict=False,
    )[0]
    return down, mid, noise


@pytest.mark.parametrize(
    ("case", "inputs", "scale"), [("A", "A", 1.0), ("B", "A", 0.5), ("C", "C", 1.0)]
)
def test_golden_outputs(
    tiny_folder: Path, io: dict[str, Tensor], case: str, inputs: str, scale: float
) -> None:
    down, mid, noise = run_case(tiny_folder, io, inputs, scale)
    for index, residual in enumerate(down):
        name = f"{case}.out.controlnet.down.{index:02}"
        if name in io:
            assert_close(residual, io[name])
    assert_close(mid, io[f"{case}.out.controlnet.mid"])
    assert_close(noise, io[f"{case}.out.noise_pred"])


def test_golden_inner_activations(tiny_folder: Path, io: dict[str, Tensor]) -> None:
    unet, controlnet = load_nets(tiny_folder)
    seen: dict[str, Tensor] = {}
    for i, block in enumerate(unet.up_blocks):
        for j, attention in enumerate(block.pixel_attentions):
            name = f"A.dbg.up_blocks.{i}.pixel_attentions.{j}"

            def hook(_: object, args: tuple, output: tuple, name: str = name) -> None:
                seen[f"{name}.in"], seen[f"{name}.out"] = args[0], output[0]

            attention.register_forward_hook(hook)
    text, t, sample = (io[f"A.in.{n}"] for n in ("encoder_hidden_states", "timesteps", "sample"))
    with torch.no_grad():
        down, mid = controlnet(
            sample, t, encoder_hidden_states=text,
            controlnet_cond=io["A.in.controlnet_cond"], return_dict=False,
        )  # fmt: skip
        unet(
            sample, t, encoder_hidden_states=text, down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        )  # fmt: skip
    assert len(seen) == 24
    for name, activation in seen.items():
        assert_close(activation, io[name])


def test_golden_rgb_heads(tiny_folder: Path, io: dict[str, Tensor], tmp_path: Path) -> None:
    pasd = tmp_path / "pasd"
    shutil.copytree(tiny_folder, pasd)
    weights = load_file(pasd / "controlnet/diffusion_pytorch_model.safetensors")
    prefix = "Argb.weights."
    heads = {n.removeprefix(prefix): v for n, v in io.items() if n.startswith(prefix)}
    save_file({**weights, **heads}, pasd / "controlnet/diffusion_pytorch_model.safetensors")
    _, controlnet = load_nets(pasd)
    assert isinstance(controlnet.controlnet_cond_embedding, RgbConditioningEmbedding)
    with torch.no_grad():
        images = controlnet.controlnet_cond_embedding.rgbs(io["A.in.controlnet_cond"])
    for index, image in enumerate(images):
        assert_close(image, io[f"Argb.out.controlnet.rgbs.{index}"])
    _, _, noise = run_case(pasd, io, "A", 1.0)
    assert_close(noise, io["A.out.noise_pred"])


def test_keys_and_counts_equal_published_sd15(golden: Path) -> None:
    with torch.device("meta"):
        unet = PacaUNet2DConditionModel.from_config(
            json.loads((golden / "pasd/config_sd15_unet.json").read_text())
        )
        controlnet = controlnet_of_config(
            json.loads((golden / "pasd/config_sd15_controlnet.json").read_text()),
            has_rgb_heads=False,
        )
    for model, name, count in ((unet, "unet", 998), (controlnet, "controlnet", 340)):
        published = json.loads((golden / f"pasd/keys_sd15_{name}.json").read_text())["keys"]
        assert {k: list(v.shape) for k, v in model.state_dict().items()} == {
            key: value["shape"] for key, value in published.items()
        }
        assert len(published) == count
    trained = dict(unet.paca_parameters())
    assert len(trained) == 312
    total = sum(p.numel() for p in trained.values())
    total += sum(p.numel() for p in controlnet.parameters())
    assert total == 609_513_680


def plain_base(folder: Path) -> Path:
    """A tiny plain UNet, saved by diffusers itself."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 24, 32), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8,
    )  # fmt: skip
    unet.save_pretrained(folder)
    return folder


def predict(unet: torch.nn.Module, controlnet: ControlNetModel) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 7, 32, generator=generator)
    image01 = torch.rand(2, 3, 64, 64, generator=generator)
    t = torch.tensor([10, 900])
    with torch.no_grad():
        down, mid = controlnet(
            sample, t, encoder_hidden_states=text, controlnet_cond=image01, return_dict=False
        )
        noise = unet(
            sample, t, encoder_hidden_states=text, down_block_additional_residuals=down,
            mid_block_additional_residual=mid, return_dict=False,
        )[0]  # fmt: skip
    assert isinstance(noise, Tensor)
    return noise


def test_zero_start_equals_base_model_and_released_start_does_not(tmp_path: Path) -> None:
    base = plain_base(tmp_path / "unet")
    plain = UNet2DConditionModel.from_pretrained(base)
    zero = predict(*new_nets(base, init="zero", seed=3))
    released = predict(*new_nets(base, init="released", seed=3))
    _, controlnet = new_nets(base, init="zero", seed=3)
    assert_close(zero, predict(plain, controlnet), 1e-6)
    assert (released - zero).norm() / zero.norm() > 0.05


def test_new_nets_repeat_and_leave_the_global_generator_alone(tmp_path: Path) -> None:
    base = plain_base(tmp_path / "unet")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (new_nets(base, init="released", seed=3)[0] for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_save_and_load_give_identical_outputs(tmp_path: Path) -> None:
    unet, controlnet = new_nets(plain_base(tmp_path / "unet"), init="released", seed=3)
    torch.manual_seed(2)
    for parameter in controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    written = save_nets(tmp_path / "saved", unet, controlnet)
    assert len({path.stat().st_mode for path in written}) == 1  # weights are for all to read, too
    reloaded = load_nets(tmp_path / "saved")
    assert torch.equal(predict(*reloaded), predict(unet, controlnet))
    stock = ControlNetModel.from_pretrained(tmp_path / "saved/controlnet")
    assert torch.equal(predict(unet, stock), predict(unet, controlnet))


def test_old_bin_layout_loads(tmp_path: Path, tiny_folder: Path, io: dict[str, Tensor]) -> None:
    old = tmp_path / "old"
    shutil.copytree(tiny_folder, old)
    path = old / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    assert_close(run_case(old, io, "A", 1.0)[2], io["A.out.noise_pred"])


def test_plain_unet_is_refused_as_enhancer(tmp_path: Path, tiny_folder: Path) -> None:
    shutil.copytree(tiny_folder / "controlnet", tmp_path / "controlnet")
    plain_base(tmp_path / "unet")
    with pytest.raises(DataError, match="pixel attention tensors are missing"):
        load_nets(tmp_path)


@pytest.mark.parametrize("net", ["unet", "controlnet"])
@pytest.mark.parametrize("change", ["missing", "unexpected", "of another shape"])
def test_wrong_tensors_are_named(tmp_path: Path, tiny_folder: Path, net: str, change: str) -> None:
    shutil.copytree(tiny_folder, tmp_path / "bad")
    path = tmp_path / f"bad/{net}/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    if change == "missing":
        del weights["conv_in.bias"]
    elif change == "unexpected":
        weights["stray.weight"] = torch.zeros(1)
    else:
        weights["conv_in.bias"] = torch.zeros(3)
    save_file(weights, path)
    with pytest.raises(DataError, match=change) as error:
        load_nets(tmp_path / "bad")
    assert ("stray.weight" if change == "unexpected" else "conv_in.bias") in str(error.value)


def test_residuals_are_required(tiny_folder: Path, io: dict[str, Tensor]) -> None:
    unet, _ = load_nets(tiny_folder)
    with pytest.raises(DataError, match="residuals"):
        unet(io["A.in.sample"], 3, io["A.in.encoder_hidden_states"])
