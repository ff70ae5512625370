"""Settings of the dataset that a run publishes: section `dataset`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from runtime.code_version import files_version
from runtime.settings import Section, StageSpec, speed_field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=96)]


class DatasetConfig(Section):
    """What goes into the published shards, and what the dataset card says of them."""

    name: Name = Field(
        "diffiqa-own",
        description="name of the dataset; also the name of its Hugging Face repository",
    )
    title: str = Field("DiffIQA-style image quality dataset", description="title of the card")
    description: str = Field(
        "", description="one paragraph for the top of the card: what the photographs are"
    )
    licence: str = Field(
        "other",
        description="identifier of the licence as the Hugging Face hub spells it, for example "
        "cc-by-4.0; 'other' when the photographs' licences differ",
    )
    licence_url: str = Field(
        "", description="address of the licence text; goes into the card and croissant.json"
    )
    creators: list[str] = Field(
        default_factory=list, description="people or groups, as they want to be named"
    )
    homepage: str = Field("", description="address of the dataset's page, if there is one")
    citation: str = Field("", description="BibTeX entry for the card, if there is one")
    version: str = Field(
        "1.0.0", pattern=r"^\d+\.\d+\.\d+$", description="version of the dataset, three numbers"
    )
    date_published: str = Field(
        "",
        pattern=r"^(\d{4}-\d{2}-\d{2})?$",
        description="day of publication, YYYY-MM-DD; left out of the metadata when empty, "
        "because the same run must give the same bytes on every day",
    )
    references_per_shard: int = Field(
        256,
        ge=1,
        description="references in one tar; a reference and its six test images of 512 px take "
        "about 3.5 MB, so 256 of them make about 0.9 GB",
    )
    min_votes: int = Field(
        1,
        ge=1,
        description="test images with fewer votes are left out; 3 in DiffIQA (Sec. 3.2)",
    )
    min_tests: int = Field(
        1, ge=1, description="references with fewer labelled test images are left out"
    )
    include_unlabelled: bool = Field(
        False,
        description="keep test images without a label (label null), to publish images before "
        "their study; A-FINE skips them",
    )
    max_failure_fraction: float = speed_field(
        0.05,
        ge=0,
        le=1,
        description="share of test images that may be missing or unreadable before the stage fails",
    )


SHARDS = StageSpec(
    "shards write",
    "shards.write",
    {"seed": None, "dataset": DatasetConfig},
    version=files_version(Path(__file__).parent / "templates"),
)
