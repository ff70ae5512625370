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

_JOB_COUNT = re.compile(r"^(\w+)\s+\d+$", re.MULTILINE)
COMMENT = "\n# a remark\n"
CODE = "\nADDED_BY_A_TEST = 1\n"
AFINE = {"afine_triplets", "afine_train", "afine_evaluate"}
AFTER_SAMPLES = {"annotation_simulate", "annotation_import", "shards", *AFINE, "report"}
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
    ("enhancer/sample/engine.py", {"enhancer_sample", *AFTER_SAMPLES}),
    ("annotation_import/importing.py", AFTER_SAMPLES - {"annotation_simulate"}),
    ("afine/evaluation/stage.py", {"afine_evaluate", "report"}),
    ("shards/templates/card.md", {"shards", *AFINE, "report"}),
    ("report/templates/style.css", {"report"}),
]


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


def planned(run: StandIns) -> set[str]:
    """Rules that a dry run would do."""
    shown = run.snakemake("-n", "--cores", "2")
    assert shown.returncode == 0, shown.stdout[-3000:]
    return set(_JOB_COUNT.findall(shown.stdout)) - {"total", "all"}


def test_comments_command_lines_and_other_code_rerun_nothing(finished):
    with edited(finished, WITHOUT_EFFECT):
        assert planned(finished) == set()


@pytest.mark.parametrize(("name", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_changed_code_reruns_just_what_rests_on_it(finished, name, expected):
    with edited(finished, {name: CODE}):
        assert planned(finished) == expected
