"""The training stage end to end: resume, accumulation, processes, averages, bad input."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from enhancer import load_nets
from enhancer.train.checkpointing import list_checkpoints, load_newest, save_checkpoint
from enhancer.train.stage import run_train
from runtime.errors import ConfigError, DataError
from runtime.launch import one_node_command
from runtime.metrics import read_metrics
from runtime.settings import RunSettings
from tests.enhancer.conftest import MakeRun
from workflow.stages import launch_command

ROOT = Path(__file__).resolve().parents[2]
ACCELERATE = ROOT / "workflow/profiles/default/accelerate.yaml"


@pytest.fixture(autouse=True)
def fresh_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def weights(run: RunSettings) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for net in ("unet", "controlnet"):
        path = run.root / f"enhancer/{net}/diffusion_pytorch_model.safetensors"
        found |= {f"{net}.{name}": value for name, value in load_file(path).items()}
    return found


def largest_difference(one: RunSettings, two: RunSettings) -> float:
    """Largest difference of a tensor relative to its largest value."""
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    return max(
        ((first[name] - second[name]).abs().max() / first[name].abs().max().clamp(min=1e-6)).item()
        for name in first
    )


def command(run: RunSettings) -> list[str]:
    return ["enhancer", "train", "--config", str(run.path)]


def test_run_writes_nets_metrics_and_manifest(make_run: MakeRun) -> None:
    run = make_run(validation={"every": 2, "images": 2, "shown_images": 1, "solver_steps": 2})
    run_train(run)
    unet, _ = load_nets(run.root / "enhancer")
    assert any(
        parameter.abs().max() > 0
        for name, parameter in unet.paca_parameters()
        if name.endswith("proj_out.weight")
    ), "the zero start did not move"
    rows = read_metrics(run.root / "enhancer/metrics.jsonl")
    assert [row["step"] for row in rows if row["phase"] == "train"] == [1, 2, 3, 4]
    assert {row["step"] for row in rows if row["phase"] == "val"} == {0, 2, 4}
    assert {"psnr_db_enhanced", "psnr_db_base"} <= rows[-1].keys()
    assert (run.root / "enhancer/manifest.json").is_file()
    assert (run.root / "enhancer/validation/step-00000004.png").is_file()


def test_a_new_training_removes_what_the_old_one_showed(make_run: MakeRun) -> None:
    shown = {"every": 2, "images": 2, "shown_images": 1, "solver_steps": 2}
    run_train(make_run(steps=4, validation=shown, tensorboard=True))
    run = make_run(steps=2, validation=shown, tensorboard=True)
    run_train(run, replace=True)
    folder = run.root / "enhancer"
    sheets = sorted(path.name for path in (folder / "validation").iterdir())
    assert sheets == ["step-00000000.png", "step-00000002.png"]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    run_train(make_run(steps=2, validation={**shown, "shown_images": 0}), replace=True)
    assert not list(folder.glob("validation/*"))


def test_finished_run_does_nothing(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run()
    run_train(run)
    before = weights(run)
    with caplog.at_level(logging.INFO):
        run_train(run)
    assert "already done" in caplog.text
    assert all(torch.equal(before[name], value) for name, value in weights(run).items())


def test_speed_settings_change_nothing(make_run: MakeRun) -> None:
    one = make_run("one", tensorboard=False)
    other = make_run("other", workers=3, gradient_checkpointing=True, cached_latents=0)
    run_train(one)
    run_train(other)
    assert largest_difference(one, other) <= 1e-6


def test_kept_latents_do_not_depend_on_hits(make_run: MakeRun) -> None:
    small, large = make_run("small", cached_latents=1), make_run("large", cached_latents=500)
    run_train(small)
    run_train(large)
    assert largest_difference(small, large) == 0.0


def test_interrupted_and_resumed_equals_uninterrupted(make_run: MakeRun) -> None:
    settings = {"steps": 6, "ema_decay": 0.9, "schedule": "cosine", "warmup_steps": 2}
    whole, parts = make_run("whole", **settings), make_run("parts", **settings)
    run_train(whole)
    run_train(parts, limit=3)
    assert not (parts.root / "enhancer/manifest.json").exists()
    run_train(parts, limit=1)
    run_train(parts)
    assert largest_difference(whole, parts) == 0.0
    rows = read_metrics(parts.root / "enhancer/metrics.jsonl")
    assert [row["step"] for row in rows if row["phase"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_killed_training_goes_on(make_run: MakeRun) -> None:
    settings = {"steps": 40, "checkpoint_every": 5, "batch_size": 2}
    whole, killed = make_run("whole", **settings), make_run("killed", **settings)
    run_train(whole)
    state = killed.root / "enhancer/.state"
    process = subprocess.Popen(
        [sys.executable, "-m", *command(killed)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list_checkpoints(state) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list_checkpoints(state), "killed before the first checkpoint"
    run_train(killed)
    assert largest_difference(whole, killed) == 0.0


def test_sigterm_saves_and_asks_for_a_retry(make_run: MakeRun) -> None:
    run = make_run(steps=400, batch_size=2, checkpoint_every=1000)
    process = subprocess.Popen(
        [sys.executable, "-m", *command(run)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    metrics = run.root / "enhancer/metrics.jsonl"
    deadline = time.monotonic() + 120
    while len(read_metrics(metrics)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 75
    assert len(list_checkpoints(run.root / "enhancer/.state")) == 1


def test_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for step in (2, 4):
        save_checkpoint(tmp_path, step, {"weight": torch.ones(1000) * step}, keep=2)
    newest = list_checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:600])
    found = load_newest(tmp_path)
    assert found is not None
    assert found["step"] == 2


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, {}, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step-00000004.pt",
        "step-00000005.pt",
    ]


def test_accumulation_steps_once_and_equals_the_whole_batch(make_run: MakeRun) -> None:
    whole = make_run("whole", batch_size=4, steps=3)
    divided = make_run("divided", batch_size=4, steps=3, micro_batch_size=1)
    run_train(whole)
    run_train(divided)
    for run in (whole, divided):
        rows = [
            r for r in read_metrics(run.root / "enhancer/metrics.jsonl") if r["phase"] == "train"
        ]
        assert len(rows) == 3, "one optimizer step in four batches"
    # two orders of the same sums; Adam turns tiny gradients of either sign into whole steps
    state = [weights(run) for run in (whole, divided)]
    for name in state[0]:
        torch.testing.assert_close(state[0][name], state[1][name], rtol=0, atol=2e-4)
    losses = [
        [
            r["loss"]
            for r in read_metrics(run.root / "enhancer/metrics.jsonl")
            if r["phase"] == "train"
        ]
        for run in (whole, divided)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def launch(run: RunSettings, processes: int, *flags: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    child = ["tests.enhancer.rank_child", str(run.path), str(run.root), *flags]
    _, *command = one_node_command(processes, ACCELERATE, child)  # as the rules start it
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.accelerate_cli", *command],
        cwd=run.root, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_two_processes_equal_one_with_the_same_total_batch(make_run: MakeRun) -> None:
    settings = {"batch_size": 4, "steps": 3, "micro_batch_size": 1}
    one = make_run("one", **settings)
    two = make_run("two", **settings)
    run_train(one)
    done = launch(two, 2)
    assert done.returncode == 0, done.stderr[-2000:]
    own, other = (torch.load(two.root / f"step-3-rank-{rank}.pt") for rank in (0, 1))
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own), "the ranks' weights differ"
    first, second = weights(one), weights(two)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=2e-4)
    losses = [
        [
            r["loss"]
            for r in read_metrics(run.root / "enhancer/metrics.jsonl")
            if r["phase"] == "train"
        ]
        for run in (one, two)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


SRUN = """#!/bin/sh
# one task on each of two nodes, both of them this machine
while [ "${1#--}" != "$1" ]; do shift; done
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" || exit
wait $first
"""


def test_two_nodes_equal_one_process_with_the_same_total_batch(
    make_run: MakeRun, tmp_path: Path
) -> None:
    settings = {"batch_size": 4, "steps": 2, "micro_batch_size": 1}
    one = make_run("one", **settings)
    two = make_run("two", **settings)
    run_train(one)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho 127.0.0.1\n")):
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    command = f"{launch_command(2, 2, is_on_cluster=True)} enhancer train --config {two.path}"
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join([str(binaries), str(Path(sys.executable).parent), os.defpath]),
        "SLURM_STEP_NUM_NODES": "2", "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here",
    }  # fmt: skip
    done = subprocess.run(
        command, shell=True, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = weights(one), weights(two)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=2e-4)


def test_processes_that_drift_apart_are_stopped(make_run: MakeRun) -> None:
    run = make_run(batch_size=2, steps=4, checkpoint_every=2)
    done = launch(run, 2, "diverge")
    assert done.returncode != 0
    assert "after step 2: the 2 processes have different weights" in done.stderr
    assert list_checkpoints(run.root / "enhancer/.state") == []


def test_other_settings_are_refused_and_named(make_run: MakeRun) -> None:
    run_train(make_run(), limit=1)
    changed = make_run(learning_rate=5e-4)
    with pytest.raises((ConfigError, DataError), match="learning_rate"):
        run_train(changed)
    run_train(changed, replace=True)


def test_non_finite_loss_names_step_batch_and_checkpoint(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(steps=4, checkpoint_every=1)
    run_train(run, limit=2)
    monkeypatch.setattr(
        "enhancer.train.trainer.per_example_loss",
        lambda predicted, noise: (predicted - noise).mean(dim=(1, 2, 3)) * float("nan"),
    )
    with pytest.raises(DataError, match=r"step 3, batch: crops/test-.*step-00000002.pt"):
        run_train(run)


def test_trained_enhancer_is_used_as_it_is(make_run: MakeRun) -> None:
    first = make_run("first")
    run_train(first)
    second = make_run("second", enhancer=str(first.root / "enhancer"), steps=0)
    run_train(second)
    assert largest_difference(first, second) == 0.0


def test_batch_that_does_not_divide_is_refused(make_run: MakeRun, monkeypatch) -> None:
    from enhancer.config import TrainConfig
    from enhancer.train.trainer import divide_batch

    with pytest.raises(ConfigError, match="not a multiple of 3 processes"):
        divide_batch(TrainConfig(batch_size=4), rank=0, world=3)
