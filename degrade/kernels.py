"""Blur kernels from drawn parameters, by basicsr's functions.

Weights are rounded to multiples of 2**-16 (2**-15 for sinc kernels, whose negative weights let
partial sums exceed 255) and empty borders are cut off. Products with 8-bit values then sum without
any rounding in float32, so a filtered image is the same on every processor; the rounding moves a
pixel by less than 0.1 grey levels, 0.01 as a rule.
"""

import numpy as np
import numpy.typing as npt

from degrade.basicsr_functions import degradations
from degrade.drawn import DrawnBlur

Kernel = npt.NDArray[np.float32]
_STEPS, _SINC_STEPS = 1 << 16, 1 << 15


def make_kernel(blur: DrawnBlur) -> Kernel | None:
    """Build a kernel.

    Args:
        blur: drawn parameters.
    Returns:
        float32 [k, k] with odd k, sum 1; None if it would leave the image as it is.
    """
    if blur.kernel == "none":
        return None
    steps = _SINC_STEPS if blur.kernel == "sinc" else _STEPS
    weights = np.rint(exact_kernel(blur) * steps)
    middle = weights.shape[0] // 2
    weights[middle, middle] += steps - weights.sum()
    trimmed = _trim(weights)
    return None if trimmed.shape[0] == 1 else np.asarray(trimmed / steps, dtype=np.float32)


def exact_kernel(blur: DrawnBlur) -> npt.NDArray[np.float64]:
    """Build a kernel without rounding, float64 [size, size]."""
    module = degradations()
    if blur.kernel == "sinc":
        with np.errstate(invalid="ignore"):  # 0 / 0 in the middle, which basicsr then replaces
            return np.asarray(module.circular_lowpass_kernel(blur.cutoff_rad, blur.size_px))
    is_isotropic = blur.kernel.endswith("iso") and not blur.kernel.endswith("aniso")
    shape = (blur.size_px, blur.sigma_x_px, blur.sigma_y_px, blur.rotation_rad)
    if blur.kernel.startswith("generalized"):
        kernel = module.bivariate_generalized_Gaussian(*shape, blur.beta, isotropic=is_isotropic)
    elif blur.kernel.startswith("plateau"):
        kernel = module.bivariate_plateau(*shape, blur.beta, isotropic=is_isotropic)
    else:
        kernel = module.bivariate_Gaussian(*shape, isotropic=is_isotropic)
    return np.asarray(kernel, dtype=np.float64)


def _trim(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cut off border rings without any weight."""
    while weights.shape[0] > 1:
        inner = weights[1:-1, 1:-1]
        if np.abs(weights).sum() > np.abs(inner).sum():
            return weights
        weights = inner
    return weights
