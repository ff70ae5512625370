"""One photograph from its file: checked, upright, 8-bit sRGB.

Rules for pixels: 16 bit becomes round(v / 257); grey becomes three equal channels; palettes are
looked up; CMYK goes through its embedded profile, else Pillow's plain conversion; transparent
pixels are laid over white; an embedded ICC profile is converted to sRGB (relative colorimetric,
black-point compensation), and one that cannot be used counts as sRGB; EXIF rotation is applied.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from crop.rejection import Reason
from runtime.images import ImageU8

_FORMATS = frozenset({"JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"})
_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
)
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_PNG_DEPTH_BYTE = 24


class UnusablePhotoError(Exception):
    """A file that cannot be used, with the reason to record."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


def read_file(path: Path) -> bytes:
    """Read a file's bytes.

    Raises:
        UnusablePhotoError: empty or unreadable.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusablePhotoError("unreadable", error.strerror or str(error)) from None
    if not content:
        raise UnusablePhotoError("empty", "zero bytes")
    return content


def decode_photo(content: bytes, *, extension: str, max_megapixels: float) -> ImageU8:
    """Decode a photograph to upright 8-bit sRGB.

    Args:
        content: the file's bytes.
        extension: suffix of its name, with the dot.
        max_megapixels: larger images are refused before their pixels are decoded.
    Returns:
        uint8 [H, W, 3], RGB.
    Raises:
        UnusablePhotoError: with the reason to record.
    """
    with _no_pixel_limit(), _open(content) as image:
        _check_header(image, extension, max_megapixels)
        try:
            return _upright_srgb(image, content)
        except UnusablePhotoError:
            raise
        except Exception as error:  # decoders raise many kinds of errors on hostile bytes
            reason: Reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
            raise UnusablePhotoError(reason, f"{type(error).__name__}: {error}"[:200]) from None


@contextmanager
def _no_pixel_limit() -> Iterator[None]:
    """Lift Pillow's own limit, which is lower than ours and warns on stderr."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise UnusablePhotoError("not_an_image", "no known image format") from None
    except Exception as error:
        raise UnusablePhotoError("corrupt", f"{type(error).__name__}: {error}"[:200]) from None


def _check_header(image: Image.Image, extension: str, max_megapixels: float) -> None:
    # cameras write MPO: a JPEG with further views behind it; the first one is the photograph
    found = "JPEG" if image.format == "MPO" else str(image.format)
    named = Image.registered_extensions().get(extension.lower(), "")
    if named and named != "MPO" and named != found:
        raise UnusablePhotoError("wrong_extension", f"named {extension}, content is {found}")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UnusablePhotoError("several_frames", f"{found} with several frames or pages")
    if found not in _FORMATS:
        raise UnusablePhotoError(
            "unsupported_format", f"{found}; read are {', '.join(sorted(_FORMATS))}"
        )
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        raise UnusablePhotoError(
            "too_large", f"{megapixels:.0f} megapixels; max_megapixels allows {max_megapixels:g}"
        )


def _upright_srgb(image: Image.Image, content: bytes) -> ImageU8:
    bits = _bits(image, content)
    if bits == 16:
        orientation = image.getexif().get(_ORIENTATION, 1)
        image = _with_info(_reduce_16_bit(content), image)
    elif image.mode in _MODES and bits <= 16:
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
    else:
        raise UnusablePhotoError("unsupported_mode", f"mode {image.mode}, {bits} bits a sample")
    rgb = np.asarray(_to_srgb(image), dtype=np.uint8)
    return np.ascontiguousarray(_orient(rgb, orientation))


def _bits(image: Image.Image, content: bytes) -> int:
    """Bits per sample where the format says so, else 8."""
    if image.format == "PNG":
        return content[_PNG_DEPTH_BYTE]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))))  # type: ignore[attr-defined]
    return 8


def _reduce_16_bit(content: bytes) -> Image.Image:
    """Decode 16-bit PNG or TIFF with OpenCV, since Pillow cuts colour to its high bytes."""
    wide = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if wide is None:
        raise UnusablePhotoError("corrupt", "the 16-bit pixels could not be decoded")
    if wide.dtype != np.uint16:
        raise UnusablePhotoError("unsupported_mode", f"pixels decode to {wide.dtype}")
    narrow = cv2.convertScaleAbs(wide, alpha=1 / 257)
    if narrow.ndim == 2:
        return Image.fromarray(narrow)
    code = cv2.COLOR_BGR2RGB if narrow.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return Image.fromarray(cv2.cvtColor(narrow, code))


def _with_info(image: Image.Image, header: Image.Image) -> Image.Image:
    profile = header.info.get("icc_profile")
    if profile:
        image.info["icc_profile"] = profile
    return image


def _to_srgb(image: Image.Image) -> Image.Image:
    """Flatten transparency over white and convert colours to 8-bit sRGB."""
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        image = image.convert("RGB")
    if profile:
        converted = _through_profile(image, profile)
        if converted is not None:
            return converted
    return image if image.mode == "RGB" else image.convert("RGB")


def _through_profile(image: Image.Image, content: bytes) -> Image.Image | None:
    """Convert by an embedded profile; None if it already is sRGB or cannot be used."""
    if image.mode not in {"RGB", "L", "CMYK", "LAB"}:
        image = image.convert("RGB")
    try:
        profile = ImageCms.getOpenProfile(io.BytesIO(content))
        if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(profile).lower():
            return None
        return ImageCms.profileToProfile(
            image,
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _orient(rgb: ImageU8, orientation: int) -> npt.NDArray[np.uint8]:
    """Turn pixels upright by the EXIF tag (1 to 8; anything else counts as 1)."""
    if orientation in (5, 6, 7, 8):
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return rgb
