"""The paper's plan: 29,868 references in 1,000 sampling shards, on paper and with sleepers."""

import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from benchmarks.workflow_overhead import best_makespan, measure, shard_work
from degrade.config import DegradeConfig, PlanConfig
from degrade.plan import make_plan
from runtime.tables import write_table
from tests.workflow.conftest import environment
from workflow.config import load_config
from workflow.predict import degrade_minutes, sample_minutes

ROOT = Path(__file__).parent.parent.parent
PAPER = ROOT / "configs/diffiqa.yaml"


def test_dry_run_of_the_papers_configuration(tmp_path):
    """Time is that of the processor: other load on the machine does not count."""
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-n"]
    command += ["--cores", "2", "--resources", "gpu=20", "--configfile", str(PAPER)]
    # through a small process: what it counts for its child holds nothing of these tests' memory
    used_of_child = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    used_of_child += "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    used_of_child += "print('USED', used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)"
    done = subprocess.run(
        [sys.executable, "-c", used_of_child, *command],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shown = done.stdout
    assert done.returncode == 0, shown[-3000:]
    cpu_s, memory_bytes = map(float, shown.rpartition("USED")[2].split())
    counted = dict(line.split()[:2] for line in shown.splitlines() if len(line.split()) == 2)
    assert counted["enhancer_sample"] == counted["degrade_apply"] == "1000"
    assert cpu_s < 20
    assert memory_bytes < 2e9


def test_times_of_shards_are_predicted_from_the_plan(tmp_path):
    """All shards of a balanced plan need about the same; an absent plan is asked again later."""
    plan = PlanConfig(shards=4, steps_min=100, upscale_probability=0.0, image_init="partial")
    crops = [(f"photo-{number:02}", 512) for number in range(40)]
    path = tmp_path / "plan.parquet"
    config = load_config([PAPER])
    with pytest.raises(FileNotFoundError):
        sample_minutes(config, path, 0)
    table = make_plan(crops, plan, DegradeConfig(), 0, shards=4)
    write_table(path, table)
    minutes = [sample_minutes(config, path, shard) for shard in range(4)]
    # steps made x 2 evaluations x 0.1 s x 1.5 in minutes, 15 more to start
    steps = table.select(pl.min_horizontal("steps", pl.col("level").fill_null(999)).sum()).item()
    expected = 15 + steps / 4 * 2 * 0.1 * 1.5 / 60
    assert max(minutes) - min(minutes) <= 0.1 * expected
    assert sum(minutes) / 4 == pytest.approx(expected, rel=0.05)
    degraded = table.filter(table["shard"] == 0)["is_degraded"].sum()
    assert degrade_minutes(path, 0) == 15 + -(-degraded * 3 * 1.5 // 60)
    measured = config.model_copy(
        update={
            "enhancer": config.enhancer.model_copy(
                update={
                    "sample": config.enhancer.sample.model_copy(
                        update={"seconds_per_evaluation": 0.01}
                    )
                }
            )
        }
    )
    assert sample_minutes(measured, path, 0) < minutes[0] / 3


def test_an_unreadable_plan_is_left_to_the_stage_to_explain(tmp_path):
    path = tmp_path / "plan.parquet"
    path.write_text("{}")
    assert sample_minutes(load_config([PAPER]), path, 0) == degrade_minutes(path, 0) == 240


def test_shards_of_the_papers_plan_are_balanced():
    work = shard_work(100, references=3000)
    assert max(work) < 1.01 * min(work)
    assert best_makespan([3.0, 1.0, 1.0, 1.0], 2) == 3.0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_overhead_of_scheduling_the_full_plan():
    """Sleepers of 6 s a shard: what is lost must be under 2 % at the true length of the run."""
    start_s = time.monotonic()
    found = measure(shards=1000, devices=20, mean_s=6.0)
    assert found["shards"] == 1000
    assert found["jobs_at_once"] == 20
    assert found["overhead_percent_at_full_length"] < 2
    assert time.monotonic() - start_s < 3000
