"""The engine: reference latents, independence of the batch, faults."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file
from torch import Tensor

from enhancer import denoise_latents
from enhancer.sample import unipc
from enhancer.sample.board import Job, JobInput, Parked
from enhancer.sample.engine import Engine, EngineOptions, passes
from enhancer.sample.nets import PromptedNets
from enhancer.sample.tiles import Tiling
from enhancer.unet import PacaUNet2DConditionModel
from runtime.errors import DataError, ResourceError
from tests.enhancer.sample.stub_nets import StubControlNet, StubUNet

NOISE = unipc.noise_schedule({})
PROMPTS = torch.zeros(2, 3, 4)
TOLERANCE = 1e-5


def relative_to_max(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "pasd/sampling_io.safetensors")


@pytest.fixture(scope="module")
def prompts(reference: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "prompt_embeds": reference["in.cond_embeds"],
        "negative_prompt_embeds": reference["in.uncond_embeds"],
    }


@pytest.mark.parametrize("slots", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_reference_runs_side_by_side(
    nets: Any, reference: dict[str, Tensor], prompts: dict[str, Tensor], slots: int
) -> None:
    start, image01 = reference["in.initial_latent"][0], reference["in.controlnet_cond"][0]
    jobs = [(start, image01, 20), (start, image01, 37)]
    ends = denoise_latents(*nets, jobs, slots=slots, **prompts)
    for steps, latent in zip((20, 37), ends):
        assert relative_to_max(latent, reference[f"steps{steps}.latent_final"][0]) < TOLERANCE


@pytest.mark.parametrize("level", [20, pytest.param(37, marks=pytest.mark.slow)])
def test_reference_runs_from_the_released_start(
    nets: Any, reference: dict[str, Tensor], prompts: dict[str, Tensor], level: int
) -> None:
    start = reference[f"gtmode.level{level}.initial_latent"][0]
    ends = denoise_latents(
        *nets, [(start, reference["in.controlnet_cond"][0], level)], slots=1, **prompts
    )
    assert relative_to_max(ends[0], reference[f"gtmode.level{level}.latent_final"][0]) < TOLERANCE


def test_reference_run_without_guidance(nets: Any, reference: dict[str, Tensor]) -> None:
    job = (reference["in.initial_latent"][0], reference["in.controlnet_cond"][0], 20)
    ends = denoise_latents(
        *nets, [job], prompt_embeds=reference["in.cond_embeds"], guidance_scale=1
    )
    assert relative_to_max(ends[0], reference["nocfg.steps20.latent_final"][0]) < TOLERANCE


@pytest.mark.parametrize("slots", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_reference_run_in_tiles(
    nets: Any, reference: dict[str, Tensor], prompts: dict[str, Tensor], slots: int
) -> None:
    image01 = reference["tiled.controlnet_cond"][0].float() / 255
    job = (reference["tiled.initial_latent"][0], image01, 5)
    ends = denoise_latents(*nets, [job], slots=slots, tiling=Tiling(16, 4), **prompts)
    assert relative_to_max(ends[0], reference["tiled.latent_after_step.05"][0]) < TOLERANCE


def test_public_call_leaves_nets_and_inputs_alone(nets: Any, prompts: dict[str, Tensor]) -> None:
    unet, controlnet = nets
    job = (torch.randn(4, 8, 8), torch.rand(3, 64, 64), 3)
    before = [value.clone() for value in job[:2]]
    names = [name for net in nets for name, _ in net.named_modules()]
    first = denoise_latents(unet, controlnet, [job], **prompts)[0]
    second = denoise_latents(unet, controlnet, [job], **prompts)[0]
    assert torch.equal(first, second)
    assert all(torch.equal(one, two) for one, two in zip(before, job))
    assert names == [name for net in nets for name, _ in net.named_modules()]
    assert not first.is_inference()
    assert first.dtype == torch.float32


def test_public_call_without_jobs_and_with_wrong_ones(nets: Any, prompts: Any) -> None:
    assert denoise_latents(*nets, [], **prompts) == []
    with pytest.raises(DataError, match="job 0"):
        denoise_latents(*nets, [(torch.zeros(4, 8, 8), torch.zeros(3, 32, 64), 3)], **prompts)
    with pytest.raises(DataError, match="steps 0"):
        denoise_latents(*nets, [(torch.zeros(4, 8, 8), torch.zeros(3, 64, 64), 0)], **prompts)
    with pytest.raises(DataError, match="negative_prompt_embeds"):
        denoise_latents(*nets, [], prompt_embeds=prompts["prompt_embeds"])
    with pytest.raises(DataError, match=r"steps 2\.5"):
        denoise_latents(*nets, [(torch.zeros(4, 8, 8), torch.zeros(3, 64, 64), 2.5)], **prompts)
    with pytest.raises(DataError, match=r"expected \[4, h, w\]"):
        denoise_latents(*nets, [(torch.zeros(3, 8, 8), torch.zeros(3, 64, 64), 2)], **prompts)
    with pytest.raises(DataError, match="slots -1"):
        denoise_latents(*nets, [], slots=-1, **prompts)
    with pytest.raises(DataError, match=r"prompt_embeds \(2, 77, 32\)"):
        denoise_latents(*nets, [], prompt_embeds=torch.zeros(2, 77, 32), guidance_scale=1)
    with pytest.raises(DataError, match="the same tokens and width"):
        denoise_latents(*nets, [], **{**prompts, "prompt_embeds": torch.zeros(1, 3, 32)})


def stub_jobs(steps: Iterable[int]) -> list[tuple[Tensor, Tensor, int]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(4, 4, 6, generator=generator), torch.rand(3, 32, 48, generator=generator), n)
        for n in steps
    ]


def denoise_stub(jobs: list[tuple[Tensor, Tensor, int]], slots: int) -> list[Tensor]:
    return denoise_latents(
        StubUNet(), StubControlNet(), jobs, slots=slots,
        prompt_embeds=PROMPTS[:1], negative_prompt_embeds=PROMPTS[1:],
    )  # fmt: skip


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7])
def test_mixed_steps_equal_each_run_alone(slots: int) -> None:
    jobs = stub_jobs([7, 20, 37, 999, 1000])
    for found, job in zip(denoise_stub(jobs, slots), jobs):
        assert torch.isfinite(found).all()
        assert relative_to_max(found, denoise_stub([job], 1)[0]) < TOLERANCE


@pytest.mark.slow
def test_mixed_steps_equal_each_run_alone_with_real_blocks(nets: Any, prompts: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    jobs = [
        (torch.randn(4, 8, 8, generator=generator), torch.rand(3, 64, 64, generator=generator), n)
        for n in (7, 20, 37, 999)
    ]
    together = denoise_latents(*nets, jobs, slots=4, **prompts)
    for found, job in zip(together, jobs):
        alone = denoise_latents(*nets, [job], slots=1, **prompts)[0]
        assert relative_to_max(found, alone) < TOLERANCE


def test_bits_do_not_depend_on_neighbours_and_position(nets: Any, prompts: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    jobs = [
        (torch.randn(4, 8, 8, generator=generator), torch.rand(3, 64, 64, generator=generator), n)
        for n in (3, 5, 4, 6, 2, 7)
    ]
    expected = denoise_latents(*nets, jobs, slots=3, **prompts)
    shuffled = list(range(len(jobs)))
    random.Random(1).shuffle(shuffled)
    found = denoise_latents(*nets, [jobs[i] for i in shuffled], slots=3, **prompts)
    for position, index in enumerate(shuffled):
        assert torch.equal(found[position], expected[index])


class KeptPort:
    """Makes inputs from a job's key, keeps latents and failures."""

    def __init__(self) -> None:
        self.latents: dict[str, Tensor] = {}
        self.failures: dict[str, str] = {}
        self.unreadable: set[str] = set()
        self.loaded: list[str] = []

    def load(self, job: Job) -> JobInput:
        self.loaded.append(job.key)
        if job.key in self.unreadable:
            raise DataError(f"{job.key}: not readable")
        generator = torch.Generator().manual_seed(int(job.key))
        latent = torch.randn(4, job.height, job.width, generator=generator)
        image01 = torch.rand(3, 8 * job.height, 8 * job.width, generator=generator)
        return JobInput(latent, image01)

    def finish(self, job: Job, latent: Tensor) -> None:
        assert job.key not in self.latents, "an image was made twice"
        self.latents[job.key] = latent

    def fail(self, job: Job, reason: str, detail: str) -> None:
        self.failures[job.key] = reason


class Counter:
    """Watch that adds up steps and slots."""

    def __init__(self) -> None:
        self.active = self.slots = self.evaluations = self.flops = 0

    def stepped(self, active: int, slots: int, evaluations: int) -> None:
        self.active, self.slots = self.active + active, self.slots + slots
        self.evaluations += evaluations

    def counted(self, flops: int) -> None:
        self.flops = flops


def job(key: int, steps: int, side: int = 4, **changes: Any) -> Job:
    values = {"level": None, "guidance": 2.0, "scale": 1.0, "prompt": 0, "negative": 1, **changes}
    return Job(key=f"{key:04}", steps=steps, height=side, width=side, **values)


def engine(unet: StubUNet, watch: Counter | None = None, **options: Any) -> Engine:
    stub = PromptedNets(unet, StubControlNet(), PROMPTS)
    return Engine(stub, NOISE, EngineOptions(**options), watch=watch)


def run_jobs(jobs: list[Job], unet: StubUNet | None = None, **options: Any) -> KeptPort:
    port = KeptPort()
    engine(unet or StubUNet(), **options).run(jobs, port)
    return port


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("slots", [1, 5, 16])
def test_all_kinds_of_jobs_get_done(workers: int, slots: int) -> None:
    jobs = [
        job(i, 1 + i % 9, side=4 if i % 5 else 12, level=300 if i % 3 else None,
            guidance=1.0 if i % 4 == 0 else 7.5)
        for i in range(60)
    ]  # fmt: skip
    tiling = Tiling(8, 2)
    port = run_jobs(jobs, slots=slots, workers=workers, tiling=tiling)
    assert sorted(port.latents) == [item.key for item in jobs]
    alone = run_jobs([jobs[10]], slots=1, workers=0, tiling=tiling)
    assert relative_to_max(port.latents["0010"], alone.latents["0010"]) < TOLERANCE


def test_slots_stay_busy_on_a_long_plan() -> None:
    steps = random.Random(0)
    jobs = [job(i, steps.randint(20, 1000) // 10, side=2) for i in range(500)]
    watch = Counter()
    engine(StubUNet(), watch, slots=32, workers=1).run(jobs, KeptPort())
    assert watch.active == sum(item.steps for item in jobs)
    assert watch.active / watch.slots >= 0.95


def test_occupancy_with_large_latents_among_small_ones() -> None:
    steps = random.Random(0)
    jobs = [
        job(i, steps.randint(20, 1000) // 10, side=2 if i % 5 else 4, guidance=3.0)
        for i in range(500)
    ]
    watch = Counter()
    engine(StubUNet(), watch, slots=32, workers=0, tiling=Tiling(2, 0)).run(jobs, KeptPort())
    assert watch.active / watch.slots >= 0.95
    tiles = {2: 1, 4: 4}
    assert watch.evaluations == sum(2 * tiles[item.height] * item.steps for item in jobs)


def test_passes_put_large_latents_and_long_jobs_first() -> None:
    jobs = [job(0, 3), job(1, 9), job(2, 5, side=16), job(3, 4, guidance=1.0)]
    found = [[item.key for item in group] for group in passes(jobs, Tiling(8, 2))]
    assert found == [["0002"], ["0001", "0000"], ["0003"]]


def test_memory_error_halves_the_slots_and_keeps_every_bit() -> None:
    jobs = [job(i, 3 + i % 7) for i in range(12)]
    expected = run_jobs(jobs, slots=2, workers=0)
    rows: list[int] = []

    def run_out_above_four_rows(sample: Tensor, timestep: Tensor) -> Tensor:
        rows.append(len(sample))
        if len(sample) > 4 and len(rows) > 9:
            raise torch.OutOfMemoryError("no memory")
        return sample

    port = run_jobs(jobs, StubUNet(run_out_above_four_rows), slots=8, workers=0)
    assert rows[-1] == 4
    assert sorted(port.latents) == [item.key for item in jobs]
    for key, latent in port.latents.items():
        assert relative_to_max(latent, expected.latents[key]) < TOLERANCE


def test_memory_error_with_one_slot_says_what_to_do() -> None:
    def run_out(sample: Tensor, timestep: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(ResourceError, match="single slot"):
        run_jobs([job(i, 3) for i in range(4)], StubUNet(run_out), slots=4)


def test_nonfinite_latent_fails_one_image_only() -> None:
    jobs = [job(i, 60 + i) for i in range(6)]
    poisoned = float(KeptPort().load(jobs[2]).latent[0, 0, 0])

    def poison(sample: Tensor, timestep: Tensor) -> Tensor:
        hit = (sample[:, 0, 0, 0] == poisoned).reshape(-1, 1, 1, 1)
        return torch.where(hit, torch.nan, sample)

    port = run_jobs(jobs, StubUNet(poison), slots=3)
    assert port.failures == {"0002": "non_finite"}
    clean = run_jobs(jobs, slots=3)
    for key in sorted(set(clean.latents) - {"0002"}):
        assert torch.equal(port.latents[key], clean.latents[key])


def test_unreadable_input_and_impossible_level_fail_one_image_only() -> None:
    jobs = [job(i, 5, level=0 if i == 3 else None) for i in range(6)]
    port = KeptPort()
    port.unreadable = {"0001"}
    engine(StubUNet(), slots=2).run(jobs, port)
    assert port.failures == {"0001": "bad_input", "0003": "bad_input"}
    assert len(port.latents) == 4


def test_error_of_a_background_task_ends_the_run() -> None:
    class FullDisk(KeptPort):
        def finish(self, job: Job, latent: Tensor) -> None:
            raise OSError(28, "No space left on device", "out.tar")

    with pytest.raises(OSError, match="No space left"):
        engine(StubUNet(), slots=2).run([job(i, 5) for i in range(6)], FullDisk())


@pytest.mark.parametrize("stop_at", [1, 4, 12])
def test_parked_jobs_go_on_to_the_same_bits(stop_at: int) -> None:
    jobs = [job(i, 3 + i % 8, level=200 if i % 2 else None) for i in range(9)]
    expected = run_jobs(jobs, slots=4)
    port, parked = KeptPort(), dict[str, Parked]()
    starts = 0
    while len(port.latents) < len(jobs):
        asked = iter(range(1000))
        parked = engine(StubUNet(), slots=4).run(
            jobs, port, done=set(port.latents), parked=parked,
            should_stop=lambda asked=asked: next(asked) >= stop_at + 1,
        )  # fmt: skip
        starts += 1
        assert starts < 100
    assert starts > 1
    for key, latent in expected.latents.items():
        assert torch.equal(port.latents[key], latent)


def test_rows_that_differ_by_position_are_evaluated_one_by_one() -> None:
    """A network whose last row differs, as elementwise kernels do on odd sizes."""
    rows: list[int] = []

    def shift_last_of_many(sample: Tensor, timestep: Tensor) -> Tensor:
        rows.append(len(sample))
        shift = torch.zeros(len(sample), 1, 1, 1)
        if len(sample) > 2:
            shift[-1] = 1e-6
        return sample + shift

    jobs = [job(i, 4) for i in range(6)]
    port = run_jobs(jobs, StubUNet(shift_last_of_many), slots=3)
    assert set(rows[-10:]) == {2}
    clean = run_jobs(jobs, slots=1)
    for key, latent in clean.latents.items():
        assert torch.equal(port.latents[key], latent)


def test_operations_are_counted(nets: Any, reference: dict[str, Tensor]) -> None:
    watch, port = Counter(), KeptPort()
    prompted = PromptedNets(*nets, torch.cat([reference["in.cond_embeds"]] * 2))
    Engine(prompted, NOISE, EngineOptions(slots=1), watch=watch).run([job(0, 1, side=8)], port)
    assert 1e6 < watch.flops < 1e9
    assert watch.evaluations == 2


def small_nets() -> tuple[Any, Any]:
    """Real blocks, one level."""
    torch.manual_seed(0)
    unet = PacaUNet2DConditionModel(
        block_out_channels=(8,), layers_per_block=1, cross_attention_dim=4, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        attention_head_dim=2,
    )  # fmt: skip
    controlnet = ControlNetModel.from_unet(unet)
    for parameter in controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return unet.eval(), controlnet.eval()


def latents_of(prompted: PromptedNets) -> dict[str, Tensor]:
    jobs = [job(i, 3 + i, side=8, guidance=7.5) for i in range(5)]
    port = KeptPort()
    Engine(prompted, NOISE, EngineOptions(slots=2, workers=1)).run(jobs, port)
    return port.latents


@pytest.mark.slow
def test_compiled_nets_give_the_same_latents() -> None:
    table = torch.randn(2, 7, 4)
    eager = latents_of(PromptedNets(*small_nets(), table))
    compiled = latents_of(PromptedNets(*small_nets(), table, compile_mode="default"))
    for key, latent in eager.items():
        assert relative_to_max(compiled[key], latent) < TOLERANCE


@pytest.mark.gpu
@pytest.mark.parametrize("compile_mode", ["off", "default", "reduce-overhead"])
def test_gpu_gives_the_latents_of_the_cpu(compile_mode: str) -> None:
    table = torch.randn(2, 7, 4)
    expected = latents_of(PromptedNets(*small_nets(), table))
    unet, controlnet = (net.to("cuda") for net in small_nets())
    found = latents_of(PromptedNets(unet, controlnet, table, compile_mode=compile_mode))
    for key, latent in expected.items():
        assert relative_to_max(found[key].cpu(), latent) < 1e-3


@pytest.mark.gpu
def test_slots_are_found_from_free_memory() -> None:
    unet, controlnet = (net.to("cuda") for net in small_nets())
    prompted, port = PromptedNets(unet, controlnet, torch.randn(2, 7, 4)), KeptPort()
    jobs = [job(i, 2, side=8) for i in range(40)]
    Engine(prompted, NOISE, EngineOptions(slots=0, max_slots=8)).run(jobs, port)
    assert len(port.latents) == 40


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["load", "finish"])
def test_memory_that_ends_in_the_background_halves_the_slots(where: str, workers: int) -> None:
    failures = iter(range(5 if where == "load" else 2))

    class Port(KeptPort):
        def try_memory(self, task: str) -> None:
            if task == where and next(failures, None) is not None:
                raise torch.OutOfMemoryError("no memory")

        def load(self, job: Job) -> JobInput:
            self.try_memory("load")
            return super().load(job)

        def finish(self, job: Job, latent: Tensor) -> None:
            self.try_memory("finish")
            super().finish(job, latent)

    jobs, port = [job(i, 3 + i % 4) for i in range(12)], Port()
    engine(StubUNet(), slots=8, workers=workers).run(jobs, port)
    clean = run_jobs(jobs, slots=2, workers=0)
    assert sorted(port.latents) == sorted(clean.latents)
    for key, latent in port.latents.items():
        assert relative_to_max(latent, clean.latents[key]) < TOLERANCE


@pytest.mark.parametrize(
    ("where", "message"), [("load", "single slot"), ("finish", "decoded with nothing beside it")]
)
def test_memory_that_does_not_hold_one_image_is_an_error(where: str, message: str) -> None:
    class Port(KeptPort):
        def load(self, job: Job) -> JobInput:
            if where == "load":
                raise torch.OutOfMemoryError("no memory")
            return super().load(job)

        def finish(self, job: Job, latent: Tensor) -> None:
            raise torch.OutOfMemoryError("no memory")

    with pytest.raises(ResourceError, match=message):
        engine(StubUNet(), slots=2).run([job(i, 3) for i in range(4)], Port())


def test_parked_work_outlives_memory_that_ends_when_it_is_put_back() -> None:
    jobs, port = [job(i, 40) for i in range(4)], KeptPort()
    steps = iter(range(10_000))
    parked = engine(StubUNet(), slots=4).run(jobs, port, should_stop=lambda: next(steps) > 30)
    assert {item.position for item in parked.values()} == {30}
    watch = Counter()
    again = engine(StubUNet(), watch, slots=4)
    embed, calls = again._nets.embed_condition, iter(range(10_000))

    def run_out_once(image01: Tensor) -> Tensor:
        if next(calls) == 3:
            raise torch.OutOfMemoryError("no memory")
        return embed(image01)

    again._nets.embed_condition = run_out_once
    again.run(jobs, port, parked=parked)
    assert sorted(port.latents) == [item.key for item in jobs]
    assert watch.active == 4 * 10
