"""kill -9 of the whole run at random moments; resumed until done, the same bytes come out."""

import hashlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.workflow.conftest import Run, environment, new_run

RULES = (
    "crop",
    "degrade_plan",
    "degrade_apply",
    "enhancer_base",
    "enhancer_train",
    "enhancer_sample",
    "annotation_simulate",
    "annotation_import",
    "shards",
    "afine_train",
    "afine_evaluate",
)
_START_S = 300.0  # a loaded machine may take this long to reach a rule


def start(run: Run, log: Path) -> subprocess.Popen[bytes]:
    """Start the workflow in a process group of its own."""
    return subprocess.Popen(
        run.command(),
        cwd=run.folder,
        env=environment(),
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill_in(run: Run, rules: list[str], delay_s: float, log: Path) -> bool:
    """Start the workflow and kill it `delay_s` after a rule began; False: it ended before."""
    process = start(run, log)
    deadline = time.monotonic() + _START_S
    while not any(f"rule {rule}:" in log.read_text(errors="replace") for rule in rules):
        if process.poll() is not None or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    time.sleep(delay_s)
    was_running = process.poll() is None
    if was_running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return was_running


def left_over(folder: Path, *, within_s: float = 20.0) -> list[int]:
    """Processes that still work in `folder`; the killed ones get time to let go of their memory."""
    deadline = time.monotonic() + within_s
    while (found := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def processes_in(folder: Path) -> list[int]:
    """Processes that work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def digests(results: Path) -> dict[str, str]:
    """SHA-256 of the dataset's files and of every manifest, but the report's, which holds times."""
    files = [path for path in results.glob("dataset/**/*") if path.is_file()]
    files += [path for path in results.rglob("*.json") if is_manifest(path.relative_to(results))]
    return {
        path.relative_to(results).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def is_manifest(path: Path) -> bool:
    name = path.as_posix()
    return (
        name.endswith("manifest.json")
        or name.startswith(("degraded/degraded-", "samples/samples-"))
    ) and not name.startswith("report")


def killed_and_resumed(run: Run, rules: list[str], seed: int) -> int:
    """Kill the run in each of `rules`, then let it finish; returns how often it was killed.

    What ended before its kill came is not waited for again: the next rule that begins is killed.
    """
    delays = random.Random(seed)
    killed = 0
    for number in range(len(rules)):
        log = run.folder / f"killed-{number}.log"
        killed += kill_in(run, rules[number:], delays.uniform(0.0, 5.0), log)
        assert left_over(run.folder) == []
        assert run.snakemake("--unlock").returncode == 0
    done = run.snakemake()
    assert done.returncode == 0, done.stdout[-8000:]
    return killed


def test_killed_at_random_moments_the_dataset_is_the_same(finished_run, tmp_path, photo_folder):
    run = new_run(tmp_path / "work", photo_folder)
    assert killed_and_resumed(run, ["degrade_apply", "enhancer_train", "enhancer_sample"], 1) == 3
    assert digests(run.results) == digests(finished_run.results)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_killed_in_every_stage(finished_run, tmp_path, photo_folder, seed):
    run = new_run(tmp_path / "work", photo_folder)
    assert killed_and_resumed(run, list(RULES), seed) >= 8
    assert digests(run.results) == digests(finished_run.results)
