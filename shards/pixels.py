"""Reading the PNGs of a reference, and leaving out what is damaged."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.errors import DataError
from runtime.tars import Member, read_member
from shards.assemble import Entry
from shards.png_check import png_size
from shards.sources import SampleIndex


def crop_place(root: Path, crop: Mapping[str, Any]) -> tuple[Path, Member]:
    """Say where a reference's PNG lies: tar and position."""
    member = Member(f"{crop['crop_id']}.png", crop["offset"], crop["size_bytes"])
    return root / f"crops/crops-{crop['shard']:05}.tar", member


def read_crop(root: Path, crop: Mapping[str, Any]) -> bytes:
    """Read a reference's PNG by its position and check it against its digest.

    Raises:
        DataError: the shard does not hold what crops.parquet says.
    """
    tar, member = crop_place(root, crop)
    if not tar.is_file():
        raise DataError(f"{tar}: shard of crops not found; rerun `crop run`")
    content = read_member(tar, member)
    if hashlib.sha256(content).hexdigest() != crop["sha256"]:
        raise DataError(
            f"{tar}: '{member.name}' is not what crops.parquet says (sha256 differs); rerun "
            "`crop run`"
        )
    return content


def read_test(samples: SampleIndex, test_id: str, size_px: int) -> bytes:
    """Read a test image's PNG and check that it is whole and as large as its reference.

    Raises:
        DataError: it is damaged or has another size.
    """
    tar, member = samples.members[test_id]
    content = read_member(tar, member)
    found = png_size(content, where=f"{tar}: {member.name}")
    if found != (size_px, size_px):
        raise DataError(
            f"{tar}: {member.name} is {found[0]}x{found[1]} pixels, its reference "
            f"{size_px}x{size_px}; rerun `enhancer sample` for this shard"
        )
    return content


def sound_entry(
    root: Path, samples: SampleIndex, entry: Entry, min_tests: int
) -> tuple[Entry | None, list[dict[str, str]]]:
    """Leave out the damaged images of a reference.

    Args:
        root: folder of the run.
        samples: where the test images lie.
        entry: the reference with its test images.
        min_tests: a reference with fewer sound test images is left out altogether.

    Returns:
        The entry with its sound test images (None if too few, or the reference itself is
        damaged), and one row (key, reason, detail) for every test image left out.
    """
    try:
        read_crop(root, entry.crop)
    except DataError as error:
        return None, [_row(entry, kk, "reference damaged", str(error)) for kk in entry.tests]
    sound: dict[str, Mapping[str, Any]] = {}
    rejected: list[dict[str, str]] = []
    for kk, test in entry.tests.items():
        try:
            read_test(samples, f"{entry.key}_{kk}", entry.crop["size_px"])
            sound[kk] = test
        except DataError as error:
            rejected.append(_row(entry, kk, "image damaged", str(error)))
    if len(sound) < min_tests:
        rejected += [_row(entry, kk, "other images damaged", "") for kk in sound]
        return None, rejected
    return replace(entry, tests=sound), rejected


def _row(entry: Entry, kk: str, reason: str, detail: str) -> dict[str, str]:
    return {"key": f"{entry.key}_{kk}", "reason": reason, "detail": detail}
