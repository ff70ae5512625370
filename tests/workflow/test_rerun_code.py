"""Which rules rerun after a change of code (docs/rerun.md), on a copy of the repository."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.code_version import PACKAGES
from tests.workflow.stand_ins import ROOT, StandIns, stand_ins

_JOB_COUNT = re.compile(r"^(\w+)\s+(\d+)$", re.MULTILINE)
COMMENT = "\n# a remark\n"
CODE = "\nADDED_BY_A_TEST = 1\n"
AFINE = {"afine_triplets", "afine_train", "afine_evaluate"}
AFTER_TRIPLETS = {"afine_train", "afine_evaluate", "report"}
AFTER_SAMPLES = {"annotation_simulate", "annotation_import", "shards", *AFINE, "report"}
AFTER_TRAIN = {"enhancer_train", "enhancer_sample", *AFTER_SAMPLES}
EVERYTHING = {"crop", "degrade_plan", "degrade_apply", "enhancer_base", "enhancer_train"}
EVERYTHING |= {"enhancer_sample", *AFTER_SAMPLES}

# together, to spare dry runs: none of them may rerun anything
WITHOUT_EFFECT = {
    "crop/stage.py": COMMENT,
    "workflow/rules/crop.smk": COMMENT,
    "crop/__main__.py": CODE,
    "runtime/progress.py": CODE,
    "workflow/predict.py": CODE,
    "README.md": CODE,
}
ROWS = [
    ("crop/stage.py", EVERYTHING),
    ("degrade/plan.py", EVERYTHING - {"crop", "enhancer_base", "enhancer_train"}),
    ("degrade/apply.py", {"degrade_apply", "enhancer_sample", *AFTER_SAMPLES}),
    ("degrade/kernels.py", {"degrade_apply", *AFTER_TRAIN}),  # training degrades on the fly
    ("enhancer/base/fitting.py", {"enhancer_base", *AFTER_TRAIN}),
    ("enhancer/train/objective.py", AFTER_TRAIN),
    ("enhancer/sample/engine.py", {"enhancer_sample", *AFTER_SAMPLES}),
    ("annotation_import/simulated_raters.py", AFTER_SAMPLES),
    ("annotation_import/importing.py", AFTER_SAMPLES - {"annotation_simulate"}),
    ("shards/card.py", {"shards", *AFINE, "report"}),
    ("afine/triplets/splits.py", {*AFINE, "report"}),
    ("afine/training/phase1.py", AFTER_TRIPLETS),
    ("afine/training/phase2.py", AFTER_TRIPLETS),
    ("afine/training/phase3.py", AFTER_TRIPLETS),
    ("afine/evaluation/stage.py", {"afine_evaluate", "report"}),
    ("shards/templates/card.md", {"shards", *AFINE, "report"}),
    ("report/templates/style.css", {"report"}),
    ("report/page.py", {"report"}),
]
# phases of A-FINE that a change redoes, where not all three or none
PHASES = {"afine/training/phase2.py": 2, "afine/training/phase3.py": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    """A finished run of a copy of the repository, its stages replaced by stand-ins."""
    folder = tmp_path_factory.mktemp("code")
    repository = folder / "repository"
    repository.mkdir()
    for name in (*PACKAGES, "workflow", "configs"):
        shutil.copytree(ROOT / name, repository / name)
    for name in ("Snakefile", "README.md"):
        shutil.copy(ROOT / name, repository / name)
    (repository / "profiles").symlink_to("workflow/profiles")
    run = replace(stand_ins(folder / "work", shards=1), repository=repository)
    done = run.snakemake("--resources", "gpu=20", "--cores", "2")
    assert done.returncode == 0, done.stdout[-5000:]
    return run


@contextmanager
def edited(run: StandIns, additions: Mapping[str, str]) -> Iterator[None]:
    """Add text to files of the run's copy of the repository, for a while."""
    before = {name: Path(run.repository, name).read_bytes() for name in additions}
    try:
        for name, text in additions.items():
            Path(run.repository, name).write_bytes(before[name] + text.encode())
        yield
    finally:
        for name, content in before.items():
            Path(run.repository, name).write_bytes(content)


def planned(run: StandIns) -> dict[str, int]:
    """Jobs per rule that a dry run would do."""
    shown = run.snakemake("-n", "--cores", "2")
    assert shown.returncode == 0, shown.stdout[-3000:]
    jobs = {name: int(count) for name, count in _JOB_COUNT.findall(shown.stdout)}
    return {name: count for name, count in jobs.items() if name not in ("total", "all")}


def test_comments_command_lines_and_other_code_rerun_nothing(finished):
    with edited(finished, WITHOUT_EFFECT):
        assert planned(finished) == {}


@pytest.mark.parametrize(("name", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_changed_code_reruns_just_what_rests_on_it(finished, name, expected):
    with edited(finished, {name: CODE}):
        jobs = planned(finished)
    assert set(jobs) == expected
    phases = PHASES.get(name, 3 if "afine_train" in expected else 0)
    assert jobs.get("afine_train", 0) == phases


def test_forcerun_removes_the_manifest_and_redoes_what_is_downstream(finished):
    """With its manifest there, a stage would see nothing new and say that it is done."""
    hook = '[ "$name" = "afine triplets" ] && [ -e "$root/afine/triplets.manifest.json" ] && exit 9'
    before = len(finished.calls())
    done = finished.snakemake(
        *("--forcerun", "afine_triplets", "--resources", "gpu=20", "--cores", "2"), hook=hook
    )
    assert done.returncode == 0, done.stdout[-3000:]
    redone = [call.name for call in finished.calls()[before:]]
    assert redone == ["afine triplets", *["afine train"] * 3, "afine evaluate", "report write"]
