"""What the rules and the SLURM profile ask of SLURM, seen without one."""

import re
from types import SimpleNamespace

import pytest
import yaml

from tests.workflow.stand_ins import ROOT, stand_ins
from workflow.stages import launch_command, node_resources

PROFILE = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())


class Resources(dict):
    """A job's resources as Snakemake shows them to a plugin: keys, and attributes."""

    __getattr__ = dict.__getitem__


def submitted(nodes: int) -> list[str]:
    """The words of the plugin's sbatch command for a training with 8 devices a node."""
    plugin = pytest.importorskip("snakemake_executor_plugin_slurm.submit_string")
    resources = Resources(gpu=8 * nodes, **node_resources(nodes))
    job = SimpleNamespace(resources=resources, threads=32, is_group=lambda: False)
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir")
    return plugin.get_submit_command(job, dict.fromkeys(names, "x")).split()


def test_a_training_on_two_nodes_asks_for_one_task_each():
    words = submitted(2)
    assert {"--nodes=2", "--ntasks=2", "--cpus-per-task=32"} <= set(words)
    assert [word for word in words if word.startswith("--ntasks-per-gpu")] == []
    assert "--nodes=1" in submitted(1)


def test_each_nodes_process_gets_the_cores_of_the_rule():
    """srun does not inherit them (SLURM 22.05 and later)."""
    command = launch_command(16, 2, is_on_cluster=True)
    assert command.startswith("srun --nodes=2 --ntasks=2 --ntasks-per-node=1 ")
    assert '--cpus-per-task="$threads"' in command
    assert "srun" not in launch_command(8, 1, is_on_cluster=True)


def test_what_slurm_signals_is_the_stage_and_not_a_shell(tmp_path):
    """Bash before 5.1 stays between SLURM and the last command, and dies of the signal for it."""
    signalled = {
        rule
        for rule, asked in PROFILE["set-resources"].items()
        if "--signal" in asked.get("slurm_extra", "")
    }
    assert signalled == {"enhancer_train", "enhancer_sample", "afine_train"}
    shown = stand_ins(tmp_path, shards=1).snakemake("-n", "-p", "--cores", "2").stdout
    for rule in signalled:
        (command, *_) = re.findall(rf"^rule {rule}:.*?^Shell command: (.*?)$", shown, re.M | re.S)
        assert re.match(r"(threads=\d+; )?exec ", command), command


def test_the_documented_groups_are_possible(tmp_path):
    """A rule outside a group may not stand between two rules inside it."""
    text = (ROOT / "docs/cluster.md").read_text()
    (tail,) = re.findall(r"`--groups (.*?)`", text)
    (more,) = re.findall(r"everything between: `(.*?)`", text)
    run = stand_ins(tmp_path, shards=1)
    for groups in (tail.split(), [*tail.split(), *more.split(), "report=tail"]):
        shown = run.snakemake("-n", "--cores", "2", "--groups", *groups)
        assert shown.returncode == 0, shown.stdout[-2000:]


def test_simulating_votes_has_time_for_the_papers_images():
    """179,208 images in one process, 0.05 s each on a slow core, and half as much again."""
    asked = {**PROFILE["default-resources"], **PROFILE["set-resources"]["annotation_simulate"]}
    assert asked["runtime"] * 60 > 1.5 * 179_208 * 0.05
