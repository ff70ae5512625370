"""A simulated observer: measurements of real images, and Thurstone judgements on them.

| symbol | meaning |
|---|---|
| u | utility of a test image against its reference, relative to the study: mean 0, sd 1 |
| e | noise of one judgement, normal |
| c | criterion: half width of the `similar` band |

An observer says `better` if u + e > c, `worse` if u + e < -c, else `similar` (Thurstone's law of
categorical judgement). u depends smoothly on the pixels through four measurements, so a metric can
learn it; it is ranked over the study, so it says which images look best *here*, not whether
they would please a person.

Sources: Thurstone (1927); gradient similarity after Xue et al. (GMSD, 2014); noise after Immerkaer
(1996).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import rankdata

from runtime.images import ImageU8

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]

MEASUREMENTS = ("sharpness", "fidelity", "noise", "blockiness")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_GMS_CONSTANT = 170.0 / 255.0**2
_FLOOR = 1e-6  # keeps logarithms of flat images finite
_Z_LIMIT = 3.0  # one odd image must not decide a whole utility
_BLOCK_PX = 8


@dataclass(frozen=True)
class Seen:
    """What the observer sees of one image; computed once per reference.

    Attributes:
        image_u8: uint8 [H, W, 3].
    """

    image_u8: ImageU8

    @cached_property
    def luma(self) -> Float32s:
        """Luma in [0, 1], float32 [H, W]."""
        return np.asarray((self.image_u8.astype(np.float32) @ _LUMA) / np.float32(255))

    @cached_property
    def gradient(self) -> Float32s:
        """Gradient magnitude of luma at half size, float32 [H/2 - 2, W/2 - 2]."""
        height, width = (side // 2 * 2 for side in self.luma.shape)
        half = self.luma[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
        dx = (half[1:-1, 2:] - half[1:-1, :-2]) / 2
        dy = (half[2:, 1:-1] - half[:-2, 1:-1]) / 2
        return np.asarray(np.sqrt(dx * dx + dy * dy), np.float32)

    @cached_property
    def log_sharpness(self) -> float:
        """Logarithm of the mean squared gradient."""
        return float(np.log(np.mean(self.gradient**2, dtype=np.float64) + _FLOOR))

    @cached_property
    def log_noise(self) -> float:
        """Logarithm of the noise deviation, from the response to a mask that ignores edges."""
        y = self.luma
        rows = y[:-2] - 2 * y[1:-1] + y[2:]
        response = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
        sigma = np.sqrt(np.pi / 2) / 6 * np.mean(np.abs(response), dtype=np.float64)
        return float(np.log(sigma + _FLOOR))

    @cached_property
    def log_blockiness(self) -> float:
        """Logarithm of the steps at 8-pixel borders over the steps elsewhere."""
        ratios = []
        for steps in (np.abs(np.diff(self.luma, axis=1)).T, np.abs(np.diff(self.luma, axis=0))):
            means = steps.mean(axis=1, dtype=np.float64)
            is_border = np.arange(len(means)) % _BLOCK_PX == _BLOCK_PX - 1
            if is_border.any():
                ratios.append(
                    (means[is_border].mean() + _FLOOR) / (means[~is_border].mean() + _FLOOR)
                )
        return float(np.log(np.mean(ratios))) if ratios else 0.0


def measure(test: Seen, ref: Seen) -> dict[str, float]:
    """Measure a test image against its reference.

    Returns:
        By name of `MEASUREMENTS`: log ratios test / reference (0: as the reference), and the
        gradient similarity `fidelity` in (0, 1].
    """
    one, two = test.gradient.astype(np.float64), ref.gradient.astype(np.float64)
    similarity = (2 * one * two + _GMS_CONSTANT) / (one**2 + two**2 + _GMS_CONSTANT)
    return {
        "sharpness": test.log_sharpness - ref.log_sharpness,
        "fidelity": float(similarity.mean()),
        "noise": test.log_noise - ref.log_noise,
        "blockiness": test.log_blockiness - ref.log_blockiness,
    }


def utilities(measured: Mapping[str, Float64s], weights: Mapping[str, float]) -> Float64s:
    """Turn measurements into utilities relative to the study.

    Args:
        measured: by name of `MEASUREMENTS`, float64 [N].
        weights: weight of each measurement, after standardising it over the study.

    Returns:
        float64 [N]: normal scores of the ranks of the weighted sum, so mean 0 and deviation
        near 1 whatever the images are; equal sums get equal scores.
    """
    total = np.zeros(len(next(iter(measured.values()))))
    for name, weight in weights.items():
        total = total + weight * np.clip(_standardise(measured[name]), -_Z_LIMIT, _Z_LIMIT)
    return np.asarray(ndtri((rankdata(total) - 0.5) / len(total)))


def _standardise(values: Float64s) -> Float64s:
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def judge(utility: float, noise: float, criterion: float) -> int:
    """One judgement: 1 better, 0 similar, -1 worse."""
    felt = utility + noise
    return int(felt > criterion) - int(felt < -criterion)
