"""Sources, examples and roles: what the nets are shown."""

from pathlib import Path

import numpy as np
import pytest

from enhancer.config import SourceConfig, TrainConfig
from enhancer.train.examples import apply_roles, make_example
from enhancer.train.loader import Layout, batches
from enhancer.train.sources import ImageSource, open_source, pick
from runtime.errors import DataError
from runtime.images import ImageU8, encode_png, to_image01
from runtime.seeds import rng
from runtime.tars import write_tar


def source(name: str, images: list[ImageU8], weight: float = 1.0, **more: object) -> ImageSource:
    keys = [str(number) for number in range(len(images))]
    return ImageSource(name, weight, keys, lambda number: images[number], **more)


@pytest.fixture
def photo(photo_u8: np.ndarray) -> ImageU8:
    return photo_u8[:200, :260]


def small(**values: object) -> TrainConfig:
    return TrainConfig(crop_px=64, steps=2, batch_size=8, workers=0, **values)


def test_release_roles_leave_the_target_clean(photo: ImageU8) -> None:
    crop = photo[:64, :64]
    latent, condition = apply_roles(crop, small(), is_degraded=True, seed=1)
    assert np.array_equal(latent, crop)
    assert np.abs(condition - to_image01(crop)).max() > 0.02
    assert np.array_equal(condition, to_image01(np.rint(condition * 255).astype(np.uint8)))


def test_paper_roles_are_the_reverse(photo: ImageU8) -> None:
    crop = photo[:64, :64]
    latent, condition = apply_roles(crop, small(roles="paper"), is_degraded=True, seed=1)
    assert not np.array_equal(latent, crop)
    assert np.array_equal(condition, to_image01(crop))


def test_clean_input_is_resampled_or_untouched(photo: ImageU8) -> None:
    crop = photo[:64, :64]
    _, untouched = apply_roles(crop, small(clean_input="untouched"), is_degraded=False, seed=1)
    assert np.array_equal(untouched, to_image01(crop))
    _, resampled = apply_roles(crop, small(), is_degraded=False, seed=1)
    difference = np.abs(resampled - to_image01(crop))
    assert 0 < difference.mean() < 0.05


def test_half_of_the_examples_are_degraded(photo: ImageU8) -> None:
    sources = [source("a", [photo])]
    config = small(degradation="diffiqa")
    degraded = [
        make_example(sources, config, run_seed=1, step=0, index=index).is_degraded
        for index in range(200)
    ]
    assert 75 <= sum(degraded) <= 125


def test_sources_are_drawn_by_weight(photo: ImageU8) -> None:
    sources = [source("a", [photo] * 3), source("b", [photo], weight=3.0)]
    names = [pick(sources, rng(0, "test", n)).source.name for n in range(1000)]
    assert 700 <= names.count("b") <= 800


def test_example_depends_on_step_and_index_only(photo: ImageU8) -> None:
    sources = [source("a", [photo])]
    one, again, other = (
        make_example(sources, small(), run_seed=1, step=3, index=index) for index in (5, 5, 6)
    )
    assert np.array_equal(one.condition01, again.condition01)
    assert one.seed == again.seed != other.seed


@pytest.mark.parametrize("workers", [0, 3])
def test_every_layout_gives_the_same_batch(photo: ImageU8, workers: int) -> None:
    sources = [source("a", [photo])]
    config = small().model_copy(update={"workers": workers})

    def keys_and_seeds(layouts: list[Layout]) -> set[tuple[str, int]]:
        return {
            (example.key, example.seed)
            for layout in layouts
            for batch in batches(sources, config, layout, run_seed=1, first_step=1, last_step=2)
            for example in batch.examples
        }

    whole = keys_and_seeds([Layout(0, 1, 8, 1)])
    assert len(whole) == 8
    assert keys_and_seeds([Layout(0, 1, 2, 4)]) == whole
    assert keys_and_seeds([Layout(rank, 2, 2, 2) for rank in (0, 1)]) == whole


def test_small_images_are_enlarged_and_ffhq_resized(photo: ImageU8) -> None:
    tiny = [source("a", [photo[:40, :50]])]
    assert make_example(tiny, small(), run_seed=1, step=0, index=0).latent_u8.shape == (64, 64, 3)
    ffhq = [source("a", [photo], short_side_px=(70, 90))]
    sides = {
        int(
            make_example(ffhq, small(), run_seed=1, step=0, index=i).key.split("@")[1].split("x")[0]
        )
        for i in range(20)
    }
    assert len(sides) > 3
    assert min(sides) >= 70
    assert max(sides) <= 90


def test_folder_with_a_bad_image(tmp_path: Path, photo: ImageU8) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/good.png").write_bytes(encode_png(np.ascontiguousarray(photo)))
    (tmp_path / "bad.png").write_bytes(b"not an image")
    opened = open_source(SourceConfig(name="a", path=str(tmp_path)))
    assert opened.keys == ["bad.png", "deep/good.png"]
    examples = [
        make_example([opened], small(), run_seed=1, step=0, index=index) for index in range(20)
    ]
    assert all("good.png" in example.key for example in examples)
    skipped = [key for example in examples for key, _ in example.skipped]
    assert skipped
    assert set(skipped) == {"a/bad.png"}


def test_webdataset_shards_are_read_in_place(tmp_path: Path, photo: ImageU8) -> None:
    image = np.ascontiguousarray(photo)
    write_tar(tmp_path / "a-0.tar", [("x.json", b"{}"), ("x.png", encode_png(image))])
    opened = open_source(SourceConfig(name="a", path=str(tmp_path), kind="webdataset"))
    assert opened.keys == ["a-0.tar/x.png"]
    assert np.array_equal(opened.load(0), image)


def test_empty_and_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        open_source(SourceConfig(name="a", path=str(tmp_path)))
    with pytest.raises(DataError, match="not a folder"):
        open_source(SourceConfig(name="a", path=str(tmp_path / "none")))


def test_only_bad_images_end_the_training(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    opened = open_source(SourceConfig(name="a", path=str(tmp_path)))
    with pytest.raises(DataError, match="in a row"):
        make_example([opened], small(), run_seed=1, step=0, index=0)
