"""Figures of training and evaluation, from files of the stages; no result rests on them."""

import csv
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from afine.triplets.rules import REFERENCE_BETTER, TEST_BETTER
from runtime.metrics import read_metrics

_PHASES = ("phase1", "phase2", "phase3")


def draw_figures(root: Path) -> list[Path]:
    """Draw `afine/figures/*.svg` of a run; returns the files."""
    folder = root / "afine" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "afine"
    figures = {
        "training.svg": _training(root / "afine" / "metrics.jsonl"),
        "accuracy.svg": _accuracy(root / "afine" / "tables" / "accuracy.csv"),
    }
    written = []
    for name, figure in figures.items():
        figure.savefig(folder / name, format="svg", metadata={"Date": None})
        written.append(folder / name)
    return written


def _training(metrics: Path) -> Figure:
    """Loss and validation accuracy of the three phases over iterations."""
    rows = read_metrics(metrics)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots(2, len(_PHASES), sharex="col", squeeze=False)
    for column, phase in enumerate(_PHASES):
        for kind, colour in (("train", "tab:blue"), ("val", "tab:orange")):
            own = [r for r in rows if r.get("phase") == phase and r.get("kind") == kind]
            for line, key in enumerate(("loss", "accuracy")):
                points = [(r["iteration"], r[key]) for r in own if r.get(key) is not None]
                if points:
                    axes[line, column].plot(*zip(*points, strict=True), color=colour, label=kind)
        axes[0, column].set_title(f"phase {column + 1}")
        axes[1, column].set_xlabel("iteration")
    axes[0, 0].set_ylabel("fidelity loss")
    axes[1, 0].set_ylabel("validation accuracy")
    axes[0, 0].legend()
    return figure


def _accuracy(table: Path) -> Figure:
    """Accuracy of every method on both kinds of DiffIQA pairs, with intervals."""
    with open(table, encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["set"] == "diffiqa"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for shift, group in ((-0.2, TEST_BETTER), (0.2, REFERENCE_BETTER)):
        for position, method in enumerate(methods):
            found = [r for r in rows if (r["method"], r["group"]) == (method, group)]
            if not found or found[0]["accuracy"] == "nan":
                continue
            value, low, high = (float(found[0][key]) for key in ("accuracy", "low", "high"))
            colour = "tab:blue" if group == TEST_BETTER else "tab:gray"
            label = group if position == len(methods) - 1 else None
            axes.bar(position + shift, 100 * value, 0.4, color=colour, label=label)
            axes.vlines(position + shift, 100 * low, 100 * high, color="black", linewidth=1)
    axes.set_xticks(range(len(methods)), methods)
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 100)
    # above the bars, which may all reach the top
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
    return figure
