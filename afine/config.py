"""Settings of A-FINE: model, data, triplets, the three training phases, evaluation.

Where the released code and the paper differ, the default follows the release and the field
says what the paper has. Batches are totals over all processes, so that the number of GPUs
does not change what is trained.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from runtime.settings import Section, StageSpec, speed_field

DataSet = Literal["diffiqa", "tid2013", "kadid10k", "pipal", "csiq", "sriqa"]
PEER_PATTERN = r"^(psnr|ssim|ms_ssim|fsim|vsi|vif|pyiqa:[a-z0-9_.+-]+)$"
Peer = Annotated[str, Field(pattern=PEER_PATTERN)]


class ModelConfig(Section):
    """The network; the geometry fields apply where `backbone` is "random"."""

    backbone: str = Field(
        "random",
        description='"random", or a file or folder with CLIP weights: an OpenAI JIT archive or '
        "state dict, a Hugging Face CLIP folder, or A-FINE weights (paper: CLIP ViT-B/32)",
    )
    width: int = Field(768, ge=8, description="channels of the trunk (ViT-B: 768)")
    layers: int = Field(12, ge=1, description="blocks of the trunk (ViT-B: 12)")
    patch_px: int = Field(32, ge=2, description="side of a patch, in pixels (ViT-B/32: 32)")
    head_width: int = Field(64, ge=4, description="channels of one attention head")
    image_px: int = Field(
        224, ge=8, description="image side that the position table is made for, in pixels"
    )
    hidden: int = Field(
        128, ge=1, description="outputs of the naturalness head's shared projection per stage"
    )

    @model_validator(mode="after")
    def _check_geometry(self) -> Self:
        if self.width % self.head_width:
            raise ValueError(
                f"width {self.width} is not a multiple of head_width {self.head_width}"
            )
        if self.image_px % self.patch_px:
            raise ValueError(
                f"image_px {self.image_px} is not a multiple of patch_px {self.patch_px}"
            )
        return self


class DataConfig(Section):
    """Where the image sets are; the set built by this run is `diffiqa`."""

    use_run: bool = Field(True, description="use the set that this run built, as `diffiqa`")
    diffiqa: str | None = Field(
        None, description="folder of a set in the released DiffIQA layout (instead of this run's)"
    )
    tid2013: str | None = Field(None, description="folder of TID2013 (mos_with_names.txt in it)")
    kadid10k: str | None = Field(None, description="folder of KADID-10k (dmos.csv in it)")
    pipal: str | None = Field(None, description="folder of PIPAL (Train_Ref, Train_Label, ...)")
    csiq: str | None = Field(None, description="folder of CSIQ; tested on, never trained on")
    sriqa: str | None = Field(
        None, description="folder of SRIQA-Bench; tested on, never trained on"
    )
    splits: str | None = Field(
        None,
        description="file with splits of the traditional sets to keep, such as another run's "
        "afine/splits.json; sets that are not in it are split by the seed",
    )

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if self.use_run and self.diffiqa:
            raise ValueError(
                f"use_run is true and diffiqa names '{self.diffiqa}': set use_run to false to "
                "take the released set"
            )
        if not self.use_run and not self.named():
            raise ValueError("use_run is false and no set is named: there is nothing to train on")
        return self

    def named(self) -> dict[str, str]:
        """Folders that are given, by name of the set."""
        names = ("diffiqa", "tid2013", "kadid10k", "pipal", "csiq", "sriqa")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


class TripletsConfig(Section):
    """How triplets (image 1, image 2, reference) are formed."""

    reference_rows: bool = Field(
        True, description="add one (x, ref, ref) row per labelled image (release; paper: not said)"
    )
    partners: Literal["log2", "all"] = Field(
        "log2",
        description="traditional sets: round(log2 n) drawn partners per image (release), or every "
        "pair of a content once",
    )
    train_fraction: float = Field(0.7, gt=0, lt=1, description="paper Sec. 5.1: 7:1:2")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="paper Sec. 5.1: 7:1:2")
    max_failure_fraction: float = speed_field(
        0.01, ge=0, le=1, description="share of unusable images above which the stage fails"
    )

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        if self.train_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"train_fraction {self.train_fraction} + test_fraction {self.test_fraction} leave "
                "nothing for validation"
            )
        return self


class ScheduleConfig(Section):
    """Cosine annealing with restarts; AdamW."""

    period: int = Field(10_000, ge=1, description="iterations of one cosine period (paper: 10,000)")
    restart_weights: tuple[float, ...] = Field(
        (1.0, 0.5, 0.5, 0.5),
        min_length=1,
        description="factor of the learning rate after each restart; the last one stays "
        "(release: 1, 0.5, 0.5, 0.5; the paper names none, that is 1)",
    )
    eta_min: float = Field(1e-8, ge=0, description="lowest learning rate (release)")
    betas: tuple[float, float] = Field((0.9, 0.99), description="AdamW (release)")
    weight_decay: float = Field(1e-3, ge=0, description="AdamW (paper: 1e-3)")


class PhaseConfig(Section):
    """What all phases have."""

    schedule: ScheduleConfig = ScheduleConfig()
    log_every: int = speed_field(100, ge=1, description="iterations between two log entries")
    validate_every: int = Field(1000, ge=1, description="iterations between two validations")
    checkpoint_every: int = speed_field(500, ge=1, description="iterations between checkpoints")
    keep: Literal["last", "best"] = Field(
        "last", description="weights to go on with: the last (release) or the best on validation"
    )


class Phase1Config(PhaseConfig):
    """Naturalness: the backbone and the naturalness head."""

    iterations: int = Field(40_000, ge=0, description="paper and release: 40,000")
    batch: int = Field(
        128, ge=1, description="triplets per iteration (release: 4 x 32; paper: 4 x 128)"
    )
    lr: float = Field(5e-6, gt=0, description="of backbone and head (paper, release: 5e-6)")
    head_lr: float | None = Field(None, gt=0, description="of the head alone; null: as lr")
    batching: Literal["random", "grouped"] = Field(
        "random",
        description="random: rows of all contents mixed (release). grouped: whole contents, so "
        "that each image goes through the backbone once for all of its rows (batches differ)",
    )
    group_rows: int = Field(
        21, ge=1, description="grouped: at most this many rows of one content in a group"
    )
    pairs: Literal["release", "paper"] = Field(
        "release",
        description="release: losses of (1,2), (1,ref), (2,ref) summed; paper: (1,2) only",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the backbone's products; statistics and heads stay float32"
    )
    micro_images: int = speed_field(
        96, ge=3, description="images in one backward pass; bounds memory, changes rounding only"
    )


class Phase2Config(PhaseConfig):
    """Fidelity: the weights alpha and beta, on cached statistics."""

    iterations: int = Field(40_000, ge=0, description="paper and release: 40,000")
    batch: int = Field(512, ge=1, description="triplets per iteration (4 x 128)")
    lr: float = Field(5e-4, gt=0, description="paper, release: 5e-4")
    stage2_data: Literal["release", "paper"] = Field(
        "release", description="release: all sets without DiffIQA; paper: all sets"
    )
    validate_every: int = Field(500, ge=1, description="iterations between two validations")


class Phase3Config(PhaseConfig):
    """Combination: the scale k and the two calibrations, on cached scores."""

    iterations: int = Field(40_000, ge=0, description="release: 40,000; paper: 10,000")
    batch: int = Field(512, ge=1, description="triplets per iteration (4 x 128)")
    lr: float = Field(1e-3, gt=0, description="paper, release: 1e-3")
    natural_init: Literal["release", "fit"] = Field(
        "fit",
        description="start of the naturalness calibration: the release's constants (4.9592, "
        "21.5968), or fitted to `fit_data`, which is how the release found them",
    )
    fit_data: DataSet = Field("pipal", description="training set of the fit (release: PIPAL)")
    validate_every: int = Field(500, ge=1, description="iterations between two validations")


class CacheConfig(Section):
    """Cached statistics of phases 2 and 3."""

    precision: Literal["float32", "float16"] = Field(
        "float32", description="of the cached channel similarities (float16 halves the disk)"
    )
    images_per_batch: int = speed_field(8, ge=1, description="images in one forward pass")


class EvaluateConfig(Section):
    """Tables 2 and 3 of the paper, on the held-out test split."""

    peers: tuple[Peer, ...] = Field(
        ("psnr", "ssim", "ms_ssim", "fsim", "vsi", "vif"),
        description="metrics beside A-FINE: these six need no weights; `pyiqa:<name>` asks the "
        "optional pyiqa package",
    )
    delta: float = Field(
        0.0, ge=0, description="scores closer than this count as equal (release: 0)"
    )
    bootstrap: int = Field(1000, ge=0, description="resamplings of contents for the intervals")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")
    images_per_batch: int = speed_field(8, ge=1, description="images in one forward pass")


class AfineConfig(Section):
    """The section `afine`."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    triplets: TripletsConfig = TripletsConfig()
    augmentation: Literal["none", "dihedral8"] = Field(
        "dihedral8", description="the 8 flips and transposes, in all phases (release), or none"
    )
    balance: Literal["none", "repeat"] = Field(
        "none",
        description="none: sets joined as they are (release as run); repeat: small sets repeated "
        "to the size of the largest (coded in the release, unused)",
    )
    phase1: Phase1Config = Phase1Config()
    phase2: Phase2Config = Phase2Config()
    phase3: Phase3Config = Phase3Config()
    cache: CacheConfig = CacheConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cpu_threads: int = speed_field(1, ge=1, description="torch threads on the CPU")
    decode_threads: int = speed_field(
        2, ge=1, description="threads that decode the next batch's images in phase 1"
    )


TRIPLETS = StageSpec(
    name="afine triplets",
    module="afine.triplets.stage",
    sections={"seed": None, "afine.data": DataConfig, "afine.triplets": TripletsConfig},
)
_SHARED = {
    "seed": None,
    "afine.data": DataConfig,
    "afine.augmentation": None,
    "afine.balance": None,
}
TRAIN_PHASE1 = StageSpec(
    name="afine train --phase 1",
    module="afine.training.phase1",
    sections={**_SHARED, "afine.model": ModelConfig, "afine.phase1": Phase1Config},
)
TRAIN_PHASE2 = StageSpec(
    name="afine train --phase 2",
    module="afine.training.phase2",
    sections={**_SHARED, "afine.cache": CacheConfig, "afine.phase2": Phase2Config},
)
TRAIN_PHASE3 = StageSpec(
    name="afine train --phase 3",
    module="afine.training.phase3",
    sections={**_SHARED, "afine.cache": CacheConfig, "afine.phase3": Phase3Config},
)
TRAIN_PHASES = {1: TRAIN_PHASE1, 2: TRAIN_PHASE2, 3: TRAIN_PHASE3}
EVALUATE = StageSpec(
    name="afine evaluate",
    module="afine.evaluation.stage",
    sections={"seed": None, "afine.data": DataConfig, "afine.evaluate": EvaluateConfig},
)
