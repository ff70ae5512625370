"""Images as tensors, and the eight poses that training uses as augmentation."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

POSES = 8


def turned(image_u8: npt.NDArray[np.uint8], pose: int) -> npt.NDArray[np.uint8]:
    """Turn a square image by `pose` % 4 quarter turns, mirrored for poses 4 to 7."""
    mirrored = image_u8[:, ::-1] if pose >= 4 else image_u8
    return np.rot90(mirrored, pose % 4)


def image_tensor(images_u8: npt.NDArray[np.uint8]) -> Tensor:
    """Scale images to [-1, 1]: uint8 [N, H, W, 3] to float32 [N, 3, H, W], channels last."""
    scaled = torch.from_numpy(images_u8.astype(np.float32) / 127.5 - 1.0)
    return scaled.permute(0, 3, 1, 2)
