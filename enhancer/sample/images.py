"""From planned rows to the engine's jobs, and from final latents to finished images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from enhancer.sample.base_model import BaseModel
from enhancer.sample.board import Job, JobInput
from enhancer.sample.color import Rounding, to_u8, wavelet_color_fix
from enhancer.sample.initial import initial_latent
from enhancer.sample.planned import LATENT_PX, PlannedImage, distinct_steps, resize
from enhancer.sample.store import ImageStore
from runtime.images import ImageU8, encode_png


@dataclass(frozen=True)
class Prompts:
    """The distinct prompts of a shard.

    Attributes:
        texts: in the order of the prompt table.
    """

    texts: tuple[str, ...]

    @classmethod
    def of(cls, images: Sequence[PlannedImage]) -> "Prompts":
        """Collect prompts and negative prompts of some images."""
        names = ("prompt", "negative_prompt")
        return cls(tuple(sorted({str(item.row[name]) for item in images for name in names})))

    def index(self, text: str) -> int:
        """Position of a text in the table."""
        return self.texts.index(text)


def job_of(image: PlannedImage, prompts: Prompts) -> Job:
    """Describe a planned image to the engine."""
    side = image.input_px // LATENT_PX
    return Job(
        key=image.test_id,
        steps=int(image.row["steps"]),
        level=image.solver_level,
        height=side,
        width=side,
        guidance=float(image.row["guidance"]),
        scale=float(image.row["conditioning_scale"]),
        prompt=prompts.index(image.row["prompt"]),
        negative=prompts.index(image.row["negative_prompt"]),
    )


class ImagePort:
    """Loads inputs for the engine and turns its latents into files.

    Args:
        images: all images of the shard.
        base: VAE and noise schedule.
        store: where results go.
        rounding: float to 8 bit.
        facts: what made the images, added to each record.
        on_done: called with the number of images (1) and of failed images (0 or 1), by one
            thread at a time.
    """

    def __init__(
        self,
        images: Sequence[PlannedImage],
        base: BaseModel,
        store: ImageStore,
        *,
        rounding: Rounding,
        facts: Mapping[str, Any],
        on_done: Callable[[int, int], None],
    ) -> None:
        self._images = {image.test_id: image for image in images}
        self._base, self._store = base, store
        self._rounding, self._facts = rounding, facts
        self._on_done, self._lock = on_done, Lock()
        self._device = next(base.vae.parameters()).device

    def load(self, job: Job) -> JobInput:
        """Read, encode and noise the input of a job."""
        image = self._images[job.key]
        image01 = self._input01(image)
        latent = initial_latent(
            image.row["init"],
            image.row["level"],
            seed=int(image.row["seed"]),
            shape=(self._base.latent_channels, job.height, job.width),
            noise=self._base.noise,
            encode=lambda drawn: self._base.encode(image01, drawn),
        )
        # on the CPU, so that the engine's stream copies what no other stream will overwrite
        return JobInput(latent.cpu(), image01.cpu())

    def finish(self, job: Job, latent: Tensor) -> None:
        """Decode, fix colours, resize back, encode and keep an image."""
        image = self._images[job.key]
        try:
            generated = self._base.decode(latent)
        except FloatingPointError as error:
            self.fail(job, "non_finite", str(error))
            return
        pixels = finish_pixels(
            generated,
            self._input01(image) if image.row["color_fix"] == "wavelet" else None,
            side_px=image.size_px,
            rounding=self._rounding,
        )
        steps = distinct_steps(job.steps, job.level)
        # how images are shared out says nothing about any of them
        planned = {name: value for name, value in image.row.items() if name != "shard"}
        record = {**planned, **self._facts, "solver_steps": steps, "input_px": image.input_px}
        self._store.put(job.key, encode_png(pixels), record)
        self._count(failed=0)

    def fail(self, job: Job, reason: str, detail: str) -> None:
        """Keep the reason of a failure."""
        self._store.put_failure(job.key, reason, detail)
        self._count(failed=1)

    def _count(self, *, failed: int) -> None:
        with self._lock:
            self._on_done(1, failed)

    def _input01(self, image: PlannedImage) -> Tensor:
        pixels = torch.from_numpy(image.read().copy()).to(self._device)
        return pixels.permute(2, 0, 1).float() / 255


def finish_pixels(
    generated01: Tensor, reference01: Tensor | None, *, side_px: int, rounding: Rounding
) -> ImageU8:
    """Turn a decoded image into the published one.

    Args:
        generated01: decoded image, float [3, H, W] in [0, 1]; rounded to 8 bit first (release).
        reference01: image whose colours are taken, same shape; None: none.
        side_px: side of the result.
        rounding: of the colour-fixed image.
    Returns:
        uint8 [side_px, side_px, 3].
    """
    image = to_u8(generated01)
    if reference01 is not None:
        fixed = wavelet_color_fix(image[None].float() / 255, reference01[None])
        image = to_u8(fixed[0], rounding)
    pixels: ImageU8 = image.permute(1, 2, 0).cpu().numpy()
    return resize(pixels, side_px)
