"""The drawn parameters of one image: everything that, with a seed, decides its degraded bytes.

They are stored in plan.parquet, so that `apply` repeats them without knowing the preset.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from degrade.parameters import (
    BlurParameters,
    DegradationParameters,
    FinalParameters,
    JpegCodec,
    KernelFamily,
    NoiseParameters,
    ResizeMode,
    ResizeParameters,
    StageParameters,
)
from degrade.presets import preset_parameters
from runtime.seeds import rng

T = TypeVar("T")
Kernel = KernelFamily | Literal["none", "sinc"]
_SINC_LOWEST_SMALL, _SINC_LOWEST_WIDE = np.pi / 3, np.pi / 5


class DrawnBlur(msgspec.Struct, frozen=True):
    """One kernel; None where the family has no such parameter."""

    kernel: Kernel
    size_px: int = 1
    sigma_x_px: float | None = None
    sigma_y_px: float | None = None
    rotation_rad: float | None = None
    beta: float | None = None
    cutoff_rad: float | None = None


class DrawnResize(msgspec.Struct, frozen=True):
    """One change of size; `of_input` None: the factor is of the current side."""

    direction: Literal["up", "down", "keep"]
    factor: float
    mode: ResizeMode
    of_input: float | None = None


class DrawnNoise(msgspec.Struct, frozen=True):
    """One noise: standard deviation in grey levels, or factor of the shot noise."""

    kind: Literal["gaussian", "poisson"]
    level: float
    is_grey: bool


class DrawnStage(msgspec.Struct, frozen=True):
    """Blur, resize, noise and perhaps JPEG, in this order."""

    blur: DrawnBlur
    resize: DrawnResize
    noise: DrawnNoise
    jpeg_quality: float | None = None


class DrawnFinal(msgspec.Struct, frozen=True):
    """The release's final part: shrink and sinc, before or after a JPEG."""

    order: Literal["shrink-jpeg", "jpeg-shrink"]
    shrink: float
    mode: ResizeMode
    sinc: DrawnBlur
    jpeg_quality: float


class DrawnDegradation(msgspec.Struct, frozen=True):
    """One degradation, complete."""

    stages: tuple[DrawnStage, ...]
    final: DrawnFinal | None
    back_mode: ResizeMode
    jpeg_codec: JpegCodec


def draw_degradation(preset: str | DegradationParameters, seed: int) -> DrawnDegradation:
    """Draw the parameters of one image.

    Args:
        preset: name of a preset, or parameters.
        seed: the image's seed.
    """
    parameters = preset_parameters(preset)
    generator = rng(seed, "degrade.draw")
    stages = tuple(_draw_stage(stage, generator) for stage in parameters.stages)
    final = None if parameters.final is None else _draw_final(parameters.final, generator)
    back_mode = _one_of(parameters.back_modes, generator)
    return DrawnDegradation(stages, final, back_mode, parameters.jpeg_codec)


def drawn_from(values: Mapping[str, Any]) -> DrawnDegradation:
    """Read drawn parameters back from a row of plan.parquet or from JSON."""
    return msgspec.convert(values, DrawnDegradation)


def drawn_values(drawn: DrawnDegradation) -> dict[str, Any]:
    """Plain values of drawn parameters, for tables and JSON."""
    values: dict[str, Any] = msgspec.to_builtins(drawn)
    return values


def _draw_stage(stage: StageParameters, generator: np.random.Generator) -> DrawnStage:
    blur = _draw_blur(stage.blur, generator)
    resize = _draw_resize(stage.resize, generator)
    noise = _draw_noise(stage.noise, generator)
    quality = None if stage.jpeg_quality is None else _uniform(stage.jpeg_quality, generator)
    return DrawnStage(blur, resize, noise, quality)


def _draw_blur(blur: BlurParameters, generator: np.random.Generator) -> DrawnBlur:
    if generator.random() >= blur.probability:
        return DrawnBlur("none")
    size_px = _one_of(blur.kernel_px, generator)
    if generator.random() < blur.sinc_probability:
        is_wide = size_px >= blur.sinc_wide_from_px
        return _draw_sinc(size_px, _SINC_LOWEST_WIDE if is_wide else _SINC_LOWEST_SMALL, generator)
    family = _weighted(blur.families, generator)
    sigma_x = sigma_y = _uniform(blur.sigma_px, generator)
    rotation = 0.0
    if not family.endswith("_iso") and family != "iso":
        sigma_y = _uniform(blur.sigma_px, generator)
        rotation = _uniform(blur.rotation_rad, generator)
    beta = None
    if family.startswith("generalized"):
        beta = _draw_beta(blur.beta_generalized, generator)
    elif family.startswith("plateau"):
        beta = _draw_beta(blur.beta_plateau, generator)
    return DrawnBlur(family, size_px, sigma_x, sigma_y, rotation, beta)


def _draw_sinc(size_px: int, lowest_rad: float, generator: np.random.Generator) -> DrawnBlur:
    cutoff = _uniform((lowest_rad, np.pi), generator)
    return DrawnBlur("sinc", size_px, cutoff_rad=cutoff)


def _draw_beta(ends: tuple[float, float], generator: np.random.Generator) -> float:
    """Between the first end and 1 or between 1 and the second end, with equal chances.

    The release's second end lies below 1; the interval then runs downwards, as in basicsr.
    """
    if generator.random() < 0.5:
        return _uniform((ends[0], 1.0), generator)
    return _uniform((1.0, ends[1]), generator)


def _draw_resize(resize: ResizeParameters, generator: np.random.Generator) -> DrawnResize:
    chance = generator.random()
    direction: Literal["up", "down", "keep"] = "keep"
    factor = 1.0
    if chance < resize.up_probability:
        direction, factor = "up", _uniform((1.0, resize.factor[1]), generator)
    elif chance < resize.up_probability + resize.down_probability:
        direction, factor = "down", _uniform((resize.factor[0], 1.0), generator)
    return DrawnResize(direction, factor, _one_of(resize.modes, generator), resize.of_input)


def _draw_noise(noise: NoiseParameters, generator: np.random.Generator) -> DrawnNoise:
    is_gaussian = bool(generator.random() < noise.gaussian_probability)
    level = _uniform(noise.gaussian_sigma if is_gaussian else noise.poisson_scale, generator)
    is_grey = bool(generator.random() < noise.grey_probability)
    return DrawnNoise("gaussian" if is_gaussian else "poisson", level, is_grey)


def _draw_final(final: FinalParameters, generator: np.random.Generator) -> DrawnFinal:
    order: Literal["shrink-jpeg", "jpeg-shrink"] = (
        "shrink-jpeg" if generator.random() < 0.5 else "jpeg-shrink"
    )
    shrink = _uniform(final.shrink, generator)
    mode = _one_of(final.modes, generator)
    sinc = DrawnBlur("none")
    if generator.random() < final.sinc_probability:
        sinc = _draw_sinc(_one_of(final.sinc_px, generator), _SINC_LOWEST_SMALL, generator)
    return DrawnFinal(order, shrink, mode, sinc, _uniform(final.jpeg_quality, generator))


def _uniform(ends: tuple[float, float], generator: np.random.Generator) -> float:
    """Between the two ends, whichever is lower."""
    return float(ends[0] + (ends[1] - ends[0]) * generator.random())


def _one_of(values: Sequence[T], generator: np.random.Generator) -> T:
    return values[int(generator.integers(len(values)))]


def _weighted(
    weights: Mapping[KernelFamily, float], generator: np.random.Generator
) -> KernelFamily:
    point = generator.random() * sum(weights.values())
    for name, weight in weights.items():
        point -= weight
        if point < 0:
            return name
    return max(weights, key=lambda name: weights[name])
