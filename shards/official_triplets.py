"""The release's triplet lines for one reference: Triplet.txt and TripletEachType/*.txt.

A line names image 1, image 2 and the reference; a score s is 1 if the first is better, 0.5
if equal, 0 if worse. `python -m afine triplets --layout official` writes the same lines from
a table of labels; here they come along with the images.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

KINDS = ("PSY", "PNY", "SNY", "SSY", "PYY", "SYY", "NYY")
_LETTERS = {1: "P", 0: "S", -1: "N"}
_SCORES = {1: "1", 0: "0.5", -1: "0"}


def triplet_lines(stem: str, labels: Mapping[str, int]) -> Iterator[tuple[str, str, str]]:
    """Form the lines of one reference.

    Two images that are both better, or both worse, than the reference are not paired: their
    own order is unknown.

    Args:
        stem: the reference's name without ".png".
        labels: test image "01".."06" -> 1 better, 0 similar, -1 worse.

    Yields:
        Kind ("PNY", ...), the line of Triplet.txt and the line of TripletEachType/<kind>.txt.
    """
    reference = f"{stem}.png"
    items = sorted(labels.items())
    for kk, label in items:
        names = f"{stem}_{kk}.png,{reference},{reference}"
        score = _SCORES[label]
        yield f"{_LETTERS[label]}YY", f"{names},{score},{score},0.5\n", f"{names},{score}\n"
    for (kk1, label1), (kk2, label2) in combinations(items, 2):
        if label1 == label2 != 0:
            continue
        high, low = sorted((label1, label2), reverse=True)
        score = "0.5" if label1 == label2 else str(int(label1 > label2))
        names = f"{stem}_{kk1}.png,{stem}_{kk2}.png,{reference}"
        line = f"{names},{score},{_SCORES[label1]},{_SCORES[label2]}\n"
        yield f"{_LETTERS[high]}{_LETTERS[low]}Y", line, f"{names},{score}\n"
