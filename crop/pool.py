"""Photographs over processes: one a core, survivors of a decoder that takes its process down."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import cv2

from crop.photograph import PhotoRecord, PhotoTask, crashed_record, process_photo

_IN_FLIGHT_PER_WORKER = 4


def process_photos(tasks: Sequence[PhotoTask], *, workers: int) -> Iterator[PhotoRecord]:
    """Process photographs and yield their records as they come, in no fixed order.

    Args:
        tasks: what to do.
        workers: processes; 0 is one per core, 1 works in this process.
    """
    count = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    if count <= 1:
        for task in tasks:
            yield process_photo(task)
        return
    unfinished: list[PhotoTask] = []
    yield from _in_pool(tasks, count, unfinished)
    for task in unfinished:
        yield from _alone(task)


def _in_pool(
    tasks: Sequence[PhotoTask], count: int, unfinished: list[PhotoTask]
) -> Iterator[PhotoRecord]:
    """Work through `tasks`; when the pool breaks, what is left goes to `unfinished`."""
    waiting = deque(tasks)
    running: dict[Future[PhotoRecord], PhotoTask] = {}
    with _executor(count) as executor:
        try:
            while waiting or running:
                while waiting and len(running) < count * _IN_FLIGHT_PER_WORKER:
                    future = executor.submit(process_photo, waiting[0])
                    running[future] = waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    record = future.result()
                    del running[future]
                    yield record
        except BrokenProcessPool:
            unfinished += [*running.values(), *waiting]


def _alone(task: PhotoTask) -> Iterator[PhotoRecord]:
    """Retry in a process of its own, so that only the guilty photograph is lost."""
    with _executor(1) as executor:
        try:
            yield executor.submit(process_photo, task).result()
        except BrokenProcessPool:
            yield crashed_record(task)


def _executor(count: int) -> ProcessPoolExecutor:
    # spawn: a fork of a process that has used OpenCV's or torch's threads may hang
    return ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )


def _start_worker() -> None:
    cv2.setNumThreads(1)
