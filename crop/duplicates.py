"""Photographs that are the same file, or look the same.

Equal bytes are found by SHA-256, alike pictures by the Hamming distance of 64-bit perceptual
hashes, compared in blocks so that memory stays small.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

_BLOCK = 2048


@dataclass(frozen=True)
class Duplicate:
    """A photograph that repeats an earlier one.

    Attributes:
        index: position of the later photograph.
        of: position of the earlier one.
        kind: equal bytes, or alike.
        distance: Hamming distance of the perceptual hashes, in bits.
    """

    index: int
    of: int
    kind: Literal["exact", "near"]
    distance: int


def find_duplicates(
    sha256: Sequence[str], hashes: Sequence[str], *, near_distance: int
) -> list[Duplicate]:
    """Find all pairs of photographs that are equal or alike.

    Args:
        sha256: digest of each photograph's file.
        hashes: perceptual hash of each, 16 hexadecimal digits.
        near_distance: largest distance in bits that counts as alike.
    Returns:
        One entry for each pair, sorted by (index, of).
    """
    values = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    pairs = sorted(_near_pairs(values, near_distance))
    exact = {(later, earlier) for later, earlier in _exact_pairs(sha256)}
    found = [Duplicate(later, earlier, "exact", 0) for later, earlier in exact]
    found += [
        Duplicate(later, earlier, "near", distance)
        for later, earlier, distance in pairs
        if sha256[later] != sha256[earlier]
    ]
    return sorted(found, key=lambda pair: (pair.index, pair.of))


def _exact_pairs(sha256: Sequence[str]) -> Iterator[tuple[int, int]]:
    first: dict[str, int] = {}
    for index, digest in enumerate(sha256):
        earlier = first.setdefault(digest, index)
        if earlier != index:
            yield index, earlier


def _near_pairs(
    values: npt.NDArray[np.uint64], near_distance: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (later, earlier, distance) of all pairs within the distance."""
    for start in range(0, len(values), _BLOCK):
        later = values[start : start + _BLOCK]
        for other in range(0, start + 1, _BLOCK):
            earlier = values[other : other + _BLOCK]
            distance = np.bitwise_count(later[:, None] ^ earlier[None, :])
            rows, cols = np.nonzero(distance <= near_distance)
            for row, col in zip(rows.tolist(), cols.tolist(), strict=True):
                if other + col < start + row:
                    yield start + row, other + col, int(distance[row, col])


def groups_of(count: int, duplicates: Sequence[Duplicate]) -> list[int]:
    """Number the groups of photographs that belong together, directly or through others.

    Returns:
        For each photograph, the position of the first member of its group.
    """
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for pair in duplicates:
        one, two = sorted((root(pair.index), root(pair.of)))
        parent[two] = one
    return [root(index) for index in range(count)]


def dropped_by(
    duplicates: Sequence[Duplicate], *, drop_exact: bool, drop_near: bool
) -> dict[int, Duplicate]:
    """Choose which photographs to drop: those that repeat an earlier one that is kept."""
    dropped: dict[int, Duplicate] = {}
    for pair in duplicates:
        wanted = drop_exact if pair.kind == "exact" else drop_near
        if wanted and pair.of not in dropped and pair.index not in dropped:
            dropped[pair.index] = pair
    return dropped
