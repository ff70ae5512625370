"""Settings of `enhancer sample`; what is drawn per image comes from plan.parquet instead."""

from typing import Literal

from pydantic import Field, model_validator

from runtime.settings import Section, StageSpec, speed_field

# 20 days of 20 V100s for the plan of configs/diffiqa.yaml, 400 million evaluations (docs/scale.md)
PAPER_SECONDS_PER_EVALUATION = 0.086


class SampleConfig(Section):
    """How the planned images are denoised, decoded and written."""

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="number format of UNet and ControlNet; latents and solver stay float32 "
        "(release: float16)",
    )
    vae_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="number format of the VAE; float32 because bfloat16 has only 8 bits and shows "
        "in the pixels (release: float16)",
    )
    final_sigma: Literal["sigma_min", "zero"] = Field(
        "sigma_min",
        description="noise level after the last step: that of training index 0, as in the release "
        "(diffusers 0.21), or none, as in newer diffusers",
    )
    tile_latent_px: int = Field(
        64, ge=8, description="side of a latent tile, latent pixels; larger latents are tiled"
    )
    tile_overlap_latent_px: int = Field(
        8, ge=0, description="overlap of neighbouring latent tiles, latent pixels"
    )
    pixel_rounding: Literal["round", "truncate"] = Field(
        "round", description="float to 8 bit: rounded, or truncated as in the release"
    )
    cpu_threads: int = Field(
        1, ge=1, description="torch threads on a CPU; other counts change sums in the last bits"
    )
    max_failure_fraction: float = speed_field(
        0.01, ge=0, le=1, description="share of failed images above which a shard fails"
    )
    slots: int = speed_field(
        0, ge=0, description="images denoised side by side; 0: found once from free memory"
    )
    max_slots: int = speed_field(
        32, ge=1, description="upper limit when `slots` is found from free memory"
    )
    jobs_per_gpu: int = speed_field(1, ge=1, description="shards that may share one device")
    workers: int = speed_field(
        1, ge=1, description="threads that read, encode, decode and write beside denoising"
    )
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = speed_field(
        "off", description="torch.compile mode of UNet and ControlNet; shapes never change"
    )
    channels_last: bool = speed_field(True, description="memory format of the nets on a GPU")
    seconds_per_evaluation: float | None = speed_field(
        None,
        gt=0,
        description="seconds of one device per network evaluation (one latent tile, one prompt "
        "half), for predictions; null: from the metrics of an earlier shard",
    )
    device_peak_tflops: float | None = speed_field(
        None, gt=0, description="peak rate for the reported share; null: a matrix product is timed"
    )

    @model_validator(mode="after")
    def _overlap_below_tile(self) -> "SampleConfig":
        if self.tile_overlap_latent_px >= self.tile_latent_px:
            raise ValueError(
                f"tile_overlap_latent_px ({self.tile_overlap_latent_px}) must be below "
                f"tile_latent_px ({self.tile_latent_px})"
            )
        return self


SAMPLE = StageSpec(
    name="enhancer sample",
    module="enhancer.sample.stage",
    sections={"seed": None, "enhancer.base_model": None, "enhancer.sample": SampleConfig},
)
