"""Import at DiffIQA's full size (537,624 vote files) against a plain standard-library importer.

    nice -n 10 python -m benchmarks.annotation_import_speed --rounds 3

Makes the tree (2.1 GB of disk blocks) in a folder of its own, reads it once so that the file cache
is warm for both, runs both importers in turn, prints the ratio of their best times, then times the
statistics and Dawid-Skene on the table, and the peak memory. The tree is deleted at the end.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import msgspec

STATISTICS = """
import sys, time
import polars as pl
from annotation_import.agreement import alpha_interval, patterns_of
from annotation_import.counts import as_array, count_votes, decide_labels
from annotation_import.dawid_skene import fit_dawid_skene
from annotation_import.paper_size import paper_votes
from runtime.seeds import rng
votes = pl.read_parquet(sys.argv[1])
times = []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    counts = count_votes(votes)
    decided = decide_labels(counts)
    patterns = patterns_of(as_array(counts))
    for metric in ("nominal", "ordinal"):
        alpha = alpha_interval(patterns, metric, replicates=1000, confidence=0.95,
                               generator=rng(0, "bench", metric))
    times.append(time.perf_counter() - start)
print(f"counts + majority + alpha + 1,000-replicate interval: best {min(times):.3f} s "
      f"(target 1.5 s)")
voters = paper_votes()
items = (voters["test_id"].rank("dense") - 1).to_numpy().astype("int64")
raters = (voters["rater_id"].rank("dense") - 1).to_numpy().astype("int64")
answers = voters["label"].to_numpy().astype("int64") + 1
start = time.perf_counter()
fit = fit_dawid_skene(items, raters, answers)
print(f"Dawid-Skene, {fit.iterations} steps, converged {fit.is_converged}: "
      f"{time.perf_counter() - start:.2f} s (target 5 s)")
"""


def make_tree(folder: Path) -> int:
    from annotation_import.export import diffiqa_vote
    from annotation_import.paper_size import paper_votes

    made: set[Path] = set()
    count = 0
    for row in paper_votes().iter_rows(named=True):
        name, content = diffiqa_vote(row)
        path = folder / name
        if path.parent not in made:
            path.parent.mkdir(parents=True)
            made.add(path.parent)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=4))
        count += 1
    return count


def baseline(folder: Path) -> Counter[str]:
    """Read every file with open and json.load, count with Counter, take the majority."""
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for top, _, names in os.walk(folder / "labels"):
        for name in names:
            with open(Path(top) / name, encoding="utf-8") as handle:
                picture = json.load(handle)["Picture_AI"]
            votes[picture["Name"]][picture["Label"]] += 1
    labels: Counter[str] = Counter()
    for counts in votes.values():
        (first, n_first), *others = counts.most_common()
        is_tie = bool(others) and others[0][1] == n_first
        labels["outlier" if is_tie else first] += 1
    return labels


def timed_baseline(folder: Path, out: Path) -> float:
    start = time.perf_counter()
    labels = baseline(folder)
    seconds = time.perf_counter() - start
    assert labels == {"Negative": 76_515, "Similar": 24_654, "Positive": 76_150, "outlier": 1_889}
    return seconds


def timed_import(folder: Path, out: Path) -> float:
    """Time reading, checking, labelling, statistics and writing every table."""
    from annotation_import.config import AnnotationsConfig
    from annotation_import.stage import import_to

    start = time.perf_counter()
    import_to(out, folder, AnnotationsConfig.model_validate({"source": str(folder)}))
    seconds = time.perf_counter() - start
    report = json.loads((out / "report.json").read_text())
    assert report["labels"] == {"worse": 76_515, "similar": 24_654, "better": 76_150}
    assert report["pairs"]["outlier_reasons"] == {"no_majority": 1_889}
    assert {k: report["votes"][k] for k in ("worse", "similar", "better")} == {
        "worse": 232_285, "similar": 85_671, "better": 219_668,
    }  # fmt: skip
    return seconds


def timed_command(folder: Path, out: Path) -> tuple[float, float]:
    """Time the whole command, from starting Python; returns seconds and its peak memory in MB."""
    command = [
        sys.executable, "-m", "annotation_import", "import", "--layout", "diffiqa",
        "--source", str(folder), "--out", str(out),
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, "the import failed"
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def in_new_process(work: str, folder: Path, out: Path) -> tuple[float, float]:
    """Run one importer in a fresh process with its modules loaded.

    Returns its seconds, and the processor seconds of that process and its children.
    """
    script = (
        "import sys; from pathlib import Path; import annotation_import.stage; "
        f"from benchmarks.annotation_import_speed import {work}; "
        f"print({work}(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, "see the message above"
    return float(printed), usage.ru_utime + usage.ru_stime


def compare(tree: Path, out: Path, rounds: int) -> None:
    """Run both importers in turn and print their ratio."""
    os.sync()  # else the disk still writes the tree in the first round
    in_new_process("timed_baseline", tree, out)  # warms the file cache; not counted
    plain, ours = [], []
    for _ in range(rounds):
        ours.append(in_new_process("timed_import", tree, out))
        plain.append(in_new_process("timed_baseline", tree, out))
        print(
            f"  import {ours[-1][0]:.1f} s ({ours[-1][1]:.1f} s of processors), "
            f"baseline {plain[-1][0]:.1f} s ({plain[-1][1]:.1f} s)",
            flush=True,
        )
    seconds, peak_mb = timed_command(tree, out)
    best, best_plain = min(ours)[0], min(plain)[0]
    ratios = [there[0] / here[0] for here, there in zip(ours, plain)]
    print(
        f"import: best {best:.2f} s (target 15 s), baseline best {best_plain:.2f} s: ratio of "
        f"best {best_plain / best:.1f}, median of rounds {statistics.median(ratios):.1f} "
        f"(target 5); whole command {seconds:.1f} s, peak memory {peak_mb:.0f} MB "
        "(target 1500 MB)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, help="made here if absent, and kept")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="votes-"))
    tree = args.tree or work / "tree"
    try:
        if not tree.is_dir():
            start = time.perf_counter()
            count = make_tree(tree)
            print(f"{count} files made in {time.perf_counter() - start:.0f} s", flush=True)
        compare(tree, work / "out", args.rounds)
        table = str(work / "out/votes.parquet")
        subprocess.run([sys.executable, "-c", STATISTICS, table, str(args.rounds)], check=True)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
