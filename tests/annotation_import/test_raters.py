"""Rater report: raters of stated quality are found, careful ones are not flagged."""

import math

import numpy as np
import polars as pl
import pytest

from annotation_import.config import AnnotationsConfig, QualityConfig, SimulateConfig
from annotation_import.importing import import_votes
from annotation_import.problems import Problems
from annotation_import.raters import Rater, flagged, rate_raters, run_probability, wilson
from annotation_import.readers import ReadVotes
from annotation_import.simulated_raters import cast_votes, make_raters
from annotation_import.votes import complete
from runtime.seeds import rng

SEED = 11


def study(**settings: float) -> tuple[pl.DataFrame, dict[str, str]]:
    """Votes of 24 raters on 800 images, and each rater's habit."""
    config = SimulateConfig(raters=24, votes_per_image=5, **settings)
    ids = [f"p-{i // 6}-x0y{i // 6}_{i % 6 + 1:02}" for i in range(800)]
    utility = rng(0, "test", "utility").standard_normal(len(ids))
    habits = {rater.rater_id: rater.habit for rater in make_raters(config, seed=SEED)}
    return cast_votes(ids, utility, config, seed=SEED), habits


def by_id(votes: pl.DataFrame, **quality: float) -> dict[str, Rater]:
    return {rater.rater_id: rater for rater in rate_raters(votes, QualityConfig(**quality))}


def test_careful_raters_are_not_flagged() -> None:
    votes, _ = study(repeat_share=0.1)
    assert flagged(list(by_id(votes).values())) == []


@pytest.mark.parametrize(
    ("habit", "flag"),
    [("careless", "low_agreement"), ("reversed", "low_agreement"), ("biased", "side_bias")],
)
def test_bad_raters_are_found(habit: str, flag: str) -> None:
    votes, habits = study(**{f"{habit}_share": 0.125})
    found = {name for name, rater in by_id(votes).items() if flag in rater.flags}
    assert found == {name for name, kind in habits.items() if kind == habit}


def test_careless_raters_disagree_with_themselves() -> None:
    votes, habits = study(careless_share=0.125, repeat_share=0.5)
    raters = by_id(votes)
    own = {
        kind: np.mean([raters[n].repeat_agreement for n, k in habits.items() if k == kind])
        for kind in ("careful", "careless")
    }
    assert own["careful"] > 0.6 and own["careless"] < 0.5
    assert sum(rater.n_repeats for rater in raters.values()) == (votes["kind"] == "repeat").sum()


def test_one_answer_and_long_runs() -> None:
    votes, _ = study()
    lazy = votes.with_columns(
        label=pl.when(pl.col("rater_id") == "sim-003").then(pl.lit(0, pl.Int8)).otherwise("label")
    )
    half = lazy.sort("rater_id", "started").with_columns(
        label=pl.when(
            (pl.col("rater_id") == "sim-005")
            & (pl.int_range(pl.len()).over("rater_id") < pl.len().over("rater_id") // 3)
        )
        .then(pl.lit(1, pl.Int8))
        .otherwise("label")
    )
    raters = by_id(half)
    assert "one_answer" in raters["sim-003"].flags and raters["sim-003"].entropy_bits == 0
    assert "long_run" in raters["sim-005"].flags and raters["sim-005"].longest_run >= 50
    assert raters["sim-000"].longest_run < 20


def test_fast_answers() -> None:
    votes, _ = study()
    fast = votes.with_columns(
        time_s=pl.when(pl.col("rater_id") == "sim-001").then(0.3).otherwise("time_s")
    )
    raters = by_id(fast)
    assert {"too_fast", "time_outliers"} <= set(raters["sim-001"].flags)
    assert raters["sim-001"].too_fast_share == 1.0 and raters["sim-002"].flags == []
    assert raters["sim-002"].median_time_s == pytest.approx(3.4, rel=0.15)


def test_few_votes_are_reported_but_not_flagged() -> None:
    votes, _ = study(careless_share=0.125)
    assert flagged(list(by_id(votes, min_votes_per_rater=10_000).values())) == []


def test_what_the_votes_do_not_tell_is_none() -> None:
    bare = complete(
        pl.DataFrame(
            {"study": "s", "ref_id": "a", "test_id": "a_01", "rater_id": ["x", "y"],
             "label": [1, 1]}
        )
    )  # fmt: skip
    one = by_id(bare)["x"]
    assert (one.median_time_s, one.longest_run, one.side_p, one.repeat_agreement) == (None,) * 4
    assert one.agreement == 1.0 and one.n_compared == 1


def test_agreement_leaves_the_own_vote_out() -> None:
    rows = [("a_01", "x", 1), ("a_01", "y", -1), ("a_01", "z", -1),
            ("a_02", "x", 1), ("a_02", "y", 0), ("a_02", "z", -1)]  # fmt: skip
    votes = complete(
        pl.DataFrame(rows, schema=["test_id", "rater_id", "label"], orient="row").with_columns(
            study=pl.lit("s"), ref_id=pl.lit("a")
        )
    )
    raters = by_id(votes)
    assert (raters["x"].agreement, raters["x"].n_compared) == (0.0, 1)
    assert raters["y"].agreement is None, "the others never agreed, so there is no majority"


def test_wilson() -> None:
    assert wilson(0, 0, 0.95) == (0.0, 1.0)
    low, high = wilson(8, 10, 0.95)  # Wilson (1927), as tabulated: 0.490 to 0.943
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 10, 0.95)[0] == 0 and wilson(10, 10, 0.95)[1] == pytest.approx(1)


def test_run_probability_matches_simulation() -> None:
    shares = np.array([0.4, 0.2, 0.4])
    generator = rng(0, "test", "runs")
    longest = []
    for _ in range(3000):
        answers = generator.choice(3, 150, p=shares)
        edges = np.flatnonzero(np.diff(answers)) + 1
        longest.append(np.diff(np.concatenate([[0], edges, [150]])).max())
    for length in (6, 7, 8):
        simulated = np.mean(np.array(longest) >= length)
        assert run_probability(length, 150, shares) == pytest.approx(simulated, abs=0.05)
    assert math.isclose(run_probability(150, 150, np.array([0.0, 1.0, 0.0])), 1 - math.exp(-1))


def test_report_has_the_what_if_table_and_excludes_nobody_by_itself() -> None:
    votes, habits = study(careless_share=0.25)
    bad = {name for name, kind in habits.items() if kind == "careless"}
    options = AnnotationsConfig(min_votes=3)
    found = import_votes(ReadVotes(votes, Problems()), options)
    what_if = found.report["what_if"]
    assert set(what_if["excluded"]) == bad and found.report["votes"]["n_excluded"] == 0
    assert sum(what_if["before"].values()) == 800
    assert what_if["before"]["better"] == found.report["labels"]["better"]
    options = AnnotationsConfig(min_votes=3, exclude_raters=tuple(sorted(bad)))
    cleaned = import_votes(ReadVotes(votes, Problems()), options).report
    assert {k: cleaned["labels"][k] for k in ("worse", "similar", "better")} == {
        k: what_if["after"][k] for k in ("worse", "similar", "better")
    }
    assert (
        cleaned["agreement"]["alpha_nominal"]["low"]
        > found.report["agreement"]["alpha_nominal"]["high"]
    )


def test_dawid_skene_policy_in_an_import() -> None:
    votes, _ = study(careless_share=0.125)
    drop = import_votes(ReadVotes(votes, Problems()), AnnotationsConfig())
    fit = import_votes(ReadVotes(votes, Problems()), AnnotationsConfig(tie_policy="dawid_skene"))
    section = fit.report["dawid_skene"]
    assert section["is_converged"] and sum(section["class_shares"].values()) == pytest.approx(1)
    resolved = section["n_ties_resolved"]
    assert resolved == len(drop.decided.outliers) - len(fit.decided.outliers) > 0
    rows = {row["rater_id"]: row for row in fit.report["raters"]["rows"]}
    assert all(0 < row["dawid_skene_accuracy"] <= 1 for row in rows.values())
