"""The machine and the software that wrote the report."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

_PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "accelerate", "basicsr", "numpy",
    "opencv-python", "scikit-image", "polars", "webdataset", "snakemake",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Describe machine, software and revision; names of people and hosts are left out."""
    facts = {
        "revision": _revision(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores visible",
        "memory": _memory(),
        "GPUs": _gpus(),
    }
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {name: value for name, value in facts.items() if value}


def _revision() -> str:
    """Commit of the working tree, marked when files differ from it."""
    folder = Path(__file__).resolve().parent.parent
    commit = _output("git", "-C", str(folder), "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}{' with changes' if commit and changed else ''}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError):
        return ""


def _gpus() -> str:
    listing = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return "; ".join(listing.splitlines()) or "none visible to the report"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
