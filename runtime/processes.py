"""Worker processes for stages that share work out over cores: one thread each, no orphans."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from concurrent.futures import ProcessPoolExecutor

import cv2


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def worker_pool(count: int) -> ProcessPoolExecutor:
    """Open a pool of `count` processes that end when this process does, also when it is killed.

    They are spawned: a fork of a process that has used OpenCV's or torch's threads may hang.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only called in workers"
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
