"""The dataset opens with the field's tools, without our code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from runtime.settings import load_run
from shards.card import hub_type
from shards.config import DatasetConfig
from shards.nested import lists_to_records
from shards.write import write_dataset
from tests.shards.fake_run import SIZE_PX, make_run


def test_plain_webdataset(written: Path) -> None:
    wds = pytest.importorskip("webdataset")
    tars = sorted(str(path) for path in (written / "dataset").glob("train-*.tar"))
    seen = 0
    for sample in wds.WebDataset(tars, shardshuffle=False).decode("rgb8"):
        assert sample["ref.png"].shape == (SIZE_PX, SIZE_PX, 3)
        assert sample["ref.png"].dtype == np.uint8
        for kk, test in sample["json"]["tests"].items():
            assert sample[f"{kk}.png"].shape == (SIZE_PX, SIZE_PX, 3)
            assert test["label"] in (-1, 0, 1)
            seen += 1
    table = pl.read_parquet(written / "dataset/labels.parquet")
    assert seen == table.filter(pl.col("split") == "train").height


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Hugging Face `datasets` with a cache of its own."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets, str(tmp_path_factory.mktemp("hub"))


def _plan(root: Path) -> pl.DataFrame:
    return lists_to_records(pl.read_parquet(root / "plan.parquet"))


def test_hugging_face_reads_the_folder(written: Path, hub: Any) -> None:
    datasets, cache = hub
    loaded = datasets.load_dataset(str(written / "dataset"), cache_dir=cache)
    assert {split: len(part) for split, part in loaded.items()} == {
        "train": 8, "validation": 2, "test": 2,
    }  # fmt: skip
    plan = {row["test_id"]: row for row in _plan(written).to_dicts()}
    for sample in loaded["train"]:
        for kk, test in sample["json"]["tests"].items():
            if test is None:
                assert sample[f"{kk}.png"] is None
            else:
                row = plan[f"{sample['__key__']}_{kk}"]
                assert test["degradation"] == row["degradation"], "types come from the card"
                assert (test["level"], test["seed"]) == (row["level"], row["seed"])
                assert sample[f"{kk}.png"].size == (SIZE_PX, SIZE_PX)


def test_hugging_face_streams_the_folder(written: Path, hub: Any) -> None:
    datasets, cache = hub
    stream = datasets.load_dataset(str(written / "dataset"), streaming=True, cache_dir=cache)
    assert len(list(stream["train"])) == 8


def test_hugging_face_webdataset_builder_without_the_card(tmp_path: Path, hub: Any) -> None:
    """The builder guesses the fields from five samples; a shard opens with five good ones."""
    datasets, cache = hub
    config = make_run(
        tmp_path / "bare", crops_per_photo=4, sections={"dataset": {"references_per_shard": 256}}
    )
    write_dataset(load_run(config))
    tar = str(tmp_path / "bare/dataset/train-00000.tar")
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": tar}, split="train", cache_dir=cache
    )
    assert len(loaded) == 16
    first = {kk for kk, test in loaded[0]["json"]["tests"].items() if test is not None}
    assert first == {"01", "02", "03", "04", "05", "06"}
    incomplete = [sample for sample in loaded if sample["04.png"] is None]
    assert len(incomplete) == 4, "the astronaut's tied images"


def test_croissant_is_valid_and_readable(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path))
    described = mlcroissant.Dataset(jsonld=str(written / "dataset/croissant.json"))
    assert not described.metadata.ctx.issues.errors
    labels = {row["tests/test_id"].decode(): row for row in described.records("tests")}
    table = pl.read_parquet(written / "annotations/labels.parquet")
    assert {key: row["tests/label"] for key, row in labels.items()} == dict(
        zip(table["test_id"], table["label"], strict=True)
    )
    assert len(list(described.records("splits"))) == 12


def test_croissant_warns_of_synthetic_labels_and_lists_every_shard(written: Path) -> None:
    described = json.loads((written / "dataset/croissant.json").read_text())
    manifest = json.loads((written / "dataset/manifest.json").read_text())
    assert "SYNTHETIC" in described["description"]
    files = {item["@id"]: item for item in described["distribution"] if "sha256" in item}
    for name, facts in manifest["files"].items():
        if name.endswith(".tar"):
            assert files[name]["sha256"] == facts["sha256"]


def _front(path: Path) -> dict[str, Any]:
    _, front, _ = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front)


def test_card(written: Path) -> None:
    text = (written / "dataset/README.md").read_text(encoding="utf-8")
    front = _front(written / "dataset/README.md")
    assert front["license"] == "other"
    assert "synthetic-labels" in front["tags"]
    assert "Synthetic labels" in text
    assert "| all | 12 | 70 | 34 | 12 | 24 |" in text
    assert "decided by the majority of the votes (70 images)" in text
    assert "no majority are left out" in text
    assert "/" + str(written).strip("/") not in text


def test_card_of_peoples_labels(tmp_path: Path) -> None:
    section = {
        "title": "My set", "licence": "cc-by-4.0", "creators": ["A. Person"],
        "licence_url": "https://creativecommons.org/licenses/by/4.0/", "citation": "@misc{x}",
        "date_published": "2026-01-31", "homepage": "https://example.org/set",
    }  # fmt: skip
    config = make_run(tmp_path / "s", sections={
        "dataset": section, "enhancer": {"base_model": "/home/someone/models/sd15"},
    })  # fmt: skip
    labels = tmp_path / "s/annotations/labels.parquet"
    pl.read_parquet(labels).with_columns(is_synthetic=False).write_parquet(labels)
    write_dataset(load_run(config))
    card = tmp_path / "s/dataset/README.md"
    text, front = card.read_text(encoding="utf-8"), _front(card)
    assert front["annotations_creators"] == ["crowdsourced"]
    assert front["license"] == "cc-by-4.0"
    assert "Synthetic" not in text
    assert "synthetic-labels" not in front["tags"]
    assert "someone" not in text
    assert "`sd15`" in text
    assert "A. Person" in text
    assert "@misc{x}" in text
    described = json.loads((tmp_path / "s/dataset/croissant.json").read_text())
    assert described["license"] == "https://creativecommons.org/licenses/by/4.0/"
    assert described["datePublished"] == "2026-01-31"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pl.Int8(), {"dtype": "int64"}), (pl.Float32(), {"dtype": "float64"}),
        (pl.Boolean(), {"dtype": "bool"}), (pl.String(), {"dtype": "string"}),
        (pl.List(pl.Int64()), {"list": "int64"}),
        (pl.Struct({"a": pl.Struct({"b": pl.String()}), "c": pl.Int32()}), {"struct": [
            {"name": "a", "struct": [{"name": "b", "dtype": "string"}]},
            {"name": "c", "dtype": "int64"}]}),
    ],
)  # fmt: skip
def test_types_for_the_hub(kind: pl.DataType, expected: dict[str, Any]) -> None:
    assert hub_type(kind) == expected


def test_settings_refuse_bad_values() -> None:
    for bad in ({"name": "With Space"}, {"references_per_shard": 0}, {"version": "1"},
                {"date_published": "31.1.2026"}):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(bad))):
            DatasetConfig(**bad)
