"""The dataset card: `README.md` with the front matter that the Hugging Face hub reads.

The front matter names the files of each split and the type of every field, so that
`datasets.load_dataset(folder)` does not have to guess the fields from a few samples.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
import yaml

from runtime.atomic import write_text
from runtime.settings import RunSettings
from shards.assemble import CROP_FIELDS, PLAN_COLUMNS_LEFT_OUT
from shards.config import DatasetConfig
from shards.summary import Summary

HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_SIZE_NAMES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>10M")
_POLICY_WORDS = {
    "majority": "the majority of the votes",
    "similar": "counting a tie as similar",
    "dawid_skene": "a Dawid-Skene model where the votes tie",
}
_TEMPLATE = Path(__file__).parent / "templates" / "card.md"


class _PlainDumper(yaml.SafeDumper):
    """Write repeated parts out in full: the hub's reader changes what it reads."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_card(
    path: Path,
    run: RunSettings,
    settings: DatasetConfig,
    summary: Summary,
    split: Mapping[str, Any],
) -> None:
    """Write the card of a dataset.

    Args:
        path: `dataset/README.md`.
        run: the resolved configuration; seed and generation settings are quoted.
        settings: section `dataset`.
        summary: statistics of the dataset.
        split: seed, unit and digest of the split.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters["thousands"] = lambda number: f"{number:,}"
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    front = yaml.dump(
        front_matter(settings, summary),
        Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=1000,
    )  # fmt: skip
    write_text(
        path,
        template.render(
            front_matter=front,
            dataset=settings,
            summary=summary,
            split=split,
            seed=run.seed,
            total={
                name: sum(counts[name] for counts in summary.labels.values())
                for name in ("references", "tests", "worse", "similar", "better", "unlabelled")
            },
            degradation=run.values.get("degrade", {}).get("preset"),
            base_model=_base_model(run),
            drops_ties=run.values.get("annotations", {}).get("tie_policy") == "drop",
            policies={_POLICY_WORDS.get(name, name): n for name, n in summary.policies.items()},
        ),
    )


def _base_model(run: RunSettings) -> str:
    """Name of the base model; of a local folder only its own name, not where it lies."""
    name = str(run.values.get("enhancer", {}).get("base_model") or "")
    return Path(name).name if Path(name).is_absolute() else name


def front_matter(settings: DatasetConfig, summary: Summary) -> dict[str, Any]:
    """Return the metadata block of the card, as the Hugging Face hub defines it."""
    tests = sum(counts["tests"] for counts in summary.labels.values())
    tags = ["image-quality-assessment", "full-reference", "diffiqa", "webdataset"]
    front: dict[str, Any] = {
        "pretty_name": settings.title,
        "license": settings.licence,
        "task_categories": ["image-classification"],
        "tags": [*tags, "synthetic-labels"] if summary.is_synthetic else tags,
        "size_categories": [_size_category(tests)],
    }
    if settings.licence == "other" and settings.licence_url:
        front["license_name"] = "see-licence-link"
        front["license_link"] = settings.licence_url
    front["annotations_creators"] = [
        "machine-generated" if summary.is_synthetic else "crowdsourced"
    ]
    front["configs"] = [
        {
            "config_name": "default",
            "data_files": [
                {"split": HUB_SPLITS[split], "path": f"{split}-*.tar"} for split in summary.labels
            ],
        }
    ]
    front["dataset_info"] = {"features": hub_features(summary)}
    return front


def _size_category(count: int) -> str:
    position = 0 if count < _SIZES[0] else int(math.log10(count)) - 2
    return _SIZE_NAMES[min(position, len(_SIZE_NAMES) - 1)]


def hub_features(summary: Summary) -> list[dict[str, Any]]:
    """Type of every member of a sample, in the notation of the card's front matter."""
    test = [
        {"name": "label", "dtype": "int64"},
        {"name": "votes", "struct": [_scalar(name) for name in ("worse", "similar", "better")]},
        {"name": "margin", **hub_type(summary.label_schema["margin"])},
        {"name": "policy", "dtype": "string"},
        {"name": "is_synthetic", "dtype": "bool"},
        *(
            {"name": name, **hub_type(kind)}
            for name, kind in summary.plan_schema.items()
            if name not in PLAN_COLUMNS_LEFT_OUT
        ),
    ]
    crop = [{"name": name, **hub_type(summary.crop_schema[name])} for name in CROP_FIELDS]
    record = [
        *crop,
        {"name": "is_synthetic", "dtype": "bool"},
        {"name": "tests", "struct": [{"name": kk, "struct": test} for kk in summary.test_names]},
    ]
    return [
        *({"name": f"{kk}.png", "dtype": "image"} for kk in summary.test_names),
        {"name": "json", "struct": record},
        {"name": "ref.png", "dtype": "image"},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def _scalar(name: str) -> dict[str, Any]:
    return {"name": name, "dtype": "int64"}


def hub_type(kind: pl.DataType) -> dict[str, Any]:
    """Translate a Polars type of a table's column to the notation of the front matter."""
    if isinstance(kind, pl.Struct):
        fields = [{"name": field.name, **hub_type(field.dtype)} for field in kind.fields]  # type: ignore[arg-type]
        return {"struct": fields}
    if isinstance(kind, pl.List):
        inner = hub_type(kind.inner)  # type: ignore[arg-type]
        return {"list": inner["dtype"]}
    if kind.is_integer():
        return {"dtype": "int64"}
    if kind.is_float():
        return {"dtype": "float64"}
    return {"dtype": "bool" if kind == pl.Boolean else "string"}
