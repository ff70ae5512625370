"""Keys, listing, geometry, duplicates, choice and splits."""

import os
from itertools import pairwise

import numpy as np
import pytest

from crop.config import CropConfig, SourceConfig, SplitConfig
from crop.duplicates import dropped_by, find_duplicates, groups_of
from crop.geometry import crop_positions
from crop.keys import crop_key, photo_key
from crop.listing import list_photos, source_folder
from crop.photograph import perceptual_hash
from crop.quality import measure_texture, to_grey
from crop.selection import assign_splits, spread_evenly
from runtime.errors import ConfigError
from runtime.seeds import rng


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("0339.png", "df2k-0339"),
        ("a/b/IMG_20.01 (1).JPG", "df2k-img-20-01-1"),
        ("Café Ünïcode.png", "df2k-cafe-unicode"),
        ("__.png", None),
        ("照片1.jpg", None),
        ("x" * 250 + ".jpg", None),
    ],
)
def test_photo_keys(path, key):
    found = photo_key("df2k", path)
    assert key is None or found == key
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(crop_key(found, 99999, 99999)) + len("_06.png") < 100


def test_lost_letters_stay_apart():
    assert photo_key("s", "照片1.jpg") != photo_key("s", "图1.jpg")
    assert photo_key("s", "y" * 200 + "a.jpg") != photo_key("s", "y" * 200 + "b.jpg")


def test_key_is_row_then_column():
    assert crop_key("df2k-0339", 403, 1179) == "df2k-0339-x403y1179"


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def paths_of(listing):
    return [photo.path for photo in listing.photos]


def test_globs_are_recursive_and_ignore_case(tmp_path):
    touch(tmp_path, "b.JPG", "a.png", "sub/deep/c.Tiff", "notes.txt", "sub/d.webp")
    listing = list_photos([SourceConfig(name="s", path=str(tmp_path))])
    assert paths_of(listing) == ["a.png", "b.JPG", "sub/d.webp", "sub/deep/c.Tiff"]
    flat = list_photos([SourceConfig(name="s", path=str(tmp_path), globs=("*.jpg", "?.png"))])
    assert paths_of(flat) == ["a.png", "b.JPG"]


def test_limit_and_list_file(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "list.txt").write_text("# chosen\nc.png\n\nmissing.png\na.png\n../a.png\n")
    limited = list_photos([SourceConfig(name="s", path=str(tmp_path), limit=2)])
    assert paths_of(limited) == ["a.png", "b.png"]
    listed = list_photos(
        [SourceConfig(name="s", path=str(tmp_path), list_file=str(tmp_path / "list.txt"))]
    )
    assert paths_of(listed) == ["c.png", "a.png"]
    assert [(item.reason, item.path) for item in listed.rejected] == [
        ("missing", "missing.png"), ("missing", "../a.png"),
    ]  # fmt: skip


def test_collision_names_both_files(tmp_path):
    touch(tmp_path, "a b.png", "a_b.png")
    listing = list_photos([SourceConfig(name="s", path=str(tmp_path))])
    assert paths_of(listing) == ["a b.png"]
    (rejected,) = listing.rejected
    assert rejected.reason == "key_collision" and rejected.path == "a_b.png"
    assert "'a b.png'" in rejected.detail


def test_symlink_loop_is_recorded_once(tmp_path):
    touch(tmp_path, "sub/a.png")
    (tmp_path / "sub" / "again").symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    listing = list_photos([SourceConfig(name="s", path=str(tmp_path))])
    assert sorted(paths_of(listing)) == ["self.png", "sub/a.png"]
    assert [(item.reason, item.path) for item in listing.rejected] == [
        ("symlink_loop", "sub/again")
    ]


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    touch(tmp_path, name)
    (photo,) = list_photos([SourceConfig(name="s", path=str(tmp_path))]).photos
    photo.path.encode("utf-8")
    assert photo.file.exists()


def test_sources_that_cannot_be_used(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        list_photos([SourceConfig(name="s", path=str(tmp_path / "none"))])
    with pytest.raises(ConfigError, match="no file in"):
        list_photos([SourceConfig(name="s", path=str(tmp_path))])
    with pytest.raises(ConfigError, match="names must differ"):
        list_photos([SourceConfig(name="s", path=".")] * 2)
    with pytest.raises(ConfigError, match="no installed package"):
        source_folder(SourceConfig(name="s", path="package:no.such.package"))


def test_package_source(photo_folder):
    assert source_folder(SourceConfig(name="s", path="package:skimage.data")) == photo_folder


@pytest.mark.parametrize("size", [(512, 512), (600, 3000), (2500, 1300), (4000, 6000)])
def test_neighbours_overlap_less_than_allowed(size):
    config = CropConfig()
    for seed in range(20):
        found = crop_positions(*size, config, rng(seed, "crop", "p"))
        rows = sorted({position.row for position in found})
        assert all(one + 512 - two < 128 for one, two in pairwise(rows))
        for row in rows:
            cols = [position.col for position in found if position.row == row]
            assert all(0 <= one + 512 - two < 128 for one, two in pairwise(cols))
            assert cols[-1] + 512 <= size[1]
        assert rows[-1] + 512 <= size[0]


def test_offsets_and_jitter_vary_with_the_photograph():
    config = CropConfig()
    sets = {tuple(crop_positions(3000, 3000, config, rng(1, "crop", str(i)))) for i in range(20)}
    assert len(sets) == 20
    firsts = [crop_positions(3000, 3000, config, rng(2, "crop", str(i)))[0].row for i in range(300)]
    assert min(firsts) < 5 and 59 < max(firsts) <= 64


def test_a_photograph_of_one_crop_gives_it():
    (position,) = crop_positions(512, 512, CropConfig(), rng(0, "crop", "p"))
    assert (position.row, position.col) == (0, 0)
    assert crop_positions(511, 4000, CropConfig(), rng(0, "crop", "p")) == []


def test_texture_is_the_release_scripts_measure(photo_u8):
    import cv2

    grey = to_grey(photo_u8)
    texture = measure_texture(grey)
    assert texture.grey_std == pytest.approx(grey.std(), rel=1e-6)
    assert texture.laplacian_var == pytest.approx(cv2.Laplacian(grey, cv2.CV_8U).var(), rel=1e-6)


def test_perceptual_hash_survives_jpeg_and_tells_photographs_apart(photo_u8):
    import cv2
    import skimage.data

    again = cv2.imdecode(cv2.imencode(".jpg", photo_u8, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1)
    half = cv2.resize(photo_u8, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    hashes = [perceptual_hash(image) for image in (photo_u8, again, half, skimage.data.coffee())]
    found = find_duplicates(list("abcd"), hashes, near_distance=6)
    assert {(pair.index, pair.of) for pair in found} == {(1, 0), (2, 0), (2, 1)}


def test_duplicates_over_blocks(monkeypatch):
    monkeypatch.setattr("crop.duplicates._BLOCK", 3)
    hashes = [f"{value:016x}" for value in (0, 2**40, 1, 2**63, 0, 2**63 + 1, 3)]
    sha = ["a", "b", "c", "d", "a", "e", "f"]
    pairs = find_duplicates(sha, hashes, near_distance=1)
    found = {(pair.index, pair.of): (pair.kind, pair.distance) for pair in pairs}
    assert found == {
        (1, 0): ("near", 1), (2, 0): ("near", 1), (3, 0): ("near", 1), (4, 0): ("exact", 0),
        (4, 1): ("near", 1), (4, 2): ("near", 1), (4, 3): ("near", 1), (5, 2): ("near", 1),
        (5, 3): ("near", 1), (6, 2): ("near", 1),
    }  # fmt: skip


def test_groups_are_transitive_but_dropping_is_not():
    hashes = [f"{value:016x}" for value in (0b0, 0b11, 0b1111, 0xFF00)]
    pairs = find_duplicates(list("abcd"), hashes, near_distance=2)
    assert groups_of(4, pairs) == [0, 0, 0, 3]
    assert set(dropped_by(pairs, drop_exact=True, drop_near=True)) == {1}
    assert dropped_by(pairs, drop_exact=True, drop_near=False) == {}


def test_spread_is_even_and_exact():
    available = {f"p{i}": count for i, count in enumerate((1, 5, 9, 9, 9, 0))}
    for target in range(40):
        kept = spread_evenly(available, target, seed=3)
        assert sum(kept.values()) == min(target, 33)
        assert all(kept[key] <= available[key] for key in kept)
        free = [kept[key] for key in kept if kept[key] < available[key]]
        assert not free or max(kept.values()) - min(free) <= 1


def test_splits_keep_groups_together_and_meet_the_shares():
    generator = np.random.default_rng(0)
    crops = {f"p{i:03}": int(generator.integers(1, 20)) for i in range(300)}
    groups = {key: f"g{int(key[1:]) // 2}" for key in crops}
    found = assign_splits(crops, groups, SplitConfig(), seed=1)
    for key in crops:
        assert found[key] == found[f"p{int(key[1:]) // 2 * 2:03}"]
    total = sum(crops.values())
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        have = sum(crops[key] for key in crops if found[key] == split)
        assert have / total == pytest.approx(share, abs=0.02)
    assert found != assign_splits(crops, groups, SplitConfig(), seed=2)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_few_photographs_fill_every_split(count):
    crops = {f"p{i}": 1 for i in range(count)}
    found = assign_splits(crops, {key: key for key in crops}, SplitConfig(), seed=0)
    assert set(found.values()) == {"train", "val", "test"}


def test_config_rules():
    with pytest.raises(ValueError, match="must be 1"):
        SplitConfig(train=0.5)
    with pytest.raises(ValueError, match="must not exceed size_px"):
        CropConfig(size_px=64)
