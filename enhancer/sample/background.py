"""Threads that read, encode, decode and write beside denoising."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Background:
    """Run tasks in threads; on a GPU each thread has a stream of its own.

    A task that runs out of device memory is tried once more after the cache is emptied.

    Args:
        workers: number of threads; 0 runs each task at once, in the caller's thread.
        device: where the tasks' tensors live.
    """

    def __init__(self, workers: int, device: torch.device) -> None:
        self._device = device
        # each thread has its own OpenMP setting, which would otherwise be that of the machine
        threads = (torch.get_num_threads(),)
        self._pool = (
            ThreadPoolExecutor(workers, "sample", torch.set_num_threads, threads)
            if workers
            else None
        )
        self._pending: set[Future[Any]] = set()
        self._own = threading.local()

    def submit(self, task: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Start `task(*arguments)`; on a GPU, after what the caller's stream holds so far."""
        ready = None
        if self._device.type == "cuda":
            ready = torch.cuda.Event()
            ready.record(torch.cuda.current_stream(self._device))
        if self._pool is not None:
            return self._pool.submit(self._run, ready, task, arguments)
        done: Future[T] = Future()
        try:
            done.set_result(self._run(ready, task, arguments))
        except Exception as error:
            done.set_exception(error)
        return done

    def post(self, task: Callable[..., None], *arguments: Any, limit: int) -> None:
        """Start a task whose result nobody reads; waits while more than `limit` are pending."""
        self.check()
        if len(self._pending) >= limit:
            wait(self._pending, return_when="FIRST_COMPLETED")
        self._pending.add(self.submit(task, *arguments))

    def check(self) -> None:
        """Raise the error of a posted task that failed."""
        done = {future for future in self._pending if future.done()}
        self._pending -= done
        for future in done:
            future.result()

    def finish(self) -> None:
        """Wait for every posted task and raise the first error."""
        wait(self._pending)
        self.check()

    def close(self) -> None:
        """Stop the threads; tasks that did not begin are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(
        self, ready: torch.cuda.Event | None, task: Callable[..., T], arguments: tuple[Any, ...]
    ) -> T:
        with torch.inference_mode():
            if ready is None:
                return _twice_if_memory_ends(task, arguments)
            stream = self._stream()
            with torch.cuda.stream(stream):
                stream.wait_event(ready)
                result = _twice_if_memory_ends(task, arguments)
                # the caller's stream, and the allocator, may touch the tensors from here on
                stream.synchronize()
                return result

    def _stream(self) -> torch.cuda.Stream:
        """This thread's stream; one for good, since freed memory is reused within a stream."""
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)
        stream: torch.cuda.Stream = self._own.stream
        return stream


def _twice_if_memory_ends(task: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    try:
        return task(*arguments)
    except torch.OutOfMemoryError:
        pass  # what failed holds its memory until this block ends
    torch.cuda.empty_cache()
    return task(*arguments)
