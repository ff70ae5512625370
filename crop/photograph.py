"""The work on one photograph: read, measure, cut, encode; kept as a pair of files until assembly.

`<photo_id>.png` holds the crops' PNG files one behind the other, `<photo_id>.json` says what is
where and what was left out. The JSON is written last, so a pair with a JSON is complete.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagehash
import msgspec
import numpy as np
from PIL import Image

from crop.config import CropConfig
from crop.geometry import Position, crop_positions
from crop.listing import ListedPhoto
from crop.quality import GreyU8, Texture, measure_texture, to_grey
from crop.reading import UnusablePhotoError, decode_photo, read_file
from crop.rejection import Reason
from runtime.atomic import write_bytes
from runtime.images import ImageU8, encode_png
from runtime.seeds import rng

_THUMBNAIL_PX = 256


class CropRecord(msgspec.Struct, frozen=True):
    """One crop that passed the filters, and where its PNG lies in the photograph's file."""

    row: int
    col: int
    grey_std: float
    laplacian_var: float
    offset: int
    size_bytes: int
    sha256: str


class RejectionRecord(msgspec.Struct, frozen=True):
    """A photograph or crop that was left out."""

    reason: Reason
    value: float | None = None
    row: int | None = None
    col: int | None = None
    detail: str = ""


class PhotoRecord(msgspec.Struct, frozen=True):
    """All that is known of one photograph after it was read once."""

    photo_id: str
    source: str
    path: str
    sha256: str = ""
    height: int = 0
    width: int = 0
    perceptual_hash: str = ""
    crops: list[CropRecord] = []
    rejected: list[RejectionRecord] = []


@dataclass(frozen=True)
class PhotoTask:
    """What a worker needs for one photograph."""

    photo: ListedPhoto
    config: CropConfig
    seed: int
    folder: Path


def record_path(folder: Path, photo_id: str) -> Path:
    """File of a photograph's record."""
    return folder / f"{photo_id}.json"


def pixels_path(folder: Path, photo_id: str) -> Path:
    """File of a photograph's encoded crops."""
    return folder / f"{photo_id}.png"


def load_record(folder: Path, photo_id: str) -> PhotoRecord | None:
    """Read the record of a finished photograph, or None."""
    path = record_path(folder, photo_id)
    if not path.is_file():
        return None
    return msgspec.json.decode(path.read_bytes(), type=PhotoRecord)


def process_photo(task: PhotoTask) -> PhotoRecord:
    """Read a photograph, keep its good crops in `task.folder`, and return its record.

    A photograph that cannot be used is no error: its record holds the reason.
    """
    try:
        record, pngs = _cut(task)
    except UnusablePhotoError as error:
        record, pngs = _failed(task.photo, error.reason, error.detail), []
    if pngs:
        write_bytes(pixels_path(task.folder, record.photo_id), b"".join(pngs))
    write_bytes(record_path(task.folder, record.photo_id), msgspec.json.encode(record))
    return record


def crashed_record(task: PhotoTask) -> PhotoRecord:
    """Record of a photograph whose decoder took its process down."""
    record = _failed(task.photo, "crashed", "the process died while it read this file")
    write_bytes(record_path(task.folder, record.photo_id), msgspec.json.encode(record))
    return record


def _failed(photo: ListedPhoto, reason: Reason, detail: str) -> PhotoRecord:
    rejected = [RejectionRecord(reason, detail=detail)]
    return PhotoRecord(photo.photo_id, photo.source, photo.path, rejected=rejected)


def _cut(task: PhotoTask) -> tuple[PhotoRecord, list[bytes]]:
    photo, config = task.photo, task.config
    content = read_file(photo.file)
    digest = hashlib.sha256(content).hexdigest()
    image = decode_photo(content, extension=photo.file.suffix, max_megapixels=config.max_megapixels)
    del content
    height, width = image.shape[:2]
    generator = rng(task.seed, "crop", photo.photo_id)
    positions = crop_positions(height, width, config, generator)
    grey = to_grey(image)
    flaw = _photo_flaw(grey, positions, config)
    crops: list[CropRecord] = []
    rejected: list[RejectionRecord] = [] if flaw is None else [flaw]
    pngs: list[bytes] = []
    for position in positions if flaw is None else []:
        found = _one_crop(image, grey, position, config, sum(map(len, pngs)))
        if isinstance(found, RejectionRecord):
            rejected.append(found)
        else:
            crops.append(found[0])
            pngs.append(found[1])
    record = PhotoRecord(
        photo.photo_id,
        photo.source,
        photo.path,
        digest,
        height,
        width,
        perceptual_hash(image),
        crops,
        rejected,
    )
    return record, pngs


def _photo_flaw(
    grey: GreyU8, positions: list[Position], config: CropConfig
) -> RejectionRecord | None:
    """Check the whole photograph against the release's selection script."""
    if not positions:
        height, width = grey.shape
        detail = f"{height} x {width} pixels, a crop has {config.size_px}"
        return RejectionRecord("too_small", value=float(min(grey.shape)), detail=detail)
    texture = measure_texture(grey)
    if texture.grey_std < config.photo_min_grey_std:
        return RejectionRecord("photo_low_contrast", value=texture.grey_std)
    if texture.laplacian_var < config.photo_min_laplacian_var:
        return RejectionRecord("photo_low_detail", value=texture.laplacian_var)
    return None


def _one_crop(
    image: ImageU8, grey: GreyU8, position: Position, config: CropConfig, offset: int
) -> RejectionRecord | tuple[CropRecord, bytes]:
    rows = slice(position.row, position.row + config.size_px)
    cols = slice(position.col, position.col + config.size_px)
    texture = measure_texture(grey[rows, cols])
    flaw = _crop_flaw(texture, config)
    if flaw is not None:
        reason, value = flaw
        return RejectionRecord(reason, value, position.row, position.col)
    png = encode_png(np.ascontiguousarray(image[rows, cols]))
    record = CropRecord(
        position.row,
        position.col,
        texture.grey_std,
        texture.laplacian_var,
        offset,
        len(png),
        hashlib.sha256(png).hexdigest(),
    )
    return record, png


def _crop_flaw(texture: Texture, config: CropConfig) -> tuple[Reason, float] | None:
    if texture.grey_std < config.min_grey_std:
        return "low_contrast", texture.grey_std
    if texture.laplacian_var < config.min_laplacian_var:
        return "low_detail", texture.laplacian_var
    return None


def perceptual_hash(image_u8: ImageU8) -> str:
    """Hash how a photograph looks: 64 bits as 16 hexadecimal digits (imagehash's DCT hash).

    The photograph is first reduced by area averaging, which is fast at any size.
    """
    size = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    small = cv2.resize(image_u8, size, interpolation=cv2.INTER_AREA)
    return str(imagehash.phash(Image.fromarray(small)))
