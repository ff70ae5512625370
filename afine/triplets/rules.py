"""How triplets are formed from labelled images; pure functions, independent of file order.

label12  1: image 1 is better, 0: image 2 is better, 0.5: equal (paper Eq. 9)
label1r  the same between image 1 and the reference
label2r  the same between image 2 and the reference
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from runtime.seeds import rng

_LETTERS = {1: "P", 0: "S", -1: "N"}  # positive, similar, negative; Y is the reference
_PARTNER_KIND = "rated"
REFERENCE_BETTER = "Ref > Test"
TEST_BETTER = "Ref < Test"
# types that the paper's Table 2 is made of; SSY and SYY are ties, which no one is tested on
COLUMN_OF_KIND = {
    "PSY": TEST_BETTER,
    "PNY": TEST_BETTER,
    "PYY": TEST_BETTER,
    "SNY": REFERENCE_BETTER,
    "NYY": REFERENCE_BETTER,
}


@dataclass(frozen=True)
class Triplet:
    """Two images of one content, their reference, and the three labels.

    Attributes:
        content: the content's name.
        image1: first image.
        image2: second image; may be the reference itself.
        ref: the reference.
        label12: 1, 0.5 or 0.
        label1r: 1, 0.5 or 0.
        label2r: 1, 0.5 or 0.
        kind: PSY, PNY, SNY, SSY, PYY, SYY, NYY for labelled sets, else how it was drawn.
    """

    content: str
    image1: str
    image2: str
    ref: str
    label12: float
    label1r: float
    label2r: float
    kind: str


def compare(first: float, second: float) -> float:
    """Label of a pair from two qualities, higher = better: 1, 0.5 or 0."""
    return 0.5 if first == second else float(first > second)


def labelled_triplets(
    content: str, ref: str, labels: Mapping[str, int], *, has_reference_rows: bool = True
) -> list[Triplet]:
    """Form the triplets of one DiffIQA reference.

    Two images are paired unless both are better or both are worse than the reference, since
    the order inside those groups is unknown. Image 1 is the one that sorts first.

    Args:
        content: the reference's name.
        ref: its image.
        labels: test image -> -1 worse, 0 similar, 1 better than the reference.
        has_reference_rows: add (x, ref, ref) for each test image.
    """
    rows: list[Triplet] = []
    for image, label in sorted(labels.items()):
        if has_reference_rows:
            s = compare(label, 0)
            rows.append(Triplet(content, image, ref, ref, s, s, 0.5, f"{_LETTERS[label]}YY"))
    for image1, image2 in combinations(sorted(labels), 2):
        one, two = labels[image1], labels[image2]
        if one == two != 0:
            continue
        kind = f"{_LETTERS[max(one, two)]}{_LETTERS[min(one, two)]}Y"
        rows.append(
            Triplet(
                content,
                image1,
                image2,
                ref,
                compare(one, two),
                compare(one, 0),
                compare(two, 0),
                kind,
            )
        )
    return sorted(rows, key=lambda row: (row.image1, row.image2))


def rated_triplets(
    content: str,
    ref: str,
    qualities: Mapping[str, float],
    *,
    seed: int,
    set_name: str,
    partners: str = "log2",
) -> list[Triplet]:
    """Form the triplets of one content of a set with mean opinion scores.

    As in the release the reference takes part as an image that is better than all others.

    Args:
        content: the content's name.
        ref: its reference image, not among `qualities`.
        qualities: test image -> quality, higher is better.
        seed: seed of the run.
        set_name: name of the set; partners of an image are keyed by set and image.
        partners: "log2": round(log2 n) drawn partners for each of the n images, reference
            included; "all": every pair once.
    """
    scores = {**qualities, ref: math.inf}
    names = sorted(scores)
    pairs: Iterable[tuple[str, str]]
    if partners == "all":
        pairs = combinations(names, 2)
    else:
        pairs = (
            (image, partner)
            for image in names
            for partner in _draw_partners(names, image, seed=seed, set_name=set_name)
        )
    return [_rated(content, ref, scores, one, two, _PARTNER_KIND) for one, two in pairs]


def _draw_partners(names: Sequence[str], image: str, *, seed: int, set_name: str) -> Sequence[str]:
    others = [name for name in names if name != image]
    count = min(round(math.log2(len(names))), len(others))
    chosen = rng(seed, "afine.triplets", set_name, image).permutation(len(others))[:count]
    return [others[position] for position in chosen]


def all_pairs(
    content: str, ref: str, qualities: Mapping[str, float], *, kind: str
) -> list[Triplet]:
    """Form every pair of one SRIQA-Bench content once, the original among the images."""
    return [
        _rated(content, ref, qualities, one, two, kind)
        for one, two in combinations(sorted(qualities), 2)
    ]


def _rated(
    content: str, ref: str, scores: Mapping[str, float], one: str, two: str, kind: str
) -> Triplet:
    best = scores[ref]
    return Triplet(
        content,
        one,
        two,
        ref,
        compare(scores[one], scores[two]),
        compare(scores[one], best),
        compare(scores[two], best),
        kind,
    )
