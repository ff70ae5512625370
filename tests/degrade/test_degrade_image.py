"""Operations at fixed parameters against basicsr and torch, and the contract of degrade_image."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from degrade import apply_degradation, degrade_image, draw_degradation
from degrade.basicsr_functions import degradations, load_module
from degrade.drawn import (
    DrawnBlur,
    DrawnDegradation,
    DrawnNoise,
    DrawnResize,
    DrawnStage,
    drawn_from,
    drawn_values,
)
from degrade.image import blur_planes, to_image, to_planes
from degrade.jpeg import diffjpeg, libjpeg
from degrade.kernels import exact_kernel, make_kernel
from degrade.noise import add_gaussian_noise, add_poisson_noise, photons_of_white
from degrade.presets import PRESETS
from degrade.resize import resize_by_factor, resize_to
from runtime.errors import ConfigError, DataError

SMALL_PX = 160


@pytest.fixture(scope="module")
def image(photo_u8):
    return np.ascontiguousarray(photo_u8[100 : 100 + SMALL_PX, 150 : 150 + SMALL_PX + 13])


@pytest.fixture(scope="module")
def planes(image):
    """Values between grey levels, as after a first operation."""
    return to_planes(image) * np.float32(0.97) + np.float32(1.3)


def as_tensor(planes):
    return torch.from_numpy(planes / 255)[None]


KERNELS = [
    DrawnBlur("iso", 7, 0.9, 0.9, 0.0),
    DrawnBlur("aniso", 9, 1.1, 0.4, 0.7),
    DrawnBlur("generalized_iso", 5, 0.8, 0.8, 0.0, 0.6),
    DrawnBlur("generalized_aniso", 9, 1.1, 0.5, -2.0, 0.9),
    DrawnBlur("plateau_iso", 9, 0.7, 0.7, 0.0, 0.3),
    DrawnBlur("plateau_aniso", 3, 0.7, 1.1, 2.5, 0.2),
    DrawnBlur("sinc", 9, cutoff_rad=1.2),
    DrawnBlur("sinc", 3, cutoff_rad=3.1),
]


@pytest.mark.parametrize("blur", KERNELS, ids=lambda blur: f"{blur.kernel}-{blur.size_px}")
def test_kernel_is_basicsrs(blur):
    module = degradations()
    expected = {
        "iso": lambda: module.bivariate_Gaussian(7, 0.9, 0.9, 0, isotropic=True),
        "aniso": lambda: module.bivariate_Gaussian(9, 1.1, 0.4, 0.7, isotropic=False),
        "generalized_iso": lambda: module.bivariate_generalized_Gaussian(
            5, 0.8, 0.8, 0, 0.6, isotropic=True
        ),
        "generalized_aniso": lambda: module.bivariate_generalized_Gaussian(
            9, 1.1, 0.5, -2.0, 0.9, isotropic=False
        ),
        "plateau_iso": lambda: module.bivariate_plateau(9, 0.7, 0.7, 0, 0.3, isotropic=True),
        "plateau_aniso": lambda: module.bivariate_plateau(3, 0.7, 1.1, 2.5, 0.2, isotropic=False),
        "sinc": lambda: module.circular_lowpass_kernel(blur.cutoff_rad, blur.size_px),
    }[blur.kernel]()
    np.testing.assert_array_equal(exact_kernel(blur), expected)


@pytest.mark.parametrize("blur", KERNELS, ids=lambda blur: f"{blur.kernel}-{blur.size_px}")
@pytest.mark.parametrize("is_whole", [True, False])
def test_blur_is_basicsrs_filter(image, planes, blur, is_whole):
    source = to_planes(image) if is_whole else planes
    kernel = torch.from_numpy(exact_kernel(blur).astype(np.float32))[None]
    filter2d = load_module("utils/img_process_util.py").filter2D
    expected = filter2d(as_tensor(source), kernel)[0].numpy() * 255
    found = blur_planes(source, blur, is_whole=is_whole)
    assert np.abs(found - expected).max() < 0.1
    assert np.abs(found - expected).mean() < 0.02


@pytest.mark.parametrize("blur", KERNELS, ids=lambda blur: f"{blur.kernel}-{blur.size_px}")
def test_blur_sums_without_rounding(image, blur):
    """The sum equals integer arithmetic, so its order and fused operations cannot matter."""
    kernel = make_kernel(blur)
    steps = (kernel.astype(np.float64) * 2**16).astype(np.int64)
    assert np.array_equal(steps / 2**16, kernel)
    margin = kernel.shape[0] // 2
    padded = np.pad(image[..., 0].astype(np.int64), margin, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    expected = np.einsum("hwij,ij->hw", windows, steps)
    found = blur_planes(to_planes(image), blur, is_whole=True)[0]
    np.testing.assert_array_equal(found.astype(np.float64) * 2**16, expected)


def test_delta_kernel_leaves_the_image_alone(planes):
    assert make_kernel(DrawnBlur("iso", 9, 0.01, 0.01, 0.0)) is None
    assert make_kernel(DrawnBlur("none")) is None
    assert blur_planes(planes, DrawnBlur("none")) is planes


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [0.8, 0.8731, 0.99, 0.998, 0.9995, 1.0, 1.002, 1.05, 1.1])
def test_resize_by_factor_is_torchs(planes, mode, factor):
    expected = functional.interpolate(as_tensor(planes), scale_factor=factor, mode=mode)
    found = resize_by_factor(planes, factor, mode)
    assert found.shape == tuple(expected.shape[1:])
    assert np.abs(found - expected[0].numpy() * 255).max() < 0.02


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(107, 115), (160, 173), (211, 190), (33, 400)])
def test_resize_to_is_torchs(planes, mode, size):
    expected = functional.interpolate(as_tensor(planes), size=size, mode=mode)[0].numpy() * 255
    assert np.abs(resize_to(planes, *size, mode) - expected).max() < 0.02


@pytest.mark.parametrize("quality", [30.0, 75.3, 88.8, 95.0])
@pytest.mark.parametrize("size", [(160, 160), (157, 133)])
def test_diffjpeg_is_basicsrs(planes, quality, size):
    source = np.clip(planes[:, : size[0], : size[1]], 0, 255)
    jpeg = load_module("utils/diffjpeg.py").DiffJPEG(differentiable=False)
    with torch.no_grad():
        expected = jpeg(as_tensor(source), quality=torch.tensor([quality]))[0].numpy() * 255
    found = diffjpeg(source, quality)
    # a coefficient that lies between two steps may round either way
    assert 10 * math.log10(255**2 / np.mean((found - expected) ** 2)) > 60
    assert np.mean(np.abs(found - expected) > 0.01) < 0.01


def test_libjpeg_is_opencvs_file(image):
    flags = [cv2.IMWRITE_JPEG_QUALITY, 83]
    content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)[1]
    expected = cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(to_image(libjpeg(to_planes(image), 82.7)), expected)


@pytest.mark.parametrize("is_grey", [True, False])
def test_gaussian_noise_has_its_moments(is_grey):
    grey = np.full((3, 256, 256), 128, dtype=np.float32)
    generator = np.random.default_rng(3)
    noise = add_gaussian_noise(grey, 9.0, is_grey=is_grey, generator=generator) - 128
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(9.0, rel=0.01)
    assert abs(np.mean(noise**4) / 81**2 - 3) < 0.1
    assert bool(np.array_equal(noise[0], noise[2])) is is_grey
    assert (grey == 128).all()


@pytest.mark.parametrize("is_grey", [True, False])
def test_poisson_noise_matches_basicsrs_by_level(image, is_grey):
    """Mean and spread of the noise at each grey level against basicsr's, over many draws."""
    torch.manual_seed(0)
    source = to_planes(image)
    generator = np.random.default_rng(5)
    ops = degradations()
    draws = 40
    ours, theirs = [], []
    for _ in range(draws):
        ours.append(add_poisson_noise(source.copy(), 0.7, is_grey=is_grey, generator=generator))
        theirs.append(
            ops.add_poisson_noise_pt(as_tensor(source), 0.7, clip=True, gray_noise=float(is_grey))[
                0
            ].numpy()
            * 255
        )
    middle = (source > 60) & (source < 200)
    deviations = [np.std(np.stack(side), axis=0, ddof=1)[middle] for side in (ours, theirs)]
    means = [np.mean(np.stack(side) - source, axis=0)[middle] for side in (ours, theirs)]
    assert deviations[0].mean() == pytest.approx(deviations[1].mean(), rel=0.01)
    assert means[0].mean() == pytest.approx(means[1].mean(), abs=0.03)


def test_poisson_draws_are_whole_photons():
    levels = np.tile(np.arange(256, dtype=np.float32), (3, 64, 1))
    noisy = add_poisson_noise(levels, 1.0, is_grey=False, generator=np.random.default_rng(1))
    inside = (noisy > 0) & (noisy < 255)
    counts = noisy[inside] / 255 * 256
    assert np.abs(counts - np.rint(counts)).max() < 1e-3


def test_photons_are_a_power_of_two():
    assert photons_of_white(np.zeros((4, 4), np.uint8)) == 1
    assert photons_of_white(np.arange(3, dtype=np.uint8)) == 4
    assert photons_of_white(np.arange(128, dtype=np.uint8)) == 128
    assert photons_of_white(np.arange(129, dtype=np.uint8)) == 256


@pytest.mark.parametrize("preset", list(PRESETS))
def test_degrade_image_is_pure(image, preset):
    before = image.copy()
    one = degrade_image(image, preset=preset, seed=7)
    np.testing.assert_array_equal(image, before)
    degrade_image(image, preset=preset, seed=8)
    np.testing.assert_array_equal(one, degrade_image(image, preset=preset, seed=7))
    assert one.shape == image.shape and one.dtype == np.uint8
    assert not np.array_equal(one, degrade_image(image, preset=preset, seed=8))


def test_a_row_of_the_plan_repeats_degrade_image(image):
    drawn = draw_degradation("diffiqa-released", 11)
    row = drawn_from(drawn_values(drawn))
    assert row == drawn
    np.testing.assert_array_equal(
        apply_degradation(image, row, 11), degrade_image(image, "diffiqa-released", 11)
    )


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (16, 300), (33, 31)])
@pytest.mark.parametrize("preset", ["diffiqa-released", "realesrgan"])
def test_odd_sizes_work(shape, preset):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for seed in range(6):
        assert degrade_image(image, preset=preset, seed=seed).shape == image.shape


def test_no_degradation_is_the_identity(image):
    nothing = DrawnStage(
        DrawnBlur("none"), DrawnResize("keep", 1.0, "area"), DrawnNoise("gaussian", 0.0, False)
    )
    drawn = DrawnDegradation((nothing,), None, "bicubic", "diffjpeg")
    np.testing.assert_array_equal(apply_degradation(image, drawn, 0), image)


def test_more_noise_is_further_away(image):
    def error(sigma):
        stage = DrawnStage(
            DrawnBlur("none"),
            DrawnResize("keep", 1.0, "area"),
            DrawnNoise("gaussian", sigma, False),
        )
        found = apply_degradation(image, DrawnDegradation((stage,), None, "bicubic", "libjpeg"), 0)
        return np.abs(found.astype(int) - image).mean()

    errors = [error(sigma) for sigma in (0.0, 2.0, 5.0, 9.0, 13.0)]
    assert errors == sorted(errors) and errors[0] == 0


def test_wrong_input_is_refused(image):
    with pytest.raises(DataError, match="uint8"):
        degrade_image(image.astype(np.float32))
    with pytest.raises(DataError, match=r"\[H, W, 3\]"):
        degrade_image(image[..., 0])
    with pytest.raises(ConfigError, match="there are: diffiqa"):
        degrade_image(image, preset="diffica")


@pytest.mark.parametrize("preset", ["diffiqa-released", "diffiqa", "hggt-1", "realesrgan"])
def test_torch_batch_equals_the_cpu_path(image, preset):
    from degrade.torch_ops import degrade_batch

    seeds = list(range(8))
    batch = torch.from_numpy(image.transpose(2, 0, 1).copy()).expand(len(seeds), -1, -1, -1)
    found = degrade_batch(batch, preset, seeds).numpy().transpose(0, 2, 3, 1).astype(int)
    for seed, one in zip(seeds, found, strict=True):
        expected = degrade_image(image, preset=preset, seed=seed)
        difference = np.abs(one - expected)
        assert np.mean(difference > 1) < 0.01, f"seed {seed}"
        assert difference.mean() < 0.05, f"seed {seed}"


def test_torch_batch_refuses_what_it_cannot_do(image):
    from degrade.torch_ops import apply_to_tensor, degrade_batch

    batch = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    with pytest.raises(DataError, match="1 images, but 2 seeds"):
        degrade_batch(batch, "diffiqa", [1, 2])
    with pytest.raises(DataError, match="uint8"):
        degrade_batch(batch.float(), "diffiqa", [1])
    drawn = draw_degradation("diffiqa", 0)
    on_cpu = DrawnDegradation(drawn.stages, None, "bicubic", "libjpeg")
    with pytest.raises(DataError, match="libjpeg works on the CPU only"):
        apply_to_tensor(batch[0], on_cpu, 0)


def test_bytes_do_not_depend_on_the_processor(image):
    """Instruction sets beyond SSE3 switched off in OpenCV and numpy, in a process of its own."""
    code = (
        "import sys, hashlib, numpy as np\n"
        "from degrade import degrade_image\n"
        "image = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(160, 173, 3)\n"
        "parts = [degrade_image(image, 'diffiqa-released', seed).tobytes() for seed in range(12)]\n"
        "print(hashlib.sha256(b''.join(parts)).hexdigest())"
    )
    variables = {
        **os.environ,
        "OPENCV_CPU_DISABLE": "AVX2,FMA3,AVX,FP16,SSE4.2,SSE4.1",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], input=image.tobytes(), env=variables,
        capture_output=True, check=True,
    )  # fmt: skip
    here = b"".join(degrade_image(image, "diffiqa-released", seed).tobytes() for seed in range(12))
    assert done.stdout.decode().strip() == hashlib.sha256(here).hexdigest()
