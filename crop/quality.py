"""The two measures that tell a textured crop from a flat or blurred one."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from runtime.images import ImageU8

GreyU8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Texture:
    """What the filters look at.

    Attributes:
        grey_std: standard deviation of the grey levels, 0 to 127.5.
        laplacian_var: variance of the Laplacian kept in 8 bits (negative values become 0).
    """

    grey_std: float
    laplacian_var: float


def to_grey(image_u8: ImageU8) -> GreyU8:
    """Convert RGB, uint8 [H, W, 3], to grey, uint8 [H, W]."""
    return np.asarray(cv2.cvtColor(image_u8, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def measure_texture(grey_u8: GreyU8) -> Texture:
    """Measure a grey image, uint8 [H, W].

    Source:
        The release's selection and crop scripts, which compute the Laplacian in 8 bits.
    """
    _, deviation = cv2.meanStdDev(grey_u8)
    _, laplacian_std = cv2.meanStdDev(cv2.Laplacian(grey_u8, cv2.CV_8U))
    return Texture(float(deviation[0, 0]), float(laplacian_std[0, 0]) ** 2)
