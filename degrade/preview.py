"""`python -m degrade preview PHOTO`: a labelled contact sheet of a preset.

Each row shows one operation from its weakest to its strongest setting, the last rows whole
degradations as they are drawn. All cells show the same detail, enlarged without smoothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from degrade.drawn import (
    DrawnBlur,
    DrawnDegradation,
    DrawnFinal,
    DrawnNoise,
    DrawnResize,
    DrawnStage,
    draw_degradation,
)
from degrade.image import apply_degradation
from degrade.parameters import DegradationParameters, StageParameters
from degrade.presets import preset_parameters
from runtime.atomic import write_bytes
from runtime.errors import DataError
from runtime.images import ImageU8, decode_png, encode_png

_COLUMNS = 6
_WINDOW_PX, _DETAIL_PX, _ZOOM = 512, 96, 2
_CELL_PX, _LABEL_PX, _GAP_PX, _MARGIN_PX = _DETAIL_PX * _ZOOM, 18, 6, 12
_INK, _PAPER = (30, 30, 30), 250
_NO_BLUR = DrawnBlur("none")
_NO_RESIZE = DrawnResize("keep", 1.0, "bicubic")
_NO_NOISE = DrawnNoise("gaussian", 0.0, False)


@dataclass(frozen=True)
class Row:
    """One row of the sheet: a title and labelled degradations."""

    title: str
    cells: Sequence[tuple[str, DrawnDegradation | None, int]]


def write_preview(photo: Path, preset: str, out: Path, *, seed: int = 0) -> None:
    """Write the contact sheet of a preset.

    Args:
        photo: a photograph.
        preset: name of a preset.
        out: the sheet, a PNG file.
        seed: seed of the whole degradations.
    Raises:
        ConfigError: there is no such preset.
        DataError: the photograph cannot be read or is smaller than a detail.
    """
    rows = sheet_rows(preset_parameters(preset), seed)
    if not photo.is_file():
        raise DataError(f"{photo}: photograph not found")
    image = decode_png(photo.read_bytes(), where=str(photo))
    sheet = draw_sheet(image, rows, title=f"{photo.name}   preset {preset}   seed {seed}")
    write_bytes(out, encode_png(sheet))


def sheet_rows(parameters: DegradationParameters, seed: int) -> list[Row]:
    """List what the sheet shows of a preset."""
    rows: list[Row] = []
    for number, stage in enumerate(parameters.stages, start=1):
        name = f"stage {number}: " if len(parameters.stages) > 1 else ""
        rows += [
            Row(name + title, [(label, _alone(item, parameters), seed) for label, item in cells])
            for title, cells in _stage_rows(stage)
        ]
    if parameters.final is not None:
        rows.append(Row("final part alone: shrink and back", list(_final_cells(parameters, seed))))
    for first in (0, _COLUMNS):
        seeds = range(seed + first, seed + first + _COLUMNS)
        cells = [(_summary(draw_degradation(parameters, s)), s) for s in seeds]
        drawn = [(label, draw_degradation(parameters, s), s) for label, s in cells]
        rows.append(Row("whole degradations, as drawn", drawn))
    return rows


def _stage_rows(stage: StageParameters) -> Iterator[tuple[str, list[tuple[str, DrawnStage]]]]:
    blur, largest = stage.blur, max(stage.blur.kernel_px)
    weakest, strongest = blur.sigma_px
    sigmas = np.linspace(weakest, strongest, _COLUMNS + 1)[1:].tolist()
    yield (
        f"blur, isotropic {largest} px: standard deviation",
        [(f"{s:.2f} px", _stage(DrawnBlur("iso", largest, s, s, 0.0))) for s in sigmas],
    )
    beta = {"generalized": blur.beta_generalized[0], "plateau": blur.beta_plateau[0]}
    yield (
        f"blur families at {strongest:g} x {strongest / 3:.2g} px, 45 degrees, lowest beta",
        [
            (
                family.replace("_", " "),
                _stage(
                    DrawnBlur(
                        family, largest, strongest, strongest / 3, math.pi / 4,
                        beta.get(family.partition("_")[0]),
                    )
                ),
            )
            for family in blur.families
        ],
    )  # fmt: skip
    cutoffs = np.linspace(math.pi / 3, math.pi, _COLUMNS).tolist()
    yield (
        f"sinc {largest} px: cut-off",
        [
            (f"{c / math.pi:.2f} pi", _stage(DrawnBlur("sinc", largest, cutoff_rad=c)))
            for c in cutoffs
        ],
    )
    share = 1.0 if stage.resize.of_input is None else stage.resize.of_input
    yield (
        "resize and back (bicubic)",
        [
            (
                f"{factor * share:.3g}, {mode}",
                _stage(_NO_BLUR, DrawnResize("down", factor, mode, stage.resize.of_input)),
            )
            for factor in stage.resize.factor
            for mode in stage.resize.modes
        ],
    )
    for kind, levels in (
        ("gaussian", stage.noise.gaussian_sigma),
        ("poisson", stage.noise.poisson_scale),
    ):
        yield _noise_row(kind, levels)
    if stage.jpeg_quality is not None:
        qualities = np.linspace(stage.jpeg_quality[1], stage.jpeg_quality[0], _COLUMNS).tolist()
        yield (
            "JPEG quality",
            [(f"{q:.0f}", DrawnStage(_NO_BLUR, _NO_RESIZE, _NO_NOISE, q)) for q in qualities],
        )


def _noise_row(kind: str, levels: tuple[float, float]) -> tuple[str, list[tuple[str, DrawnStage]]]:
    values = [(level, False) for level in np.linspace(*levels, _COLUMNS)[1:].tolist()]
    cells = []
    for level, is_grey in [*values, (levels[1], True)]:
        noise = DrawnNoise("gaussian" if kind == "gaussian" else "poisson", level, is_grey)
        cells.append((f"{level:.3g}{' grey' if is_grey else ''}", _stage(_NO_BLUR, noise=noise)))
    return f"{kind} noise", cells


def _stage(
    blur: DrawnBlur, resize: DrawnResize = _NO_RESIZE, noise: DrawnNoise = _NO_NOISE
) -> DrawnStage:
    return DrawnStage(blur, resize, noise)


def _alone(stage: DrawnStage, parameters: DegradationParameters) -> DrawnDegradation:
    return DrawnDegradation((stage,), None, "bicubic", parameters.jpeg_codec)


def _final_cells(
    parameters: DegradationParameters, seed: int
) -> Iterator[tuple[str, DrawnDegradation, int]]:
    final = parameters.final
    assert final is not None, "only called for presets with a final part"
    for shrink in sorted({final.shrink[0], final.shrink[1]}):
        for mode in final.modes:
            drawn = DrawnFinal("shrink-jpeg", shrink, mode, _NO_BLUR, final.jpeg_quality[0])
            whole = DrawnDegradation((_stage(_NO_BLUR),), drawn, "bicubic", parameters.jpeg_codec)
            yield f"1/{shrink:g}, {mode}, q{final.jpeg_quality[0]:g}", whole, seed


def _summary(drawn: DrawnDegradation) -> str:
    """Drawn parameters of the first stage in one short line."""
    stage = drawn.stages[0]
    size = stage.blur.sigma_x_px if stage.blur.cutoff_rad is None else stage.blur.cutoff_rad
    blur = stage.blur.kernel.replace("generalized", "gen").replace("plateau", "pl")
    blur = blur if size is None else f"{blur} {size:.1f}"
    noise = f"{stage.noise.kind[0]}{stage.noise.level:.3g}{'g' if stage.noise.is_grey else ''}"
    quality = "" if stage.jpeg_quality is None else f" q{stage.jpeg_quality:.0f}"
    return f"{blur} x{stage.resize.factor:.2f} {noise}{quality}"


def draw_sheet(image: ImageU8, rows: Sequence[Row], *, title: str) -> ImageU8:
    """Draw the sheet.

    Args:
        image: RGB, uint8 [H, W, 3].
        rows: what to show.
        title: first line.
    Returns:
        The sheet, uint8 [H', W', 3].
    """
    window, corner = choose_detail(image)
    columns = max(len(row.cells) for row in rows) + 1
    row_px = _CELL_PX + 2 * _LABEL_PX + _GAP_PX
    sheet = np.full(
        (
            2 * _MARGIN_PX + _LABEL_PX + row_px * len(rows),
            2 * _MARGIN_PX + columns * (_CELL_PX + _GAP_PX),
            3,
        ),
        _PAPER,
        dtype=np.uint8,
    )
    _write(sheet, title, _MARGIN_PX, _MARGIN_PX + 12, scale=0.5)
    for index, row in enumerate(rows):
        top = _MARGIN_PX + 2 * _LABEL_PX + index * row_px
        _write(sheet, row.title, _MARGIN_PX, top + 12, scale=0.45)
        for column, (label, drawn, seed) in enumerate([("original", None, 0), *row.cells]):
            left = _MARGIN_PX + column * (_CELL_PX + _GAP_PX)
            shown = window if drawn is None else apply_degradation(window, drawn, seed)
            _paste(sheet, shown, corner, top + _LABEL_PX, left)
            _write(sheet, label, left, top + _LABEL_PX + _CELL_PX + 12, scale=0.36)
    return sheet


def choose_detail(image: ImageU8) -> tuple[ImageU8, tuple[int, int]]:
    """Cut the middle of a photograph and find its liveliest detail.

    Returns:
        At most 512 x 512 pixels, and the detail's upper left corner in them.
    Raises:
        DataError: the photograph is smaller than a detail.
    """
    height, width = image.shape[:2]
    if min(height, width) < _DETAIL_PX:
        raise DataError(
            f"the photograph has {height} x {width} pixels; a preview needs {_DETAIL_PX}"
        )
    rows, cols = min(height, _WINDOW_PX), min(width, _WINDOW_PX)
    top, left = (height - rows) // 2, (width - cols) // 2
    window = np.ascontiguousarray(image[top : top + rows, left : left + cols])
    grey = cv2.cvtColor(window, cv2.COLOR_RGB2GRAY)
    energy = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    total = cv2.boxFilter(energy, -1, (_DETAIL_PX, _DETAIL_PX), anchor=(0, 0))
    inside = total[: rows - _DETAIL_PX + 1, : cols - _DETAIL_PX + 1]
    row, col = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return window, (int(row), int(col))


def _paste(sheet: ImageU8, shown: ImageU8, corner: tuple[int, int], top: int, left: int) -> None:
    row, col = corner
    detail = shown[row : row + _DETAIL_PX, col : col + _DETAIL_PX]
    enlarged = detail.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
    sheet[top : top + _CELL_PX, left : left + _CELL_PX] = enlarged


def _write(sheet: ImageU8, text: str, left: int, base: int, *, scale: float) -> None:
    cv2.putText(sheet, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
