"""The stage end to end on a small run: files, resuming, rerunning, refusals."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import afine
from afine.__main__ import main
from afine.training import loop
from runtime.errors import ConfigError, DataError, PreemptedError
from runtime.launch import one_node_command
from runtime.metrics import read_metrics
from runtime.settings import RunSettings

ROOT = Path(__file__).parents[2]
ACCELERATE = ROOT / "workflow/profiles/default/accelerate.yaml"


def train(run: RunSettings, *phases: int, **options: object) -> None:
    from afine.training.phase1 import run_phase1
    from afine.training.phase2 import run_phase2
    from afine.training.phase3 import run_phase3
    from afine.triplets.stage import run_triplets

    run_triplets(run)
    for phase in phases:
        {1: run_phase1, 2: run_phase2, 3: run_phase3}[phase](run, **options)


def assert_close_but_noise(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    """Equal but for rounding, and for what Adam makes of gradients that are rounding noise."""
    for name, value in one.items():
        far = (two[name] - value).abs().flatten()
        assert far.quantile(0.99) <= 2e-4 or value.numel() == 1, name
        assert far.max() <= 6 * 2e-3, name  # iterations times twice the learning rate


def test_the_whole_stage(make_run):
    run = make_run()
    config = ["--config", str(run.path)]
    assert main(["triplets", *config]) == 0
    for phase in "123":
        assert main(["train", *config, "--phase", phase]) == 0
    folder = run.root / "afine"
    (folder / "tables").mkdir()
    (folder / "tables/table3.csv").write_text("Method\n")  # of a run that had SRIQA-Bench
    assert main(["evaluate", *config]) == 0
    assert not (folder / "tables/table3.csv").exists()
    assert "tables/table3.csv" not in (folder / "evaluate.manifest.json").read_text()
    model = afine.load(folder / "afine.safetensors")
    image = torch.rand(1, 3, 64, 64)
    assert torch.isfinite(model(image, image.flip(-1)).score).all()
    table = (folder / "tables" / "table2.csv").read_text().splitlines()
    assert table[0].startswith("Method,") and "Ref < Test" in table[0]
    assert [line.split(",")[0] for line in table[1:]] == ["PSNR", "SSIM", "A-FINE (Ours)"]
    scores = pl.read_parquet(folder / "scores.parquet")
    assert set(scores["set"]) == {"diffiqa"} and len(scores) == 14
    assert (folder / "figures" / "accuracy.svg").is_file()
    phases = {row["phase"] for row in read_metrics(folder / "metrics.jsonl")}
    assert phases == {"phase1", "phase2", "phase3"}
    assert list((folder / "tensorboard" / "phase1").glob("events*"))
    before = {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*.parquet"))}
    assert main(["train", *config, "--phase", "1"]) == 0
    assert main(["evaluate", *config]) == 0
    assert before == {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*.parquet"))}


def test_triplets_of_a_run(make_run):
    run = make_run()
    train(run)
    rows = pl.read_parquet(run.root / "afine" / "triplets-train.parquet")
    # per reference: 6 reference rows, P-N 4, P-S 4, S-N 4, S-S 1
    assert len(rows) == 4 * 19
    assert dict(rows.group_by("kind").len().iter_rows())["PNY"] == 4 * 4
    images = pl.read_parquet(run.root / "afine" / "images.parquet")
    assert len(images) == 8 * 7 and set(images["height"]) == {64}
    no_rows = make_run("other", triplets={"reference_rows": False})
    train(no_rows)
    assert len(pl.read_parquet(no_rows.root / "afine" / "triplets-train.parquet")) == 4 * 13


def test_images_without_a_label_form_no_triplets(make_run):
    run = make_run()
    shard = run.root / "dataset" / "test-00000.tar"
    content = shard.read_bytes()
    changed = content.replace(b'"label": -1, ', b'"label":null,', 1)
    assert len(changed) == len(content) and changed != content
    shard.write_bytes(changed)
    train(run)
    rows = pl.read_parquet(run.root / "afine" / "triplets-test.parquet")
    assert len(rows) == 19 + 14  # without one N: N-Y, two P-N and two S-N less
    images = pl.read_parquet(run.root / "afine" / "images.parquet")
    assert images.filter(pl.col("split") == "test")["quality"].null_count() == 2 + 1


@pytest.mark.parametrize("augmentation", ["none", "dihedral8"])
@pytest.mark.parametrize("batching", ["random", "grouped"])
def test_interrupted_and_resumed_is_uninterrupted(make_run, monkeypatch, augmentation, batching):
    phase1 = {"batching": batching, "keep": "best"}
    whole = make_run("whole", augmentation=augmentation, phase1=phase1)
    train(whole, 1, 2, 3)
    broken = make_run("broken", augmentation=augmentation, phase1=phase1)
    for phase in (1, 2, 3):
        # 3 iterations: one beyond the checkpoint at 2, then stopped; again; then to the end
        for _ in range(2):
            with pytest.raises(PreemptedError, match="rerun to go on"):
                train(broken, phase, limit=2)
        train(broken, phase)
    for name in ("phase1/model.safetensors", "phase2/model.safetensors", "afine.safetensors"):
        one, two = (run.root / "afine" / name for run in (whole, broken))
        assert one.read_bytes() == two.read_bytes(), name
    for phase in (1, 2, 3):
        one, two = (
            json.loads((run.root / f"afine/phase{phase}/manifest.json").read_text())
            for run in (whole, broken)
        )
        assert one == two
    rows = [
        [
            (r["phase"], r["kind"], r["iteration"])
            for r in read_metrics(run.root / "afine" / "metrics.jsonl")
        ]
        for run in (whole, broken)
    ]
    assert sorted(rows[0]) == sorted(rows[1])


def test_a_kill_loses_only_what_is_after_the_checkpoint(make_run, monkeypatch):
    whole, broken = make_run("whole"), make_run("broken")
    train(whole, 1)
    real_step = loop.Progress.advance
    calls = {"n": 0}

    def die(self, *args, **kwargs):
        calls["n"] += 1
        if calls["n"] == 5:  # after the checkpoint of iteration 4
            raise KeyboardInterrupt
        real_step(self, *args, **kwargs)

    monkeypatch.setattr(loop.Progress, "advance", die)
    with pytest.raises(KeyboardInterrupt):
        train(broken, 1)
    monkeypatch.undo()
    train(broken, 1)
    one, two = (run.root / "afine/phase1/model.safetensors" for run in (whole, broken))
    assert one.read_bytes() == two.read_bytes()


def test_a_kill_after_the_last_checkpoint_changes_nothing(make_run, monkeypatch):
    whole, broken = make_run("whole"), make_run("broken")
    train(whole, 1)

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("afine.training.phase1.save", die)
    with pytest.raises(KeyboardInterrupt):
        train(broken, 1)
    monkeypatch.undo()
    train(broken, 1)
    one, two = (run.root / "afine/phase1/manifest.json" for run in (whole, broken))
    assert one.read_bytes() == two.read_bytes()


def test_changed_settings_are_refused_and_named(make_run):
    run = make_run()
    train(run, 1)
    changed = make_run(phase1={"lr": 5e-3})
    with pytest.raises(ConfigError, match=r"phase1\.lr"):
        train(changed, 1)
    train(changed, 1, replace=True)


def test_speed_settings_change_nothing(make_run):
    run = make_run()
    train(run, 1)
    before = (run.root / "afine/phase1/manifest.json").read_bytes()
    train(make_run(phase1={"micro_images": 3, "log_every": 1}), 1)
    assert (run.root / "afine/phase1/manifest.json").read_bytes() == before


def test_micro_batches_give_the_same_step(make_run):
    one, two = make_run("one"), make_run("two", phase1={"micro_images": 3})
    for run in (one, two):
        train(run, 1)
    from safetensors.torch import load_file

    tensors = [load_file(run.root / "afine/phase1/model.safetensors") for run in (one, two)]
    assert_close_but_noise(*tensors)


def test_phase_2_without_its_sets_says_what_to_do(make_run):
    run = make_run(phase2={"stage2_data": "release"})
    train(run, 1)
    with pytest.raises(ConfigError, match="choose 'paper'"):
        train(run, 2)


def test_missing_inputs_are_named(make_run, tmp_path, capsys):
    run = make_run()
    assert main(["train", "--config", str(run.path), "--phase", "2"]) == 2
    assert "triplets.manifest.json" in capsys.readouterr().err
    (run.root / "dataset" / "manifest.json").unlink()
    assert main(["triplets", "--config", str(run.path)]) == 2
    assert main(["triplets", "--labels", str(tmp_path / "no.parquet"), "--out", "x"]) == 2


def test_a_broken_image_is_recorded_and_too_many_fail(make_run):
    run = make_run(triplets={"max_failure_fraction": 0.5})
    shard = run.root / "dataset" / "val-00000.tar"
    content = bytearray(shard.read_bytes())
    start = content.find(b"\x89PNG")
    content[start : start + 8] = b"notapng!"
    shard.write_bytes(content)
    train(run)
    manifest = json.loads((run.root / "afine" / "triplets.manifest.json").read_text())
    assert manifest["counts"]["rejected"] == {"unreadable": 1}
    assert manifest["rejected"][0]["reason"] == "unreadable"
    (run.root / "afine" / "triplets.manifest.json").unlink()  # what is done is not judged again
    strict = make_run(triplets={"max_failure_fraction": 0.0})
    with pytest.raises(DataError, match="unreadable: 1"):
        from afine.triplets.stage import run_triplets

        run_triplets(strict, replace_old=True)


def test_caches_are_reused_by_phase_3_and_rebuilt_for_new_weights(make_run):
    run = make_run()
    train(run, 1, 2)
    cache = run.root / "afine/.state/statistics/difference/diffiqa-train/difference.npy"
    before = cache.stat().st_mtime_ns
    values = np.load(cache)
    assert values.shape == (28, 8, 2, 3 + 2 * 32) and values.min() >= 0
    train(run, 3)
    assert cache.stat().st_mtime_ns == before
    changed = make_run(phase1={"iterations": 7})
    train(changed, 1, 2, replace=True)
    assert not np.array_equal(np.load(cache), values)


def test_phase_3_computes_fidelities_of_sets_that_phase_2_left_out(make_run, monkeypatch):
    """One set as if it were PIPAL, the other DiffIQA: both ways give the same scores."""
    from afine.training import frozen
    from afine.training.phase3 import PhaseData
    from afine.training.session import open_session

    run = make_run()
    train(run, 1, 2)
    session = open_session(run, 3, replace=False)
    wide = PhaseData(session, frozen.load_phase(session, 2), "train")
    monkeypatch.setattr("afine.training.phase3.sets_of_phase2", lambda session: [])
    narrow = PhaseData(session, frozen.load_phase(session, 2), "train")
    for name, values in wide.scores.items():
        torch.testing.assert_close(narrow.scores[name], values, rtol=1e-4, atol=1e-6)


def test_bfloat16_and_paper_options_train(make_run):
    run = make_run(phase1={"precision": "bfloat16", "pairs": "paper", "iterations": 2},
                   phase3={"natural_init": "release", "iterations": 2},
                   cache={"precision": "float16"}, balance="repeat")  # fmt: skip
    train(run, 1, 2, 3)
    assert (
        np.load(run.root / "afine/.state/statistics/difference/diffiqa-train/difference.npy").dtype
        == np.float16
    )


def test_two_processes_train_what_one_does(make_run):
    """Gradients of the backbone are averaged too; only the order of sums differs."""
    one, two = make_run("one"), make_run("two")
    train(one, 1)
    train(two)
    training = ["afine", "train", "--config", str(two.path), "--phase", "1"]
    _, *command = one_node_command(2, ACCELERATE, training)  # as the rules start it
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.accelerate_cli", *command],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(set(re.findall(r"afine train, .* pid (\d+)", done.stderr))) == 2
    from safetensors.torch import load_file

    tensors = [load_file(run.root / "afine/phase1/model.safetensors") for run in (one, two)]
    assert_close_but_noise(*tensors)
