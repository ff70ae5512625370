"""Why a file, photograph or crop was left out; every reason is one of these fixed words."""

from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "symlink_loop",  # a folder that contains itself through a link
    "missing",  # named in the list file, not there
    "key_collision",  # another photograph of the source has the same key
    "unreadable",  # permissions, broken link, I/O error
    "empty",  # zero bytes
    "not_an_image",  # no known image format
    "wrong_extension",  # an image of another format than its name says
    "unsupported_format",  # an image, but not one of the formats that are read
    "several_frames",  # animation or several pages
    "too_large",  # more megapixels than allowed
    "truncated",  # the file ends early
    "corrupt",  # the decoder gave up
    "unsupported_mode",  # pixels that have no 8-bit meaning (32 bit, floating point)
    "crashed",  # the decoder took its process down
    "too_small",  # smaller than one crop
    "photo_low_contrast",
    "photo_low_detail",
    "low_contrast",
    "low_detail",
    "duplicate",
    "near_duplicate",
    "not_selected",  # beyond target_count
]

FAILURES: frozenset[Reason] = frozenset(
    {
        "symlink_loop", "missing", "key_collision", "unreadable", "empty", "not_an_image",
        "wrong_extension", "unsupported_format", "several_frames", "too_large", "truncated",
        "corrupt", "unsupported_mode", "crashed",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Rejected:
    """One thing that was left out.

    Attributes:
        source: name of the source.
        path: file, relative to the source's folder.
        reason: fixed word.
        value: what a filter measured, a distance or a rank.
        row, col: position of a crop in the upright photograph.
        detail: what was found, and what to do.
    """

    source: str
    path: str
    reason: Reason
    value: float | None = None
    row: int | None = None
    col: int | None = None
    detail: str = ""
