"""Blur kernels from drawn parameters, by basicsr's functions.

Weights are rounded to multiples of 2**-15 and empty borders are cut off. Products with 8-bit
values then sum without any rounding in float32, so a filtered image is the same on every
processor; the rounding moves a pixel by less than 0.03 grey levels.
"""

import numpy as np
import numpy.typing as npt

from degrade.basicsr_functions import degradations
from degrade.drawn import DrawnBlur

Kernel = npt.NDArray[np.float32]
WEIGHT_STEPS = 1 << 15


def make_kernel(blur: DrawnBlur) -> Kernel | None:
    """Build a kernel.

    Args:
        blur: drawn parameters.
    Returns:
        float32 [k, k] with odd k, sum 1; None if it would leave the image as it is.
    """
    if blur.kernel == "none":
        return None
    weights = np.rint(exact_kernel(blur) * WEIGHT_STEPS)
    middle = weights.shape[0] // 2
    weights[middle, middle] += WEIGHT_STEPS - weights.sum()
    trimmed = _trim(weights)
    return None if trimmed.shape[0] == 1 else (trimmed / WEIGHT_STEPS).astype(np.float32)


def exact_kernel(blur: DrawnBlur) -> npt.NDArray[np.float64]:
    """Build a kernel without rounding, float64 [size, size]."""
    module = degradations()
    if blur.kernel == "sinc":
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
