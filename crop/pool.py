"""Photographs over processes: one a core, survivors of a decoder that takes its process down."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool

from crop.photograph import PhotoRecord, PhotoTask, crashed_record, process_photo
from runtime.processes import usable_cores, worker_pool

_IN_FLIGHT_PER_WORKER = 4


def process_photos(tasks: Sequence[PhotoTask], *, workers: int) -> Iterator[PhotoRecord]:
    """Process photographs and yield their records as they come, in no fixed order.

    Args:
        tasks: what to do.
        workers: processes; 0 is one per core, 1 works in this process.
    """
    count = min(workers or usable_cores(), len(tasks))
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
    with worker_pool(count) as executor:
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
    with worker_pool(1) as executor:
        try:
            yield executor.submit(process_photo, task).result()
        except BrokenProcessPool:
            yield crashed_record(task)
