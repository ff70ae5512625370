"""The solver against the reference outputs, diffusers' scheduler and closed forms."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from safetensors.torch import load_file
from torch import Tensor

from enhancer.sample import unipc
from runtime.errors import DataError

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE = unipc.noise_schedule(SD)
TOLERANCE = 1e-5


def relative_to_max(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def analytic_noise(x: Tensor, timestep: int) -> Tensor:
    """The golden runs' noise model."""
    abar = torch.tensor(NOISE.abar, dtype=torch.float32)[timestep]
    return torch.sqrt(1 - abar) * x + 0.1 * torch.sin(x + timestep / 250)


def run_alone(x: Tensor, schedule: unipc.SolverSchedule) -> Tensor:
    state = unipc.start_state(x)
    table = torch.from_numpy(schedule.table).float()
    for i, timestep in enumerate(schedule.timesteps):
        state = unipc.step(state, analytic_noise(state.x, int(timestep)), table[i : i + 1])
    return state.x


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "pasd/sampling_io.safetensors")


def test_abar_is_that_of_the_reference(reference: dict[str, Tensor]) -> None:
    assert np.array_equal(NOISE.abar, reference["scheduler.alphas_cumprod"].double().numpy())


@pytest.mark.parametrize("steps", [20, 37, 100, 500, 999, 1000])
def test_timesteps_of_the_reference(reference: dict[str, Tensor], steps: int) -> None:
    schedule = unipc.solver_schedule(NOISE, steps)
    assert schedule.timesteps.tolist() == reference[f"timesteps.{steps}"].tolist()


@pytest.mark.parametrize("steps", [1, 2, 3, 20, 37, 100, 500, 999, 1000])
def test_analytic_runs_of_the_reference(reference: dict[str, Tensor], steps: int) -> None:
    x = run_alone(reference["analytic.initial_latent"], unipc.solver_schedule(NOISE, steps))
    assert relative_to_max(x, reference[f"analytic.steps{steps}.final"]) < TOLERANCE


@pytest.mark.parametrize("final_sigma", ["sigma_min", "zero"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 7, 50, 333])
def test_equals_the_diffusers_scheduler(steps: int, prediction: str, final_sigma: str) -> None:
    scheduler = UniPCMultistepScheduler(
        **SD, prediction_type=prediction, final_sigmas_type=final_sigma
    )
    scheduler.set_timesteps(steps)
    noise = unipc.noise_schedule({**SD, "prediction_type": prediction})
    schedule = unipc.solver_schedule(noise, steps, final_sigma=final_sigma)
    assert schedule.timesteps.tolist() == scheduler.timesteps.tolist()
    expected = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(steps))
    found = run_alone(expected, schedule)
    for timestep in scheduler.timesteps:
        output = analytic_noise(expected, int(timestep))
        expected = scheduler.step(output, timestep, expected, return_dict=False)[0]
    assert relative_to_max(found, expected) < TOLERANCE


def test_every_number_of_steps_has_finite_distinct_steps() -> None:
    for steps in range(1, 1001):
        schedule = unipc.solver_schedule(NOISE, steps)
        assert (np.diff(schedule.timesteps) < 0).all()
        assert len(schedule) == (steps if steps < 1000 else 999)
        assert np.isfinite(schedule.table).all()


def test_a_mixed_batch_gives_the_bits_of_each_run_alone() -> None:
    schedules = [unipc.solver_schedule(NOISE, steps) for steps in (7, 20, 37, 999)]
    start = torch.randn(4, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    state = unipc.start_state(start)
    ends: dict[int, Tensor] = {}
    for i in range(999):
        rows = torch.zeros(4, unipc.COLUMNS)
        output = torch.zeros_like(start)
        for slot, schedule in enumerate(schedules):
            if i < len(schedule):
                rows[slot] = torch.from_numpy(schedule.table[i]).float()
                output[slot] = analytic_noise(state.x[slot], int(schedule.timesteps[i]))
        state = unipc.step(state, output, rows)
        ends.update(
            {slot: state.x[slot] for slot, item in enumerate(schedules) if len(item) == i + 1}
        )
    for slot, schedule in enumerate(schedules):
        assert torch.equal(ends[slot], run_alone(start[slot : slot + 1], schedule)[0])


@pytest.mark.parametrize("level", [1, 20, 400, 998])
def test_partial_schedules_start_at_their_level(level: int) -> None:
    schedule = unipc.solver_schedule(NOISE, 30, level=level)
    assert schedule.timesteps[0] == level
    assert len(schedule) == min(30, level)


def gaussian_error(steps: int) -> float:
    """Error of the solver where data are normal with spread 2 and the solution is known."""
    sigmas = np.geomspace(20.0, 0.05, steps + 1)
    alpha = 1 / np.sqrt(1 + sigmas**2)
    std, spread = alpha * sigmas, 2.0
    total = np.sqrt(alpha**2 * spread**2 + std**2)
    table = torch.from_numpy(unipc.coefficient_table(sigmas))
    state = unipc.start_state(torch.full((1, 1, 1, 1), float(total[0]), dtype=torch.float64))
    for i in range(steps):
        output = state.x * std[i] / total[i] ** 2
        state = unipc.step(state, output, table[i : i + 1])
    return abs(float(state.x) - total[-1]) / total[-1]


def test_order_of_accuracy_on_a_gaussian() -> None:
    # with its corrector, the second-order method is of third order (UniPC, Cor. 3.2)
    errors = [gaussian_error(steps) for steps in (40, 80, 160)]
    orders = [np.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert errors[-1] < 1e-4
    assert min(orders) > 2.8


def test_step_does_not_modify_its_arguments() -> None:
    state = unipc.start_state(torch.randn(2, 4, 3, 3))
    before = [part.clone() for part in vars(state).values()]
    rows = torch.from_numpy(unipc.solver_schedule(NOISE, 5).table[:2]).float()
    first = unipc.step(state, torch.ones(2, 4, 3, 3), rows)
    second = unipc.step(state, torch.ones(2, 4, 3, 3), rows)
    assert all(torch.equal(one, two) for one, two in zip(before, vars(state).values()))
    assert torch.equal(first.x, second.x)


@pytest.mark.parametrize(("steps", "level"), [(0, None), (5, 0), (5, 1000), (5, -1)])
def test_impossible_schedules_are_refused(steps: int, level: int | None) -> None:
    with pytest.raises(DataError, match="expected steps"):
        unipc.solver_schedule(NOISE, steps, level=level)


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "squaredcos_cap_v2"},
        {"prediction_type": "sample"},
        {"trained_betas": [1]},
    ],
)
def test_unknown_noise_schedules_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(DataError, match="found"):
        unipc.noise_schedule({**SD, **config})
