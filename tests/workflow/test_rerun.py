"""Which rules rerun after which change: one row per configuration section (docs/rerun.md)."""

import pytest

AFINE = {"afine_triplets", "afine_train", "afine_evaluate"}
AFTER_LABELS = {"shards", *AFINE, "report"}
AFTER_SAMPLES = {"annotation_simulate", "annotation_import", *AFTER_LABELS}
AFTER_PLAN = {"degrade_apply", "enhancer_sample", *AFTER_SAMPLES}
AFTER_ENHANCER = {"enhancer_sample", *AFTER_SAMPLES}
AFTER_BASE = {"enhancer_train", *AFTER_ENHANCER}
EVERYTHING = {"crop", "degrade_plan", "enhancer_base", "enhancer_train", *AFTER_PLAN}

ROWS = [
    ("seed", 99, EVERYTHING),
    ("crop.min_grey_std", 1.5, EVERYTHING),
    ("plan.steps_max", 5, {"degrade_plan", *AFTER_PLAN}),
    ("degrade.preset", "realesrgan", {"degrade_plan", *AFTER_PLAN}),
    ("enhancer.base.unet.steps", 3, {"enhancer_base", *AFTER_BASE}),
    ("enhancer.train.steps", 3, AFTER_BASE),
    ("enhancer.sample.pixel_rounding", "truncate", AFTER_ENHANCER),
    ("annotations.tie_policy", "similar", {"annotation_import", *AFTER_LABELS}),
    ("annotations.simulate.noise_sd", 0.1, AFTER_SAMPLES),
    ("dataset.licence", "cc-by-4.0", AFTER_LABELS),
    ("afine.triplets.reference_rows", False, {*AFINE, "report"}),
    ("afine.phase2.iterations", 3, {"afine_train", "afine_evaluate", "report"}),
    ("afine.evaluate.delta", 0.1, {"afine_evaluate", "report"}),
    ("report.title", "Mine", {"report"}),
    ("scheduling.enhancer_train_gpus", 4, set()),
    ("enhancer.sample.slots", 3, set()),
    ("enhancer.train.micro_batch_size", 1, set()),
    ("enhancer.train.log_every", 7, set()),
    ("afine.phase1.micro_images", 7, set()),
]


def assign(values: dict, dotted: str, value: object) -> None:
    *path, last = dotted.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


@pytest.mark.parametrize(("key", "value", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_a_changed_setting_reruns_just_what_rests_on_it(finished_run, key, value, expected):
    finished_run.write_config(lambda values: assign(values, key, value))
    try:
        assert set(finished_run.planned()) == expected
    finally:
        finished_run.write_config()


def test_nothing_to_do_when_nothing_changed(finished_run):
    finished_run.write_config()
    assert finished_run.planned() == {}
    again = finished_run.snakemake()
    assert "Nothing to be done" in again.stdout


@pytest.mark.parametrize("arguments", [("--cores", "1"), ("--resources", "gpu=1")])
def test_other_machines_rerun_nothing(finished_run, arguments):
    assert finished_run.planned(*arguments) == {}
