"""Pixels of the sets' images, from shards and folders alike."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import torch
from torch import Tensor

from afine.config import DataConfig
from runtime.errors import DataError
from runtime.images import ImageU8, decode_png

Key = tuple[str, str]  # (set, image)
_CACHE_BYTES = 1 << 30


class ImageStore:
    """Read images by set and name, with a bounded memory of decoded ones.

    Args:
        images: the table `afine/images.parquet`.
        folders: per set, what its files are relative to.
        cache_bytes: memory for decoded images.
        threads: decoders of `prefetch`; decoding runs beside Python code.
    """

    def __init__(
        self,
        images: pl.DataFrame,
        folders: Mapping[str, Path],
        *,
        cache_bytes: int = _CACHE_BYTES,
        threads: int = 1,
    ) -> None:
        self._folders = dict(folders)
        self._places: dict[Key, tuple[str, int, int]] = {
            (set_name, image): (file, offset, size)
            for set_name, image, file, offset, size in images.select(
                "set", "image", "file", "offset", "size_bytes"
            ).iter_rows()
        }
        self._cache: OrderedDict[Key, ImageU8] = OrderedDict()
        self._cached_bytes, self._limit_bytes = 0, cache_bytes
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._coming: dict[Key, Future[ImageU8]] = {}

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Begin to decode images that will be read next."""
        for key in keys:
            if key not in self._cache and key not in self._coming:
                self._coming[key] = self._decoders.submit(self._decode, key)

    def read(self, key: Key) -> ImageU8:
        """Return one image, uint8 [H, W, 3] RGB; treat it as read-only.

        Grey is replicated, alpha dropped, 16 bit reduced to 8, EXIF rotation applied.

        Raises:
            DataError: unknown, missing or unreadable.
        """
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        coming = self._coming.pop(key, None)
        image = self._decode(key) if coming is None else coming.result()
        self._cache[key] = image
        self._cached_bytes += image.nbytes
        while self._cached_bytes > self._limit_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes
        return image

    def _decode(self, key: Key) -> ImageU8:
        if key not in self._places:
            raise DataError(f"image '{key[1]}' of set '{key[0]}' is not in afine/images.parquet")
        file, offset, size_bytes = self._places[key]
        path = self._folders[key[0]] / file
        try:
            with open(path, "rb") as handle:
                if offset < 0:
                    return decode_png(handle.read(), where=str(path))
                handle.seek(offset)
                return decode_png(handle.read(size_bytes), where=f"{path}: {key[1]}")
        except FileNotFoundError:
            raise DataError(f"{path}: image not found; restore it or rerun the triplets") from None


def set_folders(root: Path, data: DataConfig) -> dict[str, Path]:
    """Folder of each configured set; this run's own set lies below the run."""
    folders = {name: Path(folder) for name, folder in data.named().items()}
    if data.use_run:
        folders["diffiqa"] = root
    return folders


def read_image_file(path: Path) -> ImageU8:
    """Read any image file as RGB; see `ImageStore.read` for what is converted.

    Raises:
        DataError: missing or unreadable.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: image not found") from None
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if decoded is None:
        raise DataError(f"{path}: not a readable image ({len(content)} bytes)")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def to_batch01(images: Sequence[ImageU8], device: torch.device) -> Tensor:
    """Stack images of one size to float32 [N, 3, H, W] in [0, 1]."""
    stacked = torch.from_numpy(np.stack(images)).to(device)
    return stacked.permute(0, 3, 1, 2).float().div_(255)
