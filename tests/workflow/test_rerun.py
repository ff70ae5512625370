"""Which rules rerun after which change: one row per configuration section (docs/rerun.md)."""

import importlib.util
import json
import re
from collections.abc import Iterator

import pytest

from tests.workflow.stand_ins import ROOT

AFINE = {"afine_triplets", "afine_train", "afine_evaluate"}
AFTER_TRIPLETS = {"afine_train", "afine_evaluate", "report"}
AFTER_LABELS = {"shards", *AFINE, "report"}
AFTER_SAMPLES = {"annotation_simulate", "annotation_import", *AFTER_LABELS}
AFTER_PLAN = {"degrade_apply", "enhancer_sample", *AFTER_SAMPLES}
AFTER_ENHANCER = {"enhancer_sample", *AFTER_SAMPLES}
AFTER_BASE = {"enhancer_train", *AFTER_ENHANCER}
EVERYTHING = {"crop", "degrade_plan", "enhancer_base", "enhancer_train", *AFTER_PLAN}

ROWS = [
    ("seed", 99, EVERYTHING),
    ("run", "other", EVERYTHING),
    ("results", "elsewhere", EVERYTHING),
    ("sources", [{"name": "photos", "path": "photos", "limit": 3}], EVERYTHING),
    ("crop.min_grey_std", 1.5, EVERYTHING),
    ("plan.steps_max", 5, {"degrade_plan", *AFTER_PLAN}),
    ("degrade.preset", "realesrgan", {"degrade_plan", *AFTER_PLAN}),
    ("enhancer.base_model", "./sd15", AFTER_BASE),
    ("enhancer.base.unet.steps", 3, {"enhancer_base", *AFTER_BASE}),
    ("enhancer.train.steps", 3, AFTER_BASE),
    ("enhancer.sample.pixel_rounding", "truncate", AFTER_ENHANCER),
    ("annotations.tie_policy", "similar", {"annotation_import", *AFTER_LABELS}),
    ("annotations.simulate.noise_sd", 0.1, AFTER_SAMPLES),
    ("dataset.licence", "cc-by-4.0", AFTER_LABELS),
    ("afine.triplets.reference_rows", False, {*AFINE, "report"}),
    ("afine.data.splits", "splits.json", {*AFINE, "report"}),
    ("afine.model.hidden", 9, AFTER_TRIPLETS),
    ("afine.augmentation", "dihedral8", AFTER_TRIPLETS),
    ("afine.balance", "repeat", AFTER_TRIPLETS),
    ("afine.cache.precision", "float16", AFTER_TRIPLETS),
    ("afine.phase1.iterations", 3, AFTER_TRIPLETS),
    ("afine.phase2.iterations", 3, AFTER_TRIPLETS),
    ("afine.phase3.iterations", 3, AFTER_TRIPLETS),
    ("afine.evaluate.delta", 0.1, {"afine_evaluate", "report"}),
    ("report.title", "Mine", {"report"}),
    ("scheduling.enhancer_train_gpus", 4, set()),
    ("enhancer.sample.slots", 3, set()),
    ("enhancer.train.micro_batch_size", 1, set()),
    ("enhancer.train.log_every", 7, set()),
    ("afine.phase1.micro_images", 7, set()),
    ("crop.max_failure_fraction", 0.4, set()),
    ("crop.workers", 1, set()),
]
# phases of A-FINE that a change redoes, where not all three or none
PHASES = {"afine.cache.precision": 2, "afine.phase2.iterations": 2, "afine.phase3.iterations": 1}


def assign(values: dict, dotted: str, value: object) -> None:
    *path, last = dotted.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


@pytest.mark.parametrize(("key", "value", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_a_changed_setting_reruns_just_what_rests_on_it(finished_run, key, value, expected):
    finished_run.write_config(lambda values: assign(values, key, value))
    try:
        planned = finished_run.planned()
        assert set(planned) == expected
        phases = PHASES.get(key, 3 if "afine_train" in expected else 0)
        assert planned.get("afine_train", 0) == phases
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


@pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_slurm") is None, reason="no SLURM plugin"
)
def test_another_profile_reruns_nothing(finished_run):
    profile = str(ROOT / "workflow/profiles/slurm")
    assert finished_run.planned("--workflow-profile", profile) == {}


def settings_to_depth_2() -> Iterator[str]:
    """Dotted names of the settings that may change a result, from the generated schema."""
    schema = json.loads((ROOT / "configs/schema.json").read_text(encoding="utf-8"))

    def listed(values: dict) -> dict:
        name = (values.get("$ref") or values.get("items", {}).get("$ref", "")).rpartition("/")[2]
        found = schema["$defs"].get(name, {}).get("properties", {})
        return {key: value for key, value in found.items() if value.get("affects_results", True)}

    for section, values in schema["properties"].items():
        yield section
        yield from (f"{section}.{name}" for name in listed(values))


def test_the_documentation_has_a_row_for_every_setting():
    """By its own name or its section's; a section may be named by all that is in it."""
    text = (ROOT / "docs/rerun.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    named = {name for cell in first_cells for name in re.findall(r"`([\w.]+)`", cell)}
    names = set(settings_to_depth_2())
    missing = {name for name in names if name not in named and name.partition(".")[0] not in named}
    sections = {name.partition(".")[0] for name in names if "." in name}
    assert missing - sections == set()
    unnamed = {row[0] for row in ROWS if row[2]} - {
        key for key, *_ in ROWS for name in named if f"{key}.".startswith(f"{name}.")
    }
    assert unnamed == set()
