"""Readers of image databases, on small trees in their official form, quirks included."""

import json
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from afine.databases.diffiqa import majority, read_released
from afine.databases.listed import read_csiq, read_kadid10k, read_pipal, read_tid2013
from afine.databases.sriqa import read_sriqa
from afine.triplets.splits import Shares, Splits, draw_split
from afine.triplets.stage import run_triplets
from runtime.errors import DataError


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (32, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng([seed, len(path.name)])
    assert cv2.imwrite(str(path), draw.integers(0, 256, (*size, 3), dtype=np.uint8))


def make_tid2013(root: Path, contents: int = 3) -> Path:
    """Upper case in the list, lower on disk; the last reference's file is lower case."""
    lines = []
    for content in range(1, contents + 1):
        name = f"i{content:02}.bmp" if content == contents else f"I{content:02}.BMP"
        picture(root / "reference_images" / name, content)
        for kind in (1, 2):
            for level in (1, 2):
                picture(root / f"distorted_images/i{content:02}_{kind:02}_{level}.bmp", level)
                lines.append(f"{6 - level - kind / 10:.5f} I{content:02}_{kind:02}_{level}.bmp")
    (root / "mos_with_names.txt").write_text("\r\n".join(lines) + "\r\n")
    return root


def make_kadid10k(root: Path, contents: int = 3) -> Path:
    lines = ["dist_img,ref_img,dmos,var"]
    for content in range(1, contents + 1):
        picture(root / "images" / f"I{content:02}.png", content)
        for level in (1, 2, 3):
            picture(root / "images" / f"I{content:02}_01_{level:02}.png", level)
            lines.append(f"I{content:02}_01_{level:02}.png,I{content:02}.png,{5 - level},0.4")
    (root / "dmos.csv").write_text("\n".join(lines) + "\n")
    return root


def make_pipal(root: Path, contents: int = 3) -> Path:
    for content in range(1, contents + 1):
        ref = f"A{content:04}"
        picture(root / "Train_Ref" / f"{ref}.bmp", content)
        lines = []
        for kind in (0, 1):
            name = f"{ref}_{kind:02}_00.bmp"
            picture(root / f"Distortion_{kind + 1}" / name, kind)
            lines.append(f"{name}, {1400 + 10 * kind}.5")
        (root / "Train_Label").mkdir(parents=True, exist_ok=True)
        (root / "Train_Label" / f"{ref}.txt").write_text("\n".join(lines) + "\n")
    return root


def make_csiq(root: Path) -> Path:
    lines = []
    for content in ("1600", "boston"):
        picture(root / "src_imgs" / f"{content}.png")
        for folder, token, dmos in (("awgn", "AWGN", 0.062), ("jpeg2000", "jpeg2000", 0.5)):
            picture(root / "dst_imgs" / folder / f"{content}.{token}.1.png")
            lines.append(f"{content}.{token.lower()}.1{'.png' if folder == 'awgn' else ''} {dmos}")
    (root / "csiq_label.txt").write_text("\n".join(lines) + "\n")
    return root


def make_sriqa(root: Path, contents: int = 2) -> Path:
    methods = ["SwinIRx4", "RealESRNetx4", "SeeSRx4"]
    for content in range(1, contents + 1):
        key = f"srtest{content}"
        for n, method in enumerate(methods):
            picture(root / "images" / method.removesuffix("x4") / f"{key}_{method}.png", n)
        picture(root / "images" / "Original" / f"{key}_Original.png", 9)
        picture(root / "LRImages" / f"{key}_Original.png", 8)
        rated = {"SwinIRx4": 0.0, "RealESRNetx4": 20.5, "SeeSRx4": 100.0, "Original": 86.25}
        for folder, some in (("MOS", rated), ("MOS_Reg", {k: rated[k] for k in
                             ("SwinIRx4", "RealESRNetx4", "Original")})):  # fmt: skip
            (root / folder).mkdir(exist_ok=True)
            lines = [f"{key}_{m}.png,{v}" for m, v in sorted(some.items(), key=lambda i: -i[1])]
            (root / folder / f"{key}.txt").write_text("\n".join(lines) + "\n")
    return root


def make_released(root: Path) -> Path:
    for split, contents in (("Train", 3), ("Validation", 1), ("Test", 2)):
        for content in range(contents):
            stem = f"00000{content}x{len(split)}y770"
            picture(root / split / "images" / "Original" / f"{stem}.png", content)
            for k in (1, 2, 3):
                name = f"{stem}_{k:02}.png"
                picture(root / split / "images" / f"{k:02}" / name, k)
                votes = {1: ("Positive",) * 3, 2: ("Negative", "Negative", "Similar"),
                         3: ("Positive", "Similar", "Negative")}[k]  # fmt: skip
                for slot, label in zip("ABC", votes, strict=True):
                    below = "trainlabel/labels" if split == "Train" else "labels"
                    path = root / split / below / slot / f"{k:02}" / f"{stem}_{k:02}.json"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(
                        json.dumps(
                            {
                                "Picture_AI": {"Name": name, "File": f"{k:02}", "Label": label},
                                "picture_Original": {"Name": f"{stem}.png", "Label": None},
                            }
                        )
                    )
    return root


def test_tid2013_names_are_found_in_any_case(tmp_path):
    found = read_tid2013(make_tid2013(tmp_path))
    refs = {r.content: r.file for r in found.records if r.is_ref}
    assert refs == {
        "i01": "reference_images/I01.BMP",
        "i02": "reference_images/I02.BMP",
        "i03": "reference_images/i03.bmp",
    }
    one = next(r for r in found.records if r.image == "i01_01_1.bmp")
    assert one.quality == pytest.approx(4.9) and not found.rejected


def test_kadid_and_pipal_are_higher_is_better(tmp_path):
    kadid = read_kadid10k(make_kadid10k(tmp_path / "k"))
    assert {r.quality for r in kadid.records if not r.is_ref} == {4.0, 3.0, 2.0}
    pipal = read_pipal(make_pipal(tmp_path / "p"))
    one = next(r for r in pipal.records if r.image == "A0001_01_00.bmp")
    assert one.quality == 1410.5 and one.file == "Distortion_2/A0001_01_00.bmp"


def test_csiq_is_turned_round(tmp_path):
    found = read_csiq(make_csiq(tmp_path))
    quality = {r.image: r.quality for r in found.records if not r.is_ref}
    assert quality["1600.AWGN.1.png"] == -0.062 and quality["boston.jpeg2000.1.png"] == -0.5


def test_sriqa_kinds_and_folder_quirk(tmp_path):
    root = make_sriqa(tmp_path)
    found = read_sriqa(root)
    assert len(found.records) == 8
    ref = next(r for r in found.records if r.is_ref)
    assert ref.quality == 86.25 and ref.file == "images/Original/srtest1_Original.png"
    assert len(read_sriqa(root, "regression").records) == 6


def test_released_diffiqa(tmp_path):
    found = read_released(make_released(tmp_path))
    tests = [r for r in found.records if not r.is_ref]
    assert {r.split for r in tests} == {"train", "val", "test"}
    assert sorted({(r.image[-6:-4], r.label) for r in tests}) == [("01", 1), ("02", -1)]
    assert len(found.rejected) == 6 and found.rejected[0][1] == "outlier"
    assert majority(["Similar", "Negative", "Negative"]) == -1


def test_all_sets_form_triplets(make_run, tmp_path):
    data = {
        "use_run": False,
        "diffiqa": str(make_released(tmp_path / "diffiqa")),
        "tid2013": str(make_tid2013(tmp_path / "PIPAL_and_SDIQA" / "tid", 10)),
        "kadid10k": str(make_kadid10k(tmp_path / "kadid", 10)),
        "pipal": str(make_pipal(tmp_path / "pipal", 10)),
        "csiq": str(make_csiq(tmp_path / "csiq")),
        "sriqa": str(make_sriqa(tmp_path / "sriqa")),
    }
    run = make_run(data=data)
    run_triplets(run)
    folder = run.root / "afine"
    tables = {
        s: pl.read_parquet(folder / f"triplets-{s}.parquet") for s in ("train", "val", "test")
    }
    counts = {s: dict(t.group_by("set").len().iter_rows()) for s, t in tables.items()}
    # n = 5 images with the reference: round(log2 5) = 2 partners each
    assert counts["train"] == {"diffiqa": 9, "kadid10k": 56, "pipal": 42, "tid2013": 70}
    assert counts["val"] == {"diffiqa": 3, "kadid10k": 8, "pipal": 6, "tid2013": 10}
    assert counts["test"]["sriqa"] == 2 * (6 + 3) and counts["test"]["csiq"] == 2 * 6
    assert set(tables["test"].filter(pl.col("set") == "sriqa")["kind"]) == {"all", "regression"}
    splits = json.loads((folder / "splits.json").read_text())
    assert sorted(splits) == ["kadid10k", "pipal", "tid2013"]
    assert [len(splits["pipal"][s]) for s in ("train", "val", "test")] == [7, 1, 2]
    bmp = tables["train"].filter(pl.col("set") == "tid2013")["ref"]
    assert all(name.lower().endswith(".bmp") for name in bmp)
    manifest = json.loads((folder / "triplets.manifest.json").read_text())
    assert manifest["counts"]["rejected"] == {}


def test_splits_are_kept_and_checked(tmp_path):
    names = [f"c{n}" for n in range(20)]
    shares = Shares(0.7, 0.2)
    one = draw_split(names, seed=1, set_name="pipal", shares=shares)
    assert one == draw_split(reversed(names), seed=1, set_name="pipal", shares=shares)
    assert one != draw_split(names, seed=2, set_name="pipal", shares=shares)
    assert sorted(one["train"] + one["val"] + one["test"]) == sorted(names)
    first = Splits(None)
    first.split_of("pipal", names, seed=1, shares=shares)
    assert Splits(None).split_of("pipal", names, seed=99, shares=shares) != splits_by_name(one)
    file = tmp_path / "splits.json"
    file.write_text(json.dumps(first.used))
    assert Splits(file).split_of("pipal", names, seed=99, shares=shares) == splits_by_name(one)
    with pytest.raises(DataError, match="other contents"):
        Splits(file).split_of("pipal", names[1:], seed=1, shares=shares)


def splits_by_name(split):
    return {name: part for part in ("train", "val", "test") for name in split[part]}


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "expected an object"), ('{"pipal": {"train": []}}', "'pipal' has no contents_sha256")],
)
def test_other_files_are_refused_as_splits(tmp_path, content, message):
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(DataError, match=rf"mine\.json.*{message}"):
        Splits(file)


@pytest.mark.parametrize(
    ("reader", "make", "label", "change", "message"),
    [
        (read_tid2013, make_tid2013, "mos_with_names.txt", lambda t: t + "1.5 I01_01_1.bmp\n",
         r"mos_with_names.txt:13: 'I01_01_1.bmp' is listed twice \(first on line 1\)"),
        (read_tid2013, make_tid2013, "mos_with_names.txt",
         lambda t: t.replace("\n", "\nI01.bmp\n", 1), r":2: 'I01.bmp', expected a score"),
        (read_kadid10k, make_kadid10k, "dmos.csv", lambda t: t.replace(",4,", ",,", 1),
         r"dmos.csv:2: '' is no score"),
        (read_kadid10k, make_kadid10k, "dmos.csv", lambda t: t.replace("dmos", "score"),
         r"dmos.csv:1: header"),
        (read_kadid10k, make_kadid10k, "dmos.csv", lambda t: t.replace(",4,", ",nan,", 1),
         r"dmos.csv:2: score nan is not finite"),
        (read_pipal, make_pipal, "Train_Label/A0002.txt", lambda t: t.replace(", 1400.5", ""),
         r"A0002.txt:1: 'A0002_00_00.bmp', expected"),
        (read_sriqa, make_sriqa, "MOS/srtest1.txt", lambda t: t.replace("Original", "Origin"),
         r"the original 'srtest1_Original.png' is not rated"),
    ],
)  # fmt: skip
def test_bad_labels_name_file_and_line(tmp_path, reader, make, label, change, message):
    root = make(tmp_path)
    text = (root / label).read_text()
    (root / label).write_text(change(text))
    with pytest.raises(DataError, match=message):
        reader(root)


def test_a_missing_image_is_rejected_not_skipped(make_run, tmp_path):
    root = make_kadid10k(tmp_path / "kadid", 10)
    (root / "images" / "I02_01_01.png").unlink()
    run = make_run(data={"use_run": False, "kadid10k": str(root)},
                   triplets={"max_failure_fraction": 0.1})  # fmt: skip
    run_triplets(run)
    manifest = json.loads((run.root / "afine/triplets.manifest.json").read_text())
    assert manifest["counts"]["rejected"] == {"missing": 1}
    assert manifest["rejected"][0]["key"] == "kadid10k/I02_01_01.png"


def test_an_image_of_another_size_is_rejected(make_run, tmp_path):
    root = make_kadid10k(tmp_path / "kadid", 10)
    picture(root / "images" / "I02_01_01.png", 1, (32, 32))
    run = make_run(data={"use_run": False, "kadid10k": str(root)},
                   triplets={"max_failure_fraction": 0.1})  # fmt: skip
    run_triplets(run)
    row = json.loads((run.root / "afine/triplets.manifest.json").read_text())["rejected"][0]
    assert (row["reason"], row["detail"]) == ("size-differs", "32x32, its reference 48x32")


def test_ambiguous_and_missing_folders(tmp_path):
    root = make_tid2013(tmp_path / "tid")
    picture(root / "distorted_images" / "I01_01_1.bmp")
    with pytest.raises(DataError, match="same name but for case"):
        read_tid2013(root)
    with pytest.raises(DataError, match="not found"):
        read_kadid10k(tmp_path / "nowhere")
