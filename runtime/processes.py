"""Worker processes for stages that share work out over cores: one thread each, no orphans."""

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import threading
from concurrent.futures import ProcessPoolExecutor

import cv2

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT_BYTES = 1 << 28


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def worker_pool(count: int) -> ProcessPoolExecutor:
    """Open a pool of `count` processes that end when this process does, also when it is killed.

    They are spawned: a fork of a process that has used OpenCV's or torch's threads may hang.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)


def keep_freed_memory() -> None:
    """Let glibc keep up to 256 MB of freed memory instead of returning each array at once.

    Stages that make one image after the other otherwise spend a third of their time on the page
    faults of fresh memory. Without glibc this does nothing.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        set_option(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def _start_worker() -> None:
    keep_freed_memory()
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only called in workers"
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
