"""Runs the command line in a process of its own that can be killed.

A fork server that has loaded the libraries makes such a process start at once; forking the
test process itself would copy locks that other libraries' threads hold.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["enhancer.sample.stage", "enhancer.__main__"])


def _work(argv: list[str]) -> None:
    from enhancer.__main__ import main

    sys.exit(main(argv))


def run_and_signal(config: Path, until: Callable[[], bool], number: int) -> int:
    """Sample shard 0, send signal `number` when `until` holds; returns the exit code."""
    argv = ["sample", "--config", str(config), "--shard", "0", "--replace"]
    child = _CONTEXT.Process(target=_work, args=(argv,))
    child.start()
    while child.is_alive() and not until():
        time.sleep(0.002)
    if child.is_alive() and child.pid is not None:
        os.kill(child.pid, number)
    child.join()
    assert child.exitcode is not None
    return child.exitcode
