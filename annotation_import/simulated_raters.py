"""Simulated raters of stated quality, and their votes on images with known utility."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from string import ascii_uppercase
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from annotation_import.config import SimulateConfig
from annotation_import.observer import judge
from annotation_import.votes import complete, sort_votes
from runtime.seeds import rng

_SIDE_PULL = 1.5  # utility that a biased rater adds for the preferred side
_LOG_TIME_SD = 0.45  # of log answer times; people's are about that wide
_FIRST_TRIAL = datetime(2000, 1, 1, 9)  # plainly not a real date
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class SimulatedRater:
    """One rater.

    Attributes:
        rater_id: `sim-000`, ...
        habit: careful | careless (guesses) | biased (prefers a side) | reversed.
        preferred_left: side that a biased rater prefers.
    """

    rater_id: str
    habit: str
    preferred_left: bool


def make_raters(settings: SimulateConfig, *, seed: int) -> list[SimulatedRater]:
    """Make the pool; the stated shares are met as closely as whole raters allow."""
    generator = rng(seed, "annotation.raters")
    n = settings.raters
    habits = ["careful"] * n
    order = generator.permutation(n)
    taken = 0
    for habit in ("careless", "biased", "reversed"):
        count = min(round(getattr(settings, f"{habit}_share") * n), n - taken)
        for position in order[taken : taken + count]:
            habits[int(position)] = habit
        taken += count
    return [
        SimulatedRater(f"sim-{index:03}", habits[index], bool(generator.random() < 0.5))
        for index in range(n)
    ]


def cast_votes(
    test_ids: Sequence[str],
    utility: npt.NDArray[np.float64],
    settings: SimulateConfig,
    *,
    seed: int,
) -> pl.DataFrame:
    """Let raters judge images.

    Every draw is keyed by the image, so an image's votes do not depend on the others.

    Args:
        test_ids: `<ref_id>_<KK>`.
        utility: float64 [N], see `annotation_import.observer.utilities`.
        settings: raters, noise, criterion.
        seed: of the run.

    Returns:
        A votes table, marked synthetic; repeats have kind `repeat` and no slot.
    """
    raters = make_raters(settings, seed=seed)
    rows: list[dict[str, Any]] = []
    for test_id, value in zip(test_ids, utility, strict=True):
        rows.extend(_image_votes(test_id, float(value) + settings.offset, raters, settings, seed))
    schema: dict[str, Any] = {"label": pl.Int8, "slot": pl.String, "time_s": pl.Float64}
    votes = pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)
    return sort_votes(complete(_with_clock(votes, seed)))


def _image_votes(
    test_id: str,
    utility: float,
    raters: list[SimulatedRater],
    settings: SimulateConfig,
    seed: int,
) -> list[dict[str, Any]]:
    generator = rng(seed, "annotation.votes", test_id)
    chosen = generator.permutation(len(raters))[: settings.votes_per_image]
    slots: list[str | None] = list(ascii_uppercase[: settings.votes_per_image])
    trials = list(zip((raters[int(index)] for index in chosen), slots))
    if generator.random() < settings.repeat_share:
        trials.append((trials[0][0], None))
    return [
        {
            "study": "simulated",
            "ref_id": test_id.rpartition("_")[0],
            "test_id": test_id,
            "rater_id": rater.rater_id,
            "slot": slot,
            "is_synthetic": True,
            "kind": "real" if slot else "repeat",
            **_trial(rater, utility, settings, generator),
        }
        for rater, slot in trials
    ]


def _trial(
    rater: SimulatedRater, utility: float, settings: SimulateConfig, generator: np.random.Generator
) -> dict[str, Any]:
    """One answer. Every habit takes the same number of draws, so habits do not shift the others."""
    is_test_left = bool(generator.random() < 0.5)
    noise = settings.noise_sd * float(generator.standard_normal())
    guess = int(generator.integers(-1, 2))
    seconds = settings.median_time_s * float(np.exp(_LOG_TIME_SD * generator.standard_normal()))
    if rater.habit == "biased":
        noise += _SIDE_PULL if is_test_left == rater.preferred_left else -_SIDE_PULL
    label = judge(utility, noise, settings.criterion)
    if rater.habit == "careless":
        label = guess
    elif rater.habit == "reversed":
        label = -label
    return {
        "label": label,
        "shown_left": "test" if is_test_left else "ref",
        "time_s": round(seconds, 1),
    }


def _with_clock(votes: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Give each rater's trials a random order and made-up times of day, one after another."""
    order = rng(seed, "annotation.order").permutation(len(votes))
    shuffled = votes.with_columns(order=pl.Series(order)).sort(
        "rater_id", pl.col("kind") == "repeat", "order"
    )
    ends = pl.col("time_s").cum_sum().over("rater_id")
    clocked = shuffled.with_columns(end_s=ends, start_s=ends - pl.col("time_s"))
    return clocked.with_columns(
        started=_clock_texts(clocked["start_s"]), ended=_clock_texts(clocked["end_s"])
    ).drop("order", "start_s", "end_s")


def _clock_texts(seconds: pl.Series) -> pl.Series:
    texts = [(_FIRST_TRIAL + timedelta(seconds=int(s))).strftime(_TIME_FORMAT) for s in seconds]
    return pl.Series(texts, dtype=pl.String)
