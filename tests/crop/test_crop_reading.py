"""Formats, colours and orientation, and one crafted file per reason of rejection."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from crop.reading import UnusablePhotoError, decode_photo, read_file


@pytest.fixture(scope="module")
def image(photo_u8):
    return np.ascontiguousarray(photo_u8[:150, 100:300])


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(content, extension, max_megapixels=50.0):
    return decode_photo(content, extension=extension, max_megapixels=max_megapixels)


def reason_of(content, extension, **options):
    with pytest.raises(UnusablePhotoError) as caught:
        decode(content, extension, **options)
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "extension", "options", "tolerance"),
    [
        ("PNG", ".png", {}, 0),
        ("BMP", ".bmp", {}, 0),
        ("TIFF", ".tif", {"compression": "tiff_lzw"}, 0),
        ("TIFF", ".TIFF", {}, 0),
        ("WEBP", ".webp", {"lossless": True}, 0),
        ("JPEG", ".jpg", {"quality": 97, "subsampling": 0}, 3),
        ("JPEG", ".JPEG", {"quality": 97, "progressive": True, "subsampling": 0}, 3),
        ("AVIF", ".avif", {"quality": 97, "subsampling": "4:4:4"}, 3),
    ],
)
def test_formats(image, kind, extension, options, tolerance):
    found = decode(encoded(image, kind, **options), extension)
    assert found.dtype == np.uint8 and found.shape == image.shape and found.flags.c_contiguous
    assert np.abs(found.astype(int) - image).mean() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_rotation(image, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(image, kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    np.testing.assert_array_equal(decode(content, f".{kind.lower()}"), expected)


def test_16_bit_is_rounded_by_257(image):
    wide = image.astype(np.uint16) * 257
    wide[0, 0] = (128, 129, 385)  # 0.498, 0.502 and 1.498 grey levels
    for extension in (".png", ".tif"):
        content = cv2.imencode(extension, wide[..., ::-1])[1].tobytes()
        found = decode(content, extension)
        assert tuple(found[0, 0]) == (0, 1, 1)
        np.testing.assert_array_equal(found[1:], image[1:])


def test_16_bit_grey_and_alpha(image):
    grey = image[..., 0].astype(np.uint16) * 257
    content = cv2.imencode(".png", grey)[1].tobytes()
    np.testing.assert_array_equal(decode(content, ".png"), np.repeat(image[..., :1], 3, axis=2))
    alpha = np.dstack([image[..., ::-1].astype(np.uint16) * 257, np.zeros_like(grey)])
    assert (decode(cv2.imencode(".png", alpha)[1].tobytes(), ".png") == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_modes(image, mode):
    picture = Image.fromarray(image)
    picture = picture.quantize(256) if mode == "P" else picture.convert(mode)
    kind, extension = ("TIFF", ".tif") if mode == "CMYK" else ("PNG", ".png")
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decode(encoded(picture, kind), extension), expected)


def test_transparent_pixels_lie_over_white(image):
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 128
    found = decode(encoded(np.dstack([image, alpha]), "PNG"), ".png")
    assert (found[:10] == 255).all()
    half = (image[10:20].astype(float) + 255) / 2
    assert np.abs(found[10:20] - half).max() < 2
    np.testing.assert_array_equal(found[20:], image[20:])


def test_palette_with_transparency(image):
    picture = Image.fromarray(image).quantize(16)
    background = int(np.asarray(picture)[0, 0])
    found = decode(encoded(picture, "PNG", transparency=background), ".png")
    assert (found[0, 0] == 255).all()


def test_icc_profile_is_converted(image):
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.createProfile("sRGB")
    picture = ImageCms.profileToProfile(Image.fromarray(image), srgb, lab, outputMode="LAB")
    profile = ImageCms.ImageCmsProfile(lab).tobytes()
    found = decode(encoded(picture, "TIFF", icc_profile=profile), ".tif")
    assert np.abs(found.astype(int) - image).mean() < 4


def test_srgb_and_broken_profiles_leave_the_pixels(image):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile at all"):
        found = decode(encoded(image, "PNG", icc_profile=profile), ".png")
        np.testing.assert_array_equal(found, image)


def test_camera_mpo_counts_as_jpeg(image):
    picture = Image.fromarray(image)
    content = encoded(picture, "MPO", save_all=True, append_images=[picture])
    assert decode(content, ".jpg").shape == image.shape


def test_truncated_files(image):
    for kind in ("JPEG", "PNG"):
        content = encoded(image, kind)
        assert reason_of(content[: len(content) // 2], f".{kind.lower()}") == "truncated"


def test_wrong_extension(image):
    assert reason_of(encoded(image, "PNG"), ".jpg") == "wrong_extension"


def test_text_file():
    assert reason_of(b"this is no photograph\n" * 40, ".jpg") == "not_an_image"


def test_animations_and_pages(image):
    frames = [Image.fromarray(image), Image.fromarray(image[::-1].copy())]
    for kind, extension in (("GIF", ".gif"), ("WEBP", ".webp"), ("TIFF", ".tif"), ("PNG", ".png")):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert reason_of(content, extension) == "several_frames", kind


def test_still_gif_is_not_read(image):
    assert reason_of(encoded(image, "GIF"), ".gif") == "unsupported_format"


def png_bomb(side):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*item) for item in chunks)


def test_decompression_bomb_is_not_decoded():
    assert reason_of(png_bomb(60_000), ".png", max_megapixels=250.0) == "too_large"


def test_pixels_without_an_8_bit_meaning(image):
    floating = Image.fromarray(image[..., 0].astype(np.float32))
    assert reason_of(encoded(floating, "TIFF"), ".tif") == "unsupported_mode"


def test_empty_missing_and_self_linked_files(tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.touch()
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    for path, reason in (
        (empty, "empty"),
        (loop, "unreadable"),
        (tmp_path / "no.jpg", "unreadable"),
    ):
        with pytest.raises(UnusablePhotoError) as caught:
            read_file(path)
        assert caught.value.reason == reason


def test_denied_permission(tmp_path, monkeypatch):
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(UnusablePhotoError, match="Permission denied"):
        read_file(path)


def test_noise_bytes_never_escape_as_other_errors(image):
    """Flip bytes of valid files: either it decodes or there is a reason."""
    generator = np.random.default_rng(0)
    for kind, extension in (("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("TIFF", ".tif")):
        content = bytearray(encoded(image, kind))
        for _ in range(15):
            hurt = bytearray(content)
            for position in generator.integers(0, len(hurt), 8):
                hurt[position] ^= int(generator.integers(1, 256))
            try:
                decode(bytes(hurt), extension)
            except UnusablePhotoError as error:
                assert error.detail
