"""8-bit RGB images in memory and as PNG, the one pixel format between stages."""

import cv2
import numpy as np
import numpy.typing as npt

from runtime.errors import DataError

ImageU8 = npt.NDArray[np.uint8]
Image01 = npt.NDArray[np.float32]

# Huffman codes alone after the average filter: half of level 1's time, an eighth of level 6's, and
# for colour photographs no larger than level 1 (benchmarks/png_levels.py)
PNG_LEVEL = 1
_PNG_FLAGS = (
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_AVG,
)


def encode_png(image_u8: ImageU8, *, level: int = PNG_LEVEL) -> bytes:
    """Encode an RGB image, uint8 [H, W, 3], as PNG; the same pixels give the same bytes."""
    check_image_u8(image_u8)
    is_done, buffer = cv2.imencode(
        ".png",
        cv2.cvtColor(image_u8, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_PNG_COMPRESSION, level, *_PNG_FLAGS],
    )
    if not is_done:
        raise DataError(f"an image of shape {image_u8.shape} could not be encoded as PNG")
    return bytes(buffer.tobytes())


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
