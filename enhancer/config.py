"""Configuration of the base model, the enhancer and its training.

Defaults are the paper's or the release's numbers for SD1.5 size; where the two differ the
choice is a field of its own ("release" is what the published code does).
"""

from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, field_validator, model_validator

from degrade.presets import PresetName
from enhancer.sample.config import SampleConfig
from runtime.settings import Section, StageSpec, speed_field


def _check_groups(channels: tuple[int, ...], divisor: int, name: str) -> None:
    wrong = [width for width in channels if width % divisor]
    if wrong:
        raise ValueError(f"{name} {channels}: {wrong[0]} is not a multiple of {divisor}")


class VaeConfig(Section):
    """Autoencoder of a base model that is trained in the run; 8 pixels a latent position."""

    latent_channels: int = Field(16, ge=1, le=64, description="channels of the latent")
    block_channels: tuple[int, int, int, int] = Field(
        (16, 32, 64, 128), description="channels at 1, 1/2, 1/4 and 1/8 of the image's side"
    )
    layers_per_block: int = Field(1, ge=1, description="residual layers in a level")
    norm_groups: int = Field(2, ge=1, description="groups of the group normalisations")
    linear_steps: int = Field(600, ge=1, description="optimizer steps of the linear skeleton")
    steps: int = Field(400, ge=0, description="optimizer steps of the whole network after it")
    batch_size: int = Field(8, ge=1, description="patches in a step")
    linear_learning_rate: float = Field(3e-3, gt=0, description="its peak for the skeleton")
    patch_px: int = Field(64, ge=16, multiple_of=8, description="side of a training patch, pixels")
    learning_rate: float = Field(1e-3, gt=0, description="peak of the one-cycle rate")
    kl_weight: float = Field(1e-6, ge=0, description="weight of the KL term beside L1, per value")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights")

    @model_validator(mode="after")
    def _widths_fit(self) -> "VaeConfig":
        _check_groups(self.block_channels, self.norm_groups, "block_channels")
        first, second, third, fourth = self.block_channels
        if first == second or third == fourth:
            raise ValueError(
                f"block_channels {self.block_channels}: the two first and the two last must differ"
            )
        if min(first, fourth) // self.norm_groups < 5:
            raise ValueError(
                f"block_channels {self.block_channels}: too few for norm_groups "
                f"{self.norm_groups}; a group needs 5 channels"
            )
        return self


class BaseUnetConfig(Section):
    """Denoising network of a base model that is trained in the run."""

    block_channels: tuple[int, ...] = Field(
        (64, 128, 128), min_length=2, description="channels of each level, finest first"
    )
    layers_per_block: int = Field(1, ge=1, description="residual layers in a level")
    attention_heads: int = Field(4, ge=1, description="heads of every attention")
    norm_groups: int = Field(8, ge=1, description="groups of the group normalisations")
    steps: int = Field(2000, ge=1, description="optimizer steps")
    batch_size: int = Field(16, ge=1, description="latents in a step")
    learning_rate: float = Field(1e-3, gt=0, description="peak of the one-cycle rate")
    ema_decay: float = Field(0.995, ge=0, lt=1, description="decay of the averaged weights")
    prompt_dropout: float = Field(
        0.5, ge=0, le=1, description="share of items with the empty prompt instead of base.prompt"
    )

    @model_validator(mode="after")
    def _widths_divide(self) -> "BaseUnetConfig":
        _check_groups(self.block_channels, self.norm_groups, "block_channels")
        _check_groups(self.block_channels, self.attention_heads, "block_channels")
        return self


class TextConfig(Section):
    """Text encoder of a base model that is trained in the run: a small CLIP, left random."""

    hidden_size: int = Field(64, ge=8, multiple_of=4, description="width of the text embedding")
    layers: int = Field(2, ge=1, description="transformer layers")
    heads: int = Field(4, ge=1, description="attention heads")
    max_length: int = Field(77, ge=8, description="tokens of a prompt, as in SD1.5")


class BaseConfig(Section):
    """A small base model for runs without pretrained weights."""

    vae: VaeConfig = VaeConfig()
    unet: BaseUnetConfig = BaseUnetConfig()
    text: TextConfig = TextConfig()
    prompt: str = Field(
        "clean, high-resolution, 8k",
        description="prompt that goes with a training image; must be the one used in sampling",
    )
    log_every: int = speed_field(20, ge=1, description="steps between lines of metrics.jsonl")
    threads: int = speed_field(0, ge=0, description="CPU threads; 0: all of this job's cores")


class SourceConfig(Section):
    """One set of training images: a folder (recursive) or WebDataset shards."""

    name: str = Field(pattern=r"[a-z0-9]+", description="short name, used in keys and messages")
    path: str = Field(min_length=1, description="folder of images, or of .tar shards")
    kind: Literal["folder", "webdataset"] = Field("folder", description="what the folder holds")
    globs: tuple[str, ...] = Field(
        ("**/*.png", "**/*.jpg", "**/*.jpeg", "**/*.webp", "**/*.bmp"),
        description="which files of a folder are images",
    )
    weight: float = Field(1.0, gt=0, description="share of the training images, relative")
    max_images: int | None = Field(
        None, ge=1, description="use the first images only, in order of name"
    )
    short_side_px: tuple[int, int] | None = Field(
        None, description="resize so that the short side is drawn from this range (FFHQ: 512-712)"
    )


class ValidationConfig(Section):
    """What is measured on held-out photographs while training."""

    every: int = Field(1000, ge=1, description="optimizer steps between validations")
    images: int = Field(8, ge=1, description="fixed held-out crops")
    timesteps: tuple[int, ...] = Field(
        (100, 300, 500, 700, 900), min_length=1, description="fixed noise levels of the loss"
    )
    solver_steps: int = Field(20, ge=1, description="solver steps of the images that are shown")
    shown_images: int = Field(4, ge=0, description="enhanced images written at each validation")

    @field_validator("timesteps")
    @classmethod
    def _timesteps_exist(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 <= timestep < 1000 for timestep in value):
            raise ValueError("timesteps lie in 0..999")
        return value


class TrainConfig(Section):
    """Training of ControlNet, its conditioning net and PACA; everything else is frozen."""

    enhancer: str | None = Field(
        None,
        description="folder with unet/ and controlnet/ of a trained enhancer (DiffEnhancer or "
        "PASD layout) to start from; with steps 0 it is used as it is",
    )
    sources: tuple[SourceConfig, ...] = Field(
        (), description="training images; none: the run's own crops of split 'train'"
    )
    steps: int = Field(100_000, ge=0, description="optimizer steps (appendix 1.2)")
    batch_size: int = Field(
        256, ge=1, description="images of one optimizer step over all processes (8 x 32, app. 1.2)"
    )
    micro_batch_size: int | None = speed_field(
        None,
        ge=1,
        description="images of one forward pass of one process; accumulation follows from it",
    )
    crop_px: int = Field(512, ge=64, multiple_of=8, description="side of a random crop (app. 1.2)")
    augment: bool = Field(True, description="random flips and quarter turns")
    init: Literal["zero", "released"] = Field(
        "zero",
        description="new PACA blocks: zero output (step 0 equals the base model) or random",
    )
    conditioning_channels: tuple[int, int, int, int] = Field(
        (16, 32, 96, 256), description="widths of a new conditioning net (SD1.5 size)"
    )
    conditioning_warmup_steps: int = Field(
        0,
        ge=0,
        description="steps that first fit a new conditioning net to the base model's features of "
        "the clean latent; for short trainings (release: none)",
    )
    roles: Literal["release", "paper"] = Field(
        "release",
        description="release: clean target, degraded condition; paper: degraded latent, original "
        "condition (appendix 1.1)",
    )
    clean_input: Literal["resampled", "untouched"] = Field(
        "resampled",
        description="the undegraded half: down- and upsampled by U(1,1.5) (release) or as it is",
    )
    degraded_fraction: float = Field(
        0.5, ge=0, le=1, description="share of degraded inputs (appendix 1.2)"
    )
    degradation: PresetName = Field(
        "diffiqa-released", description="degradation preset of the degraded half"
    )
    prompt: str = Field("", description="prompt of all training images (release: empty)")
    optimizer: Literal["adam", "adamw"] = Field(
        "adamw", description="Adam (paper) or AdamW (release)"
    )
    learning_rate: float = Field(5e-5, gt=0, description="appendix 1.2 and release")
    betas: tuple[float, float] = Field((0.9, 0.999), description="release")
    weight_decay: float = Field(1e-2, ge=0, description="release; Adam takes it as L2")
    epsilon: float = Field(1e-8, gt=0, description="release")
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="joint gradient norm of all trained modules; null: no clipping"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="learning rate after the warm-up"
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="save averaged weights; null: the last weights"
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = Field("no", description="release: no")
    validation: ValidationConfig = ValidationConfig()
    checkpoint_every: int = speed_field(1000, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = speed_field(2, ge=1, description="complete checkpoints to keep")
    log_every: int = speed_field(10, ge=1, description="steps between lines of metrics.jsonl")
    tensorboard: bool = speed_field(True, description="write TensorBoard events")
    gradient_checkpointing: bool = speed_field(False, description="less memory, more time")
    channels_last: bool = speed_field(False, description="memory layout of convolutions")
    compile: bool = speed_field(False, description="compile the nets with torch.compile")
    cached_latents: int = speed_field(
        0, ge=0, description="latent posteriors kept in memory, where the VAE input can repeat"
    )
    workers: int = speed_field(4, ge=0, description="threads that read and degrade images")
    threads: int = speed_field(0, ge=0, description="CPU threads; 0: all of this job's cores")
    max_failure_fraction: float = speed_field(
        0.01, ge=0, le=1, description="share of unreadable training images that ends the training"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> "TrainConfig":
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"sources share a name: {', '.join(sorted(names))}")
        if self.steps == 0 and self.enhancer is None:
            raise ValueError("steps is 0 and no trained enhancer is named; set one of the two")
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} exceeds steps {self.steps}")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size}"
            )
        return self


class EnhancerConfig(Section):
    """Base model, training and sampling of the enhancer."""

    base_model: str = Field(
        "train",
        min_length=1,
        description="'train': a small one trained in the run; else a diffusers folder or hub id",
    )
    base: BaseConfig = BaseConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()

    @field_validator("base_model")
    @classmethod
    def _not_a_file(cls, value: str) -> str:
        if PurePosixPath(value).suffix in {".ckpt", ".safetensors", ".bin"}:
            raise ValueError("expected a diffusers folder or hub id, not a single checkpoint file")
        return value


BASE = StageSpec(
    name="enhancer base",
    module="enhancer.base.stage",
    sections={"seed": None, "enhancer.base_model": None, "enhancer.base": BaseConfig},
)
TRAIN = StageSpec(
    name="enhancer train",
    module="enhancer.train.stage",
    sections={"seed": None, "enhancer.base_model": None, "enhancer.train": TrainConfig},
)
