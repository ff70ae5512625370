"""Which crops are kept when there are too many, and which split each photograph goes to."""

from collections.abc import Mapping, Sequence

from crop.config import SplitConfig, SplitName
from crop.keys import crop_key
from crop.photograph import CropRecord, PhotoRecord
from runtime.seeds import item_seed


def spread_evenly(available: Mapping[str, int], target: int, seed: int) -> dict[str, int]:
    """Share out `target` crops over photographs as evenly as their supply allows.

    Args:
        available: crops of each photograph.
        target: crops wanted in all.
        seed: seed of the run; decides who gets one more where it does not come out even.
    Returns:
        Crops to keep of each photograph; their sum is min(target, all).
    """
    level, left = 0, min(target, sum(available.values()))
    while True:
        hungry = [key for key, count in available.items() if count > level]
        if not hungry or left < len(hungry):
            break
        step = min(min(available[key] for key in hungry) - level, left // len(hungry))
        level += step
        left -= step * len(hungry)
    kept = {key: min(count, level) for key, count in available.items()}
    lucky = sorted(
        (key for key, count in available.items() if count > level),
        key=lambda key: item_seed(seed, "crop.spread", key),
    )
    for key in lucky[:left]:
        kept[key] += 1
    return kept


def select_crops(
    photos: Sequence[PhotoRecord], target: int | None, seed: int
) -> dict[str, list[CropRecord]]:
    """Choose the crops of each photograph; all of them without a target.

    Inside a photograph the choice is by a keyed shuffle, so it does not depend on other
    photographs (only the number does).
    """
    if target is None:
        return {photo.photo_id: list(photo.crops) for photo in photos}
    counts = spread_evenly({photo.photo_id: len(photo.crops) for photo in photos}, target, seed)
    chosen: dict[str, list[CropRecord]] = {}
    for photo in photos:
        shuffled = sorted(photo.crops, key=lambda crop: _rank(photo.photo_id, crop, seed))
        kept = shuffled[: counts[photo.photo_id]]
        chosen[photo.photo_id] = sorted(kept, key=lambda crop: (crop.row, crop.col))
    return chosen


def _rank(photo_id: str, crop: CropRecord, seed: int) -> int:
    return item_seed(seed, "crop.select", crop_key(photo_id, crop.row, crop.col))


def assign_splits(
    crops: Mapping[str, int], groups: Mapping[str, str], shares: SplitConfig, seed: int
) -> dict[str, SplitName]:
    """Assign photographs to splits, groups of near duplicates together.

    Groups come in a keyed order; each goes to the split that lacks most crops. Every split with a
    share gets a group as long as there are enough groups.

    Args:
        crops: number of kept crops of each photograph.
        groups: name of each photograph's group.
        shares: wanted shares, by crops.
        seed: seed of the run.
    """
    wanted: dict[SplitName, float] = {
        "train": shares.train, "val": shares.val, "test": shares.test
    }  # fmt: skip
    wanted = {split: share for split, share in wanted.items() if share > 0}
    total = sum(crops.values())
    members: dict[str, list[str]] = {}
    for photo_id in sorted(crops):
        members.setdefault(groups[photo_id], []).append(photo_id)
    have: dict[SplitName, int] = dict.fromkeys(wanted, 0)
    used: set[SplitName] = set()
    found: dict[str, SplitName] = {}
    order = sorted(members, key=lambda group: item_seed(seed, "crop.split", group))
    for position, group in enumerate(order):
        empty = [split for split in wanted if split not in used]
        is_last_chance = len(order) - position <= len(empty)
        choices = empty if empty and is_last_chance else list(wanted)
        split = max(choices, key=lambda name: wanted[name] * total - have[name])
        used.add(split)
        have[split] += sum(crops[photo_id] for photo_id in members[group])
        found.update(dict.fromkeys(members[group], split))
    return found
