"""The official layout: what is written, that it reads back, and what is refused."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from afine.databases.diffiqa import read_released
from afine.triplets.official import write_official
from afine.triplets.rules import labelled_triplets
from annotation_import.__main__ import main as read_votes
from runtime.errors import ConfigError, DataError
from shards.__main__ import main
from shards.official_export import export_official, vote_file
from shards.official_import import import_official
from shards.official_triplets import KINDS, triplet_lines
from shards.read import iter_references


@pytest.fixture(scope="module")
def exported(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("official") / "set"
    export_official(written / "dataset", out)
    return out


def test_names_and_places(exported: Path) -> None:
    stem = "skimage-coffee-x60y80"
    train = exported / "Train"
    assert (train / f"images/Original/{stem}.png").is_file()
    assert (train / f"images/02/{stem}_02.png").is_file()
    assert sorted(path.name for path in (train / "labels").iterdir()) == ["A", "B", "C"]
    assert {path.name for path in exported.iterdir()} == {
        "Train", "Validation", "Test", "SYNTHETIC.json",
    }  # fmt: skip


def test_vote_file_has_the_published_shape() -> None:
    published = {
        "Picture_AI": {
            "Name": "000006x0y770_01.png", "File": "01", "ImageSize": [], "Label": "Positive",
        },
        "picture_Original": {
            "Name": "000006x0y770.png", "File": "Original", "ImageSize": [], "Label": None,
        },
    }  # fmt: skip
    ours = vote_file("000006x0y770", "01", 1)
    assert {key: ours[key] for key in published} == published
    assert list(ours["Time_cost"]) == ["Start", "End", "Total"]


def test_majority_of_the_vote_files_is_the_label(exported: Path, written: Path) -> None:
    labels = pl.read_parquet(written / "dataset/labels.parquet")
    names = {"Positive": 1, "Similar": 0, "Negative": -1}
    folder = {"train": "Train", "val": "Validation", "test": "Test"}
    for test_id, label, split in labels.select("test_id", "label", "split").iter_rows():
        place = f"{test_id[-2:]}/{test_id}.json"
        votes = [
            names[json.loads(path.read_text())["Picture_AI"]["Label"]]
            for path in (exported / folder[split] / "labels").glob(f"*/{place}")
        ]
        assert len(votes) == 3
        assert max(set(votes), key=votes.count) == label


def test_triplets_are_those_of_the_afine_stage(
    exported: Path, written: Path, tmp_path: Path
) -> None:
    rows = []
    for reference in iter_references(written / "dataset", "train"):
        labels = {
            f"{reference.key}_{kk}.png": test["label"]
            for kk, test in reference.record["tests"].items()
        }
        rows += labelled_triplets(reference.key, f"{reference.key}.png", labels)
    files = write_official(tmp_path / "Triplet.txt", rows)
    for file in files:
        ours = "trainlabel/Triplet" if file.name == "Triplet.txt" else "TripletEachType"
        mine = (exported / "Train" / ours / file.name).read_text().splitlines()
        assert sorted(mine) == sorted(file.read_text().splitlines())


def test_triplets_equal_those_of_the_released_script(golden: Path) -> None:
    folder = golden / "afine/triplets"
    votes = json.loads((folder / "diffiqa_votes.json").read_text())
    names = {"Positive": 1, "Similar": 0, "Negative": -1}
    labels: dict[str, dict[str, int]] = {}
    for test_id, cast in votes.items():
        answer, count = Counter(cast).most_common(1)[0]
        if count > 1:
            stem, _, kk = test_id.partition("_")
            labels.setdefault(stem, {})[kk] = names[answer]
    lines = [row for stem, own in labels.items() for row in triplet_lines(stem, own)]
    released = (folder / "diffiqa_Triplet_canonical.txt").read_text().splitlines(keepends=True)
    assert sorted(line for _, line, _ in lines) == sorted(released)
    each_type = Counter(kind for kind, _, _ in lines)
    for kind in KINDS:
        assert each_type[kind] == len((folder / f"diffiqa_{kind}.txt").read_text().splitlines())


def test_our_readers_read_the_export(exported: Path, written: Path, tmp_path: Path) -> None:
    """The other stages' readers of the official layout find the same labels and votes."""
    arguments = ["import", "--layout", "diffiqa", "--source", str(exported), "--out"]
    assert read_votes([*arguments, str(tmp_path / "labels")]) == 0
    columns = ["test_id", "n_worse", "n_similar", "n_better", "label", "is_synthetic"]
    read = pl.read_parquet(tmp_path / "labels/labels.parquet").select(columns)
    ours = pl.read_parquet(written / "dataset/labels.parquet").select(columns)
    assert read.sort("test_id").rows() == ours.sort("test_id").rows()
    released = read_released(exported)
    assert not released.rejected
    assert sum(record.label is not None for record in released.records) == 70


def test_triplets_of_one_reference() -> None:
    lines = list(triplet_lines("s", {"01": -1, "03": 1, "04": 1, "05": 0, "06": 0}))
    kinds = [kind for kind, _, _ in lines]
    assert kinds.count("PNY") == 2
    assert kinds.count("SSY") == 1
    assert kinds.count("PYY") == 2
    assert "s_01.png,s_03.png,s.png,0,0,1\n" in [line for _, line, _ in lines]
    assert "s_01.png,s_03.png,s.png,0\n" in [line for _, _, line in lines]
    assert not any(line.startswith("s_03.png,s_04.png") for _, line, _ in lines)


def test_export_and_import_keep_images_labels_and_votes(
    exported: Path, written: Path, tmp_path: Path
) -> None:
    import_official(exported, [written / "dataset/labels.parquet"], tmp_path / "back")
    first = {r.key: r for r in iter_references(written / "dataset")}
    second = {r.key: r for r in iter_references(tmp_path / "back")}
    assert first.keys() == second.keys()
    for key, reference in first.items():
        assert second[key].split == reference.split
        assert second[key].reference_png == reference.reference_png
        assert second[key].test_pngs == reference.test_pngs
        for kk, test in reference.record["tests"].items():
            back = second[key].record["tests"][kk]
            assert {n: back[n] for n in ("label", "votes", "is_synthetic")} == {
                n: test[n] for n in ("label", "votes", "is_synthetic")
            }


def test_label_export_repeats_the_label(written: Path, tmp_path: Path) -> None:
    export_official(written / "dataset", tmp_path / "set", votes="label")
    name = "03/skimage-coffee-x60y80_03.json"
    for slot in "ABC":
        vote = json.loads((tmp_path / "set/Train/labels" / slot / name).read_text())
        assert vote["Picture_AI"]["Label"] == "Similar"


def test_export_refuses_a_full_folder_and_leaves_it(written: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="not an empty folder"):
        export_official(written / "dataset", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_interrupted_export_leaves_no_folder(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shards.official_export as export

    def fail(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_write_votes", fail)
    with pytest.raises(KeyboardInterrupt):
        export_official(written / "dataset", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    monkeypatch.undo()
    assert export_official(written / "dataset", tmp_path / "set")["images"] == 70


def test_import_refuses_what_it_cannot_read(written: Path, exported: Path, tmp_path: Path) -> None:
    labels = [written / "dataset/labels.parquet"]
    with pytest.raises(DataError, match="no such folder"):
        import_official(tmp_path / "nowhere", labels, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="Train/, Validation/ or Test/"):
        import_official(tmp_path / "empty", labels, tmp_path / "out")
    with pytest.raises(DataError, match="given twice"):
        import_official(exported, labels * 2, tmp_path / "out")
    with pytest.raises(ConfigError, match="at least 1"):
        import_official(exported, labels, tmp_path / "out", references_per_shard=0)
    broken = tmp_path / "broken/Train/images"
    for name in ("Original", "01"):
        (broken / name).mkdir(parents=True)
    source = exported / "Train/images"
    stem = "skimage-coffee-x60y80"
    content = (source / f"Original/{stem}.png").read_bytes()
    (broken / f"Original/{stem}.png").write_bytes(content)
    (broken / f"01/{stem}_01.png").write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"_01\.png: PNG ends early"):
        import_official(tmp_path / "broken", labels, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failed_import_leaves_the_users_folder_and_nothing_else(
    written: Path, exported: Path, tmp_path: Path
) -> None:
    labels = [written / "dataset/labels.parquet"]
    (tmp_path / "source").mkdir()
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError):
        import_official(tmp_path / "source", labels, tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "source"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not an empty folder"):
        import_official(exported, labels, tmp_path / "file")


def test_a_killed_import_is_done_again(written: Path, exported: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; import shards.official_import as at; "
        "at.sha256_file = lambda _: os._exit(9); "
        "source, labels, out = map(Path, sys.argv[1:]); at.import_official(source, [labels], out)"
    )
    labels, out = written / "dataset/labels.parquet", tmp_path / "back"
    killed = [sys.executable, "-c", code, str(exported), str(labels), str(out)]
    assert subprocess.run(killed, timeout=100).returncode == 9
    assert not out.exists() and list(tmp_path.iterdir())
    import_official(exported, [labels], out)
    assert list(tmp_path.iterdir()) == [out]
    assert len(list(iter_references(out))) == len(list(iter_references(written / "dataset")))


def test_command_line(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "set")
    assert main(["export", "--dataset", str(written / "dataset"), "--out", out]) == 0
    assert main(["export", "--dataset", str(tmp_path / "none"), "--out", out]) == 2
    with pytest.raises(SystemExit) as stopped:
        main(["write", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "python -m shards write --config results/demo/config.resolved.json" in shown
    assert "dataset/" in shown
