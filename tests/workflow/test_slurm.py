"""The same rules on a real SLURM: one node with four GPUs, brought up here and taken down again.

Needs root and Debian's slurm-wlm and munge; in CI they are installed, elsewhere the tests are
skipped where they are missing. The GPUs are pretended, the scheduler, its choice of devices,
Snakemake's plugin and the profile are not.
"""

import importlib.util
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.debian import why_missing
from tests.workflow.conftest import new_run
from tests.workflow.stand_ins import ROOT, Call, StandIns, interpose, most_at_once, stand_ins

CLUSTER = Path(__file__).parent / "slurm/cluster.sh"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue")
PACKAGES = ("slurm-wlm", "munge")
PROFILE = (
    *("--workflow-profile", str(ROOT / "workflow/profiles/slurm")),
    # short jobs, no accounting daemon to ask, a local disk
    *("--slurm-init-seconds-before-status-checks", "3", "--slurm-status-command", "squeue"),
    *("--latency-wait", "10"),
)


def why_not() -> str | None:
    """Reason why no SLURM can be brought up here, or None."""
    if os.geteuid() != 0:
        return "SLURM's daemons are started as root"
    if Path("/etc/slurm/slurm.conf").exists():
        return "this machine has a SLURM of its own"
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed"
    return why_missing(PROGRAMS, PACKAGES)


@contextmanager
def running_cluster(folder: Path, *, gpus: int, nodes: int = 1) -> Iterator[None]:
    """A running SLURM of so many nodes with so many GPUs each, and none any more afterwards."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    daemons: list[str] = []
    try:
        up = [CLUSTER, "up", folder, str(gpus), str(nodes)]
        done = subprocess.run(up, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        daemons = [path.read_text().strip() for path in folder.glob("*.pid")]
        assert len(daemons) == 2 + nodes
        yield
    finally:
        subprocess.run([CLUSTER, "down", folder], check=True)
    assert not [number for number in daemons if Path("/proc", number).exists()]
    assert not Path("/etc/slurm/slurm.conf").exists()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with running_cluster(tmp_path_factory.mktemp("slurm"), gpus=4):
        yield


def shared_times(calls: list[Call]) -> list[tuple[Call, Call]]:
    return [
        (a, b)
        for a, b in itertools.combinations(calls, 2)
        if a.devices == b.devices and a.start_s < b.end_s and b.start_s < a.end_s
    ]


def squeue(columns: str) -> list[list[str]]:
    """What SLURM knows of all jobs, also finished ones."""
    shown = subprocess.run(
        ["squeue", "--noheader", "--states=all", "-o", columns],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("|") for line in shown.stdout.splitlines()]


@pytest.mark.timeout(1500)
def test_the_smoke_run_through_slurm(cluster, tmp_path, photo_folder):
    """Real stages; short jobs go together as one, as they may on a busy cluster."""
    run = new_run(tmp_path / "work", photo_folder)
    run.write_config(lambda values: values["plan"].update(shards=3))
    interposed = interpose(run.folder)
    tail = ("annotation_simulate", "annotation_import", "shards", "report")
    tail += ("afine_triplets", "afine_train", "afine_evaluate")
    done = interposed.snakemake(
        *PROFILE,
        *("--groups", "degrade_apply=inputs", *(f"{rule}=tail" for rule in tail)),
        *("--group-components", "inputs=3"),
        timeout_s=1400,
        STAND_IN_RUN="1",
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert (run.results / "report.html").is_file()
    sampling = interposed.calls("enhancer sample")
    assert sorted(call.item for call in sampling) == ["00000", "00001", "00002"]
    assert {call.devices for call in sampling} <= {"0", "1", "2", "3"}
    assert most_at_once(sampling) >= 2
    assert shared_times(sampling) == []
    assert {call.devices for call in interposed.calls("crop run")} == {"none"}


def test_times_come_from_the_plan(cluster):
    """The jobs of the run before: their limits are the predicted ones, not the profile's."""
    limits = {job: limit for job, limit in squeue("%k|%l") if "enhancer_sample" in job}
    assert limits and all(limit not in ("1:00:00", "UNLIMITED") for limit in limits.values())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_requeued_and_a_preempted_job_go_on(cluster, tmp_path):
    """SLURM takes one shard's node away; another shard is asked to stop and is tried again."""
    run = stand_ins(tmp_path / "work", shards=2)
    hook = (
        'if [ "$name" = "enhancer sample" ]; then echo x >>"tries-$item"; '
        'if [ "$(wc -l <"tries-$item")" -lt 2 ]; then '
        '[ "$item" = 00000 ] && sleep 600; [ "$item" = 00001 ] && exit 75; fi; fi'
    )
    process = subprocess.Popen(
        run.command("until_votes", *PROFILE),
        cwd=run.folder,
        env=run.environment(hook),
        stdout=(run.folder / "out").open("w"),
        stderr=subprocess.STDOUT,
    )
    requeue_once(run, process)
    assert process.wait(timeout=1000) == 0, (run.folder / "out").read_text()[-5000:]
    assert (run.folder / "tries-00000").read_text().count("x") == 2
    assert (run.folder / "tries-00001").read_text().count("x") == 2


def requeue_once(run: StandIns, process: subprocess.Popen[bytes]) -> None:
    """Requeue the sampling job of shard 0 once it has begun."""
    deadline = time.monotonic() + 300
    while not (run.folder / "tries-00000").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    jobs = squeue("%i|%T|%k")
    (number,) = [i for i, state, job in jobs if state == "RUNNING" and job.endswith("00000")]
    subprocess.run(["scontrol", "requeue", number], check=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_job_that_fails_is_submitted_three_times_not_nine(cluster, tmp_path):
    run = stand_ins(tmp_path / "work", shards=1)
    hook = 'if [ "$name" = "enhancer train" ]; then echo x >>tries; exit 2; fi'
    failed = run.snakemake("until_votes", *PROFILE, hook=hook, timeout_s=1400)
    assert failed.returncode != 0
    assert (run.folder / "tries").read_text().count("x") == 3
    assert "enhancer_train.log" in failed.stdout
