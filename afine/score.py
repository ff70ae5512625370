"""`afine score`: test images against their references, from the shell; lower is better."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from afine.model import AFine
from afine.pixels import read_image_file, to_batch01
from afine.weights import load
from runtime.errors import DataError
from runtime.images import ImageU8
from runtime.torch_device import choose_device

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_IMAGES_PER_BATCH = 8


@dataclass(frozen=True)
class PairScore:
    """Scores of one test image; lower is better in all of them.

    Attributes:
        ref: file of the reference.
        test: file of the test image.
        score: D.
        score100: D mapped to 0..100.
        naturalness_test: calibrated, in (-2, 2).
        naturalness_ref: calibrated, in (-2, 2).
        fidelity: calibrated, in (-2, 2).
    """

    ref: str
    test: str
    score: float
    score100: float
    naturalness_test: float
    naturalness_ref: float
    fidelity: float


def score_command(ref: Path, tests: Sequence[Path], weights: Path, *, as_json: bool) -> str:
    """Score files or folders and render the result."""
    pairs = match_pairs(ref, tests)
    if not weights.is_file():
        raise DataError(f"{weights}: A-FINE weights not found; name them with --weights")
    model = load(weights).to(choose_device())
    scores = [row for one, several in pairs for row in score_files(model, one, several)]
    if as_json:
        rows = [vars(row) for row in scores]
        return json.dumps({"lower_is_better": True, "scores": rows}, indent=2)
    return _table(scores)


def match_pairs(ref: Path, tests: Sequence[Path]) -> list[tuple[Path, list[Path]]]:
    """List each reference with its test images.

    A folder stands for the images in it. Where the reference is a folder, a test image belongs
    to the reference of its own name, or to the longest that its name starts with before "_".

    Raises:
        DataError: a file is missing, or a test image has no reference.
    """
    files = [file for test in tests for file in _images_of(test)]
    if not ref.is_dir():
        _images_of(ref)
        return [(ref, files)]
    references = {file.stem: file for file in _images_of(ref)}
    matched: dict[Path, list[Path]] = {}
    for file in files:
        stem = file.stem
        while stem not in references and "_" in stem:
            stem = stem.rpartition("_")[0]
        if stem not in references:
            raise DataError(f"{file}: no reference of that name in {ref}")
        matched.setdefault(references[stem], []).append(file)
    return sorted(matched.items())


def _images_of(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)
        if not found:
            raise DataError(f"{path}: folder holds no images ({', '.join(_SUFFIXES)})")
        return found
    if not path.is_file():
        raise DataError(f"{path}: image not found")
    return [path]


@torch.inference_mode()
def score_files(model: AFine, ref: Path, tests: Sequence[Path]) -> Iterator[PairScore]:
    """Score test images of one reference, which goes through the backbone once.

    Raises:
        DataError: unreadable, or of another size than the reference.
    """
    device = model.adapter.k.device
    ref_u8 = read_image_file(ref)
    encoded = model.encode(to_batch01([ref_u8], device))
    for start in range(0, len(tests), _IMAGES_PER_BATCH):
        chosen = tests[start : start + _IMAGES_PER_BATCH]
        images = [_same_size(path, ref_u8, ref) for path in chosen]
        out = model.score_encoded(model.encode(to_batch01(images, device)), encoded)
        for n, path in enumerate(chosen):
            yield PairScore(
                ref=str(ref),
                test=str(path),
                score=float(out.score[n]),
                score100=float(out.score100[n]),
                naturalness_test=float(out.naturalness_test[n]),
                naturalness_ref=float(out.naturalness_ref[n]),
                fidelity=float(out.fidelity[n]),
            )


def _same_size(path: Path, ref_u8: ImageU8, ref: Path) -> ImageU8:
    image = read_image_file(path)
    if image.shape != ref_u8.shape:
        raise DataError(
            f"{path}: {image.shape[1]}x{image.shape[0]} pixels, its reference {ref} has "
            f"{ref_u8.shape[1]}x{ref_u8.shape[0]}; bring them to one size first"
        )
    return image


def _table(scores: Sequence[PairScore]) -> str:
    width = max(len(row.test) for row in scores)
    lines = [
        "lower is better in all columns",
        f"{'test':<{width}}  {'score100':>8}  {'score':>10}  natural  natural(ref)  fidelity",
    ]
    lines += [
        f"{row.test:<{width}}  {row.score100:8.3f}  {row.score:10.4f}  "
        f"{row.naturalness_test:7.4f}  {row.naturalness_ref:12.4f}  {row.fidelity:8.4f}"
        for row in scores
    ]
    return "\n".join(lines)
