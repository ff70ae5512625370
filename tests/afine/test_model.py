"""The model against the release's outputs, and the checklist of a metric."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from afine.backbone import stretch_positions
from afine.heads import Adapter, Calibration, to_score100
from afine.model import AFine, AFineOutput
from runtime.errors import DataError

NAMES = {
    "natural_dis": "raw_naturalness_test",
    "natural_ref": "raw_naturalness_ref",
    "fidelity": "raw_fidelity",
    "natural_dis_scale": "naturalness_test",
    "natural_ref_scale": "naturalness_ref",
    "fidelity_scale": "fidelity",
    "afine_all": "score",
    "afine_all_scale": "score100",
}


def as_batch(image_u8: torch.Tensor) -> torch.Tensor:
    return image_u8.permute(2, 0, 1)[None].float() / 255


def pair(tiny_io: dict[str, torch.Tensor], number: int) -> tuple[torch.Tensor, torch.Tensor]:
    return as_batch(tiny_io[f"pair{number}.dis_u8"]), as_batch(tiny_io[f"pair{number}.ref_u8"])


def check(out: AFineOutput, expected: dict[str, float], *, rel: float = 1e-4) -> None:
    for theirs, ours in NAMES.items():
        tolerance = 3e-4 if theirs == "afine_all_scale" else rel
        assert getattr(out, ours).item() == pytest.approx(expected[theirs], rel=tolerance), theirs


@pytest.mark.parametrize("number", range(4))
@torch.no_grad()
def test_tiny_model_equals_the_release(tiny, tiny_io, afine_golden, number):
    expected = json.loads((afine_golden / "tiny_io.json").read_text())["pairs"][number]
    check(tiny(*pair(tiny_io, number)), expected["f64"])


@pytest.mark.parametrize("number", range(4))
@torch.no_grad()
def test_float64_agrees_to_nine_digits(tiny, tiny_io, afine_golden, number):
    expected = json.loads((afine_golden / "tiny_io.json").read_text())["pairs"][number]["f64"]
    test, ref = (x.double() for x in pair(tiny_io, number))
    out = tiny.double()(test, ref)
    for theirs, ours in NAMES.items():
        # the fourth pair is resized, in float32 in the reference
        rel = 1e-4 if number == 3 else 1e-6
        assert getattr(out, ours).item() == pytest.approx(expected[theirs], rel=rel), theirs


@torch.no_grad()
def test_features_means_and_variances_equal_the_release(tiny, tiny_io):
    for number in range(4):
        encoded = tiny.encode(pair(tiny_io, number)[0])
        torch.testing.assert_close(
            encoded.means[0], tiny_io[f"pair{number}.dis_mean"].flatten(), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            encoded.variances[0], tiny_io[f"pair{number}.dis_var"].flatten(), rtol=1e-4, atol=1e-5
        )


@torch.no_grad()
def test_positions_are_stretched_along_the_token_axis(tiny, tiny_io):
    for number in (1, 2):
        expected = tiny_io[f"pair{number}.pos_embed_interp"]
        found = stretch_positions(tiny.backbone.positional_embedding, len(expected))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_swapped_roles_and_equal_images(tiny, tiny_io, afine_golden):
    expected = json.loads((afine_golden / "tiny_io.json").read_text())["pairs"][0]
    test, ref = pair(tiny_io, 0)
    swapped = tiny(ref, test)
    assert swapped.raw_fidelity.item() == pytest.approx(expected["swapped"]["fidelity"], rel=1e-6)
    # D is nearly zero here: the difference of two terms of order one
    assert swapped.score.item() == pytest.approx(expected["swapped"]["afine_all"], abs=1e-5)
    same = tiny(test, test.clone())
    assert same.raw_fidelity.item() == 0.0
    assert same.score.item() == pytest.approx(expected["dis_vs_itself"]["afine_all"], rel=1e-4)


@pytest.mark.parametrize("name", ["mid_2heads_4layers", "full_vit_b32_12heads"])
@torch.no_grad()
def test_several_heads_equal_the_release(afine_golden, tiny_io, make_seeded, name):
    golden = json.loads((afine_golden / "seeded_golden.json").read_text())["models"][name]
    model = make_seeded(golden)
    for key, expected in list(golden["pairs"].items())[: 1 if name.startswith("full") else 9]:
        number = int(key[-1])
        check(model(*pair(tiny_io, number)), expected["fp64"])


@torch.no_grad()
def test_flat_images_have_no_fidelity_error(tiny):
    grey = torch.full((1, 3, 224, 224), 128 / 255)
    assert tiny(grey, grey.clone()).raw_fidelity.item() == 0.0
    other = tiny(torch.full_like(grey, 130 / 255), grey).raw_fidelity.item()
    assert other == pytest.approx(0.05238896502249779, rel=1e-3)


@torch.no_grad()
def test_a_batch_gives_what_its_images_give_alone(tiny):
    images = torch.rand(5, 3, 70, 96, generator=torch.Generator().manual_seed(0))
    refs = torch.rand(5, 3, 70, 96, generator=torch.Generator().manual_seed(1))
    together = tiny(images, refs)
    for n in range(5):
        alone = tiny(images[n : n + 1], refs[n : n + 1])
        for name in ("raw_naturalness_test", "raw_naturalness_ref", "raw_fidelity", "score"):
            found, expected = getattr(together, name)[n].item(), getattr(alone, name).item()
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), name


@torch.no_grad()
def test_inputs_stay_and_the_second_call_is_equal(tiny):
    test, ref = torch.rand(2, 2, 3, 50, 40, generator=torch.Generator().manual_seed(0))
    before = test.clone(), ref.clone()
    first, second = tiny(test, ref), tiny(test, ref)
    assert torch.equal(test, before[0]) and torch.equal(ref, before[1])
    assert torch.equal(first.score, second.score)
    assert torch.equal(tiny(test, test).score, tiny(test, test.clone()).score)


@torch.no_grad()
def test_one_reference_serves_all_test_images(tiny):
    tests = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ref = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        tiny(tests, ref).score, tiny(tests, ref.expand(3, -1, -1, -1)).score, rtol=1e-5, atol=1e-6
    )


@torch.no_grad()
def test_fidelity_grows_with_noise_and_is_symmetric(tiny, photo_u8):
    ref = as_batch(torch.from_numpy(photo_u8[:128, :128].copy()))
    noise = torch.randn(ref.shape, generator=torch.Generator().manual_seed(0))
    values = [
        tiny((ref + s * noise).clamp(0, 1), ref).raw_fidelity.item() for s in (0, 0.02, 0.08, 0.3)
    ]
    assert values == sorted(values) and values[0] == 0.0
    noisy = (ref + 0.1 * noise).clamp(0, 1)
    assert tiny(noisy, ref).raw_fidelity.item() == pytest.approx(
        tiny(ref, noisy).raw_fidelity.item(), rel=1e-6
    )


def test_gradient_reaches_the_test_image(tiny):
    test = torch.rand(1, 3, 64, 64, requires_grad=True)
    tiny(test, torch.rand(1, 3, 64, 64)).score.sum().backward()
    assert test.grad is not None and torch.isfinite(test.grad).all() and test.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_other_number_formats(tiny, dtype):
    test, ref = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = tiny(test, ref).raw_fidelity.item()
    out = tiny.to(dtype)(test.to(dtype), ref.to(dtype))
    rel = 1e-5 if dtype == torch.float64 else 0.1
    assert out.raw_fidelity.item() == pytest.approx(exact, rel=rel)
    assert torch.isfinite(out.score).all()


@pytest.mark.parametrize(
    ("test", "ref"),
    [
        (torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 32)),
        (torch.rand(3, 3, 32, 32), torch.rand(2, 3, 32, 32)),
        (torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)),
        (
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        ),
        (torch.rand(3, 32, 32), torch.rand(3, 32, 32)),
    ],
)
def test_wrong_shapes_are_named(tiny, test, ref):
    with pytest.raises(DataError, match=r"float|differ in shape"):
        tiny(test, ref)


def test_calibrations_are_as_tabulated(afine_golden: Path):
    golden = json.loads((afine_golden / "scalar_golden.json").read_text())
    for kind in ("natural_scale", "fidelity_scale"):
        for case in golden[kind]:
            bounds = case.get("bounds", {})
            scale = Calibration(
                case["yita3"], case["yita4"],
                centre_bounds=tuple(bounds["yita3"]) if bounds else None,
                width_bounds=tuple(bounds["yita4"]) if bounds else None,
            )  # fmt: skip
            for x, y, dx, d3, d4 in case["rows"]:
                raw = torch.tensor(x, requires_grad=True)
                out = scale(raw)
                grads = torch.autograd.grad(out, [raw, scale.yita3, scale.yita4])
                assert out.item() == pytest.approx(y, rel=1e-5, abs=5e-7)
                for found, expected in zip(grads, (dx, d3, d4), strict=True):
                    assert found.item() == pytest.approx(expected, rel=2e-4, abs=2e-6)


def test_adapter_and_final_scale_are_as_tabulated(afine_golden: Path):
    golden = json.loads((afine_golden / "scalar_golden.json").read_text())
    for k, n_dis, n_ref, fidelity, d, dk, d_dis, d_ref, d_f in golden["adapter"]["rows"]:
        adapter = Adapter(k)
        inputs = [torch.tensor(v, requires_grad=True) for v in (n_dis, n_ref, fidelity)]
        out = adapter(*inputs)
        assert out.item() == pytest.approx(d, rel=1e-5)
        for found, expected in zip(
            torch.autograd.grad(out, [adapter.k, *inputs]), (dk, d_dis, d_ref, d_f), strict=True
        ):
            assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-12)
    for score, scaled, _ in golden["final_scale"]["rows"]:
        assert to_score100(torch.tensor(score)).item() == pytest.approx(scaled, rel=1e-5, abs=1e-30)


def test_published_names_and_gradients_of_a_full_model(afine_golden: Path):
    groups = json.loads((afine_golden / "keys_full.json").read_text())["groups"]
    trained = {
        name.removeprefix("visual."): tuple(facts["shape"])
        for name, facts in groups["finetuned_clip"].items()
        if facts["stage1_receives_gradient"]
    }
    with torch.device("meta"):
        model = AFine()
    assert {n: tuple(p.shape) for n, p in model.backbone.named_parameters()} == trained
    assert sum(np.prod(shape) for shape in trained.values()) == 87_454_464
    assert sum(p.numel() for p in model.naturalness.parameters()) == 1_382_529
    assert sum(p.numel() for p in model.fidelity.parameters()) == 18_438
