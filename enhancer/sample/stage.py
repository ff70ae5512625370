"""`enhancer sample`: one shard of the plan to `samples/samples-{shard}.tar`.

Reads the plan's rows of the shard, crops, degraded inputs, the base model and the enhancer;
writes `<test_id>.png` and `<test_id>.json` of every image, and the manifest
`samples/samples-{shard}.json` last. Section 3.2 and appendix 1.2 of the paper.
"""

import logging
import signal
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import polars as pl
import torch

from enhancer.checkpoints import load_nets
from enhancer.components import base_folder, silence_model_libraries
from enhancer.sample.base_model import BaseModel, load_base_model
from enhancer.sample.board import Parked
from enhancer.sample.config import SAMPLE, SampleConfig
from enhancer.sample.engine import Engine, EngineOptions, Watch
from enhancer.sample.images import ImagePort, Prompts, job_of
from enhancer.sample.nets import PromptedNets
from enhancer.sample.planned import (
    PlannedImage,
    distinct_steps,
    evaluations,
    planned_images,
    read_plan,
)
from enhancer.sample.store import ImageStore
from enhancer.sample.tiles import Tiling
from runtime.errors import ConfigError, PreemptedError
from runtime.settings import RunSettings
from runtime.stage import Rejections, StageRun, open_stage
from runtime.tars import write_tar
from runtime.torch_device import choose_device, use_threads

_log = logging.getLogger(__name__)
_RECORDED = (
    "dtype", "vae_dtype", "final_sigma", "pixel_rounding", "tile_latent_px",
    "tile_overlap_latent_px",
)  # fmt: skip


class Monitor(Watch, Protocol):
    """Who is told how a shard goes."""

    def started(
        self, total: int, done: int, left: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """`done` of `total` images are there from earlier runs; `left` evaluations are to do."""

    def imaged(self, count: int, failed: int) -> None:
        """`count` more images are through, `failed` of them without a result."""

    def closed(self) -> None:
        """The shard ends or pauses."""


class Stop:
    """Turns SIGTERM into a question that the engine asks before every step."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit
        self.is_preempted = False

    def __enter__(self) -> "Stop":
        self._earlier = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._earlier)

    def count(self, images: int) -> None:
        """Count finished images against the limit."""
        if self._left is not None:
            self._left -= images

    def __call__(self) -> bool:
        """Tell whether to stop now."""
        return self.is_preempted or (self._left is not None and self._left <= 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_preempted = True


def run_shard(
    run: RunSettings,
    shard: int,
    monitor: Monitor,
    *,
    replace: bool = False,
    limit: int | None = None,
) -> None:
    """Make every image of one shard, or go on with an interrupted run.

    Args:
        run: the resolved configuration.
        shard: number of the shard.
        monitor: is told of every step and image.
        replace: discard work made with other settings, code or inputs.
        limit: stop, resumably, after about so many images.
    Raises:
        ConfigError: the plan has no such shard.
        DataError: an input is missing, or too large a share of the images failed.
        PreemptedError: SIGTERM came; finished and half-finished images are kept.
    """
    settings = run.section("enhancer.sample", SampleConfig)
    opened = open_stage(
        SAMPLE,
        run,
        manifest=run.root / f"samples/samples-{shard:05}.json",
        state=run.root / f"samples/.state/{shard:05}",
        inputs=input_files(run, shard),
        shard=shard,
        replace=replace,
    )
    if opened.is_complete:
        return
    images = planned_images(run.root, shard_rows(run, shard))
    store = ImageStore(opened.state)
    store.forget_bad_inputs()
    left = len(images) - len(store.done()) - len(store.failures())
    if left:
        with Stop(limit) as stop:
            _denoise(run, settings, images, store, monitor, stop)
        left = len(images) - len(store.done()) - len(store.failures())
        if stop.is_preempted:
            raise PreemptedError(f"shard {shard}: asked to stop, {left} images left; retry goes on")
    assert not left or limit is not None, f"{left} images were neither made nor failed"
    if left:
        _log.info("shard %d: limit reached, %d images left; run again to go on", shard, left)
    else:
        _write_shard(opened, settings, images, store)


def input_files(run: RunSettings, shard: int) -> list[Path]:
    """Small files that stand for a shard's inputs."""
    names = [
        "plan.parquet",
        "crops/manifest.json",
        f"degraded/degraded-{shard:05}.json",
        "enhancer/manifest.json",
    ]
    if run.value("enhancer.base_model") == "train":
        names.append("base/manifest.json")
    return [run.root / name for name in names]


def shard_rows(run: RunSettings, shard: int) -> pl.DataFrame:
    """Rows of the plan that belong to a shard; none where shards outnumber references.

    Raises:
        ConfigError: the plan has fewer shards.
    """
    count = int(run.value("plan.shards"))
    if not 0 <= shard < count:
        raise ConfigError(f"{run.path}: shard {shard} asked for; plan.shards is {count}")
    return read_plan(run.root).filter(pl.col("shard") == shard)


def tiling_of(settings: SampleConfig) -> Tiling:
    """Latent tiles that the settings ask for."""
    return Tiling(settings.tile_latent_px, settings.tile_overlap_latent_px)


def _denoise(
    run: RunSettings,
    settings: SampleConfig,
    images: Sequence[PlannedImage],
    store: ImageStore,
    monitor: Monitor,
    stop: Stop,
) -> None:
    """Load the models and let the engine work until all images are there or it must stop."""
    silence_model_libraries()
    device, dtype = choose_device(), getattr(torch, settings.dtype)
    if device.type == "cpu":
        use_threads(settings.cpu_threads)
    vae_dtype = getattr(torch, settings.vae_dtype)
    base = load_base_model(base_folder(run), device=device, vae_dtype=vae_dtype)
    prompts = Prompts.of(images)
    nets = _load_prompted_nets(run, settings, base, prompts, device, dtype)
    finished = store.done() | store.failures().keys()

    def on_done(count: int, failed: int) -> None:
        stop.count(count)
        monitor.imaged(count, failed)

    facts = {name: getattr(settings, name) for name in _RECORDED}
    port = ImagePort(
        images, base, store, rounding=settings.pixel_rounding, facts=facts, on_done=on_done
    )
    options = EngineOptions(
        slots=settings.slots,
        max_slots=settings.max_slots,
        workers=settings.workers,
        reserve_bytes=_background_bytes(base, images, settings.workers),
        final_sigma=settings.final_sigma,
        tiling=tiling_of(settings),
    )
    engine = Engine(nets, base.noise, options, channels=base.latent_channels, watch=monitor)
    parked = store.parked(finished)
    left = evaluations_left(images, finished, parked, options.tiling)
    monitor.started(len(images), len(finished), left, device, dtype)
    try:
        parked = engine.run(
            [job_of(image, prompts) for image in images],
            port,
            done=finished,
            parked=parked,
            should_stop=stop,
        )
        store.park(parked)
    finally:
        monitor.closed()


def evaluations_left(
    images: Sequence[PlannedImage],
    finished: Collection[str],
    parked: Mapping[str, Parked],
    tiling: Tiling,
) -> int:
    """Network evaluations that are still to be made, of images and of steps."""
    left = 0
    for image in images:
        if image.test_id not in finished:
            whole = evaluations(image.row, image.size_px, tiling)
            steps = distinct_steps(int(image.row["steps"]), image.solver_level)
            begun = parked[image.test_id].position if image.test_id in parked else 0
            left += whole - whole // steps * begun
    return left


def _load_prompted_nets(
    run: RunSettings,
    settings: SampleConfig,
    base: BaseModel,
    prompts: Prompts,
    device: torch.device,
    dtype: torch.dtype,
) -> PromptedNets:
    unet, controlnet = load_nets(run.root / "enhancer", device=device, dtype=dtype)
    if settings.channels_last and device.type == "cuda":
        unet.to(memory_format=torch.channels_last)
        controlnet.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        embeddings = base.embed_prompts(prompts.texts)
        base.text_encoder.to("cpu")  # not needed again
        return PromptedNets(unet, controlnet, embeddings, compile_mode=settings.compile)


def _background_bytes(base: BaseModel, images: Sequence[PlannedImage], workers: int) -> int:
    """Measure the device memory that decoding the largest image takes, in all threads."""
    parameter = next(base.vae.parameters())
    if parameter.device.type != "cuda":
        return 0
    side = max(image.input_px for image in images) // 8
    torch.cuda.reset_peak_memory_stats(parameter.device)
    before = torch.cuda.memory_allocated(parameter.device)
    base.decode(torch.zeros((base.latent_channels, side, side), device=parameter.device))
    peak = int(torch.cuda.max_memory_allocated(parameter.device)) - before
    torch.cuda.empty_cache()
    return peak * max(1, workers)


def _write_shard(
    opened: StageRun, settings: SampleConfig, images: Sequence[PlannedImage], store: ImageStore
) -> None:
    """Write the tar of all finished images, then the manifest, then drop the state."""
    rejections = Rejections(settings.max_failure_fraction)
    rows: dict[str, Any] = {image.test_id: image.row for image in images}
    failures = store.failures()
    for test_id, failure in failures.items():
        rejections.add(test_id, failure["reason"], failure["detail"])
    rejections.check(len(images), where=str(opened.manifest), what="images")
    kept = [image.test_id for image in images if image.test_id not in failures]
    tar = opened.manifest.with_suffix(".tar")
    write_tar(tar, store.members(kept))
    opened.finish(
        counts={"in": len(images), "out": len(kept), "rejected": rejections.counts()},
        files=[tar],
        rejected=[{**row, "planned": rows[row["key"]]} for row in rejections.rows],
    )
    opened.clear_state()
