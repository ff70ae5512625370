"""Settings of the report: section `report`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from runtime.code_version import files_version
from runtime.settings import Section, StageSpec


class ReportConfig(Section):
    """How much the report shows; nothing here changes the dataset."""

    title: str = Field("", description="heading of the report; the run's name when empty")
    notes: str = Field("", description="a paragraph of your own for the top of the report")
    pairs_per_label: int = Field(
        9, ge=0, le=200, description="pairs that the gallery shows for each label"
    )
    max_image_px: int = Field(
        512, ge=32, le=4096, description="longest side of a gallery image, pixels; never enlarged"
    )
    image_format: Literal["webp", "jpeg"] = Field(
        "webp", description="format of the images inside the report"
    )
    image_quality: int = Field(85, ge=1, le=100, description="quality of those images, 1..100")
    max_rejected_rows: int = Field(
        50, ge=0, description="rejected items that are listed by name, for each stage"
    )


REPORT = StageSpec(
    "report write",
    "report.write",
    {"report": ReportConfig},
    version=files_version(Path(__file__).parent / "templates"),
)
