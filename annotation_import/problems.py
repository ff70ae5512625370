"""What is wrong with a source: collected with reason, count and examples, never raised one by one.

A rejected problem takes its vote out; a noted one leaves the vote in and is only reported.
"""

import logging
from collections import Counter
from dataclasses import dataclass

import polars as pl

from runtime.errors import DataError

_log = logging.getLogger(__name__)
MAX_EXAMPLES = 20
_LOGGED_EXAMPLES = 3


@dataclass(frozen=True)
class Reason:
    """What a reason means and whether its votes are left out."""

    is_rejected: bool
    meaning: str


REASONS: dict[str, Reason] = {
    "malformed_json": Reason(True, "the file or line is not JSON of this layout"),
    "malformed_row": Reason(True, "a table row has the wrong number of fields, or an empty id"),
    "missing_label": Reason(True, "no answer is given"),
    "wrong_label": Reason(True, "the answer is none of the known ones"),
    "name_mismatch": Reason(True, "the names inside the file disagree with its file name"),
    "unexpected_path": Reason(True, "the file does not lie where the layout puts votes"),
    "unknown_image": Reason(True, "the vote is about an image that is not in the study"),
    "duplicate_vote": Reason(True, "the same slot or rater already voted on this pair"),
    "case_collision": Reason(True, "files whose names differ only in case: no way to tell which"),
    "unreadable": Reason(True, "the file cannot be read"),
    "too_large": Reason(True, "the file is far larger than a vote"),
    "unsafe_member": Reason(True, "an archive member with '..', an absolute path, or a link"),
    "symlink_loop": Reason(False, "a folder link that leads back to a folder above it"),
    "byte_order_mark": Reason(False, "the file starts with a byte-order mark, which was skipped"),
    "bad_time": Reason(False, "the answer time is not a number of seconds >= 0; left empty"),
    "bad_side": Reason(False, "the shown side is none of ref, test, test_2; left empty"),
    "bad_kind": Reason(True, "the kind of trial is none of real, repeat, gold, train"),
    "missing_slot": Reason(False, "a pair has no vote in a slot that other pairs have"),
    "missing_pair": Reason(False, "a pair of a paired comparison has no vote at all"),
    "unvoted_image": Reason(False, "an image of the study has no vote at all"),
}


class Problems:
    """Problems found while importing."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str]] = []
        self._votes: Counter[str] = Counter()

    def add(self, reason: str, where: str, detail: str = "", *, votes: int = 1) -> None:
        """Record one problem.

        Args:
            reason: a key of `REASONS`.
            where: file (and line), relative to the source, or the pair.
            detail: what was found and what was expected.
            votes: how many votes it concerns (an HGGT file holds four).
        """
        assert reason in REASONS, f"unknown reason {reason}"
        self._rows.append((reason, where, detail))
        self._votes[reason] += votes

    def merge(self, other: "Problems") -> None:
        """Add the problems that another reader found."""
        self._rows.extend(other._rows)
        self._votes.update(other._votes)

    @property
    def n_rejected(self) -> int:
        """Number of votes that were left out."""
        return sum(n for reason, n in self._votes.items() if REASONS[reason].is_rejected)

    def counts(self) -> dict[str, int]:
        """Number of votes (or pairs) concerned, per reason."""
        return dict(sorted(self._votes.items()))

    def table(self) -> pl.DataFrame:
        """Every problem as a row: reason, where, detail; in a fixed order."""
        return pl.DataFrame(
            sorted(self._rows), schema=["reason", "where", "detail"], orient="row",
            schema_overrides=dict.fromkeys(["reason", "where", "detail"], pl.String),
        )  # fmt: skip

    def summary(self) -> dict[str, object]:
        """Count, meaning and first examples per reason, as written to `report.json`."""
        examples: dict[str, list[dict[str, str]]] = {reason: [] for reason in self.counts()}
        for reason, where, detail in sorted(self._rows):
            if len(examples[reason]) < MAX_EXAMPLES:
                examples[reason].append({"where": where, "detail": detail})
        return {
            reason: {
                "count": count,
                "is_rejected": REASONS[reason].is_rejected,
                "meaning": REASONS[reason].meaning,
                "examples": examples[reason],
            }
            for reason, count in self.counts().items()
        }

    def log(self) -> None:
        """Say what was found: a line per reason with its first examples."""
        for reason, count in self.counts().items():
            shown = [row for row in sorted(self._rows) if row[0] == reason][:_LOGGED_EXAMPLES]
            verb = "left out" if REASONS[reason].is_rejected else "noted"
            places = "; ".join(
                f"{where} ({detail})" if detail else where for _, where, detail in shown
            )
            _log.warning(
                "%s, %s: %d (%s): %s", verb, reason, count, REASONS[reason].meaning, places
            )

    def check(self, n_good: int, *, max_fraction: float, where: str) -> None:
        """Fail if nothing is left, or if too large a share of the votes was rejected.

        Raises:
            DataError: naming the share, the limit, and the reasons with their first examples.
        """
        total = n_good + self.n_rejected
        histogram = ", ".join(
            f"{reason}: {n} (first: {min(row[1] for row in self._rows if row[0] == reason)})"
            for reason, n in self.counts().items()
            if REASONS[reason].is_rejected
        )
        if n_good == 0:
            raise DataError(
                f"{where}: no usable vote ({histogram or 'no vote file found'}); check "
                "--source and --layout"
            )
        if self.n_rejected > max_fraction * total:
            raise DataError(
                f"{where}: {self.n_rejected} of {total} votes were rejected ({histogram}); "
                f"max_failure_fraction allows {max_fraction:g}: repair the source or raise it"
            )
