"""What the distribution tests measure of a degraded image."""

import cv2
import numpy as np
import skimage.data
from scipy import stats
from skimage.metrics import structural_similarity

CROP_PX = 512
PHOTOGRAPHS = (
    "astronaut.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg",
    "motorcycle_left.png", "rocket.jpg", "chelsea.png", "brick.png", "gravel.png",
)  # fmt: skip
METRICS = ("psnr", "mad", "ssim", "high_frequency", "laplacian")


def photographs(size_px: int = CROP_PX) -> list[np.ndarray]:
    """One central crop of each photograph (small ones enlarged), uint8 [size, size, 3]."""
    folder = skimage.data.__path__[0]
    crops = []
    for name in PHOTOGRAPHS:
        image = cv2.cvtColor(cv2.imread(f"{folder}/{name}"), cv2.COLOR_BGR2RGB)
        shortest = min(image.shape[:2])
        if shortest < size_px:
            scale = size_px / shortest
            size = [max(size_px, round(side * scale)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        top, left = (image.shape[0] - size_px) // 2, (image.shape[1] - size_px) // 2
        crops.append(np.ascontiguousarray(image[top : top + size_px, left : left + size_px]))
    return crops


def measure(clean: np.ndarray, degraded: np.ndarray) -> dict[str, float]:
    """PSNR, mean absolute difference, SSIM, high-frequency energy and Laplacian-variance ratios."""
    difference = degraded.astype(np.float64) - clean
    luma = [
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64) for image in (clean, degraded)
    ]
    return {
        "psnr": 10 * np.log10(255**2 / np.mean(difference**2)),
        "mad": np.mean(np.abs(difference)),
        "ssim": structural_similarity(*luma, data_range=255),
        "high_frequency": _high_energy(luma[1]) / _high_energy(luma[0]),
        "laplacian": cv2.Laplacian(luma[1], cv2.CV_64F).var()
        / cv2.Laplacian(luma[0], cv2.CV_64F).var(),
    }


def _high_energy(luma: np.ndarray) -> float:
    """Spectral energy above 0.25 cycles a pixel."""
    power = np.abs(np.fft.rfft2(luma - luma.mean())) ** 2
    vertical = np.fft.fftfreq(luma.shape[0])[:, None]
    horizontal = np.fft.rfftfreq(luma.shape[1])[None, :]
    return float(power[np.hypot(vertical, horizontal) > 0.25].sum())


def compare(
    one: list[list[dict[str, float]]], two: list[list[dict[str, float]]]
) -> dict[str, tuple[float, float]]:
    """p values of two sets of samples [photograph][draw].

    Returns:
        For each metric: the pooled KS test, and the tests of each photograph combined by Fisher.
    """
    found = {}
    for name in METRICS:
        columns = [[[row[name] for row in rows] for rows in side] for side in (one, two)]
        pooled = stats.ks_2samp(*(np.concatenate(column) for column in columns)).pvalue
        each = [stats.ks_2samp(a, b).pvalue for a, b in zip(*columns, strict=True)]
        found[name] = (float(pooled), float(stats.combine_pvalues(each).pvalue))
    return found
