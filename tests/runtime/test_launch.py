import os
from pathlib import Path

import pytest

from runtime.errors import ConfigError, ResourceError
from runtime.launch import launch, node_command, one_node_command

FILE = Path("accelerate.yaml")
TRAINING = ["enhancer", "train", "--config", "c.json"]


@pytest.fixture
def two_nodes(tmp_path, monkeypatch):
    """Variables of a job on two nodes, and a `scontrol` that knows them."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\n[ \"$3\" = 'node[1-2]' ] && printf 'node1\\nnode2\\n'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return {
        "SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_ID": "41",
        "SLURM_JOB_NODELIST": "node[1-2]", "CUDA_VISIBLE_DEVICES": "0,1,2,3",
    }  # fmt: skip


@pytest.mark.parametrize("processes", [0, 1])
def test_one_device_or_none_needs_no_launcher(processes):
    assert one_node_command(processes, FILE, TRAINING) == ["python", "-m", *TRAINING]


def test_several_devices_are_a_process_each():
    command = one_node_command(4, FILE, TRAINING)
    assert command[:2] == ["accelerate", "launch"]
    assert command[-6:] == ["4", "-m", *TRAINING]


def test_a_node_knows_its_rank_and_the_first_node(two_nodes):
    text = " ".join(node_command(two_nodes, 8, 2, FILE, TRAINING))
    assert "--num_processes 8 --num_machines 2 --machine_rank 1" in text
    assert "--main_process_ip node1 --main_process_port 20041 -m enhancer train" in text


def test_other_nodes_or_devices_than_asked_for_are_refused(two_nodes):
    with pytest.raises(ConfigError, match="7 devices do not divide over 2 nodes"):
        node_command(two_nodes, 7, 2, FILE, TRAINING)
    with pytest.raises(ResourceError, match="4 nodes asked for, found 2"):
        node_command(two_nodes, 8, 4, FILE, TRAINING)
    with pytest.raises(ResourceError, match="sees 4 devices, 8 expected"):
        node_command(two_nodes, 16, 2, FILE, TRAINING)
    with pytest.raises(ResourceError, match="2 nodes asked for, found none"):
        node_command({}, 8, 2, FILE, TRAINING)


@pytest.mark.parametrize(
    ("gpus", "chosen", "expected"), [(2, None, "280"), (2, "9", "9"), (1, None, None)]
)
def test_several_processes_get_the_time_to_save(tmp_path, monkeypatch, gpus, chosen, expected):
    """30 s, torch's own, are too few for a checkpoint of several GB on a network disk."""
    name = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    variables = {"DIFFIQA_DEVICES": "0,1", "DIFFIQA_LEASE_DIR": str(tmp_path)}
    monkeypatch.setattr(os, "environ", {**variables, **({name: chosen} if chosen else {})})
    seen = []
    monkeypatch.setattr("runtime.launch.become", lambda _: seen.append(os.environ.get(name)))
    launch(gpus, 1, FILE, TRAINING)
    assert seen == [expected]


def test_torch_still_reads_that_time_from_the_environment(monkeypatch):
    api = pytest.importorskip("torch.distributed.launcher.api")
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "280")
    assert api.LaunchConfig(1, 1, 1).shutdown_timeout == 280
