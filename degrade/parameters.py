"""What a degradation may be: the ranges and probabilities that a preset or a config fixes.

Ranges are (lowest, highest) and are drawn uniformly. Levels of Gaussian noise are in 8-bit
grey levels; sizes and standard deviations of kernels in pixels; cut-offs in radians a pixel.
"""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from runtime.settings import Section

KernelFamily = Literal[
    "iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"
]
ResizeMode = Literal["area", "bilinear", "bicubic"]
JpegCodec = Literal["diffjpeg", "libjpeg"]
ALL_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"expected (lowest, highest), found {value}")
    return value


def _odd(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or any(size < 1 or size % 2 == 0 for size in value):
        raise ValueError(f"expected odd kernel sizes, found {value}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
OddSizes = Annotated[tuple[int, ...], AfterValidator(_odd)]
Probability = Annotated[float, Field(ge=0, le=1)]


class BlurParameters(Section):
    """Step 1, x * h: a kernel of one of six families, or a sinc low-pass."""

    probability: Probability = Field(1.0, description="chance that the image is filtered at all")
    kernel_px: OddSizes = Field(description="sizes 2m+1, drawn with equal chances")
    families: dict[KernelFamily, float] = Field(description="weights of the kernel families")
    sigma_px: Range = Field(description="standard deviation along each axis")
    rotation_rad: Range = Field((-math.pi, math.pi), description="angle of anisotropic kernels")
    beta_generalized: Range = Field(
        (0.5, 4.0),
        description="shape of generalized kernels: with equal chances between the first end and 1, "
        "or between 1 and the second end",
    )
    beta_plateau: Range = Field((1.0, 2.0), description="shape of plateau kernels, drawn likewise")
    sinc_probability: Probability = Field(0.1, description="chance of a sinc instead")
    sinc_wide_from_px: int = Field(
        9, description="kernels of this size and larger draw their cut-off from pi/5, not pi/3"
    )

    @model_validator(mode="after")
    def _has_weights(self) -> "BlurParameters":
        weights = list(self.families.values())
        if not weights or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"families: expected positive weights, found {self.families}")
        return self


class ResizeParameters(Section):
    """Step 2: up, down or keep, by a factor, with one of three modes."""

    up_probability: Probability = Field(description="chance of a factor between 1 and the highest")
    down_probability: Probability = Field(
        description="chance of a factor between the lowest and 1; the rest keeps the size"
    )
    factor: Range = Field(description="(lowest, highest) factor of the side")
    modes: tuple[ResizeMode, ...] = Field(ALL_MODES, min_length=1, description="equal chances")
    of_input: float | None = Field(
        None,
        gt=0,
        description="the factor multiplies this share of the input's side instead of the current "
        "side (second stage of Real-ESRGAN)",
    )

    @model_validator(mode="after")
    def _probabilities_fit(self) -> "ResizeParameters":
        total = self.up_probability + self.down_probability
        if total > 1 + 1e-9:
            raise ValueError(f"up_probability + down_probability exceeds 1: {total:g}")
        if self.factor[0] <= 0:
            raise ValueError(f"factor must be positive, found {self.factor}")
        return self


class NoiseParameters(Section):
    """Step 3: Gaussian or Poisson noise."""

    gaussian_probability: Probability = Field(0.5, description="chance of Gaussian; else Poisson")
    gaussian_sigma: Range = Field(description="standard deviation in 8-bit grey levels")
    poisson_scale: Range = Field(description="factor of the shot noise")
    grey_probability: Probability = Field(description="chance of the same noise in all channels")


class StageParameters(Section):
    """Blur, resize, noise and JPEG once (paper Eq. 1)."""

    blur: BlurParameters
    resize: ResizeParameters
    noise: NoiseParameters
    jpeg_quality: Range | None = Field(
        description="quality, drawn as a real number; none leaves JPEG to the final part"
    )


class FinalParameters(Section):
    """What the release does after Eq. 1: shrink, sinc and a JPEG, in one of two orders."""

    shrink: Range = Field(description="the input's side is divided by this")
    modes: tuple[ResizeMode, ...] = Field(ALL_MODES, min_length=1, description="equal chances")
    sinc_probability: Probability = Field(description="chance of the final sinc")
    sinc_px: OddSizes = Field(description="sizes of the final sinc, equal chances")
    jpeg_quality: Range = Field(description="quality of this JPEG, drawn as a real number")

    @model_validator(mode="after")
    def _shrinks(self) -> "FinalParameters":
        if self.shrink[0] < 1:
            raise ValueError(f"shrink must be 1 or more, found {self.shrink}")
        return self


class DegradationParameters(Section):
    """A complete blind degradation."""

    stages: tuple[StageParameters, ...] = Field(
        min_length=1, max_length=2, description="Eq. 1, once or twice"
    )
    final: FinalParameters | None = Field(None, description="the release's final part, if any")
    back_modes: tuple[ResizeMode, ...] = Field(
        ("bicubic",), min_length=1, description="resize back to the input's size, equal chances"
    )
    jpeg_codec: JpegCodec = Field(
        "diffjpeg",
        description="diffjpeg: the release's floating-point JPEG (black padding to 16, real-valued "
        "quality); libjpeg: files as cameras and the web write them, quality rounded",
    )
