"""Vote files as the released README shows them."""

import json
from pathlib import Path

WORDS = {1: "Positive", 0: "Similar", -1: "Negative"}


def vote_json(ref: str, number: str, label: str | None) -> dict[str, object]:
    """One vote as the released README shows it."""
    return {
        "Picture_AI": {
            "Name": f"{ref}_{number}.png", "File": number, "ImageSize": [], "Label": label
        },
        "picture_Original": {
            "Name": f"{ref}.png", "File": "Original", "ImageSize": [], "Label": None
        },
        "Time_cost": {"Start": "2024-05-08 19:34:49", "End": "2024-05-08 19:34:50", "Total": 1.5},
    }  # fmt: skip


def write_votes(root: Path, votes: dict[str, tuple[int, ...]]) -> Path:
    """Write `{test_id: (vote in A, in B, ...)}` as a DiffIQA tree; returns the folder."""
    for test_id, labels in votes.items():
        ref, _, number = test_id.rpartition("_")
        for slot, label in zip("ABCDEFGHIJ", labels):
            path = root / "labels" / slot / number / f"{test_id}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(vote_json(ref, number, WORDS[label])))
    return root
