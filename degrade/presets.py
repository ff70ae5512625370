"""The published settings, each complete, with the table it comes from."""

from typing import Literal

from degrade.parameters import (
    ALL_MODES,
    BlurParameters,
    DegradationParameters,
    FinalParameters,
    KernelFamily,
    NoiseParameters,
    ResizeParameters,
    StageParameters,
)
from runtime.errors import ConfigError

PresetName = Literal["diffiqa", "diffiqa-released", "hggt-1", "hggt-2", "hggt-lr", "realesrgan"]

# the order and weights of the DiffIQA appendix, Table 1 (also those of Real-ESRGAN)
_SIX_FAMILIES: dict[KernelFamily, float] = {
    "iso": 0.45,
    "aniso": 0.25,
    "generalized_iso": 0.12,
    "generalized_aniso": 0.03,
    "plateau_iso": 0.12,
    "plateau_aniso": 0.03,
}
_TWO_FAMILIES: dict[KernelFamily, float] = {"iso": 0.7, "aniso": 0.3}

# DiffIQA appendix, Table 1. The table prints "down-sampling, up-sampling" with three
# probabilities .85, .05, .1; the release has down .85, keep .05, up .1, which is used here.
# Ranges of beta and of the sinc's cut-off are not in the table; they are the release's.
_DIFFIQA_STAGE = StageParameters(
    blur=BlurParameters(
        kernel_px=(3, 5, 7, 9),
        families=_SIX_FAMILIES,
        sigma_px=(0.0, 1.2),
        beta_generalized=(0.0, 0.8),
        beta_plateau=(0.0, 0.4),
        sinc_probability=0.1,
        sinc_wide_from_px=9,
    ),
    resize=ResizeParameters(up_probability=0.1, down_probability=0.85, factor=(0.8, 1.1)),
    noise=NoiseParameters(
        gaussian_probability=0.5,
        gaussian_sigma=(0.0, 13.0),
        poisson_scale=(0.0, 0.9),
        grey_probability=0.1,
    ),
    jpeg_quality=(75.0, 95.0),
)


def _hggt_stage(
    *,
    kernel_px: tuple[int, ...],
    sinc: float,
    sigma_px: tuple[float, float],
    factor: tuple[float, float],
    gaussian: tuple[float, float],
    poisson: tuple[float, float],
    quality: tuple[float, float],
) -> StageParameters:
    """Rows that differ between the three columns of HGGT's Tables 1 and 2.

    The tables print the resize list as "downsample, same, upsample" with .85, .05, .1.
    """
    return StageParameters(
        blur=BlurParameters(
            kernel_px=kernel_px,
            families=_TWO_FAMILIES,
            sigma_px=sigma_px,
            sinc_probability=sinc,
            sinc_wide_from_px=9,
        ),
        resize=ResizeParameters(up_probability=0.1, down_probability=0.85, factor=factor),
        noise=NoiseParameters(
            gaussian_probability=0.5,
            gaussian_sigma=gaussian,
            poisson_scale=poisson,
            grey_probability=0.1,
        ),
        jpeg_quality=quality,
    )


# Real-ESRGAN (Wang et al. 2021), the published training options for scale 4: two stages, the
# second relative to a quarter of the input, a final sinc with probability .8, JPEG last or before.
_REALESRGAN_FIRST = StageParameters(
    blur=BlurParameters(
        kernel_px=(7, 9, 11, 13, 15, 17, 19, 21),
        families=_SIX_FAMILIES,
        sigma_px=(0.2, 3.0),
        beta_generalized=(0.5, 4.0),
        beta_plateau=(1.0, 2.0),
        sinc_probability=0.1,
        sinc_wide_from_px=13,
    ),
    resize=ResizeParameters(up_probability=0.2, down_probability=0.7, factor=(0.15, 1.5)),
    noise=NoiseParameters(
        gaussian_probability=0.5,
        gaussian_sigma=(1.0, 30.0),
        poisson_scale=(0.05, 3.0),
        grey_probability=0.4,
    ),
    jpeg_quality=(30.0, 95.0),
)
_REALESRGAN_SECOND = StageParameters(
    blur=_REALESRGAN_FIRST.blur.model_copy(update={"probability": 0.8, "sigma_px": (0.2, 1.5)}),
    resize=ResizeParameters(
        up_probability=0.3, down_probability=0.4, factor=(0.3, 1.2), of_input=0.25
    ),
    noise=NoiseParameters(
        gaussian_probability=0.5,
        gaussian_sigma=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
        grey_probability=0.4,
    ),
    jpeg_quality=None,
)

PRESETS: dict[PresetName, DegradationParameters] = {
    # paper Eq. 1 and Table 1: one stage, then bicubic back to the input's size
    "diffiqa": DegradationParameters(stages=(_DIFFIQA_STAGE,)),
    # the same with what the released code adds after it, and a random mode back
    "diffiqa-released": DegradationParameters(
        stages=(_DIFFIQA_STAGE,),
        final=FinalParameters(
            shrink=(1.0, 1.5), sinc_probability=0.1, sinc_px=(3, 5, 7), jpeg_quality=(90.0, 95.0)
        ),
        back_modes=ALL_MODES,
    ),
    # HGGT supplement, Table 1, setting 1: higher noise
    "hggt-1": DegradationParameters(
        stages=(
            _hggt_stage(
                kernel_px=(3, 5, 7),
                sinc=0.1,
                sigma_px=(0.1, 0.5),
                factor=(0.9, 1.1),
                gaussian=(6.5, 13.0),
                poisson=(0.45, 0.9),
                quality=(80.0, 95.0),
            ),
        ),
    ),
    # HGGT supplement, Table 1, setting 2: stronger blur
    "hggt-2": DegradationParameters(
        stages=(
            _hggt_stage(
                kernel_px=(3, 5, 7),
                sinc=0.1,
                sigma_px=(0.5, 1.0),
                factor=(0.9, 1.1),
                gaussian=(0.5, 6.5),
                poisson=(0.05, 0.45),
                quality=(80.0, 95.0),
            ),
        ),
    ),
    # HGGT supplement, Table 2: the low-quality side of super-resolution training. The table has no
    # factor of super-resolution; set `final.shrink` in a custom preset for one.
    "hggt-lr": DegradationParameters(
        stages=(
            _hggt_stage(
                kernel_px=(3, 5, 7, 9),
                sinc=0.01,
                sigma_px=(0.1, 1.0),
                factor=(0.8, 1.2),
                gaussian=(1.0, 12.0),
                poisson=(0.05, 0.8),
                quality=(75.0, 95.0),
            ),
        ),
    ),
    "realesrgan": DegradationParameters(
        stages=(_REALESRGAN_FIRST, _REALESRGAN_SECOND),
        final=FinalParameters(
            shrink=(4.0, 4.0),
            sinc_probability=0.8,
            sinc_px=_REALESRGAN_FIRST.blur.kernel_px,
            jpeg_quality=(30.0, 95.0),
        ),
    ),
}


def preset_parameters(preset: str | DegradationParameters) -> DegradationParameters:
    """Look a preset up by name; parameters are returned as they are.

    Raises:
        ConfigError: there is no preset of that name.
    """
    if isinstance(preset, DegradationParameters):
        return preset
    for name, parameters in PRESETS.items():
        if name == preset:
            return parameters
    raise ConfigError(f"preset '{preset}' not found; there are: {', '.join(PRESETS)}")
