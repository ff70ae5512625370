"""Failing, preempted and killed jobs: what is said, what goes on, what is done again."""

import os
import shlex
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.workflow.stand_ins import ROOT, StandIns, stand_ins

CORES = ("--resources", "gpu=20", "--cores", "4")
# a try that fails while the file `broken` is there
BROKEN = 'if [ "$name $item" = "{what}" ] && [ -e broken ]; then echo "no luck" >&2; exit 2; fi'


def shards_done(run: StandIns) -> list[str]:
    return sorted(path.stem for path in run.results.glob("samples/*.json"))


def test_a_failing_job_is_named_and_the_others_go_on(tmp_path):
    """Three shards of four are sampled; after the repair only the missing work is done."""
    run = stand_ins(tmp_path, shards=4)
    (run.folder / "broken").touch()
    failed = run.snakemake(*CORES, hook=BROKEN.format(what="degrade apply 00002"))
    assert failed.returncode != 0
    assert "no luck" in failed.stdout
    assert "log: results/smoke/logs/degrade_apply-00002.log" in failed.stdout
    command = (
        "python -m degrade apply --config results/smoke/config.resolved.json --shard 00002 "
        "--replace --log results/smoke/logs/degrade_apply-00002.log"
    )
    assert command in failed.stdout
    assert shards_done(run) == ["samples-00000", "samples-00001", "samples-00003"]
    assert not (run.results / "dataset/manifest.json").exists()

    by_hand = shlex.split(command)
    by_hand[0] = str(run.folder / "bin/python")
    again = subprocess.run(by_hand, cwd=run.folder, env=run.environment("exit 2"))
    assert again.returncode == 2

    (run.folder / "broken").unlink()
    before = len(run.calls())
    assert run.snakemake(*CORES).returncode == 0
    assert len(shards_done(run)) == 4
    names = Counter(call.name for call in run.calls()[before:])
    assert names["degrade apply"] == names["enhancer sample"] == 1
    assert "crop run" not in names and "enhancer train" not in names


def test_a_preempted_job_is_tried_again(tmp_path):
    """Exit code 75: asked to stop; the shard is sampled by the third attempt."""
    run = stand_ins(tmp_path, shards=2)
    hook = (
        'if [ "$name $item" = "enhancer sample 00001" ]; then echo x >>tries; '
        "[ $(wc -l <tries) -ge 3 ] || exit 75; fi"
    )
    done = run.snakemake(*CORES, "until_votes", hook=hook)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Trying to restart job") == 2
    assert shards_done(run) == ["samples-00000", "samples-00001"]


def test_a_job_that_always_fails_is_given_up_after_three_attempts(tmp_path):
    run = stand_ins(tmp_path, shards=2)
    hook = '[ "$name" != "enhancer train" ] || { echo x >>tries; exit 2; }'
    failed = run.snakemake(*CORES, "until_votes", hook=hook)
    assert failed.returncode != 0
    assert (run.folder / "tries").read_text().count("x") == 3
    assert "log: results/smoke/logs/enhancer_train.log" in failed.stdout
    assert shards_done(run) == []


def killed_while_sampling(run: StandIns) -> None:
    """Start the workflow and SIGKILL it, with all its jobs, when two shards are being sampled."""
    hook = '[ "$name" != "enhancer sample" ] || { touch "sampling-$item"; sleep 300; }'
    process = subprocess.Popen(
        run.command(*CORES),
        cwd=run.folder,
        env=run.environment(hook),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(list(run.folder.glob("sampling-*"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def documented_recovery() -> list[str]:
    """The recovery command of docs/troubleshooting.md, without the name of the configuration."""
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    assert "`snakemake --unlock --configfile YOUR.yaml`" in text
    return ["--unlock"]


def test_a_locked_and_incomplete_folder_is_recovered_by_the_documented_command(tmp_path):
    run = stand_ins(tmp_path, shards=3)
    killed_while_sampling(run)
    locked = run.snakemake(*CORES)
    assert locked.returncode != 0
    assert "--unlock" in locked.stdout
    assert run.snakemake(*CORES, *documented_recovery()).returncode == 0
    before = len(run.calls())
    done = run.snakemake(*CORES)
    assert done.returncode == 0, done.stdout
    names = {call.name for call in run.calls()[before:]}
    assert "enhancer sample" in names
    assert not names & {"crop run", "degrade plan", "enhancer base", "enhancer train"}
    assert (run.results / "report.html").is_file()


@pytest.mark.parametrize("profile", ["default", "slurm"])
def test_profiles_redo_incomplete_work_and_keep_going(profile):
    path = Path(ROOT, "workflow/profiles", profile, "config.yaml")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert values["rerun-incomplete"] is True and values["keep-going"] is True
    assert values["scheduler"] == "greedy"


def test_the_default_profile_is_found_from_any_folder(tmp_path):
    """Snakemake looks in `profiles/` beside the Snakefile, which is a link."""
    shown = stand_ins(tmp_path, shards=1).snakemake("-n", "--cores", "1")
    assert "Using workflow specific profile" in shown.stdout
    assert "profiles/default for setting" in shown.stdout
