"""Programs that only some tests need: where they come from, and why they are missing."""

import os
import shutil
import subprocess
from collections.abc import Sequence


def why_missing(programs: Sequence[str], packages: Sequence[str]) -> str | None:
    """Reason why a program cannot be had, or None; in CI, Debian's packages are installed first."""
    if all(shutil.which(program) for program in programs):
        return None
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if os.environ.get("CI") != "true" or shutil.which("apt-get") is None:
        return f"not installed: {command}"
    quiet = ("apt-get", "-qq", "-o=Dpkg::Use-Pty=0")
    for step in (("update",), ("install", "-y", "--no-install-recommends", *packages)):
        try:
            done = subprocess.run(
                [*quiet, *step],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
                timeout=200,
            )
        except subprocess.TimeoutExpired:
            return f"{command} took longer than 200 s"
        if done.returncode != 0:
            return f"{command} failed: {done.stderr.strip()[-200:]}"
    return None
