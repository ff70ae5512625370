"""Tiles, colour fix and initial latents against the reference outputs."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from enhancer.sample import unipc
from enhancer.sample.color import to_u8, wavelet_color_fix
from enhancer.sample.images import finish_pixels
from enhancer.sample.initial import add_noise, initial_latent
from enhancer.sample.nets import replace_modules
from enhancer.sample.planned import distinct_steps, evaluations
from enhancer.sample.tiles import Tiling, gaussian_window
from runtime.errors import DataError

NOISE = unipc.noise_schedule({})


@pytest.fixture(scope="module")
def sampling(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "pasd/sampling_io.safetensors")


@pytest.fixture(scope="module")
def wavelet(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "pasd/wavelet_io.safetensors")


def image01(u8_hwc: Tensor) -> Tensor:
    return u8_hwc.permute(2, 0, 1)[None].float() / 255


def test_color_fix_gives_the_released_bytes_when_truncated(wavelet: dict[str, Tensor]) -> None:
    found = finish_pixels(
        image01(wavelet["target_generated_u8_hwc"])[0],
        image01(wavelet["source_input_u8_hwc"])[0],
        side_px=72,
        rounding="truncate",
    )
    # the golden image is not square; the height tells finish_pixels not to resize
    assert (found == wavelet["out_u8_hwc"].numpy()).all()


def test_truncated_bytes_follow_the_order_of_the_released_sum(wavelet: dict[str, Tensor]) -> None:
    """Where output and input nearly agree, the last bit of the float sum decides the byte."""
    image = image01(wavelet["source_input_u8_hwc"])
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line)[None, None].repeat(3, 1, 1, 1)
    details, low = torch.zeros_like(image), image
    for dilation in (1, 2, 4, 8, 16):
        padded = torch.nn.functional.pad(low, (dilation,) * 4, mode="replicate")
        blurred = torch.nn.functional.conv2d(padded, kernel, groups=3, dilation=dilation)
        details, low = details + (low - blurred), blurred
    expected = (details + low).clamp(0, 1).mul(255).to(torch.uint8)
    assert torch.equal(to_u8(wavelet_color_fix(image, image), "truncate"), expected)


def test_color_fix_of_an_image_with_itself_is_the_image_when_rounded(
    wavelet: dict[str, Tensor],
) -> None:
    image = image01(wavelet["source_input_u8_hwc"])
    fixed = to_u8(wavelet_color_fix(image, image))
    assert torch.equal(fixed[0].permute(1, 2, 0), wavelet["source_input_u8_hwc"])


def test_color_fix_leaves_its_arguments_alone_and_takes_batches() -> None:
    generated, reference = torch.rand(3, 3, 40, 48), torch.rand(3, 3, 40, 48)
    copies = generated.clone(), reference.clone()
    stacked = wavelet_color_fix(generated, reference)
    assert torch.equal(generated, copies[0]) and torch.equal(reference, copies[1])
    alone = torch.cat(
        [wavelet_color_fix(g, r) for g, r in zip(generated.split(1), reference.split(1))]
    )
    assert torch.allclose(stacked, alone, atol=1e-6)


@pytest.mark.parametrize("side", [16, 64])
def test_blending_window_of_the_reference(sampling: dict[str, Tensor], side: int) -> None:
    expected = sampling[f"tiled.gaussian_weights_{side}"]
    assert torch.allclose(gaussian_window(side, side), expected, rtol=1e-12, atol=0)


def test_tile_offsets_of_the_release() -> None:
    assert Tiling(16, 4).layout(24, 40).offsets == tuple(
        (y, x) for y in (0, 8) for x in (0, 12, 24)
    )
    assert len(Tiling().layout(128, 128)) == 9
    assert len(Tiling().layout(64, 64)) == 1
    assert Tiling().layout(32, 128).offsets == ((0, 0),)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (17, 31), (16, 90), (40, 16)])
def test_blending_cut_tiles_gives_the_image_back(height: int, width: int) -> None:
    layout = Tiling(16, 4).layout(height, width)
    images = torch.randn(2, 4, height, width)
    tiles = layout.cut(images)
    assert tiles.shape == (2 * len(layout), 4, layout.height, layout.width)
    assert torch.allclose(layout.blend(tiles, height, width), images, atol=1e-6)


@pytest.mark.parametrize("level", [20, 37, 100, 500, 999])
def test_released_start_of_the_reference(sampling: dict[str, Tensor], level: int) -> None:
    z0 = 0.18215 * sampling["gtmode.vae_posterior_sample_unscaled"]
    first = add_noise(z0, sampling["gtmode.noise_first"], 999, NOISE)
    found = add_noise(first, sampling["gtmode.noise_second"], level, NOISE)
    expected = sampling[f"gtmode.level{level}.initial_latent"]
    assert (found - expected).abs().max() / expected.abs().max() < 1e-6


@pytest.mark.parametrize("init", ["noise", "released", "partial"])
def test_initial_latents_follow_the_seed_and_the_documented_draws(init: str) -> None:
    def start(seed: int) -> Tensor:
        return initial_latent(
            init, 300, seed=seed, shape=(4, 6, 5), noise=NOISE, encode=lambda drawn: 0.5 * drawn
        )

    assert torch.equal(start(7), start(7))
    assert not torch.equal(start(7), start(8))
    generator = torch.Generator().manual_seed(7)
    draws = [torch.randn(4, 6, 5, generator=generator) for _ in range(3)]
    expected = {
        "noise": draws[0],
        "partial": add_noise(0.5 * draws[0], draws[1], 300, NOISE),
        "released": add_noise(
            add_noise(0.5 * draws[0], draws[1], 999, NOISE), draws[2], 300, NOISE
        ),
    }
    assert torch.allclose(start(7), expected[init], atol=1e-6)


@pytest.mark.parametrize("level", [None, -1, 1000])
def test_a_start_without_a_level_is_refused(level: int | None) -> None:
    with pytest.raises(DataError, match="level"):
        initial_latent(
            "partial", level, seed=0, shape=(4, 2, 2), noise=NOISE, encode=lambda drawn: drawn
        )


def test_cost_counts_distinct_steps_tiles_and_prompt_halves() -> None:
    row = {"init": "noise", "steps": 1000, "level": None, "upscale": 1.0, "guidance": 7.5}
    assert evaluations(row, 512, Tiling()) == 999 * 2
    assert evaluations({**row, "guidance": 1.0}, 512, Tiling()) == 999
    assert evaluations({**row, "upscale": 2.0}, 512, Tiling()) == 999 * 9 * 2
    assert evaluations({**row, "init": "partial", "level": 30}, 512, Tiling()) == 30 * 2
    for steps in (1, 19, 500, 1000):
        assert distinct_steps(steps, None) == len(unipc.solver_schedule(NOISE, steps))


def test_replacing_modules_leaves_the_original_alone() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2)))
    clone = replace_modules(net, {"1.0": torch.nn.Identity()})
    assert isinstance(clone[1][0], torch.nn.Identity)
    assert isinstance(net[1][0], torch.nn.Linear)
    assert clone[0].weight is net[0].weight
