"""Votes with exactly DiffIQA's published totals, for tests and benchmarks at full size.

The paper gives vote totals and label totals, not how they combine; the pattern counts below are one
combination that meets every total. Images and raters are made up, and the table says so.
"""

from string import ascii_uppercase

import numpy as np
import polars as pl

from annotation_import.votes import complete, sort_votes
from runtime.seeds import rng

N_PAIRS = 179_208
N_RATERS = 240
IMAGES_PER_REFERENCE = 6
VOTE_TOTALS = {"worse": 232_285, "similar": 85_671, "better": 219_668}
LABEL_TOTALS = {"worse": 76_515, "similar": 24_654, "better": 76_150}
N_TIES = 1_889

# (votes for worse, similar, better) -> pairs
PATTERNS: dict[tuple[int, int, int], int] = {
    (3, 0, 0): 60_000, (2, 1, 0): 9_000, (2, 0, 1): 7_515,
    (0, 3, 0): 11_324, (1, 2, 0): 7_366, (0, 2, 1): 5_964,
    (0, 0, 3): 52_000, (1, 0, 2): 10_000, (0, 1, 2): 14_150,
    (1, 1, 1): N_TIES,
}  # fmt: skip


def paper_votes(*, seed: int = 0, share: float = 1.0) -> pl.DataFrame:
    """Make the votes table of a study with DiffIQA's totals.

    Args:
        seed: of the order of pairs, slots and raters.
        share: keep about this share of each pattern, for a smaller study of the same make-up.

    Returns:
        A votes table with slots A, B, C and 240 raters, three different ones per pair; synthetic.
    """
    generator = rng(seed, "annotation.paper_size")
    patterns = np.array(list(PATTERNS))
    sizes = np.rint(np.array(list(PATTERNS.values())) * share).astype(np.int64)
    answers = np.stack([np.repeat([-1, 0, 1], row) for row in patterns])
    pairs = generator.permutation(np.repeat(answers, sizes, axis=0))
    pairs = generator.permuted(pairs, axis=1)
    n_pairs = len(pairs)
    # three different raters: a start and two steps around the circle of raters
    steps = generator.integers(1, N_RATERS // 2, size=(n_pairs, 2))
    first = generator.integers(0, N_RATERS, size=(n_pairs, 1))
    raters = np.concatenate([first, first + steps[:, :1], first + steps.sum(1, keepdims=True)], 1)
    index = np.arange(n_pairs)
    refs = [f"{i:06}x{i % 40}y{i % 800}" for i in range(-(-n_pairs // IMAGES_PER_REFERENCE))]
    ref_id = np.array(refs)[index // IMAGES_PER_REFERENCE]
    number = np.char.mod("%02d", index % IMAGES_PER_REFERENCE + 1)
    test_id = np.char.add(np.char.add(ref_id, "_"), number)
    table = pl.DataFrame(
        {
            "study": "diffiqa",
            "ref_id": np.repeat(ref_id, 3),
            "test_id": np.repeat(test_id, 3),
            "slot": np.tile(list(ascii_uppercase[:3]), n_pairs),
            "rater_id": np.char.mod("p%03d", (raters % N_RATERS).ravel()),
            "label": pairs.ravel().astype(np.int8),
            "started": "2024-05-08 19:34:49",
            "ended": "2024-05-08 19:34:52",
            "time_s": np.round(generator.lognormal(np.log(3.4), 0.45, n_pairs * 3), 1),
            "is_synthetic": True,
        }
    )
    return sort_votes(complete(table))
