"""Cost of writing dataset shards: against bare tar writing, and memory against their number.

    python -m benchmarks.shards_write [--references 300] [--size-px 256]

The reference (`tarfile` alone, same bytes, no checks) and the stage run in turns; the ratio of
the medians is what counts, since it does not depend on how busy the machine is.
"""

import argparse
import hashlib
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from runtime.atomic import write_json
from runtime.images import encode_png
from runtime.settings import load_run
from runtime.tables import write_table
from runtime.tars import iter_samples, write_tar
from shards.write import write_dataset

_ROUNDS = 5


def make_run(root: Path, references: int, size_px: int) -> Path:
    """Write a run whose images are noise (PNG cannot shrink it: the worst case in bytes)."""
    draw = np.random.default_rng(0)
    images = [encode_png(draw.integers(0, 256, (size_px, size_px, 3)).astype(np.uint8))
              for _ in range(32)]  # fmt: skip
    keys = [f"bench-{index:06}-x0y0" for index in range(references)]
    png = {key: images[index % 32] for index, key in enumerate(keys)}
    members = write_tar(root / "crops/crops-00000.tar", ((f"{k}.png", png[k]) for k in keys))
    digest = {content: hashlib.sha256(content).hexdigest() for content in images}
    crops = [
        {"crop_id": key, "photo_id": key, "source": "bench", "row": 0, "col": 0,
         "size_px": size_px, "split": ("train", "train", "train", "val", "test")[index % 5],
         "shard": 0, "offset": member.offset, "size_bytes": member.size_bytes,
         "sha256": digest[png[key]]}
        for index, (key, member) in enumerate(zip(keys, members, strict=True))
    ]  # fmt: skip
    write_table(root / "crops/crops.parquet", pl.DataFrame(crops))
    tests = [(key, k) for key in keys for k in range(1, 7)]
    plan = [
        {"test_id": f"{key}_{k:02}", "crop_id": key, "k": k, "shard": 0, "seed": k,
         "is_degraded": False, "init": "noise", "steps": 20, "level": None, "upscale": 1.0}
        for key, k in tests
    ]  # fmt: skip
    write_table(root / "plan.parquet", pl.DataFrame(plan, infer_schema_length=None))
    write_tar(
        root / "samples/samples-00000.tar",
        ((f"{key}_{k:02}.png", images[(index + k) % 32]) for index, (key, k) in enumerate(tests)),
    )
    write_json(root / "samples/samples-00000.json", {"counts": {}, "rejected": []})
    labels = [
        {"study": "bench", "ref_id": key, "test_id": f"{key}_{k:02}", "n_worse": 3, "n_similar": 0,
         "n_better": 0, "n_votes": 3, "label": -1, "margin": 3, "policy": "drop",
         "is_synthetic": True}
        for key, k in tests
    ]  # fmt: skip
    write_table(root / "annotations/labels.parquet", pl.DataFrame(labels))
    config = root / "config.resolved.json"
    write_json(config, {"run": "bench", "seed": 0, "dataset": {"references_per_shard": 64}})
    return config


def bare_seconds(config: Path, out: Path) -> float:
    """Time to read the same images and write them with `tarfile` alone."""
    start_s = time.perf_counter()
    for tar in sorted((config.parent / "dataset").glob("*.tar")):
        members = (
            (f"{key}.{extension}", content)
            for key, sample in iter_samples(tar)
            for extension, content in sample.items()
        )
        write_tar(out / tar.name, members, is_sorted=False)
    return time.perf_counter() - start_s


def stage_seconds(config: Path) -> float:
    """Time of the stage, from tables to manifest."""
    for path in (config.parent / "dataset").glob("*"):
        if path.is_file():
            path.unlink()
    start_s = time.perf_counter()
    write_dataset(load_run(config))
    return time.perf_counter() - start_s


def peak_mb(references: int, size_px: int) -> float:
    """Peak memory of a process of its own that writes a dataset."""
    code = (
        "import sys, resource, logging; from pathlib import Path; "
        "from benchmarks.shards_write import stage_seconds; "
        "stage_seconds(Path(sys.argv[1])); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    with tempfile.TemporaryDirectory() as folder:
        config = make_run(Path(folder), references, size_px)
        done = subprocess.run(
            [sys.executable, "-c", code, str(config)], capture_output=True, text=True, check=True,
            cwd=Path(__file__).resolve().parent.parent,
        )  # fmt: skip
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", type=int, default=300)
    parser.add_argument("--size-px", type=int, default=256)
    args = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        config = make_run(Path(folder) / "run", args.references, args.size_px)
        stage_seconds(config)
        bytes_written = sum(p.stat().st_size for p in (config.parent / "dataset").glob("*.tar"))
        bare, stage = [], []
        for _ in range(_ROUNDS):
            bare.append(bare_seconds(config, Path(folder) / "bare"))
            stage.append(stage_seconds(config))
    megabytes = bytes_written / 2**20
    print(f"{args.references} references of {args.size_px} px, {megabytes:.0f} MB")
    print(f"bare tar   {megabytes / statistics.median(bare):8.0f} MB/s")
    print(f"stage      {megabytes / statistics.median(stage):8.0f} MB/s (reads twice, checks CRC "
          "and SHA-256, writes card and metadata)")  # fmt: skip
    print(f"ratio      {statistics.median(stage) / statistics.median(bare):8.2f}")
    small, large = (peak_mb(n, args.size_px) for n in (args.references, 4 * args.references))
    print(f"peak memory {small:.0f} MB with {args.references} references, {large:.0f} MB with "
          f"{4 * args.references}")  # fmt: skip


if __name__ == "__main__":
    main()
