"""`report gallery`: one picture with pairs of each label, for a README or a slide."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from report.labels import counts_of, labelled_tests
from report.pairs import Pair, draw_pairs
from runtime.atomic import write_bytes
from runtime.errors import ConfigError, DataError
from runtime.images import ImageU8, encode_png
from runtime.settings import RunSettings

_MARGIN_PX, _GAP_PX, _LINE_PX = 24, 14, 30
_INK, _QUIET = (28, 32, 38), (110, 118, 128)
_COLOURS = {"worse": (190, 84, 52), "similar": (120, 128, 138), "better": (31, 119, 140)}


def write_gallery(run: RunSettings, out: Path, *, pairs: int = 4, size_px: int = 160) -> None:
    """Draw pairs of each label, reference left and test image right.

    Args:
        run: the resolved configuration.
        out: the PNG to write.
        pairs: pairs of each label.
        size_px: side of one image.

    Raises:
        ConfigError: `pairs` or `size_px` is too small.
        DataError: the run has no labelled images yet.
    """
    if pairs < 1 or size_px < 16:
        raise ConfigError(f"--pairs {pairs}, --size-px {size_px}: expected at least 1 and 16")
    tests = labelled_tests(run.root)
    drawn = list(draw_pairs(run.root, tests, pairs, run.seed))
    if not drawn:
        raise DataError(f"{run.root}: no labelled images; run `annotation_import import` first")
    is_synthetic = bool(tests["is_synthetic"].any())
    counts = dict(zip(_COLOURS, counts_of(tests), strict=True))
    write_bytes(out, encode_png(draw_gallery(drawn, counts, pairs, size_px, is_synthetic), level=9))


def draw_gallery(
    drawn: list[Pair], counts: dict[str, int], pairs: int, size_px: int, is_synthetic: bool
) -> ImageU8:
    """Compose the picture; returns uint8 [H, W, 3]."""
    width = 2 * _MARGIN_PX + pairs * (2 * size_px + 2) + (pairs - 1) * _GAP_PX
    labels = [name for name in _COLOURS if any(pair.label == name for pair in drawn)]
    height = 2 * _MARGIN_PX + len(labels) * (size_px + _LINE_PX + _GAP_PX) + _LINE_PX
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    source = "simulated raters" if is_synthetic else "raters"
    head = f"Each pair: reference left, test image right, drawn at random. Labels: {source}."
    draw.text((_MARGIN_PX, _MARGIN_PX - 6), head, fill=_QUIET, font=_font(14))
    for line, name in enumerate(labels):
        top = _MARGIN_PX + _LINE_PX + line * (size_px + _LINE_PX + _GAP_PX)
        text = f"{name} than the reference" if name != "similar" else "similar to the reference"
        draw.rectangle((_MARGIN_PX, top + 3, _MARGIN_PX + 8, top + 19), fill=_COLOURS[name])
        title = f"{text}  ({counts[name]:,} images)"
        draw.text((_MARGIN_PX + 16, top), title, fill=_INK, font=_font(17))
        row = [pair for pair in drawn if pair.label == name]
        for place, pair in enumerate(row):
            left = _MARGIN_PX + place * (2 * size_px + 2 + _GAP_PX)
            for offset, image in ((0, pair.reference_u8), (size_px + 2, pair.test_u8)):
                resized = Image.fromarray(image).resize(
                    (size_px, size_px), Image.Resampling.LANCZOS
                )
                canvas.paste(resized, (left + offset, top + _LINE_PX))
    return np.asarray(canvas, dtype=np.uint8)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
