"""UniPC (order 2, bh2, data prediction) as one linear combination per step.

Symbols (UniPC, Zhao et al. 2023; diffusers names in brackets):

    abar      cumulative product of 1 - beta, per training timestep [alphas_cumprod]
    sigma     sqrt((1 - abar) / abar), noise-to-signal ratio [sigmas]
    alpha     1 / sqrt(1 + sigma^2) [alpha_t];  std = sigma * alpha [sigma_t]
    lam       log(alpha / std) = -log(sigma), half log signal-to-noise ratio [lambda_t]
    x_i       predicted latent at step i [sample];  c_i  the same after the corrector [last_sample]
    m_i       data prediction at step i [model_outputs]
    h, B(h)   lam difference of a step and exp(-h) - 1, the "bh2" choice [h, B_h]
    r         (lam_older - lam_now) / h [rk]

Every step is linear in the latents and data predictions, with factors that depend on the
schedule and the position only. `coefficient_table` computes those in float64 once per
schedule; `step` applies one row per slot, so each slot of a batch may follow a schedule of
its own. The order of multiplications and additions is fixed and elementwise, hence a slot's
result does not depend on its neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from runtime.errors import DataError

Float64 = npt.NDArray[np.float64]
FinalSigma = Literal["sigma_min", "zero"]
Prediction = Literal["epsilon", "v_prediction"]

# Columns of a coefficient table.
#   m = DATA_X x + DATA_OUT output
#   c = CORR_X x + CORR_LAST last + CORR_M m + CORR_M1 m1 + CORR_M2 m2
#   next x = PRED_C c + PRED_M m + PRED_M1 m1
DATA_X, DATA_OUT = 0, 1
CORR_X, CORR_LAST, CORR_M, CORR_M1, CORR_M2 = 2, 3, 4, 5, 6
PRED_C, PRED_M, PRED_M1 = 7, 8, 9
COLUMNS = 10


STABLE_DIFFUSION: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
_FOREIGN = ("thresholding", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@dataclass(frozen=True)
class NoiseSchedule:
    """What the networks were trained with.

    Attributes:
        abar: cumulative product of 1 - beta, float64 [T].
        prediction: what the network's output means.
    """

    abar: Float64
    prediction: Prediction = "epsilon"

    @property
    def timesteps(self) -> int:
        """Number of training timesteps T."""
        return len(self.abar)


@dataclass(frozen=True)
class SolverSchedule:
    """One solver run: its timesteps and its coefficients.

    Attributes:
        timesteps: training timesteps at which the network is evaluated, int64 [n], descending.
        table: coefficients of every step, float64 [n, COLUMNS].
    """

    timesteps: npt.NDArray[np.int64]
    table: Float64

    def __len__(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True)
class SolverState:
    """Multistep state of N slots, each tensor float32 [N, C, h, w].

    Attributes:
        x: predicted latent.
        last: latent of the step before, after its corrector.
        m1: data prediction of the step before.
        m2: data prediction two steps before.
    """

    x: torch.Tensor
    last: torch.Tensor
    m1: torch.Tensor
    m2: torch.Tensor


def noise_schedule(config: Mapping[str, Any], *, where: str = "scheduler") -> NoiseSchedule:
    """Build the training noise schedule from a scheduler_config.json.

    Args:
        config: beta_start, beta_end, beta_schedule; num_train_timesteps (1000) and
            prediction_type (epsilon) if they are others; empty for Stable Diffusion 1.x.
        where: start of an error message.
    Raises:
        DataError: a key is missing, or it names what is not implemented.
    """
    config = config or STABLE_DIFFUSION
    if missing := sorted(STABLE_DIFFUSION.keys() - config.keys()):
        raise DataError(f"{where}: no {', '.join(missing)} found; complete the file")
    count = int(config.get("num_train_timesteps", 1000))
    start, end = float(config["beta_start"]), float(config["beta_end"])
    kind = config["beta_schedule"]
    if config.get("trained_betas") is not None or kind not in {"scaled_linear", "linear"}:
        raise DataError(
            f"{where}: beta schedule '{kind}' found; expected 'scaled_linear' or 'linear'"
        )
    if config.get("rescale_betas_zero_snr"):
        raise DataError(
            f"{where}: rescale_betas_zero_snr is set; a schedule without signal at its last "
            "timestep is not supported"
        )
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in {"epsilon", "v_prediction"}:
        raise DataError(
            f"{where}: prediction_type '{prediction}' found; expected epsilon or v_prediction"
        )
    # float32 as in training, so that the numbers are those that the networks saw
    if kind == "linear":
        betas = torch.linspace(start, end, count, dtype=torch.float32)
    else:
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    abar = torch.cumprod(1.0 - betas, dim=0)
    return NoiseSchedule(abar.double().numpy(), prediction)


def foreign_settings(config: Mapping[str, Any]) -> list[str]:
    """Name the solver settings of a scheduler_config.json that this solver does not follow."""
    spacing = config.get("timestep_spacing", "linspace")
    found = [] if spacing == "linspace" else [f"timestep_spacing {spacing}"]
    return found + [name for name in _FOREIGN if config.get(name)]


def solver_schedule(
    noise: NoiseSchedule,
    steps: int,
    *,
    level: int | None = None,
    final_sigma: FinalSigma = "sigma_min",
) -> SolverSchedule:
    """Choose timesteps and compute the coefficients of one solver run.

    Args:
        noise: the training schedule.
        steps: requested solver steps, >= 1. Steps that would repeat a timestep are left out
            (1000 of 1000 become 999), so the run may be shorter.
        level: first timestep; None for the last training timestep.
        final_sigma: noise level after the last step.
    Raises:
        DataError: steps or level out of range.
    Source:
        diffusers UniPCMultistepScheduler, timestep_spacing "linspace", solver_order 2,
        lower_order_final; departs from it in: start below the last timestep, duplicates.
    """
    top = noise.timesteps - 1 if level is None else level
    if steps < 1 or not 1 <= top < noise.timesteps:
        raise DataError(
            f"steps {steps}, level {level}: expected steps >= 1 and level in "
            f"[1, {noise.timesteps - 1}]"
        )
    timesteps = solver_timesteps(steps, top)
    sigmas = np.sqrt((1 - noise.abar) / noise.abar)
    last = sigmas[0] if final_sigma == "sigma_min" else 0.0
    path = np.concatenate([sigmas[timesteps], [last]])
    return SolverSchedule(timesteps, coefficient_table(path, noise.prediction))


def solver_timesteps(steps: int, top: int) -> npt.NDArray[np.int64]:
    """Spread `steps` timesteps evenly over (0, top], descending; none is repeated."""
    spread = np.linspace(0, top, steps + 1).round().astype(np.int64)
    return np.unique(spread[spread > 0])[::-1].copy()


def coefficient_table(sigmas: Float64, prediction: Prediction = "epsilon") -> Float64:
    """Compute the factors of every step along a descending path of noise levels.

    Args:
        sigmas: noise-to-signal ratios, float64 [n + 1]; only the last may be 0.
        prediction: what the network's output means.
    Returns:
        Float64 [n, COLUMNS].
    Source:
        UniPC (Zhao et al. 2023), Alg. 1 and 2 with B(h) = exp(-h) - 1, p = 2; first
        step and last step of order 1.
    """
    alpha = 1.0 / np.sqrt(1.0 + sigmas**2)
    std = sigmas * alpha
    with np.errstate(divide="ignore"):
        h = np.diff(-np.log(sigmas))
    table = np.zeros((len(h), COLUMNS))
    if prediction == "epsilon":
        table[:, DATA_X], table[:, DATA_OUT] = 1.0 / alpha[:-1], -std[:-1] / alpha[:-1]
    else:
        table[:, DATA_X], table[:, DATA_OUT] = alpha[:-1], -std[:-1]
    table[0, CORR_X] = 1.0
    _fill_corrector(table[1:], alpha[1:-1], std[:-1], h[:-1])
    _fill_predictor(table, alpha[1:], std, h)
    return table


def _fill_corrector(rows: Float64, alpha: Float64, std: Float64, h: Float64) -> None:
    """c_i = first-order step from c_{i-1}, corrected by m_i, m_{i-1} and, from i = 2, m_{i-2}.

    `rows`, `alpha` and `h` begin at i = 1 (h is that of the step into i), `std` at i = 0.
    """
    phi1 = np.expm1(-h)
    phi2 = phi1 / -h - 1.0
    phi3 = phi2 / -h - 0.5
    newest = np.full(len(h), 0.5)
    older = np.zeros(len(h))
    r = -h[:-1] / h[1:]
    # the 2 x 2 system [[1, 1], [r, 1]] w = [phi2, 2 phi3] / phi1
    weight = (phi2[1:] - 2.0 * phi3[1:]) / phi1[1:] / (1.0 - r)
    newest[1:] = phi2[1:] / phi1[1:] - weight
    older[1:] = weight / r
    scale = alpha * phi1
    rows[:, CORR_LAST] = std[1:] / std[:-1]
    rows[:, CORR_M] = -scale * newest
    rows[:, CORR_M2] = -scale * older
    rows[:, CORR_M1] = scale * (newest + older - 1.0)


def _fill_predictor(rows: Float64, alpha: Float64, std: Float64, h: Float64) -> None:
    """x_{i+1} = first-order step from c_i, plus half the slope between m_i and m_{i-1}.

    The first and the last step are of first order. `alpha` begins at i = 1.
    """
    scale = alpha * np.expm1(-h)
    slope = np.zeros(len(h))
    slope[1:-1] = scale[1:-1] * 0.5 / (-h[:-2] / h[1:-1])
    rows[:, PRED_C] = std[1:] / std[:-1]
    rows[:, PRED_M] = slope - scale
    rows[:, PRED_M1] = -slope


def start_state(x: torch.Tensor) -> SolverState:
    """Begin a solver run at the initial latents x, float32 [N, C, h, w]."""
    zero = torch.zeros_like(x)
    return SolverState(x.clone(), zero, zero.clone(), zero.clone())


def step(state: SolverState, output: torch.Tensor, rows: torch.Tensor) -> SolverState:
    """Advance N slots by one step each.

    Args:
        state: the slots before the step.
        output: network output at `state.x`, [N, C, h, w].
        rows: coefficients of each slot's position, float32 [N, COLUMNS].
    Returns:
        The slots after the step; the arguments are not modified.
    """
    k = rows.to(state.x.dtype).reshape(*rows.shape, 1, 1, 1).unbind(1)
    m = k[DATA_X] * state.x + k[DATA_OUT] * output.to(state.x.dtype)
    c = (
        k[CORR_X] * state.x
        + k[CORR_LAST] * state.last
        + k[CORR_M] * m
        + k[CORR_M1] * state.m1
        + k[CORR_M2] * state.m2
    )
    x = k[PRED_C] * c + k[PRED_M] * m + k[PRED_M1] * state.m1
    return SolverState(x, c, m, state.m1)
