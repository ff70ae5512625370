"""Where training images come from: the run's crops, folders, or WebDataset shards.

Every training example draws its image from its own generator, by source weight and then
uniformly, so which images step n sees depends on nothing but the seed and n.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import cv2
import numpy as np

from enhancer.config import SourceConfig
from enhancer.crops import CropRow
from runtime.errors import DataError
from runtime.images import ImageU8, decode_png
from runtime.tars import list_tar, read_member

_log = logging.getLogger(__name__)
_IMAGE_EXTENSIONS = {"png", "jpg", "jpeg", "webp", "bmp"}


@dataclass(frozen=True)
class ImageSource:
    """One set of images.

    Attributes:
        name: short name.
        weight: relative share of the training examples.
        keys: one key an image.
        load: reads image number n, RGB uint8 [H, W, 3]; raises DataError if unreadable.
        short_side_px: range to which the short side is resized, if any.
    """

    name: str
    weight: float
    keys: Sequence[str]
    load: Callable[[int], ImageU8]
    short_side_px: tuple[int, int] | None = None


@dataclass(frozen=True)
class Picked:
    """One image of one source."""

    source: ImageSource
    number: int

    @property
    def key(self) -> str:
        """Source and key of the image."""
        return f"{self.source.name}/{self.source.keys[self.number]}"

    def load(self) -> ImageU8:
        """Read the image."""
        return self.source.load(self.number)


def pick(sources: Sequence[ImageSource], generator: np.random.Generator) -> Picked:
    """Draw an image: a source by its weight, then one of its images uniformly."""
    bounds = list(accumulate(source.weight for source in sources))
    chosen = int(np.searchsorted(bounds, generator.random() * bounds[-1], side="right"))
    source = sources[min(chosen, len(sources) - 1)]
    return Picked(source, int(generator.integers(len(source.keys))))


def crops_source(rows: Sequence[CropRow]) -> ImageSource:
    """Use the run's crops; they are small enough to be kept in memory once read."""
    kept: dict[int, ImageU8] = {}

    def load(number: int) -> ImageU8:
        if number not in kept:
            kept[number] = rows[number].read()
        return kept[number]

    return ImageSource("crops", 1.0, [row.crop_id for row in rows], load)


def open_source(config: SourceConfig) -> ImageSource:
    """List a configured source.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    folder = Path(config.path).expanduser()
    if not folder.is_dir():
        raise DataError(f"enhancer.train.sources '{config.name}': {folder} is not a folder")
    listed = _list_shards(folder) if config.kind == "webdataset" else _list_files(folder, config)
    listed = listed[: config.max_images]
    if not listed:
        raise DataError(
            f"enhancer.train.sources '{config.name}': no images in {folder} "
            f"({config.kind}); check path and globs"
        )
    _log.info("source %s: %d images, weight %g", config.name, len(listed), config.weight)
    keys = [key for key, _ in listed]
    loads = [load for _, load in listed]
    return ImageSource(
        config.name, config.weight, keys, lambda number: loads[number](), config.short_side_px
    )


def _list_files(folder: Path, config: SourceConfig) -> list[tuple[str, Callable[[], ImageU8]]]:
    found = {path for glob in config.globs for path in folder.glob(glob) if path.is_file()}
    return [
        (path.relative_to(folder).as_posix(), partial(_read_file, path)) for path in sorted(found)
    ]


def _list_shards(folder: Path) -> list[tuple[str, Callable[[], ImageU8]]]:
    listed: list[tuple[str, Callable[[], ImageU8]]] = []
    for tar in sorted(folder.glob("*.tar")):
        for member in list_tar(tar):
            if member.name.rpartition(".")[2].lower() in _IMAGE_EXTENSIONS:
                key = f"{tar.name}/{member.name}"
                read = partial(read_member, tar, member)
                listed.append((key, partial(_read_content, read, f"{tar}: {member.name}")))
    return listed


def _read_content(read: Callable[[], bytes], where: str) -> ImageU8:
    return decode_png(read(), where=where)


def _read_file(path: Path) -> ImageU8:
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if decoded is None:
        raise DataError(f"{path}: not a readable image ({content.size} bytes)")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
