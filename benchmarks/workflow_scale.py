"""Disk and GPU-hours of a configuration, from its own plan; the tables of docs/scale.md.

    python -m benchmarks.workflow_scale [--configfile configs/diffiqa.yaml]

Every test image's steps, level and enlargement are drawn as `degrade plan` draws them, for as
many references as the configuration asks for; network evaluations are counted as sampling
counts them. Bytes of a PNG are measured on crops of the photographs that ship with scikit-image.
"""

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import skimage.data

from degrade import degrade_image
from degrade.plan import balance, draw_reference
from enhancer.sample.planned import evaluations
from enhancer.sample.tiles import Tiling
from runtime.images import encode_png
from workflow.config import RunConfig, load_config

PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "ihc.png", "retina.jpg")
# device seconds a network evaluation; the first is the paper's 20 days on 20 devices, divided
PAPER_HOURS = 20 * 20 * 24
GB = 1e9


def planned_rows(config: RunConfig, references: int) -> dict[str, list[dict]]:
    """Plan rows of each reference, without the degradations' parameters, which cost no GPU."""
    plan, size_px = config.plan, config.crop.size_px
    drawn = (f"photo-{number:06}" for number in range(references))
    return {
        name: draw_reference(name, size_px, plan, config.degrade, config.seed) for name in drawn
    }


def image_bytes(size_px: int, preset: str) -> tuple[float, float]:
    """Mean PNG bytes of a crop and of the same crop degraded."""
    crops = [crop for name in PHOTOGRAPHS for crop in corners(name, size_px)]
    clean = [len(encode_png(crop)) for crop in crops]
    degraded = [
        len(encode_png(degrade_image(crop, preset=preset, seed=seed)))
        for seed, crop in enumerate(crops)
    ]
    return float(np.mean(clean)), float(np.mean(degraded))


def corners(name: str, size_px: int) -> list[np.ndarray]:
    """First and last crop of a photograph, where it is large enough."""
    photo = skimage.io.imread(Path(skimage.data.__file__).parent / name)[..., :3]
    height, width = photo.shape[:2]
    if min(height, width) < size_px:
        return []
    places = {(0, 0), (height - size_px, width - size_px)}
    return [np.ascontiguousarray(photo[y : y + size_px, x : x + size_px]) for y, x in places]


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [" | ".join(header), "|".join("---" for _ in header)]
    lines += [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines)


def compute_table(config: RunConfig, rows: dict[str, list[dict]]) -> str:
    tiling = Tiling(
        config.enhancer.sample.tile_latent_px, config.enhancer.sample.tile_overlap_latent_px
    )
    counted = {
        name: sum(evaluations(row, config.crop.size_px, tiling) for row in group)
        for name, group in rows.items()
    }
    total = sum(counted.values())
    images = [row for group in rows.values() for row in group]
    shards = Counter(
        balance(
            {n: sum(r["work"] for r in g) for n, g in rows.items()}, config.plan.shards
        ).values()
    )
    paper_s = PAPER_HOURS * 3600 / total
    header = ("seconds an evaluation", "GPU-hours", "days on 20 devices", "hours a shard")
    rates = [("paper, one image at a time on V100s", paper_s), ("0.03", 0.03), ("0.01", 0.01)]
    body = [
        (
            f"{name} ({rate_s:.3f})" if "paper" in name else name,
            f"{total * rate_s / 3600:,.0f}",
            f"{total * rate_s / 3600 / 20 / 24:.1f}",
            f"{total * rate_s / 3600 / config.plan.shards:.2f}",
        )
        for name, rate_s in rates
    ]
    facts = [
        f"references {len(rows):,}, test images {len(images):,}",
        f"degraded {sum(row['is_degraded'] for row in images):,}",
        f"init {dict(Counter(row['init'] for row in images))}",
        f"enlarged {sum(row['upscale'] != 1 for row in images):,}",
        f"planned steps {sum(row['steps'] for row in images):,}",
        f"network evaluations {total:,}",
        f"references a shard {min(shards.values())} to {max(shards.values())}",
    ]
    return "\n".join(facts) + "\n\n" + table(header, body)


def disk_table(config: RunConfig, rows: dict[str, list[dict]]) -> str:
    preset = "diffiqa" if config.degrade.preset == "custom" else config.degrade.preset
    clean, degraded = image_bytes(config.crop.size_px, preset)
    images = [row for group in rows.values() for row in group]
    crops_gb = len(rows) * clean / GB
    degraded_gb = sum(row["is_degraded"] for row in images) * degraded / GB
    samples_gb = len(images) * clean / GB
    body = [
        ("crops/", f"{len(rows):,} PNGs", f"{crops_gb:.0f}"),
        ("degraded/", "half of the inputs", f"{degraded_gb:.0f}"),
        ("samples/", f"{len(images):,} PNGs, at most as large as photographs", f"{samples_gb:.0f}"),
        ("dataset/", "references and test images once more", f"{crops_gb + samples_gb:.0f}"),
        ("sum", "", f"{2 * (crops_gb + samples_gb) + degraded_gb:.0f}"),
    ]
    sizes = f"bytes of a PNG: photograph {clean:,.0f}, degraded {degraded:,.0f}"
    return sizes + "\n\n" + table(("folder", "what", "GB"), body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", type=Path, default=Path("configs/diffiqa.yaml"))
    parser.add_argument("--references", type=int, help="default: crop.target_count")
    args = parser.parse_args()
    config = load_config([args.configfile])
    rows = planned_rows(config, args.references or config.crop.target_count or 1000)
    print(compute_table(config, rows), disk_table(config, rows), sep="\n\n")


if __name__ == "__main__":
    main()
