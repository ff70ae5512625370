"""Settings of the photographs and their crops: sections `sources` and `crop`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from runtime.settings import Section, StageSpec, speed_field

DEFAULT_GLOBS = tuple(
    f"**/*.{extension}"
    for extension in (
        "jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "avif", "gif", "heic", "jp2",
    )
)  # fmt: skip

SplitName = Literal["train", "val", "test"]
Share = Annotated[float, Field(ge=0, le=1)]


class SourceConfig(Section):
    """One folder of photographs."""

    name: str = Field(
        pattern=r"^[a-z0-9]+$",
        max_length=24,
        description="short name, part of every crop_id; DiffIQA has df2k, internet and camera "
        "(paper Sec. 3.1)",
    )
    path: str = Field(
        description="folder, relative to where you start; 'package:skimage.data' is the folder of "
        "an installed Python package",
    )
    globs: tuple[str, ...] = Field(
        DEFAULT_GLOBS,
        min_length=1,
        description="which files, relative to the folder; '**/' is any depth, case does not "
        "count. What is matched but cannot be read is recorded with its reason",
    )
    list_file: str | None = Field(
        None,
        description="text file with one path a line, relative to the folder; replaces the globs",
    )
    limit: int | None = Field(
        None, ge=1, description="take the first so many files, in the order of their paths"
    )


class SplitConfig(Section):
    """Shares of the three splits; they go by photograph, near duplicates together."""

    train: Share = Field(0.7, description="share of training crops (paper Sec. 5.1: 7:1:2)")
    val: Share = Field(0.1, description="share of validation crops (paper Sec. 5.1: 7:1:2)")
    test: Share = Field(0.2, description="share of test crops (paper Sec. 5.1: 7:1:2)")

    @model_validator(mode="after")
    def _sums_to_one(self) -> "SplitConfig":
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"train + val + test must be 1, found {self.train:g} + {self.val:g} + "
                f"{self.test:g} = {total:g}"
            )
        return self


class CropConfig(Section):
    """How photographs become crops; thresholds are those of the release's two scripts."""

    size_px: int = Field(512, ge=32, le=4096, description="side of a crop (paper Sec. 3.1)")
    max_overlap_px: int = Field(
        128,
        ge=0,
        description="neighbouring crops share fewer pixels than this, also after jitter "
        "(paper Sec. 3.1; the release's jitter can reach 160)",
    )
    jitter_px: int = Field(
        16, ge=0, description="half the range of the random part of the step (release: +-16)"
    )
    first_offset_px: tuple[int, int, int] = Field(
        (16, 32, 64),
        description="largest first offset for sides below 1200, below 2400, and from 2400 on "
        "(release); drawn per photograph and axis",
    )
    photo_min_grey_std: float = Field(
        60.0, ge=0, description="photographs with a lower grey standard deviation are left out"
    )
    photo_min_laplacian_var: float = Field(
        60.0, ge=0, description="photographs with a lower 8-bit Laplacian variance are left out"
    )
    min_grey_std: float = Field(
        50.0, ge=0, description="crops with a lower grey standard deviation are left out"
    )
    min_laplacian_var: float = Field(
        50.0, ge=0, description="crops with a lower 8-bit Laplacian variance are left out"
    )
    target_count: int | None = Field(
        None,
        ge=1,
        description="keep so many crops, spread evenly over photographs (29,868 in the paper); "
        "none keeps all",
    )
    exact_duplicates: Literal["drop", "report"] = Field(
        "drop", description="photographs with equal bytes: keep the first, or only report them"
    )
    near_duplicates: Literal["drop", "report"] = Field(
        "report",
        description="photographs that look alike: keep the first, or only report them; they "
        "share a split in either case",
    )
    near_distance: int = Field(
        6,
        ge=0,
        le=32,
        description="largest Hamming distance of two 64-bit perceptual hashes that look alike",
    )
    max_megapixels: float = Field(
        250.0, gt=0, description="larger photographs are left out unread (decompression bombs)"
    )
    split: SplitConfig = SplitConfig()
    crops_per_shard: int = Field(1000, ge=1, description="crops in one tar")
    max_failure_fraction: float = speed_field(
        0.5,
        ge=0,
        le=1,
        description="the stage fails when a larger share of the files is unreadable; crops that "
        "a filter leaves out do not count",
    )
    workers: int = speed_field(0, ge=0, description="processes; 0 is one per core")

    @field_validator("first_offset_px")
    @classmethod
    def _offsets_are_not_negative(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(value) < 0:
            raise ValueError("expected three offsets that are 0 or more")
        return value

    @model_validator(mode="after")
    def _overlap_is_smaller_than_the_crop(self) -> "CropConfig":
        if self.max_overlap_px > self.size_px:
            raise ValueError(
                f"max_overlap_px ({self.max_overlap_px}) must not exceed size_px ({self.size_px})"
            )
        return self


CROP = StageSpec(
    name="crop run",
    module="crop.stage",
    sections={"seed": None, "sources": None, "crop": CropConfig},
)
