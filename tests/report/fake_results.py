"""What the other stages leave behind, beside the images: metrics, tables, agreement, timings."""

import json
import math
from pathlib import Path

import numpy as np

from runtime.atomic import write_bytes, write_json, write_text
from runtime.images import encode_png
from runtime.seeds import rng

_BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def add_results(root: Path) -> None:
    """Add training curves, accuracy tables, an agreement report and benchmark files to a run."""
    _write_metrics(root)
    _write_agreement(root)
    for shard, occupancy in (("00000", 1.0), ("00001", 0.5)):
        summary = {
            "event": "summary", "images": 60, "steps": 3000, "elapsed_s": 30.0,
            "occupancy": occupancy, "flops_per_s": 2e9, "peak_flops_per_s": 8e9,
        }  # fmt: skip
        _jsonl(root / f"samples/metrics/{shard}.jsonl", [{"event": "start"}, summary])
    write_text(
        root / "afine/tables/table2.csv",
        "Method,TID2013,Ref < Test,Ref > Test,DiffIQA Average\nPSNR,,0.0,100.0,41.2\n"
        "SSIM,,0.0,100.0,41.2\nA-FINE (Ours),,71.4,83.9,76.6\n",
    )
    write_text(
        root / "afine/tables/accuracy.csv",
        "method,set,group,pairs,accuracy,low,high\nPSNR,diffiqa,Ref < Test,120,0.0,0.0,0.0\n"
        "A-FINE (Ours),diffiqa,Average,310,0.766,0.702,0.823\n",
    )
    write_text(
        root / "afine/figures/scores.svg",
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 40"><rect width="90" height="40" '
        'fill="white"/><circle cx="20" cy="20" r="9"/></svg>',
    )
    for name, seconds in {
        "crop": 6.1, "degrade_plan": 2.2, "degrade_apply-00000": 4.0, "enhancer_base": 251.0,
        "enhancer_train": 139.5, "enhancer_sample-00000": 80.2, "enhancer_sample-00001": 77.9,
        "afine_train-1": 61.0, "afine_train-2": 9.0, "afine_train-3": 5.0, "report": 3.0,
    }.items():  # fmt: skip
        row = f"{seconds}\t0:00:00\t812.3\t-\t-\t-\t0\t0\t95.0\t{1.6 * seconds}\n"
        write_text(root / f"benchmarks/{name}.tsv", _BENCHMARK + row)


def _write_metrics(root: Path) -> None:
    draw = rng(1, "test.metrics")
    enhancer = []
    for step in range(0, 400, 2):
        loss = 0.2 + 0.8 * math.exp(-step / 90) + float(draw.normal(0, 0.05))
        enhancer.append({"phase": "train", "step": step, "loss": loss, "lr": 5e-5, "time_s": step})
        if step % 50 == 0:
            enhancer.append(
                {"phase": "val", "step": step, "loss": loss + 0.03, "psnr": 18 + step / 90}
            )
    _jsonl(root / "enhancer/metrics.jsonl", enhancer)
    afine = [
        {"phase": f"phase{phase}", "kind": kind, "iteration": i, "loss": math.exp(-i / 40 / phase)}
        for phase in (1, 2, 3) for i in range(0, 100, 10) for kind in ("train", "val")
    ]  # fmt: skip
    _jsonl(root / "afine/metrics.jsonl", afine)

    sheet = np.full((64, 192, 3), 90, np.uint8)
    for step in (50, 200, 400):
        write_bytes(root / f"enhancer/validation/step-{step:08}.png", encode_png(sheet))


def _jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(path, text + '{"step": 400, "lo')  # the last line of a killed process


def _write_agreement(root: Path) -> None:
    interval = {"value": 0.612, "low": 0.571, "high": 0.655, "confidence": 0.95, "replicates": 1000}
    rater = {
        "n_votes": 72, "worse_share": 0.48, "similar_share": 0.2, "better_share": 0.32,
        "agreement": 0.81, "median_time_s": 3.4,
    }  # fmt: skip
    write_json(
        root / "annotations/report.json",
        {
            "study": "simulated", "layout": "diffiqa", "is_synthetic": True,
            "votes": {"n": 216, "n_rejected": 1, "worse": 101, "similar": 50, "better": 65},
            "pairs": {"n": 72, "n_labelled": 70, "n_outliers": 2,
                      "outlier_reasons": {"three_way_tie": 2}},
            "labels": {"worse": 34, "similar": 12, "better": 24},
            "policy": {"min_votes": 3, "tie_policy": "drop", "exclude_raters": []},
            "problems": {"name_mismatch": {
                "count": 1, "is_rejected": True, "meaning": "name and content differ",
                "examples": [{"where": "A/01/x_01.json", "detail": "found 'y'"}]}},
            "agreement": {"n_units": 72, "alpha_nominal": interval, "alpha_ordinal": interval,
                          "fleiss_kappa": 0.6, "gwet_ac1": None, "percent_agreement": 0.75},
            "raters": {"n": 2, "n_flagged": 1, "rows": [
                {"rater_id": "r01", "flags": [], **rater},
                {"rater_id": "r02", "flags": ["low_agreement"], **rater}]},
            "raters_absent_because": None,
        },
    )  # fmt: skip
