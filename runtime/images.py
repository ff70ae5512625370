"""8-bit RGB images in memory and as PNG, the one pixel format between stages."""

import struct

import cv2
import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng

from runtime.errors import DataError

ImageU8 = npt.NDArray[np.uint8]
Image01 = npt.NDArray[np.float32]

# Huffman codes alone after the average filter: what zlib-ng makes of it is the same on every
# processor (its search for repeats is not), and takes a third of the time of libpng's level 1 for a
# quarter more bytes, less where there is noise (benchmarks/png_levels.py)
_MEMORY_LEVEL = 9
_AVERAGE_FILTER = 3


def encode_png(image_u8: ImageU8, *, level: int = 1) -> bytes:
    """Encode an RGB image as PNG; the same pixels give the same bytes.

    Args:
        image_u8: uint8 [H, W, 3].
        level: 1 for speed; up to 9 for small files, for pictures in a report.
    Raises:
        DataError: not uint8 [H, W, 3], or without pixels.
    Source:
        PNG specification (W3C), third edition, sections 5 and 9.
    """
    check_image_u8(image_u8)
    height, width = image_u8.shape[:2]
    if not image_u8.size:
        raise DataError(f"an image of shape {image_u8.shape} cannot be encoded as PNG")
    strategy = zlib_ng.Z_HUFFMAN_ONLY if level == 1 else zlib_ng.Z_DEFAULT_STRATEGY
    stream = zlib_ng.compressobj(
        level, zlib_ng.DEFLATED, zlib_ng.MAX_WBITS, _MEMORY_LEVEL, strategy
    )
    packed = stream.compress(_average_filtered(image_u8)) + stream.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _average_filtered(image_u8: ImageU8) -> npt.NDArray[np.uint8]:
    """Subtract the mean of left and upper neighbour; uint8 [H, 1 + 3 W], filter type first."""
    height, width = image_u8.shape[:2]
    rows = image_u8.reshape(height, 3 * width)
    left, above = np.zeros_like(rows), np.zeros_like(rows)
    left[:, 3:], above[1:] = rows[:, :-3], rows[:-1]
    filtered = np.empty((height, 1 + 3 * width), dtype=np.uint8)
    filtered[:, 0] = _AVERAGE_FILTER
    # floor of the mean without a ninth bit: common bits, and half of the others
    np.subtract(rows, (left & above) + ((left ^ above) >> 1), out=filtered[:, 1:])
    return filtered


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content and checksum of a PNG chunk."""
    checksum = zlib_ng.crc32(content, zlib_ng.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def decode_png(content: bytes, *, where: str) -> ImageU8:
    """Decode what `encode_png` wrote to RGB, uint8 [H, W, 3].

    Raises:
        DataError: the content is not an image; the message starts with `where`.
    """
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise DataError(f"{where}: not a readable PNG ({len(content)} bytes)")
    rgb = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return np.asarray(rgb, dtype=np.uint8)


def check_image_u8(image_u8: ImageU8) -> None:
    """Check type and shape.

    Raises:
        DataError: not uint8 [H, W, 3].
    """
    if image_u8.dtype != np.uint8 or image_u8.ndim != 3 or image_u8.shape[2] != 3:
        raise DataError(
            f"expected an RGB image, uint8 [H, W, 3]; found {image_u8.dtype} {image_u8.shape}"
        )


def to_image01(image_u8: ImageU8) -> Image01:
    """Scale uint8 [0, 255] to float32 [0, 1]."""
    return image_u8.astype(np.float32) / np.float32(255)


def to_image_u8(image01: Image01) -> ImageU8:
    """Clip to [0, 1], scale to 255 and round (not truncate) to uint8."""
    rounded: ImageU8 = np.rint(np.clip(image01, 0.0, 1.0) * 255.0).astype(np.uint8)
    return rounded
