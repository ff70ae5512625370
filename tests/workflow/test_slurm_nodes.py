"""A training on two nodes of a real SLURM: what the job gets on each of them."""

import os

import pytest

from tests.workflow.stand_ins import stand_ins
from tests.workflow.test_slurm import PROFILE, running_cluster

NOTE = (
    'if [ "$name" = "enhancer train" ]; then '
    'echo "$SLURM_NODEID $SLURM_STEP_NUM_NODES $SLURM_CPUS_PER_TASK" >>nodes; fi'
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_starts_once_on_each_of_two_nodes(tmp_path):
    """As docs/cluster.md says: two nodes of two devices each, one launcher a node."""
    run = stand_ins(
        tmp_path / "work",
        shards=1,
        changes={"scheduling": {"enhancer_train_gpus": 4, "enhancer_train_nodes": 2}},
    )
    extra = "enhancer_train:slurm_extra='--signal=TERM@300 --gpus-per-node=2'"
    with running_cluster(tmp_path / "slurm", gpus=2, nodes=2):
        done = run.snakemake(
            str(run.results.relative_to(run.folder) / "enhancer/manifest.json"),
            *PROFILE,
            *("--set-resources", extra, "--set-threads", "enhancer_train=8"),
            hook=NOTE,
            timeout_s=800,
        )
    assert done.returncode == 0, done.stdout[-8000:]
    noted = sorted((run.folder / "nodes").read_text().splitlines())
    cores = min(8, len(os.sched_getaffinity(0)))  # Snakemake promises no more than there are
    assert noted == [f"0 2 {cores}", f"1 2 {cores}"]
    assert [call.devices for call in run.calls("enhancer train")] == ["0,1", "0,1"]
