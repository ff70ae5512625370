"""Sampling throughput: this engine against batch one, and against padded static batches.

    python -m benchmarks.sampling [--device cpu|cuda] [--jobs 48] [--slots 8] [--compile MODE]

Steps are drawn from [20, 1000] as in the paper and divided by --scale. All three ways work
on the same jobs with the same nets in the same process, in turns, and the ratios of the
medians are printed: (a) the release's loop, one image at a time through the stock diffusers
scheduler; (b) static batches in plan order, each as long as its longest member; the engine.
(b) has the engine's nets, with all that they keep per image and prompt. Decoding is left out
of all three. On a CPU, process time is taken, so that other load cancels, and the nets are
tiny; on a GPU the nets have the size of Stable Diffusion 1.5 with random weights in bfloat16.
On a device with a time limit: --jobs 64 --scale 20, once with each --compile.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ControlNetModel, UniPCMultistepScheduler
from torch import Tensor

from enhancer.sample import unipc
from enhancer.sample.accounting import matmul_rate
from enhancer.sample.board import Job, JobInput, SlotBoard
from enhancer.sample.engine import DEFAULT_TILING, Engine, EngineOptions
from enhancer.sample.nets import PromptedNets
from enhancer.unet import PacaUNet2DConditionModel

PAPER_IMAGES, PAPER_DEVICES, PAPER_DAYS = 179_208, 20, 20
PAPER_EVALUATIONS = 400_242_556  # of the plan of configs/diffiqa.yaml (docs/scale.md)
NOISE = unipc.noise_schedule({})
LatentJob = tuple[Tensor, Tensor, int]


@dataclass(frozen=True)
class Setting:
    """Nets and sizes of one benchmark."""

    unet: Any
    controlnet: Any
    prompts: Tensor
    latent_px: int
    nets: PromptedNets

    @property
    def device(self) -> torch.device:
        """Where everything is."""
        return self.prompts.device


def make_setting(device: str, compile_mode: str) -> Setting:
    """Random nets: Stable Diffusion 1.5 in bfloat16 on a GPU, tiny in float32 on a CPU."""
    is_gpu = device == "cuda"
    widths = (320, 640, 1280, 1280) if is_gpu else (32, 64, 64, 64)
    width, heads, groups = (768, 8, 32) if is_gpu else (32, 4, 8)
    shape = {
        "block_out_channels": widths,
        "cross_attention_dim": width,
        "attention_head_dim": heads,
        "norm_num_groups": groups,
    }
    torch.manual_seed(0)
    with torch.device(device):
        unet = PacaUNet2DConditionModel(**shape).eval()
        controlnet = ControlNetModel.from_unet(unet).eval()
        prompts = torch.randn(2, 77, width)
    if is_gpu:
        options = {"dtype": torch.bfloat16, "memory_format": torch.channels_last}
        unet, controlnet = unet.to(**options), controlnet.to(**options)
    with torch.inference_mode():
        nets = PromptedNets(unet, controlnet, prompts, compile_mode=compile_mode)
    return Setting(unet, controlnet, prompts, 64 if is_gpu else 8, nets)


def draw_jobs(setting: Setting, count: int, scale: int) -> list[LatentJob]:
    """Jobs with steps from [20, 1000] / scale."""
    draws = random.Random(0)
    side = setting.latent_px
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(4, side, side, generator=generator),
            torch.rand(3, 8 * side, 8 * side, generator=generator),
            max(1, round(draws.randint(20, 1000) / scale)),
        )
        for _ in range(count)
    ]


@torch.inference_mode()
def batch_one(setting: Setting, jobs: list[LatentJob]) -> None:
    """The release's loop: both prompt halves of one image, stock scheduler, nothing cached."""
    dtype = next(setting.unet.parameters()).dtype
    text = setting.prompts.to(dtype)
    for start, image01, steps in jobs:
        scheduler = UniPCMultistepScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            final_sigmas_type="sigma_min",
        )  # fmt: skip
        scheduler.set_timesteps(steps, device=setting.device)
        latent = start[None].to(setting.device, dtype)
        condition = image01[None].to(setting.device, dtype).expand(2, -1, -1, -1)
        for timestep in scheduler.timesteps:
            twice = torch.cat([latent, latent])
            down, mid = setting.controlnet(
                twice, timestep, encoder_hidden_states=text, controlnet_cond=condition,
                return_dict=False,
            )  # fmt: skip
            output = setting.unet(
                twice, timestep, encoder_hidden_states=text, return_dict=False,
                down_block_additional_residuals=down, mid_block_additional_residual=mid,
            )[0]  # fmt: skip
            uncond, cond = output.chunk(2)
            output = uncond + 7.5 * (cond - uncond)
            latent = scheduler.step(output, timestep, latent, return_dict=False)[0]


class _AtHand:
    """Port for jobs whose inputs are at hand and whose latents nobody wants."""

    def __init__(self, jobs: list[LatentJob]) -> None:
        self._jobs = jobs

    def load(self, job: Job) -> JobInput:
        return JobInput(*self._jobs[int(job.key)][:2])

    def finish(self, job: Job, latent: Tensor) -> None: ...

    def fail(self, job: Job, reason: str, detail: str) -> None:
        raise RuntimeError(f"{job.key}: {reason} {detail}")


def planned(jobs: list[LatentJob]) -> list[Job]:
    """Describe jobs to the engine: guided, prompt 1 against prompt 0."""
    return [
        Job(f"{index:05}", steps, None, *latent.shape[1:], 7.5, 1.0, 1, 0)
        for index, (latent, _, steps) in enumerate(jobs)
    ]


def denoise(setting: Setting, jobs: list[LatentJob], slots: int) -> None:
    """All jobs through this engine."""
    options = EngineOptions(slots=slots, workers=0)
    Engine(setting.nets, NOISE, options).run(planned(jobs), _AtHand(jobs))


@torch.inference_mode()
def padded(setting: Setting, jobs: list[LatentJob], slots: int) -> None:
    """Static batches in plan order: slots of finished images stay empty until the batch ends."""
    side = setting.latent_px
    board = SlotBoard(
        setting.nets, slots, layout=DEFAULT_TILING.layout(side, side), shape=(4, side, side),
        is_guided=True, max_rows=slots, max_steps=max(steps for _, _, steps in jobs),
    )  # fmt: skip
    inputs, described = _AtHand(jobs), planned(jobs)
    for start in range(0, len(jobs), slots):
        batch = described[start : start + slots]
        for slot, job in enumerate(batch):
            board.put(slot, job, inputs.load(job), unipc.solver_schedule(NOISE, job.steps))
        for _ in range(max(job.steps for job in batch)):
            board.step()
            for slot in board.finished():
                board.take(slot)


def seconds(device: torch.device, work: Callable[[], None]) -> float:
    """Process time on a CPU, wall time on a GPU."""
    is_gpu = device.type == "cuda"
    clock = time.perf_counter if is_gpu else time.process_time
    if is_gpu:
        torch.cuda.synchronize()
    start_s = clock()
    work()
    if is_gpu:
        torch.cuda.synchronize()
    return clock() - start_s


class _Occupancy:
    """Port and watch that cost nothing, for counting slots."""

    def __init__(self) -> None:
        self.active = self.slots = self.flops = 0

    def load(self, job: Job) -> JobInput:
        return JobInput(torch.zeros(4, 2, 2), torch.zeros(3, 16, 16))

    def finish(self, job: Job, latent: Tensor) -> None: ...

    def fail(self, job: Job, reason: str, detail: str) -> None: ...

    def stepped(self, active: int, slots: int, evaluations: int) -> None:
        self.active, self.slots = self.active + active, self.slots + slots

    def counted(self, flops: int) -> None:
        self.flops = flops


class _FreeNets(PromptedNets):
    """Nets that predict nothing, at no cost."""

    def __init__(self) -> None:
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def embed_condition(self, image01: Tensor) -> Tensor:
        return image01.new_zeros(len(image01), 1, 2, 2)

    def predict(self, latent: Tensor, *_: Any) -> Tensor:
        return latent

    def count_flops(self, *_: Any) -> int:
        return 0


def occupancy(jobs: int, slots: int) -> float:
    """Share of slots that hold an image, over a plan with the paper's steps."""
    draws = random.Random(1)
    plan = [
        Job(f"{i:04}", draws.randint(20, 1000), None, 2, 2, 7.5, 1.0, 0, 0) for i in range(jobs)
    ]
    watch = _Occupancy()
    options = EngineOptions(slots=slots, workers=0)
    Engine(_FreeNets(), NOISE, options, watch=watch).run(plan, watch)
    return watch.active / watch.slots


def flops_per_evaluation(setting: Setting) -> int:
    """Operations of one ControlNet + UNet pass over one latent."""
    watch, side = _Occupancy(), setting.latent_px
    jobs = [(torch.zeros(4, side, side), torch.zeros(3, 8 * side, 8 * side), 1)]
    options = EngineOptions(slots=1, workers=0)
    Engine(setting.nets, NOISE, options, watch=watch).run(planned(jobs), _AtHand(jobs))
    return watch.flops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default=None)
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--slots", type=int, default=None)
    parser.add_argument("--scale", type=int, default=None, help="divide the paper's steps by this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--compile", default="off", help="mode of torch.compile, for engine and (b)"
    )
    args = parser.parse_args()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    is_gpu = device == "cuda"
    slots = args.slots or (32 if is_gpu else 8)
    setting = make_setting(device, args.compile)
    jobs = draw_jobs(setting, args.jobs or (4 * slots), args.scale or (10 if is_gpu else 50))
    steps = sum(job[2] for job in jobs)
    # the loop's rate does not depend on the mix of steps, so that a few jobs are enough
    few = jobs[: max(1, len(jobs) // 8)]
    share = steps / sum(job[2] for job in few)
    # every shape once, compiled and tuned, before time is taken
    denoise(setting, [(latent, image01, 2) for latent, image01, _ in jobs[:slots]], slots)
    batch_one(setting, [(*jobs[0][:2], 2)])
    ways: dict[str, Callable[[], None]] = {
        "a": lambda: batch_one(setting, few),
        "b": lambda: padded(setting, jobs, slots),
        "engine": lambda: denoise(setting, jobs, slots),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, work in ways.items():
            spent_s = seconds(setting.device, work)
            times[name].append(spent_s * (share if name == "a" else 1))
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{device}: {len(jobs)} jobs, {steps} steps, {slots} slots, medians of {args.rounds}")
    print(f"  (a) batch one, stock scheduler   {steps / median['a']:8.1f} steps/s")
    print(f"  (b) padded static batches        {steps / median['b']:8.1f} steps/s")
    print(f"  engine                           {steps / median['engine']:8.1f} steps/s")
    print(f"  engine / (a) = {median['a'] / median['engine']:.2f}   (GPU goal 5)")
    print(f"  engine / (b) = {median['b'] / median['engine']:.2f}   (GPU goal 1.6)")
    print(f"  slot occupancy on 500 jobs, 32 slots: {occupancy(500, 32):.1%} (goal 95 %)")
    rate = 2 * steps / median["engine"] * flops_per_evaluation(setting)
    if not is_gpu:
        print(f"  {rate / 1e9:.1f} GFLOP/s with tiny nets")
        print("  GPU rows (SD1.5 size, bfloat16; share of matrix-product rate; days): not measured")
        return
    peak = matmul_rate(setting.device, torch.bfloat16)
    seconds_per_evaluation = median["engine"] / (2 * steps)
    days = PAPER_EVALUATIONS * seconds_per_evaluation / PAPER_DEVICES / 86400
    print(f"  {rate / 1e12:.0f} TFLOP/s, {rate / peak:.0%} of the matrix-product rate (goal 45 %)")
    print(
        f"  {seconds_per_evaluation:.5f} s an evaluation (enhancer.sample.seconds_per_evaluation)"
    )
    print(
        f"  {PAPER_IMAGES:,} images on {PAPER_DEVICES} such devices: {days:.2f} days of denoising"
    )
    print(f"  (the paper: {PAPER_DAYS} days on {PAPER_DEVICES} V100)")


if __name__ == "__main__":
    main()
