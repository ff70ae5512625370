"""Progress of long loops: a bar on a terminal, else a line now and then with rate and ETA."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_LINE_EVERY_S = 30.0
_log = logging.getLogger(__name__)


class Progress:
    """Count finished items and say how it goes.

    Args:
        total: number of items, or None if unknown.
        what: what is counted, for example "crop photographs".
        unit: name of one item.
        done: items finished by an earlier, interrupted run; they count in the total, not the rate.
    """

    def __init__(self, total: int | None, what: str, *, unit: str = "item", done: int = 0) -> None:
        self._total, self._what, self._unit = total, what, unit
        self._done, self._done_before, self._dropped = done, done, 0
        self._start_s = self._line_s = time.monotonic()
        self._bar: tqdm | None = None  # type: ignore[type-arg]
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=what, unit=unit, initial=done, dynamic_ncols=True)

    def advance(self, count: int = 1, *, dropped: int = 0, note: str = "") -> None:
        """Report `count` more items, of which `dropped` were rejected."""
        self._done += count
        self._dropped += dropped
        if self._bar is not None:
            self._bar.update(count)
            if note or self._dropped:
                self._bar.set_postfix_str(" ".join(filter(None, [note, self._dropped_text()])))
        elif time.monotonic() - self._line_s >= _LINE_EVERY_S:
            self._line_s = time.monotonic()
            _log.info("%s", self.line(note))

    def line(self, note: str = "") -> str:
        """One line: done of total, rate, time left, dropped."""
        elapsed_s = max(time.monotonic() - self._start_s, 1e-9)
        rate = (self._done - self._done_before) / elapsed_s
        text = f"{self._what}: {self._done}"
        if self._total is not None:
            text += f"/{self._total}"
        text += f" {self._unit}, {rate:.3g}/s"
        if self._total is not None and rate > 0:
            text += f", {_clock((self._total - self._done) / rate)} left"
        return ", ".join(filter(None, [text, note, self._dropped_text()]))

    def seconds_left(self) -> float:
        """Predict the seconds to the end from the rate so far; 0 if the total is unknown."""
        elapsed_s = time.monotonic() - self._start_s
        done_now = self._done - self._done_before
        if self._total is None or done_now == 0:
            return 0.0
        return elapsed_s / done_now * (self._total - self._done)

    def close(self) -> None:
        """End the bar, or write a last line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        else:
            _log.info("%s", self.line())

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _dropped_text(self) -> str:
        return f"{self._dropped} dropped" if self._dropped else ""


def track(
    items: Iterable[T], what: str, *, total: int | None = None, unit: str = "item"
) -> Iterator[T]:
    """Yield `items` unchanged and report progress."""
    if total is None:
        try:
            total = len(items)  # type: ignore[arg-type]
        except TypeError:
            total = None
    with Progress(total, what, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
