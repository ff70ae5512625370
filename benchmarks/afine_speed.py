"""A-FINE with a random full-size ViT-B/32: our ways against the reference's, in the same run.

    nice -n 10 python -m benchmarks.afine_speed phase1 --rounds 3      # 8 GB, about 5 minutes idle
    nice -n 10 python -m benchmarks.afine_speed frozen --rounds 3
    nice -n 10 python -m benchmarks.afine_speed scoring --rounds 3

phase1   one update at batch 8, 512 x 512: images batched and each once, against a loop over the
         rows with one forward per image; and grouped batching, in triplets per second
frozen   phases 2 and 3 per iteration of batch 128 on cached statistics, against running the
         backbone for every row; the cost of building the cache; ratios of whole phases
scoring  pairs in batches against one by one; one reference with six test images against pairs

Variants are timed in turn, and the least time of each is compared, so that other load cancels.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import skimage.data
import torch

from afine.config import Phase1Config, ScheduleConfig
from afine.model import AFine
from afine.pixels import Key
from afine.statistics import differences
from afine.training.cache import CachedSet, CacheSpec
from afine.training.frozen import CachedPairs
from afine.training.loss import fidelity_loss
from afine.training.naturalness import NaturalnessNet, TripletColumns, cut, score_shown
from afine.training.optimizer import adamw
from afine.training.order import Batch, GroupedOrder, RandomOrder, group_rows
from afine.training.phase1 import make_optimizer
from afine.triplets.rules import labelled_triplets
from afine.triplets.tables import IMAGE_SCHEMA, triplet_table
from runtime.images import ImageU8
from runtime.tables import table_of

LABELS = (1, 1, 0, 0, -1, -1)
RELEASE_IMAGES = 25_740  # training images of phase 2 in the release
CPU = torch.device("cpu")


class Pictures:
    """Contents with six test images each, made of photographs, in place of an image store."""

    def __init__(self, contents: int, side: int) -> None:
        photos = [
            skimage.data.astronaut(),
            skimage.data.retina(),
            skimage.data.immunohistochemistry(),
        ]
        draw = np.random.default_rng(0)
        self._images: dict[Key, ImageU8] = {}
        self.triplets = []
        rows = []
        for number in range(contents):
            photo = photos[number % len(photos)]
            y, x = (int(draw.integers(0, s - side + 1)) for s in photo.shape[:2])
            ref = np.ascontiguousarray(photo[y : y + side, x : x + side])
            names = [f"c{number}.png", *(f"c{number}_{k:02}.png" for k in range(1, 7))]
            for name in names:
                noise = 0 if name == names[0] else draw.normal(0, 6, ref.shape)
                image = np.clip(ref + noise, 0, 255).astype(np.uint8)
                self._images[("diffiqa", name)] = image
                facts = {"set": "diffiqa", "split": "train", "content": f"c{number}"}
                places = {"file": "", "offset": 0, "size_bytes": 0, "height": side, "width": side}
                rows.append({**facts, "image": name, "is_ref": name == names[0], **places})
            labels = dict(zip(names[1:], LABELS, strict=True))
            self.triplets += labelled_triplets(f"c{number}", names[0], labels)
        self.images = table_of(rows, IMAGE_SCHEMA).sort("content", "image")
        self.table = triplet_table("diffiqa", self.triplets)

    def read(self, key: Key) -> ImageU8:
        """Return one image."""
        return self._images[key]


def in_turn(variants: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Least time of each variant over interleaved rounds, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
            print(f"    {name}: {times[name][-1]:.3f} s", flush=True)
    return {name: min(values) for name, values in times.items()}


def full_model() -> AFine:
    model = AFine()
    model.initialise(0)
    return model.eval()


def phase1(rounds: int, side: int, batch: int) -> None:
    model, pictures = full_model(), Pictures(8, side)
    net = NaturalnessNet(model, precision="float32")
    optimizer = make_optimizer(net, Phase1Config())
    columns = TripletColumns(pictures.table)
    order = RandomOrder(len(pictures.table), batch=batch, seed=0, phase="b", versions=1)
    random_rows = order.batch(1)
    groups = group_rows(pictures.table, limit=21)
    grouped = GroupedOrder(groups, batch=len(groups[0]), seed=0, phase="b", versions=1).batch(1)

    def ours(rows: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        for part in cut(rows, columns, limit=12):
            scores = score_shown(net, pictures, list(part.shown), CPU)
            (columns.losses(part, scores, "release").sum() / len(rows.rows)).backward()
        optimizer.step()

    def reference() -> None:
        """Each row alone, three forwards of one image; one backward for the whole batch."""
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for row in random_rows.rows:
            u1, u2, ur = (
                score_shown(net, pictures, [(columns.keys[c][row], 0)], CPU)
                for c in ("image1", "image2", "ref")
            )
            for a, b, label in ((u1, u2, "label12"), (u1, ur, "label1r"), (u2, ur, "label2r")):
                losses.append(fidelity_loss(a, b, columns.labels[label][[row]]))
        (torch.cat(losses).sum() / batch).backward()
        optimizer.step()

    variants = {
        "one by one": reference,
        "batched": lambda: ours(random_rows),
        "grouped": lambda: ours(grouped),
    }
    least = in_turn(variants, rounds)
    rates = {
        name: (len(grouped.rows) if name == "grouped" else batch) / seconds
        for name, seconds in least.items()
    }
    for name, rate in rates.items():
        print(f"{name}: {least[name]:.2f} s an update, {rate:.3f} triplets/s")
    print(f"batched / one by one: {rates['batched'] / rates['one by one']:.2f} times")
    print(f"grouped / one by one: {rates['grouped'] / rates['one by one']:.2f} times")


def frozen(rounds: int, side: int, batch: int) -> None:
    model, pictures = full_model(), Pictures(2, side)
    store = pictures

    def backbone_rows() -> None:
        """Phase 2 and 3 of the reference: three forwards of one image for each row."""
        with torch.no_grad():
            for row in pictures.triplets[:2]:
                ref, one, two = (
                    model.encode(_as01(store.read(("diffiqa", name))))
                    for name in (row.ref, row.image1, row.image2)
                )
                for test in (one, two):
                    model.raw_naturalness(test)
                    model.fidelity(differences(test, ref))

    with tempfile.TemporaryDirectory() as folder:

        def build(name: str, versions: int) -> CachedSet:
            spec = CacheSpec(Path(folder) / name, versions, "difference")
            cached = CachedSet(spec, pictures.images, 9219)
            cached.build(model, store, images_per_batch=4)
            return cached

        built: list[CachedSet] = []
        least = in_turn(
            {
                "backbone, 2 rows": backbone_rows,
                "cache, 14 images": lambda: built.append(build(f"n{len(built)}", 1)),
            },
            rounds,
        )
        pairs = CachedPairs(pictures.table, built[-1:])
        steps = {
            "phase 2": _phase2_step(model, pairs, batch),
            "phase 3": _phase3_step(model, batch),
        }
        fits = in_turn({name: _times(step, 100) for name, step in steps.items()}, rounds)
    per_row_s = least["backbone, 2 rows"] / 2
    per_image_s = least["cache, 14 images"] / 14
    print(f"backbone: {per_row_s:.3f} s a row; cache: {per_image_s:.3f} s an image and version")
    for name, seconds in fits.items():
        per_step_s = seconds / 100
        print(
            f"{name}: {1000 * per_step_s:.2f} s per 1,000 iterations of batch {batch}, backbone "
            f"{1000 * batch * per_row_s:.0f} s: {batch * per_row_s / per_step_s:.0f} times"
        )
    for size in (8, 512):
        for name, versions in (("none", 1), ("dihedral8", 8)):
            build_s = RELEASE_IMAGES * versions * per_image_s
            fit_s = 40_000 * fits["phase 2"] / 100 * max(size / batch, 0.1)
            slow_s = 40_000 * size * per_row_s
            print(
                f"whole phase 2, 40,000 iterations of batch {size}, {name}: cache "
                f"{build_s / 3600:.1f} h + fit {fit_s / 3600:.2f} h, backbone "
                f"{slow_s / 3600:.0f} h: {slow_s / (build_s + fit_s):.0f} times"
            )


def _phase2_step(model: AFine, pairs: CachedPairs, batch: int) -> Callable[[], None]:
    optimizer = adamw([{"params": list(model.fidelity.parameters()), "lr": 5e-4}], ScheduleConfig())
    total = len(pairs.label12)
    rows = Batch(np.arange(batch) % total, np.zeros(batch, dtype=np.int64))

    def step() -> None:
        u1, u2 = (model.fidelity(pairs.differences(c, rows)) for c in ("image1", "image2"))
        loss = fidelity_loss(u1, u2, pairs.label12[rows.rows]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _phase3_step(model: AFine, batch: int) -> Callable[[], None]:
    parts = (model.naturalness_scale, model.fidelity_scale, model.adapter)
    parameters = [p for part in parts for p in part.parameters()]
    optimizer = adamw([{"params": parameters, "lr": 1e-3}], ScheduleConfig())
    scores = torch.rand(5, batch)
    label = torch.randint(0, 2, (batch,)).float()

    def step() -> None:
        n1, n2, nr, f1, f2 = scores
        u1, u2 = model.combine(n1, nr, f1).score, model.combine(n2, nr, f2).score
        loss = fidelity_loss(u1, u2, label).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _times(step: Callable[[], None], count: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(count):
            step()

    return repeated


@torch.inference_mode()
def scoring(rounds: int, side: int, batch: int) -> None:
    model, pictures = full_model(), Pictures(1, side)
    names = pictures.images.filter(~pl.col("is_ref"))["image"].to_list()
    tests = torch.cat([_as01(pictures.read(("diffiqa", name))) for name in names])
    ref = _as01(pictures.read(("diffiqa", "c0.png")))

    def pair_by_pair() -> None:
        for n in range(len(tests)):
            model(tests[n : n + 1], ref)

    def one_reference() -> None:
        encoded = model.encode(ref)
        for n in range(len(tests)):
            model.score_encoded(model.encode(tests[n : n + 1]), encoded)

    variants = {
        "pair by pair": pair_by_pair,
        "pairs in a batch": lambda: model(tests, ref.repeat(len(tests), 1, 1, 1)),
        "reference once": one_reference,
        "reference once, tests in a batch": lambda: model(tests, ref),
    }
    least = in_turn(variants, rounds)
    for name, seconds in least.items():
        print(f"{name}: {seconds / 6:.3f} s a pair, {least['pair by pair'] / seconds:.2f} times")


def _as01(image: ImageU8) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["phase1", "frozen", "scoring"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=512, help="image side, in pixels")
    parser.add_argument("--batch", type=int, help="rows (phase1: 8, frozen: 128)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    default = {"phase1": 8, "frozen": 128, "scoring": 6}[args.what]
    work = {"phase1": phase1, "frozen": frozen, "scoring": scoring}[args.what]
    work(args.rounds, args.side, args.batch or default)


if __name__ == "__main__":
    main()
