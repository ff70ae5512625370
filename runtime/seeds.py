"""Keyed randomness: one seed per item, from the run seed, the stage and the item's key.

Nothing in the pipeline draws from a shared stream, a rank, a worker or the clock, so a
result does not depend on shard count, process count, order or interruptions.
"""

import hashlib

import numpy as np


def item_seed(run_seed: int, stage: str, *key: str | int) -> int:
    """Derive the seed of one item.

    Args:
        run_seed: seed of the run, from the configuration.
        stage: name of what draws, for example "degrade.plan".
        key: what identifies the item, for example a crop id and a test-image number.

    Returns:
        An integer in [0, 2**63), the same on every machine.
    """
    text = "\x1f".join([str(int(run_seed)), stage, *(str(part) for part in key)])
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def rng(run_seed: int, stage: str, *key: str | int) -> np.random.Generator:
    """Open the generator of one item; see `item_seed`."""
    return rng_from(item_seed(run_seed, stage, *key))


def rng_from(seed: int) -> np.random.Generator:
    """Open the generator that belongs to a seed stored in a table."""
    return np.random.Generator(np.random.PCG64(seed))
