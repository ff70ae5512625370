"""The dataset: bytes, members, resume, damaged and missing images, splits."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import polars as pl
import pytest

from runtime.atomic import read_json
from runtime.errors import ConfigError, DataError
from runtime.settings import load_run
from runtime.tars import list_tar, write_tar
from shards.nested import lists_to_records, without_nulls
from shards.read import iter_references
from shards.write import write_dataset
from tests.shards.fake_run import make_run

CONFIG = "config.resolved.json"


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_every_labelled_image_is_there_once(written: Path) -> None:
    labels = pl.read_parquet(written / "annotations/labels.parquet")
    found = {
        f"{reference.key}_{kk}": test["label"]
        for reference in iter_references(written / "dataset")
        for kk, test in reference.record["tests"].items()
    }
    assert found == dict(zip(labels["test_id"], labels["label"], strict=True))


def test_pixels_are_the_samples_bytes(written: Path) -> None:
    originals = {}
    for tar in (written / "samples").glob("*.tar"):
        with tarfile.open(tar) as opened:
            for item in opened:
                originals[item.name] = opened.extractfile(item).read()  # type: ignore[union-attr]
    for reference in iter_references(written / "dataset"):
        for kk, png in reference.test_pngs.items():
            assert png == originals[f"{reference.key}_{kk}.png"]


def test_json_repeats_the_plan(written: Path) -> None:
    table = lists_to_records(pl.read_parquet(written / "plan.parquet"))
    plan = {row["test_id"]: row for row in table.to_dicts()}
    for reference in iter_references(written / "dataset"):
        for kk, test in reference.record["tests"].items():
            row = plan[f"{reference.key}_{kk}"]
            for name in ("steps", "level", "init", "seed"):
                assert test[name] == row[name]
            assert test["degradation"] == without_nulls(row["degradation"])
            assert sum(test["votes"].values()) == 3
            assert test["is_synthetic"] is True


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dataset(load_run(make_run(tmp_path / name / "study")))
    assert _bytes(tmp_path / "a/study/dataset") == _bytes(tmp_path / "b/study/dataset")


def test_interrupted_run_goes_on_where_it_stopped(
    run_config: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shards.write as stage

    done: list[str] = []
    whole = stage._write_shard

    def stopping(work, shard, path, min_tests):  # type: ignore[no-untyped-def]
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path.name)
        return whole(work, shard, path, min_tests)

    monkeypatch.setattr(stage, "_write_shard", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(load_run(run_config))
    assert not (run_config.parent / "dataset/manifest.json").exists()
    first = list(done)
    done.extend(["", ""])  # never equal to 2 again
    write_dataset(load_run(run_config))
    assert not set(first) & set(done[4:])
    assert _bytes(run_config.parent / "dataset") == _bytes(written / "dataset")


@pytest.mark.slow
def test_killed_again_and_again_gives_the_same_bytes(tmp_path: Path) -> None:
    section = {"dataset": {"references_per_shard": 1}}
    for name in ("whole", "killed"):
        make_run(tmp_path / name / "study", crops_per_photo=4, sections=section)
    write_dataset(load_run(tmp_path / "whole/study/config.resolved.json"))
    folder = tmp_path / "killed/study/dataset"
    command = [sys.executable, "-m", "shards", "write", "--config", str(folder.parent / CONFIG)]
    kills = 0
    for delay_s in (0.6, 0.9, 1.2, 1.5, 1.8):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=delay_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert kills > 0
    assert _bytes(folder) == _bytes(tmp_path / "whole/study/dataset")


def test_what_a_killed_process_was_writing_is_removed(run_config: Path) -> None:
    left = run_config.parent / "dataset/.train-00000.tar.123.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half a shard")
    write_dataset(load_run(run_config))
    assert not left.exists()


def test_a_finished_dataset_is_left_alone(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (written / "dataset").iterdir()}
    write_dataset(load_run(written / "config.resolved.json"))
    assert before == {path: path.stat().st_mtime_ns for path in (written / "dataset").iterdir()}


def test_other_settings_are_refused_without_replace(run_config: Path) -> None:
    write_dataset(load_run(run_config))
    values = json.loads(run_config.read_text())
    values["dataset"]["references_per_shard"] = 100
    run_config.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"dataset\.references_per_shard"):
        write_dataset(load_run(run_config))
    write_dataset(load_run(run_config), replace=True)
    tars = sorted(path.name for path in (run_config.parent / "dataset").glob("*.tar"))
    assert tars == ["test-00000.tar", "train-00000.tar", "val-00000.tar"]


def _damage_sample(root: Path, name: str) -> None:
    for tar in (root / "samples").glob("*.tar"):
        for member in list_tar(tar):
            if member.name == name:
                content = bytearray(tar.read_bytes())
                content[member.offset + member.size_bytes // 2] ^= 0xFF
                tar.write_bytes(content)


def test_damaged_image_is_left_out_with_its_reason(run_config: Path) -> None:
    _damage_sample(run_config.parent, "skimage-coffee-x60y80_02.png")
    write_dataset(load_run(run_config))
    manifest = read_json(run_config.parent / "dataset/manifest.json")
    assert manifest["counts"]["rejected"] == {"image damaged": 1}
    assert manifest["rejected"][0]["key"] == "skimage-coffee-x60y80_02"
    references = {r.key: r for r in iter_references(run_config.parent / "dataset")}
    assert set(references["skimage-coffee-x60y80"].test_pngs) == {"01", "03", "04", "05", "06"}


def test_too_many_missing_images_fail_with_the_histogram(run_config: Path) -> None:
    tar = run_config.parent / "samples/samples-00000.tar"
    write_tar(tar, [])
    with pytest.raises(DataError, match=r"36 of 72 test images.*not in its sample shard: 36"):
        write_dataset(load_run(run_config))
    assert not (run_config.parent / "dataset/manifest.json").exists()


def test_failed_images_keep_the_reason_of_sampling(run_config: Path) -> None:
    root = run_config.parent
    manifest = read_json(root / "samples/samples-00000.json")
    victim = "skimage-astronaut-x110y100_01"
    manifest["rejected"] = [{"key": victim, "reason": "not finite", "detail": ""}]
    (root / "samples/samples-00000.json").write_text(json.dumps(manifest))
    tar = root / "samples/samples-00000.tar"
    kept = []
    with tarfile.open(tar) as opened:
        for item in opened:
            if not item.name.startswith(victim):
                kept.append((item.name, opened.extractfile(item).read()))  # type: ignore[union-attr]
    write_tar(tar, kept)
    write_dataset(load_run(run_config))
    assert read_json(root / "dataset/manifest.json")["counts"]["rejected"] == {"not finite": 1}


def test_photograph_in_two_splits_is_refused(run_config: Path) -> None:
    path = run_config.parent / "crops/crops.parquet"
    crops = pl.read_parquet(path).with_row_index("i")
    crops.with_columns(
        split=pl.when(pl.col("i") == 0).then(pl.lit("test")).otherwise("split")
    ).drop("i").write_parquet(path)
    with pytest.raises(DataError, match=r"skimage-astronaut.*leak"):
        write_dataset(load_run(run_config))


def test_shards_of_an_earlier_plan_are_not_read(run_config: Path) -> None:
    root = run_config.parent
    for suffix in ("tar", "json"):
        stale = (root / f"samples/samples-00001.{suffix}").read_bytes()
        (root / f"samples/samples-00002.{suffix}").write_bytes(stale)
    write_dataset(load_run(run_config))
    assert read_json(root / "dataset/manifest.json")["counts"]["out"] == 70


def test_too_few_votes_and_too_few_tests(tmp_path: Path) -> None:
    config = make_run(tmp_path / "s", sections={"dataset": {"min_votes": 4}})
    with pytest.raises(DataError, match=r"no reference is left.*too few votes: 70"):
        write_dataset(load_run(config))
    config = make_run(tmp_path / "t", sections={"dataset": {"min_tests": 6}})
    write_dataset(load_run(config))
    counts = read_json(tmp_path / "t/dataset/manifest.json")["counts"]
    assert counts["references"] == 10
    assert counts["left_out"]["reference with too few tests"] == 2
    assert counts["in"] == counts["out"] + sum(counts["left_out"].values()) - 2


def test_unlabelled_images_can_be_published(tmp_path: Path) -> None:
    config = make_run(tmp_path / "s", sections={"dataset": {"include_unlabelled": True}})
    write_dataset(load_run(config))
    labels = [
        test["label"]
        for reference in iter_references(tmp_path / "s/dataset")
        for test in reference.record["tests"].values()
    ]
    assert len(labels) == 72
    assert labels.count(None) == 2


def test_missing_input_is_one_clear_line(tmp_path: Path) -> None:
    config = make_run(tmp_path / "s")
    (tmp_path / "s/annotations/labels.parquet").unlink()
    with pytest.raises(DataError, match=r"labels\.parquet: table of labels not found; run"):
        write_dataset(load_run(config))


def test_dry_run_writes_nothing(run_config: Path) -> None:
    write_dataset(load_run(run_config), dry_run=True)
    assert not (run_config.parent / "dataset").exists()


def test_limit_stops_early_and_is_not_done(run_config: Path) -> None:
    write_dataset(load_run(run_config), limit=3)
    folder = run_config.parent / "dataset"
    assert len(list(folder.glob("*.tar"))) == 1
    assert not (folder / "manifest.json").exists()


def test_split_digest_depends_on_the_split_only(written: Path) -> None:
    facts = read_json(written / "dataset/splits.json")
    assert facts["references"] == {"test": 2, "train": 8, "val": 2}
    assert facts["unit"] == "photo_id"
    table = pl.read_parquet(written / "dataset/splits.parquet")
    assert table.group_by("photo_id").agg(pl.col("split").n_unique())["split"].max() == 1


def test_lists_of_records_become_records_by_position() -> None:
    item = pl.Struct({"x": pl.Int64, "y": pl.String})
    kind = pl.Struct({"stages": pl.List(item), "name": pl.String, "sizes": pl.List(pl.Int64)})
    values = [
        {"stages": [{"x": 1, "y": None}, {"x": 2, "y": "b"}], "name": "two", "sizes": [3]},
        {"stages": [{"x": 3, "y": "c"}], "name": None, "sizes": []},
        None,
    ]
    rows = lists_to_records(pl.DataFrame({"d": values}, schema={"d": kind}))["d"].to_list()
    assert [without_nulls(row) for row in rows] == [
        {"stages": {"1": {"x": 1}, "2": {"x": 2, "y": "b"}}, "name": "two", "sizes": [3]},
        {"stages": {"1": {"x": 3, "y": "c"}}, "sizes": []},
        None,
    ]
