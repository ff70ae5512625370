"""Every kind of bad input: its reason and count are reported, and the good votes are kept."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from annotation_import import diffiqa
from annotation_import.__main__ import main
from annotation_import.config import AnnotationsConfig
from annotation_import.export import mark_synthetic
from tests.annotation_import.trees import vote_json, write_votes

N_GOOD = 24  # votes of the fixture `tree`
FIRST = "labels/A/01/000006x0y770_01.json"
NEW = "labels/A/05/000006x0y770_05.json"


def run_import(source: Path, out: Path, *flags: str) -> dict[str, object]:
    code = main(
        ["import", "--layout", "diffiqa", "--source", str(source), "--out", str(out),
         "--max-failure-fraction", "0.2", *flags]
    )  # fmt: skip
    assert code == 0
    report: dict[str, object] = json.loads((out / "report.json").read_text())
    return report


def add(tree: Path, name: str, content: bytes | dict[str, object]) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def vote_of(number: str, label: str | None = "Positive") -> dict[str, object]:
    return vote_json("000006x0y770", number, label)


def without_pictures() -> dict[str, object]:
    return {"Time_cost": {"Total": 1.0}}


REJECTED: list[tuple[str, str, bytes | dict[str, object]]] = [
    ("malformed_json", NEW, b'{"Picture_AI": '),
    ("malformed_json", NEW, b""),
    ("malformed_json", NEW, b"[1, 2]"),
    ("malformed_json", NEW, b"\xff\xfe{}"),
    ("malformed_json", NEW, without_pictures()),
    ("missing_label", NEW, vote_of("05", None)),
    ("missing_label", NEW, vote_of("05", "  ")),
    ("wrong_label", NEW, vote_of("05", "Great")),
    ("wrong_label", NEW, json.dumps(vote_of("05")).replace('"Positive"', "1").encode()),
    ("name_mismatch", NEW, vote_of("06")),
    ("name_mismatch", NEW, vote_json("000007x0y770", "05", "Similar")),
    ("name_mismatch", "labels/A/05/000006x0y770.json", vote_of("05")),
    ("name_mismatch", "labels/A/05/0000_06_05.json", vote_json("0000_06", "05", "Similar")),
    ("unexpected_path", "labels/A/04/000006x0y770_05.json", vote_of("05")),
    ("unexpected_path", "labels/05/000006x0y770_05.json", vote_of("05")),
    ("unexpected_path", "000006x0y770_05.json", vote_of("05")),
    ("too_large", NEW, b" " * ((1 << 20) + 1)),
]


@pytest.mark.parametrize(("reason", "name", "content"), REJECTED)
def test_a_bad_file_is_left_out_with_its_reason(
    tree: Path, tmp_path: Path, reason: str, name: str, content: bytes | dict[str, object]
) -> None:
    add(tree, name, content)
    report = run_import(tree, tmp_path / "out")
    entry = report["problems"][reason]
    assert entry["is_rejected"] and entry["count"] == 1
    assert entry["examples"][0]["where"] == name
    assert report["votes"]["n"] == N_GOOD and report["votes"]["n_rejected"] == 1
    problems = pl.read_parquet(tmp_path / "out/problems.parquet")
    assert (reason, name) in set(problems.select("reason", "where").iter_rows())


def test_keys_and_answers_in_another_case_are_understood(tree: Path, tmp_path: Path) -> None:
    text = (tree / FIRST).read_text()
    text = text.replace("Picture_AI", "picture_ai").replace("picture_Original", "Picture_Original")
    (tree / FIRST).write_text(text.replace("Positive", " positive "))
    report = run_import(tree, tmp_path / "out")
    assert report["votes"]["n"] == N_GOOD and report["problems"] == {}


def test_a_byte_order_mark_is_noted_and_the_vote_kept(tree: Path, tmp_path: Path) -> None:
    add(tree, FIRST, b"\xef\xbb\xbf" + (tree / FIRST).read_bytes())
    report = run_import(tree, tmp_path / "out")
    assert report["problems"]["byte_order_mark"]["count"] == 1
    assert report["votes"]["n"] == N_GOOD


def test_a_bad_time_is_noted_and_the_vote_kept(tree: Path, tmp_path: Path) -> None:
    for number, total in (("01", "soon"), ("02", -1.0)):
        vote = vote_of(number)
        vote["Time_cost"] = {"Start": None, "End": None, "Total": total}
        add(tree, f"labels/A/{number}/000006x0y770_{number}.json", vote)
    report = run_import(tree, tmp_path / "out")
    assert report["problems"]["bad_time"]["count"] == 2
    assert pl.read_parquet(tmp_path / "out/votes.parquet")["time_s"].null_count() == 2


def test_a_missing_slot_is_noted_and_the_pair_has_too_few_votes(tree: Path, tmp_path: Path) -> None:
    (tree / FIRST).unlink()
    report = run_import(tree, tmp_path / "out")
    assert report["problems"]["missing_slot"]["examples"] == [
        {"where": "000006x0y770_01", "detail": "no vote in A"}
    ]
    outliers = pl.read_parquet(tmp_path / "out/outliers.parquet")
    reasons = dict(outliers.select("test_id", "reason").iter_rows())
    assert reasons["000006x0y770_01"] == "too_few_votes"
    assert run_import(tree, tmp_path / "two", "--min-votes", "2")["pairs"]["n_outliers"] == 2


def test_files_that_differ_only_in_case_are_all_left_out(tree: Path, tmp_path: Path) -> None:
    add(tree, FIRST.replace("x0y", "X0Y"), (tree / FIRST).read_bytes())
    report = run_import(tree, tmp_path / "out")
    assert report["problems"]["case_collision"]["count"] == 2
    assert report["votes"]["n"] == N_GOOD - 1


def test_one_image_spelled_in_two_cases_is_one_image(tmp_path: Path) -> None:
    root = write_votes(tmp_path / "tree", {"Abc_01": (1, 1, 1)})
    old = root / "labels/B/01/Abc_01.json"
    add(root, "labels/B/01/abc_01.json", json.loads(old.read_text().replace("Abc", "abc")))
    old.unlink()
    assert run_import(root, tmp_path / "out")["pairs"]["n"] == 1


def test_unknown_and_unvoted_images(tree: Path, tmp_path: Path) -> None:
    names = [f"000006x0y770_{k}.png" for k in ("01", "02", "03", "04")]
    names += [f"0339x403y1179_{k}.png" for k in ("02", "03", "04", "05")]
    listing = tmp_path / "images.txt"
    listing.write_text("\n".join(names).upper().replace(".PNG", ".png"))
    report = run_import(tree, tmp_path / "out", "--images", str(listing))
    assert report["problems"]["unknown_image"]["count"] == 3
    assert report["problems"]["unvoted_image"]["examples"] == [
        {"where": "0339x403y1179_05", "detail": ""}
    ]
    assert report["votes"]["n"] == N_GOOD - 3


def test_a_link_loop_ends(tree: Path, tmp_path: Path) -> None:
    (tree / "labels/A/again").symlink_to(tree, target_is_directory=True)
    (tree / "labels/A/self").symlink_to("self")
    (tree / "labels/A/01/gone.json").symlink_to("nowhere.json")
    report = run_import(tree, tmp_path / "out")
    assert report["problems"]["symlink_loop"]["count"] == 2
    assert report["problems"]["unreadable"]["count"] == 1
    assert report["votes"]["n"] == N_GOOD


def test_several_processes_find_the_same(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reason, name, content in REJECTED[-6:]:
        add(tree, f"{reason}/{name}", content)
    (tree / "labels/A/again").symlink_to(tree, target_is_directory=True)
    mark_synthetic(tree)
    flags = ("--max-failure-fraction", "0.5")
    run_import(tree, tmp_path / "one", *flags)
    monkeypatch.setattr(diffiqa, "_FILES_WITHOUT_PROCESSES", 3)
    run_import(tree, tmp_path / "two", *flags)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    assert pl.read_parquet(tmp_path / "two/votes.parquet")["is_synthetic"].all()


def pack_zip(tree: Path, path: Path, extra: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(tree.rglob("*.json")):
            archive.write(file, file.relative_to(tree))
        for name, content in extra.items():
            archive.writestr(name, content)
    return path


def pack_tar(tree: Path, path: Path, extra: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        archive.add(tree, arcname="DiffIQA")
        for name, content in extra.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("pack", "name"), [(pack_zip, "a.zip"), (pack_tar, "a.tar.gz"), (pack_tar, "a.tar")]
)
def test_an_archive_gives_the_same_labels_and_writes_nowhere_else(
    tree: Path, tmp_path: Path, pack: Callable[[Path, Path, dict[str, bytes]], Path], name: str
) -> None:
    vote = (tree / FIRST).read_bytes()
    bad = {"../outside/A/01/x_01.json": vote, "/etc/A/01/x_01.json": vote}
    archive = pack(tree, tmp_path / name, bad)
    before = set(tmp_path.rglob("*"))
    report = run_import(archive, tmp_path / "out")
    assert report["problems"]["unsafe_member"]["count"] == 2
    assert report["votes"]["n"] == N_GOOD
    outside = {path for path in set(tmp_path.rglob("*")) - before if tmp_path / "out" not in
               (path, *path.parents)}  # fmt: skip
    assert outside == set() and not (tmp_path.parent / "outside").exists()
    run_import(tree, tmp_path / "plain")
    assert (tmp_path / "out/labels.parquet").read_bytes() == (
        tmp_path / "plain/labels.parquet"
    ).read_bytes()


def test_links_in_a_tar_are_not_followed(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(tree, arcname="tree")
        link = tarfile.TarInfo("tree/labels/A/05/000006x0y770_05.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    report = run_import(path, tmp_path / "out")
    assert report["problems"]["unsafe_member"]["count"] == 1


def test_a_member_given_twice_is_a_duplicate_vote(tree: Path, tmp_path: Path) -> None:
    second = json.dumps(vote_of("01", "Negative")).encode()
    path = pack_tar(tree, tmp_path / "twice.tar", {f"DiffIQA/{FIRST}": second})
    report = run_import(path, tmp_path / "out")
    assert report["problems"]["duplicate_vote"]["count"] == 1
    votes = pl.read_parquet(tmp_path / "out/votes.parquet")
    kept = votes.filter((pl.col("test_id") == "000006x0y770_01") & (pl.col("slot") == "A"))
    assert kept["label"].to_list() == [1], "the first one is kept"


def test_a_cut_archive_is_one_clear_line(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = pack_tar(tree, tmp_path / "cut.tar.gz", {})
    whole.write_bytes(whole.read_bytes()[:400])
    code = main(["import", "--layout", "diffiqa", "--source", str(whole), "--out", str(tmp_path)])
    assert code == 2 and "not a readable tar" in capsys.readouterr().err
    assert not (tmp_path / "labels.parquet").exists()


def test_too_many_bad_votes_fail_with_the_histogram_and_leave_nothing(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in ("05", "06"):
        add(tree, f"labels/A/{number}/x_{number}.json", b"{")
    out = tmp_path / "out"
    assert main(["import", "--layout", "diffiqa", "--source", str(tree), "--out", str(out)]) == 2
    assert "2 of 26 votes were rejected (malformed_json: 2" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("layout", ["diffiqa", "sriqa", "hggt", "table"])
def test_an_empty_source_is_an_error(tmp_path: Path, layout: str) -> None:
    (tmp_path / "empty").mkdir()
    command = ["import", "--layout", layout, "--source", str(tmp_path / "empty")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    command[-1] = str(tmp_path / "absent")
    assert main([*command, "--out", str(tmp_path / "out")]) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_recorded(tree: Path, tmp_path: Path) -> None:
    (tree / FIRST).chmod(0)
    assert run_import(tree, tmp_path / "out")["problems"]["unreadable"]["count"] == 1


def test_a_table_under_a_tree_layout_is_refused_by_the_configuration() -> None:
    with pytest.raises(ValueError, match=r"'v.CSV' is a table, but layout is 'hggt'"):
        AnnotationsConfig(source="v.CSV", layout="hggt")
