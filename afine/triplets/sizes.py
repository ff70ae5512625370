"""Sizes of images from their headers, without decoding pixels."""

import io
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from afine.databases.records import ImageRecord
from runtime.errors import DataError

_HEADER_BYTES = 4096
_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)


def image_size(folder: Path, record: ImageRecord) -> tuple[int, int]:
    """Return height and width as decoding gives them, EXIF rotation applied.

    Raises:
        DataError: no such file, or no image.
    """
    path = folder / record.file
    try:
        with open(path, "rb") as handle:
            if record.offset < 0:
                return _size_of(handle)
            handle.seek(record.offset)
            return _size_of(io.BytesIO(handle.read(min(record.size_bytes, _HEADER_BYTES))))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: '{record.image}' is no readable image ({error})") from None


def _size_of(handle: IO[bytes]) -> tuple[int, int]:
    with Image.open(handle) as image:
        width, height = image.size
        if image.format != "PNG" and image.getexif().get(_EXIF_ORIENTATION) in _TURNED:
            width, height = height, width
    return height, width
