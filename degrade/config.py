"""Settings of the treatments: sections `degrade` and `plan`."""

from typing import Literal

from pydantic import Field, model_validator

from degrade.parameters import DegradationParameters
from degrade.presets import PresetName, preset_parameters
from runtime.settings import Section, StageSpec, speed_field


class DegradeConfig(Section):
    """Which blind degradation the degraded half of the inputs gets."""

    preset: PresetName | Literal["custom"] = Field(
        "diffiqa-released",
        description="a published setting (degrade/presets.py names each table), or custom",
    )
    custom: DegradationParameters | None = Field(
        None, description="complete parameters of your own; only with preset: custom"
    )
    max_failure_fraction: float = speed_field(
        0.01, ge=0, le=1, description="a shard fails when a larger share of its images fails"
    )
    workers: int = speed_field(
        1, ge=0, description="processes of one shard's command; 0 is one per core"
    )

    @model_validator(mode="after")
    def _custom_goes_with_its_name(self) -> "DegradeConfig":
        if (self.preset == "custom") != (self.custom is not None):
            raise ValueError(
                f"preset is '{self.preset}' and custom is "
                f"{'given' if self.custom is not None else 'not given'}; give both or neither"
            )
        return self

    @property
    def parameters(self) -> DegradationParameters:
        """Parameters of the preset, or the custom ones."""
        return self.custom if self.custom is not None else preset_parameters(self.preset)


class PlanConfig(Section):
    """Who gets which treatment: the draws of each test image (enhancer inference)."""

    per_reference: int = Field(6, ge=1, le=99, description="test images a reference (Sec. 3.2)")
    degraded_fraction: float = Field(
        0.5, ge=0, le=1, description="chance that the enhancer's input is degraded (appendix 1.2)"
    )
    noise_fraction: float = Field(
        0.5, ge=0, le=1, description="chance to start from pure noise (release: 0.5)"
    )
    image_init: Literal["released", "partial"] = Field(
        "released",
        description="how the others start. released: the input's latent noised at t=999 and again "
        "at the level, denoised from t=999 in as many steps as the level; partial (the paper's "
        "words): noised once to the level and denoised from there, steps drawn on their own",
    )
    steps_min: int = Field(20, ge=1, le=1000, description="fewest denoising steps (Sec. 3.2)")
    steps_max: int = Field(1000, ge=1, le=1000, description="most denoising steps (Sec. 3.2)")
    level_min: int = Field(20, ge=1, le=999, description="lowest noise level (release)")
    level_max: int = Field(
        999,
        ge=0,
        le=999,
        description="highest noise level; the release draws up to 1000, at which it fails",
    )
    upscale_probability: float = Field(
        0.2,
        ge=0,
        le=1,
        description="chance that the input is enlarged first (release: script 0.2, README 0.25)",
    )
    upscale_factor: float = Field(2.0, gt=1, le=8, description="that enlargement (release: 2)")
    guidance: float = Field(7.5, ge=0, description="classifier-free guidance (release)")
    conditioning_scale: float = Field(1.0, ge=0, description="weight of the ControlNet (release)")
    prompt: str = Field("clean, high-resolution, 8k", description="prompt (release)")
    negative_prompt: str = Field(
        "blurry, dotted, noise, raster lines, unclear, lowres, over-smoothed",
        description="negative prompt (release)",
    )
    color_fix: Literal["wavelet", "none"] = Field(
        "wavelet", description="colours are taken from the input (release: wavelet)"
    )
    shards: int = Field(
        1, ge=1, le=100_000, description="shards of equal predicted work; one is one GPU job"
    )

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> "PlanConfig":
        for name in ("steps", "level"):
            lowest, highest = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if lowest > highest:
                raise ValueError(f"{name}_min ({lowest}) must not exceed {name}_max ({highest})")
        return self


PLAN = StageSpec(
    name="degrade plan",
    module="degrade.plan",
    sections={"seed": None, "plan": PlanConfig, "degrade": DegradeConfig},
)
APPLY = StageSpec(name="degrade apply", module="degrade.apply", sections={})
