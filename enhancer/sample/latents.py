"""`denoise_latents`: the engine for callers who have latents at hand and need no run."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from enhancer.sample import unipc
from enhancer.sample.board import Job, JobInput
from enhancer.sample.engine import DEFAULT_TILING, Engine, EngineOptions
from enhancer.sample.nets import PromptedNets, stack_prompts
from enhancer.sample.tiles import Tiling
from runtime.errors import DataError


class _Gathered:
    """Port of `denoise_latents`: inputs at hand, results kept."""

    def __init__(self, inputs: Sequence[JobInput]) -> None:
        self._inputs = inputs
        self.latents: list[Tensor | None] = [None] * len(inputs)

    def load(self, job: Job) -> JobInput:
        return self._inputs[int(job.key)]

    def finish(self, job: Job, latent: Tensor) -> None:
        self.latents[int(job.key)] = latent

    def fail(self, job: Job, reason: str, detail: str) -> None:
        raise DataError(f"job {int(job.key)}: {reason}, {detail}")


def denoise_latents(
    unet: nn.Module,
    controlnet: nn.Module,
    jobs: Iterable[tuple[Tensor, Tensor, int]],
    *,
    prompt_embeds: Tensor,
    negative_prompt_embeds: Tensor | None = None,
    guidance_scale: float = 7.5,
    conditioning_scale: float = 1.0,
    slots: int = 4,
    noise: unipc.NoiseSchedule | None = None,
    final_sigma: unipc.FinalSigma = "sigma_min",
    tiling: Tiling = DEFAULT_TILING,
) -> list[Tensor]:
    """Denoise latents that differ in their number of steps, side by side.

    Args:
        unet: UNet with pixel-aware attention, in evaluation mode; not modified.
        controlnet: its ControlNet; not modified.
        jobs: initial latent, float [4, h, w]; condition, float [3, 8h, 8w] in [0, 1] RGB;
            steps, >= 1.
        prompt_embeds: text embedding, [1, tokens, width] or [tokens, width].
        negative_prompt_embeds: the same for the negative prompt; unused at guidance 1.
        guidance_scale: strength of the classifier-free guidance.
        conditioning_scale: weight of the ControlNet residuals.
        slots: latent tiles denoised side by side.
        noise: training schedule; Stable Diffusion 1.x by default.
        final_sigma: noise level after the last step.
        tiling: latents of a larger area than one tile are tiled.
    Returns:
        The final latents, float32 [4, h, w], in the order of `jobs`.
    Raises:
        DataError: a shape or a number of steps is wrong, or a latent became non-finite.
    """
    if guidance_scale != 1 and negative_prompt_embeds is None:
        raise DataError(f"guidance_scale {guidance_scale} needs negative_prompt_embeds")
    if slots < 1:
        raise DataError(f"slots {slots} found; expected 1 or more")
    negative = prompt_embeds if negative_prompt_embeds is None else negative_prompt_embeds
    prompts = _prompt_table(prompt_embeds, negative)
    channels = getattr(getattr(unet, "config", None), "in_channels", None)
    inputs, planned = [], []
    for index, (latent, image01, steps) in enumerate(jobs):
        channels = channels or latent.shape[0]
        _check_job(index, latent, image01, steps, channels)
        inputs.append(JobInput(latent.float(), image01))
        height, width = latent.shape[1:]
        planned.append(
            Job(f"{index:08}", steps, None, height, width, guidance_scale, conditioning_scale, 0, 1)
        )
    port = _Gathered(inputs)
    if planned:
        with torch.inference_mode():
            nets = PromptedNets(unet, controlnet, prompts)
        options = EngineOptions(slots, workers=0, final_sigma=final_sigma, tiling=tiling)
        schedule = noise or unipc.noise_schedule({})
        Engine(nets, schedule, options, channels=inputs[0].latent.shape[0]).run(planned, port)
    # copies, because tensors made in inference mode cannot take part in training
    return [latent.clone() for latent in port.latents if latent is not None]


def _prompt_table(prompt: Tensor, negative: Tensor) -> Tensor:
    for name, embedding in (("prompt_embeds", prompt), ("negative_prompt_embeds", negative)):
        if embedding.ndim not in (2, 3) or embedding.shape[:-2] not in ((), (1,)):
            raise DataError(
                f"{name} {tuple(embedding.shape)} found; expected [1, tokens, width] or "
                "[tokens, width]"
            )
    if prompt.shape[-2:] != negative.shape[-2:]:
        raise DataError(
            f"prompt_embeds {tuple(prompt.shape)} and negative_prompt_embeds "
            f"{tuple(negative.shape)} found; expected the same tokens and width"
        )
    return stack_prompts([prompt, negative])


def _check_job(index: int, latent: Tensor, image01: Tensor, steps: int, channels: int) -> None:
    expected = (3, 8 * latent.shape[-2], 8 * latent.shape[-1]) if latent.ndim == 3 else None
    if expected is None or tuple(image01.shape) != expected or latent.shape[0] != channels:
        raise DataError(
            f"job {index}: latent {tuple(latent.shape)} and image {tuple(image01.shape)} found; "
            f"expected [{channels}, h, w] and [3, 8h, 8w]"
        )
    if not hasattr(steps, "__index__") or steps < 1:
        raise DataError(f"job {index}: steps {steps} found; expected a whole number, 1 or more")
