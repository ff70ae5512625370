"""Enhancer training at the demo's size: cost of the parts of a step, gain of kept latents.

    python -m benchmarks.enhancer_train [--rounds 5]

Prints ratios within one run, measured in turns, so that other load cancels.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from enhancer.base.autoencoder import build_autoencoder
from enhancer.base.denoiser import build_noise_schedule, build_unet
from enhancer.checkpoints import new_nets, save_model
from enhancer.config import BaseUnetConfig, TrainConfig, VaeConfig
from enhancer.train.examples import make_example
from enhancer.train.loader import collate
from enhancer.train.objective import (
    Enhancer,
    LatentEncoder,
    draw_noise,
    freeze_all_but_trained,
    per_example_loss,
)
from enhancer.train.sources import ImageSource


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    source = ImageSource("noise", 1.0, ["0"], lambda _: image)
    config = TrainConfig(crop_px=128, batch_size=8, workers=0)
    vae = build_autoencoder(VaeConfig()).eval().requires_grad_(False)
    unet = build_unet(
        BaseUnetConfig(block_channels=(64, 128)), latent_channels=16, latent_px=16, text_width=64
    )
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), unet)
        nets = new_nets(folder, init="zero", seed=0, conditioning_channels=(8, 16, 32, 64))
    enhancer = Enhancer(*nets).train()
    freeze_all_but_trained(enhancer)
    text = torch.randn(8, 77, 64)

    def data() -> None:
        collate([make_example([source], config, run_seed=0, step=0, index=n) for n in range(8)])

    batch = collate([make_example([source], config, run_seed=0, step=0, index=n) for n in range(8)])
    plain, keeping = LatentEncoder(vae, 0), LatentEncoder(vae, 100)

    def nets_step() -> None:
        seeds = [example.seed for example in batch.examples]
        noisy, timesteps, noise = draw_noise(keeping(batch), seeds, build_noise_schedule())
        per_example_loss(
            enhancer(noisy, timesteps, text, batch.condition01), noise
        ).mean().backward()

    parts: dict[str, Callable[[], object]] = {
        "data": data,
        "encode": lambda: plain(batch),
        "encode, kept": lambda: keeping(batch),
        "nets forward + backward": nets_step,
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, part in parts.items():
            start = time.process_time()
            part()
            times[name].append(time.process_time() - start)
    step = statistics.median(times["nets forward + backward"][1:])
    print("part of a step of 8 images, 128 px, one thread | cpu s | share of the nets' time")
    for name, values in times.items():
        median = statistics.median(values[1:])
        print(f"{name} | {median:.4f} | {median / step:.3f}")


if __name__ == "__main__":
    main()
