"""Device, thread count and number format for stages that use torch.

On the CPU one thread is the default for work that must repeat bit by bit: the order of
floating-point sums in torch's kernels changes with the number of threads.
"""

import os

import torch


def choose_device() -> torch.device:
    """The leased or assigned GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_threads(count: int) -> None:
    """Set the number of CPU threads of torch and of the libraries under it."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)


def torch_generator(seed: int) -> torch.Generator:
    """Open the generator of one item, on the CPU, so that every device gets the same noise."""
    return torch.Generator(device="cpu").manual_seed(seed)
