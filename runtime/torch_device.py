"""Device, thread count and number format for stages that use torch.

Float32 means float32: convolutions in TF32, cuDNN's default on a GPU, have 10 bits of mantissa.
On the CPU one thread is the default for work that must repeat bit by bit: the order of
floating-point sums in torch's kernels changes with the number of threads.
"""

import logging
import os

import torch

_log = logging.getLogger(__name__)


def choose_device() -> torch.device:
    """The leased or assigned GPU if there is one, else the CPU; with exact float32."""
    torch.backends.cudnn.allow_tf32 = False
    if torch.cuda.is_available():
        return torch.device("cuda")
    assigned = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if assigned and not assigned.startswith("-"):
        _log.warning(
            "device %s was leased, but torch %s cannot use it and works on the CPU: check the "
            "driver with nvidia-smi", assigned, torch.__version__,
        )  # fmt: skip
    return torch.device("cpu")


def use_threads(count: int) -> None:
    """Set the number of CPU threads of torch and of the libraries under it."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)


def torch_generator(seed: int) -> torch.Generator:
    """Open the generator of one item, on the CPU, so that every device gets the same noise."""
    return torch.Generator(device="cpu").manual_seed(seed)
