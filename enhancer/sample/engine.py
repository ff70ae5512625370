"""Continuous batching: a fixed number of slots, refilled as soon as an image is done.

Images differ in their number of solver steps, so a batch of equal jobs does not exist. Every
slot follows its own schedule; a finished slot is handed to a background thread for decoding
and holds the next image before the next step. Longest jobs go first, so that the slots run
empty together.

Reproducibility: the noise of an image comes with its input, and rows of a batch do not
depend on their neighbours. On a CPU the engine checks that they do not depend on their
position either (torch's elementwise kernels treat the last few elements of an odd-sized
batch differently) and evaluates row by row where they do; an image is then bitwise the same
whatever shares the batch. Another number of slots, or a GPU, changes results within rounding
(1e-5 of the latent's maximum in float32).
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Protocol

import torch
from torch import Tensor

from enhancer.sample import unipc
from enhancer.sample.background import Background
from enhancer.sample.board import Job, JobInput, Parked, SlotBoard
from enhancer.sample.nets import PromptedNets
from enhancer.sample.tiles import Tiling
from runtime.errors import DataError, ResourceError

_log = logging.getLogger(__name__)
_CHECK_EVERY_STEPS = 50
_CPU_SLOTS = 8
_MEMORY_SHARE = 0.85
DEFAULT_TILING = Tiling()


class Port(Protocol):
    """What the engine asks of its caller; `load` and `finish` run in background threads."""

    def load(self, job: Job) -> JobInput:
        """Read, encode and noise a job's input."""

    def finish(self, job: Job, latent: Tensor) -> None:
        """Take a denoised latent, float32 [C, height, width], finite."""

    def fail(self, job: Job, reason: str, detail: str) -> None:
        """Take note of a job that cannot be done."""


class Watch(Protocol):
    """Who is told what the engine does."""

    def stepped(self, active: int, slots: int, evaluations: int) -> None:
        """`active` of `slots` slots advanced, by `evaluations` network evaluations."""

    def counted(self, flops: int) -> None:
        """One network evaluation takes `flops` floating-point operations."""


@dataclass(frozen=True)
class EngineOptions:
    """How the engine works; only `final_sigma` and `tiling` change results beyond rounding.

    Attributes:
        slots: latent tiles side by side; 0: found once from free memory.
        max_slots: upper limit when found from free memory.
        workers: background threads; 0: none.
        reserve_bytes: device memory to leave for the background.
        final_sigma: noise level after the last step.
        tiling: size of latent tiles.
    """

    slots: int = 0
    max_slots: int = 32
    workers: int = 1
    reserve_bytes: int = 0
    final_sigma: unipc.FinalSigma = "sigma_min"
    tiling: Tiling = DEFAULT_TILING


@dataclass
class _Pass:
    """Jobs of one latent size on their way through the slots."""

    board: SlotBoard
    queue: deque[Job]
    port: Port
    background: Background
    should_stop: Callable[[], bool]
    loads: dict[str, "Future[JobInput]"] = field(default_factory=dict)
    steps: int = 0


class Engine:
    """Denoise jobs of any mix of steps, levels and sizes.

    Args:
        nets: the networks with their prompt table.
        noise: the networks' training schedule.
        options: see there.
        channels: of the latent.
        watch: is told of every step.
    """

    def __init__(
        self,
        nets: PromptedNets,
        noise: unipc.NoiseSchedule,
        options: EngineOptions,
        *,
        channels: int = 4,
        watch: Watch | None = None,
    ) -> None:
        self._nets, self._noise, self._options = nets, noise, options
        self._channels, self._watch = channels, watch
        self._slots = options.slots
        self._parked: dict[str, Parked] = {}
        self._undecoded: deque[tuple[Job, Tensor]] = deque()

    @torch.inference_mode()
    def run(
        self,
        jobs: Iterable[Job],
        port: Port,
        *,
        done: Collection[str] = (),
        parked: Mapping[str, Parked] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, Parked]:
        """Denoise every job; each is loaded, finished or failed through `port`.

        Args:
            jobs: all jobs, in any order; the batch is shaped by them, also by those done.
            port: source of inputs and taker of results.
            done: keys of jobs to leave out.
            parked: half-denoised jobs of an interrupted run, by key.
            should_stop: asked before every step; once true, the jobs under way are parked.
        Returns:
            The parked jobs, by key; empty unless stopped.
        Raises:
            ResourceError: one slot, or one image by itself, does not fit into the device's memory.
        """
        self._parked = dict(parked or {})
        background = Background(self._options.workers, self._nets.device)
        try:
            for group in passes(jobs, self._options.tiling):
                queue = deque(job for job in group if job.key not in done)
                while queue and not should_stop():
                    self._run_until_memory_ends(group, queue, port, background, should_stop)
            background.finish()
            self._finish_undecoded(port)
        finally:
            background.close()
        return self._parked

    def _run_until_memory_ends(
        self,
        group: Sequence[Job],
        queue: deque[Job],
        port: Port,
        background: Background,
        should_stop: Callable[[], bool],
    ) -> None:
        """Run one pass; when memory ends, put its jobs back and halve the slots."""
        board: SlotBoard | None = None
        is_short = False
        try:
            self._slots = self._slots or self._find_slots(group)
            board = self._board(group, self._slots)
            self._run_pass(_Pass(board, queue, port, background, should_stop))
        except torch.OutOfMemoryError:
            is_short = True  # what failed holds its memory until this block ends
        rows = self._slots
        if board is not None:
            rows = min(rows, board.rows)
            self._parked.update(board.park())
            queue.extendleft(job for job in reversed(board.jobs) if job is not None)
            board = None
        if is_short:
            self._nets.free_memory()
            has_room_alone = bool(self._undecoded)
            self._finish_undecoded(port)
            self._halve_slots(rows, may_stay=has_room_alone)

    def _run_pass(self, now: _Pass) -> None:
        try:
            while True:
                self._collect(now)
                if now.should_stop():
                    break
                self._refill(now)
                if now.board.finished():  # memory had ended right after its last step
                    continue
                if not now.board.active:
                    break
                now.board.step()
                now.steps += 1
                if self._watch is not None:
                    active = len(now.board.active)
                    evaluations = active * now.board.evaluations_per_slot
                    self._watch.stepped(active, len(now.board.jobs), evaluations)
        finally:
            for load in now.loads.values():
                load.cancel()

    def _collect(self, now: _Pass) -> None:
        """Hand finished latents over, and drop what is no longer finite."""
        board = now.board
        finished = board.finished()
        if finished or now.steps % _CHECK_EVERY_STEPS == 0:
            for slot in board.nonfinite():
                job = board.job(slot)
                board.clear(slot)
                now.port.fail(job, "non_finite", f"steps {job.steps}, level {job.level}")
        for slot in finished:
            if board.jobs[slot] is not None:
                job, limit = board.job(slot), 2 * len(board.jobs)
                latent = board.take(slot)
                now.background.post(self._finish, now.port, job, latent, limit=limit)
        now.background.check()
        if self._undecoded:
            raise torch.OutOfMemoryError("no memory to decode an image beside the slots")

    def _finish(self, port: Port, job: Job, latent: Tensor) -> None:
        """Hand a latent over, or keep it until there is memory to decode it."""
        try:
            port.finish(job, latent)
        except torch.OutOfMemoryError:
            self._undecoded.append((job, latent))

    def _finish_undecoded(self, port: Port) -> None:
        """Hand over what could not be decoded beside the slots, now that none is in memory."""
        while self._undecoded:
            job, latent = self._undecoded[0]
            try:
                port.finish(job, latent)
            except torch.OutOfMemoryError:
                raise ResourceError(
                    f"{self._nets.device}: out of memory while {job.key} was decoded with nothing "
                    "beside it; use a smaller vae_dtype, or a device with more memory"
                ) from None
            self._undecoded.popleft()

    def _refill(self, now: _Pass) -> None:
        """Put loaded jobs into free slots; wait for them only if there is nothing else to do."""
        self._prefetch(now)
        for slot in now.board.free:
            while now.queue and now.board.jobs[slot] is None:
                load = now.loads.get(now.queue[0].key)
                must_wait = now.steps == 0 or not now.board.active
                if load is None or not (load.done() or must_wait):
                    return
                self._start(now, slot, now.queue.popleft())

    def _prefetch(self, now: _Pass) -> None:
        """Begin to load as many jobs as there are slots."""
        for job in islice(now.queue, len(now.board.jobs)):
            if job.key not in now.loads:
                now.loads[job.key] = now.background.submit(now.port.load, job)

    def _start(self, now: _Pass, slot: int, job: Job) -> None:
        try:
            given = now.loads.pop(job.key).result()
            schedule = unipc.solver_schedule(
                self._noise, job.steps, level=job.level, final_sigma=self._options.final_sigma
            )
            now.board.put(slot, job, given, schedule, self._parked.get(job.key))
        except DataError as error:
            now.port.fail(job, "bad_input", str(error))
        except torch.OutOfMemoryError:
            now.board.clear(slot)
            now.queue.appendleft(job)
            raise
        self._parked.pop(job.key, None)

    def _board(self, group: Sequence[Job], slots: int) -> SlotBoard:
        """Make the slots of one pass; never more than the pass has jobs."""
        layout = self._options.tiling.layout(group[0].height, group[0].width)
        images = min(max(1, slots // len(layout)), len(group))

        def make(max_rows: int) -> SlotBoard:
            return SlotBoard(
                self._nets,
                images,
                layout=layout,
                shape=(self._channels, group[0].height, group[0].width),
                is_guided=group[0].guidance != 1,
                max_rows=max_rows,
                max_steps=max(job.steps for job in group),
            )

        board = make(slots)
        if self._watch is not None:
            self._watch.counted(self._nets.count_flops(*board.probe()))
        if self._nets.device.type == "cpu" and not board.rows_are_alike():
            _log.info("rows of a batch differ by position; evaluating row by row")
            board = make(1)
        return board

    def _halve_slots(self, rows: int, *, may_stay: bool) -> None:
        """Go on with half of the `rows` that were too many; one may stay if it works alone."""
        if rows <= 1 and not may_stay:
            raise ResourceError(
                f"{self._nets.device}: out of memory with a single slot; use a smaller "
                "tile_latent_px or dtype, or a device with more memory"
            )
        _log.warning("out of memory with %d slots; going on with fewer", rows)
        self._slots = max(1, rows // 2)

    def _find_slots(self, group: Sequence[Job]) -> int:
        """Find how many slots fit, from the memory that one and two slots take."""
        if self._nets.device.type != "cuda":
            return min(_CPU_SLOTS, self._options.max_slots)
        with self._nets.eager():
            one = self._peak_bytes(group, 1)
            try:
                two = self._peak_bytes(group, 2)
            except torch.OutOfMemoryError:
                return 1
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self._nets.device)
        room = _MEMORY_SHARE * (free - self._options.reserve_bytes) - one
        slots = 1 + int(max(0.0, room) // max(1, two - one))
        _log.info("%.1f GB free, %.2f GB a slot: %d fit", free / 1e9, (two - one) / 1e9, slots)
        return max(1, min(slots, self._options.max_slots))

    def _peak_bytes(self, group: Sequence[Job], slots: int) -> int:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(self._nets.device)
        torch.cuda.reset_peak_memory_stats(self._nets.device)
        self._board([*group, *group], slots).step()
        return int(torch.cuda.max_memory_allocated(self._nets.device) - before)


def passes(jobs: Iterable[Job], tiling: Tiling) -> list[list[Job]]:
    """Group jobs by what shapes a batch, each group's longest jobs first.

    Groups with more tiles come first; within a group the order decides only how evenly the
    slots run empty.
    """

    def shape(job: Job) -> tuple[int, int, int, bool]:
        tiles = len(tiling.layout(job.height, job.width))
        return (-tiles, job.height, job.width, job.guidance == 1)

    ordered = sorted(jobs, key=lambda job: (shape(job), -job.steps, job.key))
    return [list(group) for _, group in groupby(ordered, key=shape)]
