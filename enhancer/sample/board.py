"""The slots: a fixed batch of latents in which every slot follows a solver schedule of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from enhancer.sample import unipc
from enhancer.sample.nets import PromptedNets, SlotInputs
from enhancer.sample.tiles import TileLayout
from runtime.torch_device import torch_generator

_PROBE_TIMESTEPS = (999, 300)


@dataclass(frozen=True)
class Job:
    """One image to denoise; its pixels are loaded when a slot is about to come free.

    Attributes:
        key: name of the image.
        steps: requested solver steps.
        level: training timestep at which denoising starts; None: the last one.
        height: of the latent, latent pixels.
        width: of the latent, latent pixels.
        guidance: strength of the classifier-free guidance; 1 needs the positive prompt only.
        scale: weight of the ControlNet residuals.
        prompt: index in the prompt table.
        negative: index of the negative prompt.
    """

    key: str
    steps: int
    level: int | None
    height: int
    width: int
    guidance: float
    scale: float
    prompt: int
    negative: int


@dataclass(frozen=True)
class JobInput:
    """What a job starts from.

    Attributes:
        latent: initial latent, float32 [C, height, width].
        image01: condition, float32 [3, 8 height, 8 width] in [0, 1].
    """

    latent: Tensor
    image01: Tensor


@dataclass(frozen=True)
class Parked:
    """A half-denoised image, from which its slot goes on exactly.

    Attributes:
        position: solver steps already done.
        state: x, last, m1, m2 as one tensor, float32 [4, C, height, width].
    """

    position: int
    state: Tensor


class SlotBoard:
    """Slots for images of one latent size.

    A slot may hold several rows (tiles of a large latent). All shapes stay fixed: a free slot
    is computed like the others, with coefficients of zero. Rows are independent of each other.

    Args:
        nets: the networks.
        slots: number of images side by side.
        layout: tiles of the latent size.
        shape: channels, height and width of the latents.
        is_guided: evaluate both prompts of each row.
        max_rows: most rows of one network call.
        max_steps: length of the longest schedule.
    """

    def __init__(
        self,
        nets: PromptedNets,
        slots: int,
        *,
        layout: TileLayout,
        shape: tuple[int, int, int],
        is_guided: bool,
        max_rows: int,
        max_steps: int,
    ) -> None:
        self._nets, self._layout, self._shape = nets, layout, shape
        self._predict = nets.predict if is_guided else nets.predict_unguided
        self.evaluations_per_slot = len(layout) * (2 if is_guided else 1)
        device = nets.device
        rows = slots * len(layout)
        calls = -(-rows // max(1, max_rows))
        self._rows_per_call = -(-rows // calls)
        self.jobs: list[Job | None] = [None] * slots
        self._left = [0] * slots
        self._state = unipc.start_state(torch.zeros((slots, *shape), device=device))
        self._table = torch.zeros((slots, max_steps + 1, unipc.COLUMNS), device=device)
        self._timesteps = torch.zeros((slots, max_steps + 1), dtype=torch.int64, device=device)
        self._position = torch.zeros(slots, dtype=torch.int64, device=device)
        self._advance = torch.zeros(slots, dtype=torch.int64, device=device)
        self._slot = torch.arange(slots, device=device)
        self._inputs = self._empty_inputs(rows)

    @property
    def rows(self) -> int:
        """Number of rows: slots times tiles."""
        return len(self.jobs) * len(self._layout)

    @property
    def free(self) -> list[int]:
        """Numbers of the free slots."""
        return [slot for slot, job in enumerate(self.jobs) if job is None]

    def job(self, slot: int) -> Job:
        """The job in a slot that is not free."""
        job = self.jobs[slot]
        assert job is not None, f"slot {slot} is free"
        return job

    @property
    def active(self) -> list[int]:
        """Numbers of the slots that hold a job."""
        return [slot for slot, job in enumerate(self.jobs) if job is not None]

    def put(
        self,
        slot: int,
        job: Job,
        given: JobInput,
        schedule: unipc.SolverSchedule,
        parked: Parked | None = None,
    ) -> None:
        """Start a job in a free slot, or let a parked one go on."""
        count, device = len(schedule), self._nets.device
        self._table[slot].zero_()
        self._table[slot, :count] = torch.from_numpy(schedule.table).to(device, torch.float32)
        self._timesteps[slot].zero_()
        self._timesteps[slot, :count] = torch.from_numpy(schedule.timesteps).to(device)
        self._load_state(slot, given.latent, parked)
        position = parked.position if parked else 0
        self._position[slot], self._advance[slot] = position, 1
        self.jobs[slot], self._left[slot] = job, count - position
        tiles = self._layout.cut(given.image01[None].to(device), scale=8)
        rows = slice(slot * len(self._layout), (slot + 1) * len(self._layout))
        self._inputs.condition[rows] = self._nets.embed_condition(tiles)
        self._inputs.prompt[rows], self._inputs.negative[rows] = job.prompt, job.negative
        self._inputs.guidance[rows], self._inputs.scale[rows] = job.guidance, job.scale

    def step(self) -> None:
        """Advance every slot by one solver step."""
        output = self._evaluate(self._timesteps[self._slot, self._position])
        self._state = unipc.step(self._state, output, self._table[self._slot, self._position])
        self._position += self._advance
        for slot in self.active:
            self._left[slot] -= 1

    def finished(self) -> list[int]:
        """Numbers of the slots whose jobs have made their last step."""
        return [slot for slot in self.active if self._left[slot] == 0]

    def nonfinite(self) -> list[int]:
        """Numbers of the active slots whose latents hold an infinity or not-a-number."""
        is_finite = torch.isfinite(self._state.x).flatten(1).all(dim=1).tolist()
        return [slot for slot in self.active if not is_finite[slot]]

    def take(self, slot: int) -> Tensor:
        """Copy a slot's latent, float32 [C, height, width], and free the slot."""
        latent = self._state.x[slot].clone()
        self.clear(slot)
        return latent

    def clear(self, slot: int) -> None:
        """Free a slot and forget what was in it."""
        for part in vars(self._state).values():
            part[slot].zero_()
        self._table[slot].zero_()
        self._position[slot], self._advance[slot] = 0, 0
        self.jobs[slot], self._left[slot] = None, 0

    def park(self) -> dict[str, Parked]:
        """Copy what is needed to go on with every active job, by key."""
        positions = self._position.tolist()
        state = torch.stack(list(vars(self._state).values()), dim=1).cpu()
        return {
            job.key: Parked(positions[slot], state[slot].clone())
            for slot, job in enumerate(self.jobs)
            if job is not None
        }

    def probe(self, rows: int = 1) -> tuple[Tensor, Tensor, SlotInputs]:
        """Arguments of a network call of `rows` rows, for measuring it."""
        latent = self._layout.cut(self._state.x)[:rows]
        return latent, torch.zeros_like(self._inputs.prompt[:rows]), self._inputs.rows(slice(rows))

    def rows_are_alike(self) -> bool:
        """Tell whether equal rows give equal bits at every position of the batch.

        Overwrites the slots, which must be free.
        """
        probe = torch_generator(0)
        is_alike = True
        for timestep in _PROBE_TIMESTEPS:
            for value in (self._state.x, self._inputs.condition):
                row = torch.randn(value.shape[1:], generator=probe).to(value)
                value.copy_(row.expand_as(value))
            self._inputs.guidance.fill_(7.5)
            self._inputs.scale.fill_(1.0)
            output = self._rows(self._timesteps.new_full((len(self.jobs),), timestep))
            if len(self._layout) == 1:
                is_alike &= bool((output == output[0]).all())
            else:
                output = output.unflatten(0, (-1, len(self._layout)))
                is_alike &= bool((output == output[:1]).all())
        for value in (self._state.x, *vars(self._inputs).values()):
            value.zero_()
        return is_alike

    def _evaluate(self, timesteps: Tensor) -> Tensor:
        return self._layout.blend(self._rows(timesteps), *self._shape[1:])

    def _rows(self, timesteps: Tensor) -> Tensor:
        """Network outputs of every row, before tiles are blended."""
        tiles = self._layout.cut(self._state.x)
        times = timesteps.repeat_interleave(len(self._layout))
        chunks = [
            self._predict(tiles[rows], times[rows], self._inputs.rows(rows))
            for rows in _slices(len(tiles), self._rows_per_call)
        ]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def _load_state(self, slot: int, latent: Tensor, parked: Parked | None) -> None:
        parts: Sequence[Tensor]
        if parked is not None:
            parts = parked.state.to(self._nets.device).unbind(0)
        else:
            latent = latent.to(self._nets.device)
            zero = torch.zeros_like(latent)
            parts = (latent, zero, zero, zero)
        for target, part in zip(vars(self._state).values(), parts, strict=True):
            target[slot] = part

    def _empty_inputs(self, rows: int) -> SlotInputs:
        device = self._nets.device
        tile = torch.zeros((1, 3, 8 * self._layout.height, 8 * self._layout.width), device=device)
        embedding = self._nets.embed_condition(tile)
        index = torch.zeros(rows, dtype=torch.int64, device=device)
        factor = torch.zeros((rows, 1, 1, 1), device=device)
        return SlotInputs(
            condition=embedding.new_zeros((rows, *embedding.shape[1:])),
            prompt=index,
            negative=index.clone(),
            guidance=factor,
            scale=torch.zeros_like(factor, dtype=embedding.dtype),
        )


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
