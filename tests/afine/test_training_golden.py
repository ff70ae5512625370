"""Losses, gradients, updates and schedules of the release, on its own batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from afine.config import Phase1Config, ScheduleConfig
from afine.model import AFine
from afine.statistics import differences
from afine.training.augment import dihedral, dihedral_u8
from afine.training.loss import fidelity_loss, is_correct, preference
from afine.training.naturalness import NaturalnessNet, TripletColumns, cut, score_shown
from afine.training.optimizer import adamw, set_rates
from afine.training.order import Batch, repeated_rows
from afine.training.phase1 import make_optimizer
from afine.training.schedule import learning_rate

PREFIX = {"natural": "naturalness", "fidelity": "fidelity", "finetuned_clip.visual": "backbone"}


class GoldenStore:
    """The release's batch in place of an image store."""

    def __init__(self, inputs: dict[str, torch.Tensor]) -> None:
        self._inputs = inputs

    def read(self, key: tuple[str, str]) -> np.ndarray:
        return self._inputs[key[1]].numpy()


@pytest.fixture(scope="module")
def facts(afine_golden: Path) -> dict[str, Any]:
    return json.loads((afine_golden / "train_golden.json").read_text())


@pytest.fixture(scope="module")
def inputs(afine_golden: Path) -> dict[str, torch.Tensor]:
    return load_file(afine_golden / "train_inputs.safetensors")


@pytest.fixture(scope="module")
def grads(afine_golden: Path) -> dict[str, torch.Tensor]:
    return load_file(afine_golden / "train_grads.safetensors")


@pytest.fixture
def columns(facts) -> TripletColumns:
    labels = facts["labels"]
    return TripletColumns(
        pl.DataFrame(
            {
                "set": ["golden"] * 4,
                "image1": [f"t{n}.img1_u8" for n in range(4)],
                "image2": [f"t{n}.img2_u8" for n in range(4)],
                "ref": [f"t{n}.ref_u8" for n in range(4)],
                "label12": labels["gt_score_12"],
                "label1r": labels["gt_score_1ref"],
                "label2r": labels["gt_score_2ref"],
            }
        )
    )


def official(model: AFine, name: str) -> torch.nn.Parameter:
    for theirs, ours in PREFIX.items():
        if name.startswith(theirs + "."):
            return dict(model.named_parameters())[f"{ours}.{name.removeprefix(theirs + '.')}"]
    group, key = name.split(".")
    module = {"natural_scale": "naturalness_scale"}.get(group, group)
    return getattr(getattr(model, module), key)


def check_grads(model: AFine, grads: dict[str, torch.Tensor], stage: str) -> None:
    for name, expected in grads.items():
        if name.startswith(f"{stage}.") and name.endswith(".grad"):
            found = official(model, name.removeprefix(f"{stage}.").removesuffix(".grad")).grad
            # the output bias cancels in every pair: its gradient is rounding noise
            atol = max(1e-4 * expected.abs().max().item(), 1e-6)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=atol, msg=name)


def check_after_first(model: AFine, grads: dict[str, torch.Tensor], stage: str, lr: float) -> None:
    """Adam's first step is lr times the gradient's sign, so noise decides where it is near 0."""
    for name, expected in grads.items():
        if name.startswith(f"{stage}.") and name.endswith(".after_iter1"):
            key = name.removesuffix(".after_iter1")
            found = official(model, key.removeprefix(f"{stage}.")).data
            slope = grads[f"{key}.grad"].abs()
            is_clear = (slope > 1e-3 * slope.max()) & (slope > 1e-6)
            far = (found - expected).abs()
            assert far.max() <= 2.1 * lr, name
            assert not is_clear.any() or far[is_clear].max() <= 0.02 * lr, name


def norm(parameters: Any) -> float:
    return torch.sqrt(sum(p.grad.double().square().sum() for p in parameters)).item()


def test_phase1_three_iterations(tiny, facts, inputs, grads, columns):
    stage, settings = facts["stages"]["stage1"], Phase1Config()
    net = NaturalnessNet(tiny, precision="float32")
    optimizer = make_optimizer(net, settings)
    batch = Batch(np.arange(4), np.zeros(4, dtype=np.int64))
    for number, expected in enumerate(stage["iterations"], start=1):
        assert set_rates(optimizer, number, settings.schedule) == expected["lr_per_optimizer"][0]
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in cut(batch, columns, limit=6):
            scores = score_shown(net, GoldenStore(inputs), list(part.shown), torch.device("cpu"))
            loss = columns.losses(part, scores, "release").sum() / 4
            loss.backward()
            total += loss.item()
        assert total == pytest.approx(expected["l_total"], abs=3e-6)
        norms = {
            "finetuned_clip": norm(net.backbone.parameters()),
            "natural": norm(net.head.parameters()),
        }
        for group, value in norms.items():
            assert value == pytest.approx(expected["grads"][group]["total_norm"], rel=1e-4)
        if number == 1:
            exact = stage["fp64_iter1"]["losses"]
            assert total == pytest.approx(sum(exact.values()), abs=1e-6)
            check_grads(tiny, grads, "stage1")
        optimizer.step()
        if number == 1:
            check_after_first(tiny, grads, "stage1", 5e-6)


def encoded_pairs(model: AFine, inputs: dict[str, torch.Tensor]) -> list[list[Any]]:
    """Per triplet the encoded first image, second image and reference."""
    return [
        [
            model.encode(inputs[f"t{n}.{name}_u8"].permute(2, 0, 1)[None].float() / 255)
            for name in ("img1", "img2", "ref")
        ]
        for n in range(4)
    ]


def test_phase2_three_iterations(tiny, facts, inputs, grads, columns):
    stage, schedule = facts["stages"]["stage2"], ScheduleConfig()
    with torch.no_grad():
        pairs = encoded_pairs(tiny, inputs)
        cached = [torch.cat([differences(p[k], p[2]) for p in pairs]) for k in (0, 1)]
    optimizer = adamw([{"params": list(tiny.fidelity.parameters()), "lr": 5e-4}], schedule)
    for number, expected in enumerate(stage["iterations"], start=1):
        set_rates(optimizer, number, schedule)
        u1, u2 = (tiny.fidelity(values) for values in cached)
        loss = fidelity_loss(u1, u2, columns.labels["label12"]).mean()
        optimizer.zero_grad()
        loss.backward()
        assert loss.item() == pytest.approx(expected["l_total"], abs=1e-6)
        total = expected["grads"]["fidelity"]["total_norm"]
        assert norm(tiny.fidelity.parameters()) == pytest.approx(total, rel=1e-4)
        if number == 1:
            check_grads(tiny, grads, "stage2")
        optimizer.step()
        if number == 1:
            check_after_first(tiny, grads, "stage2", 5e-4)
    assert u1.tolist() == pytest.approx([row["F1"] for row in stage["per_sample_before"]], rel=2e-3)


def test_phase3_three_iterations(tiny, facts, inputs, grads, columns):
    stage, schedule = facts["stages"]["stage3"], ScheduleConfig()
    with torch.no_grad():
        pairs = encoded_pairs(tiny, inputs)
        natural = [torch.cat([tiny.raw_naturalness(p[k]) for p in pairs]) for k in range(3)]
        fidelity = [torch.cat([tiny.raw_fidelity(p[k], p[2]) for p in pairs]) for k in (0, 1)]
    parts = (tiny.naturalness_scale, tiny.fidelity_scale, tiny.adapter)
    parameters = [p for part in parts for p in part.parameters()]
    optimizer = adamw([{"params": parameters, "lr": 1e-3}], schedule)
    for number, expected in enumerate(stage["iterations"], start=1):
        set_rates(optimizer, number, schedule)
        u1, u2 = (tiny.combine(natural[k], natural[2], fidelity[k]).score for k in (0, 1))
        loss = fidelity_loss(u1, u2, columns.labels["label12"]).mean()
        optimizer.zero_grad()
        loss.backward()
        assert loss.item() == pytest.approx(expected["l_total"], abs=1e-6)
        if number == 1:
            rows = stage["per_sample_before"]
            assert u1.tolist() == pytest.approx([row["D1"] for row in rows], rel=1e-4)
            assert u2.tolist() == pytest.approx([row["D2"] for row in rows], rel=1e-4)
            check_grads(tiny, grads, "stage3")
        optimizer.step()
        if number == 1:
            check_after_first(tiny, grads, "stage3", 1e-3)
        for name, value in expected["scalars_after"].items():
            assert official(tiny, name).item() == pytest.approx(value, rel=1e-5)


def test_schedule_is_as_tabulated(afine_golden):
    for case in json.loads((afine_golden / "scalar_golden.json").read_text())["lr_schedule"]:
        schedule = ScheduleConfig(eta_min=case["eta_min"])
        for iteration, expected in case["rows"]:
            found = learning_rate(iteration, case["base_lr"], schedule)
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-16)


def test_schedule_goes_on_beyond_its_restarts():
    schedule = ScheduleConfig(period=10, restart_weights=(1.0, 0.5))
    assert learning_rate(1000, 1.0, schedule) > 0
    assert learning_rate(95, 1.0, schedule) == pytest.approx(learning_rate(15, 1.0, schedule))


def test_loss_preference_and_accuracy_are_as_tabulated(afine_golden):
    golden = json.loads((afine_golden / "scalar_golden.json").read_text())
    for u1, u2, p_hat, loss_1, slope_1, loss_half, loss_0, _ in golden["p_hat"]["rows"]:
        a, b = torch.tensor([u1], requires_grad=True), torch.tensor([u2])
        assert preference(a, b)[0].item() == pytest.approx(p_hat, abs=1e-7)
        for label, expected in ((1.0, loss_1), (0.5, loss_half), (0.0, loss_0)):
            found = fidelity_loss(a, b, torch.tensor([label])).item()
            assert found == pytest.approx(expected, abs=3e-5)
        if abs(u1 - u2) <= 3:
            (slope,) = torch.autograd.grad(fidelity_loss(a, b, torch.tensor([1.0])).sum(), a)
            assert slope.item() == pytest.approx(slope_1, rel=1e-4)
    for u1, u2, label, delta, correct in golden["accuracy"]["rows"]:
        values = (torch.tensor([v]) for v in (u1, u2, label))
        assert int(is_correct(*values, delta).item()) == correct


def test_a_confident_error_keeps_its_gradient():
    u1 = torch.tensor([30.0], requires_grad=True)
    fidelity_loss(u1, torch.tensor([0.0]), torch.tensor([1.0])).sum().backward()
    assert torch.isfinite(u1.grad).all()
    p, q = preference(torch.tensor([9.0]), torch.tensor([0.0]))
    assert 0 < p.item() < 1e-9 and q.item() == pytest.approx(1.0)


def test_augmentations_are_the_release_s(inputs):
    image = inputs["augment.input"]
    for h in (0, 1):
        for v in (0, 1):
            for t in (0, 1):
                expected = inputs[f"augment.h{h}_v{v}_t{t}"]
                version = h + 2 * v + 4 * t
                found = dihedral(image.permute(2, 0, 1), version).permute(1, 2, 0)
                assert torch.equal(found, expected)
                u8 = (image.numpy() * 255).astype(np.uint8)
                np.testing.assert_array_equal(
                    dihedral_u8(u8, version), (expected.numpy() * 255).astype(np.uint8)
                )


def test_balancing_is_the_release_s(facts):
    names = {"DiffIQA": "diffiqa", "KADID10K": "kadid10k", "PIPAL": "pipal", "TID2013": "tid2013"}
    for case in facts["dataset_mixing"]["cases"][:4]:
        sets = pl.Series([names[k] for k, n in case["input_counts"].items() for _ in range(n)])
        for mode, expected in (("none", case["nobalance"]), ("repeat", case["balance"])):
            counts = sets[repeated_rows(sets, mode)].value_counts()
            found = dict(counts.iter_rows())
            assert found == {names[k]: n for k, n in expected.items()}
