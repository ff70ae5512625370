"""From a photograph to one training example: crop, pose, degraded or clean input, roles.

The A-FINE paper (appendix 1.1) feeds the original to the control branch and the original or
degraded image to the autoencoder; the released code does the reverse, and down- and upsamples
the "clean" half first. Both readings are offered; the release's is the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from degrade import degrade_image
from enhancer.config import TrainConfig
from enhancer.poses import POSES, turned
from enhancer.train.sources import ImageSource, Picked, pick
from runtime.errors import DataError
from runtime.images import Image01, ImageU8, to_image01
from runtime.seeds import item_seed, rng, rng_from

_RESAMPLING_FACTOR = (1.0, 1.5)
_RESAMPLING_MODES = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
_STAGE = "enhancer train"
_MAX_ATTEMPTS = 20


@dataclass(frozen=True)
class Example:
    """One training example.

    Attributes:
        key: source, image and place; equal keys have equal `latent_u8`, unless it is degraded.
        seed: of the example's noise, timestep and posterior sample.
        latent_u8: what the autoencoder gets, uint8 [px, px, 3].
        condition01: what the control branch gets, float32 [px, px, 3]; about [0, 1]
            (bicubic resampling may leave it a little, as in the release).
        is_degraded: the input is degraded.
        is_latent_clean: `latent_u8` is the clean crop, so its encoding may be kept.
        skipped: images that were drawn first and could not be read, with the reason.
    """

    key: str
    seed: int
    latent_u8: ImageU8
    condition01: Image01
    is_degraded: bool
    is_latent_clean: bool
    skipped: tuple[tuple[str, str], ...] = ()


def make_example(
    sources: Sequence[ImageSource], config: TrainConfig, *, run_seed: int, step: int, index: int
) -> Example:
    """Make example number `index` of an optimizer step's batch; depends on nothing else.

    Raises:
        DataError: twenty images in a row could not be read.
    """
    skipped: list[tuple[str, str]] = []
    for attempt in range(_MAX_ATTEMPTS):
        key = (step, index, attempt)
        generator = rng(run_seed, _STAGE, *key)
        picked = pick(sources, generator)
        try:
            crop_u8, place = _crop(picked, picked.load(), config, generator)
        except DataError as error:
            skipped.append((picked.key, str(error)))
            continue
        seed = item_seed(run_seed, _STAGE, "example", *key)
        is_degraded = bool(generator.random() < config.degraded_fraction)
        latent_u8, condition01 = apply_roles(crop_u8, config, is_degraded=is_degraded, seed=seed)
        return Example(
            f"{picked.key}@{place}",
            seed,
            latent_u8,
            condition01,
            is_degraded,
            config.roles == "release" or (not is_degraded and config.clean_input == "untouched"),
            tuple(skipped),
        )
    raise DataError(
        f"enhancer.train: {_MAX_ATTEMPTS} training images in a row could not be read; the last: "
        f"{skipped[-1][1]}"
    )


def apply_roles(
    crop_u8: ImageU8, config: TrainConfig, *, is_degraded: bool, seed: int
) -> tuple[ImageU8, Image01]:
    """Give the crop and its changed version their roles.

    Args:
        crop_u8: clean crop, uint8 [px, px, 3].
        config: says which reading, preset and clean input.
        is_degraded: degrade the changed version instead of the clean treatment.
        seed: of the degradation or resampling.
    Returns:
        Image for the autoencoder (uint8) and image for the control branch (float32 in [0, 1]).
    """
    if is_degraded:
        changed = to_image01(degrade_image(crop_u8, config.degradation, seed))
    elif config.clean_input == "resampled":
        changed = _resampled(crop_u8, rng_from(seed))
    else:
        changed = to_image01(crop_u8)
    if config.roles == "release":
        return crop_u8, changed
    return np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8), to_image01(crop_u8)


def _crop(
    picked: Picked, image_u8: ImageU8, config: TrainConfig, generator: np.random.Generator
) -> tuple[ImageU8, str]:
    """Resize if asked or too small, cut a random square, turn it; also names the place."""
    image_u8 = _with_short_side(image_u8, picked.source.short_side_px, config.crop_px, generator)
    height, width = image_u8.shape[:2]
    row = int(generator.integers(height - config.crop_px + 1))
    column = int(generator.integers(width - config.crop_px + 1))
    pose = int(generator.integers(POSES)) if config.augment else 0
    crop_u8 = image_u8[row : row + config.crop_px, column : column + config.crop_px]
    place = f"{height}x{width}+{row}+{column}p{pose}"
    return np.ascontiguousarray(turned(crop_u8, pose)), place


def _with_short_side(
    image_u8: ImageU8,
    wanted_px: tuple[int, int] | None,
    least_px: int,
    generator: np.random.Generator,
) -> ImageU8:
    height, width = image_u8.shape[:2]
    short = min(height, width)
    target = short if wanted_px is None else int(generator.integers(wanted_px[0], wanted_px[1] + 1))
    target = max(target, least_px)
    if target == short:
        return image_u8
    size = (max(target, round(width * target / short)), max(target, round(height * target / short)))
    mode = cv2.INTER_AREA if target < short else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image_u8, size, interpolation=mode), dtype=np.uint8)


def _resampled(crop_u8: ImageU8, generator: np.random.Generator) -> Image01:
    """Down- and upsample by U(1, 1.5), one random mode for both (the release's "clean" half)."""
    height, width = crop_u8.shape[:2]
    factor = generator.uniform(*_RESAMPLING_FACTOR)
    mode = _RESAMPLING_MODES[generator.integers(len(_RESAMPLING_MODES))]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    image01 = to_image01(crop_u8)
    resized = cv2.resize(cv2.resize(image01, small, interpolation=mode), (width, height),
                         interpolation=mode)  # fmt: skip
    return np.asarray(resized, dtype=np.float32)
