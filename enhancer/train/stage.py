"""`enhancer train`: train the enhancer, on one process or under `accelerate launch`.

Reads the base model and the training images; writes `enhancer/unet`, `enhancer/controlnet`,
`enhancer/metrics.jsonl`, sheets of held-out images in `enhancer/validation/` and, last,
`enhancer/manifest.json`. Checkpoints are in `enhancer/.state/`.
"""

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from diffusers import UNet2DConditionModel

from enhancer.checkpoints import load_nets, new_nets, save_nets
from enhancer.components import (
    base_folder,
    embed_prompts,
    load_noise_schedule,
    load_text,
    load_vae,
    silence_model_libraries,
)
from enhancer.config import TRAIN, TrainConfig
from enhancer.crops import crop_rows
from enhancer.train import validation
from enhancer.train.checkpointing import list_checkpoints, load_newest, save_checkpoint
from enhancer.train.conditioning import warm_up
from enhancer.train.loader import Batch, Layout, batches
from enhancer.train.objective import Enhancer, LatentEncoder, freeze_all_but_trained
from enhancer.train.sources import ImageSource, crops_source, open_source
from enhancer.train.trainer import Trainer, divide_batch, learning_rate
from enhancer.train.watch import Watch
from runtime.errors import DataError, PipelineError, PreemptedError
from runtime.progress import Progress
from runtime.ranks import any_rank, patience
from runtime.seeds import item_seed
from runtime.settings import RunSettings
from runtime.stage import Rejections, StageRun, open_stage
from runtime.torch_device import torch_generator, use_threads

_log = logging.getLogger(__name__)
_CONDITIONING_RATE = 3e-3


def run_train(
    run: RunSettings, *, limit: int | None = None, replace: bool = False, dry_run: bool = False
) -> None:
    """Train the enhancer of a run, or go on with it.

    Args:
        run: resolved configuration.
        limit: stop after this many further steps, with a checkpoint.
        replace: discard work made with other settings.
        dry_run: check settings and inputs only.
    Raises:
        DataError: unreadable inputs, or a loss that is not finite.
        PreemptedError: asked to stop; a checkpoint was written.
    """
    config = run.section("enhancer.train", TrainConfig)
    base = base_folder(run)
    use_threads(config.threads or _own_cores())
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=config.mixed_precision,
        kwargs_handlers=[patience()],
    )
    if not accelerator.is_main_process:
        logging.getLogger().setLevel(logging.WARNING)
    layout = divide_batch(config, rank=accelerator.process_index, world=accelerator.num_processes)
    sources = _open_sources(run, config)
    if dry_run:
        _log.info("%s; %d source(s); base model %s", layout, len(sources), base)
        return
    folder = run.root / "enhancer"
    stage = _open_on_first_process(accelerator, run, base, folder, replace=replace)
    if stage is None:
        return
    session = _Session(run, config, base, folder, accelerator, sources)
    session.train(stage, limit)
    accelerator.wait_for_everyone()


class _Session:
    """One execution of the training in one process."""

    def __init__(
        self,
        run: RunSettings,
        config: TrainConfig,
        base: Path,
        folder: Path,
        accelerator: Accelerator,
        sources: list[ImageSource],
    ) -> None:
        self._run, self._config, self._folder = run, config, folder
        self._base, self._accelerator, self._sources = base, accelerator, sources
        device = accelerator.device
        silence_model_libraries()
        self._vae = load_vae(base).to(device)
        tokenizer, encoder = load_text(base)
        self._text = embed_prompts(tokenizer, encoder, [config.prompt]).to(device)
        self._schedule = load_noise_schedule(base)
        self._enhancer = _start_nets(run, config, base).to(device)
        self._apply_speed_settings()
        self._rejections = Rejections(config.max_failure_fraction)
        self._held_out = validation.prepare_held_out(
            crop_rows(run.root, ["val", "test"]), self._vae, config, run.seed
        )

    def train(self, stage: "_Opened", limit: int | None) -> None:
        """Train from the last checkpoint to the end, then write the result."""
        config, accelerator = self._config, self._accelerator
        layout = divide_batch(
            config, rank=accelerator.process_index, world=accelerator.num_processes
        )
        encoder = LatentEncoder(self._vae, config.cached_latents)
        checkpoint = load_newest(stage.state)
        if checkpoint is None and config.conditioning_warmup_steps and config.enhancer is None:
            self._warm_up(encoder)
        trainer = Trainer(
            self._enhancer, encoder, self._schedule, self._text, config, accelerator, layout
        )
        first = 0 if checkpoint is None else self._restore(trainer, checkpoint)
        last = config.steps if limit is None else min(config.steps, first + limit)
        watch = self._watch(first)
        loader = batches(
            self._sources, config, layout,
            run_seed=self._run.seed, first_step=first, last_step=last,
        )  # fmt: skip
        if watch is not None and first == 0:
            self._validate(watch, 0)
        counted = self._counted(loader)
        window = _Window()
        with _stop_requests() as stop, Progress(
            config.steps, "train enhancer", unit="step", done=first
        ) as progress:  # fmt: skip
            for step in range(first, last):
                try:
                    losses, timesteps, norm = trainer.step(step, counted)
                except DataError as error:
                    raise DataError(f"{error}; {_last_good(stage.state)}") from None
                window.add(losses, timesteps, norm)
                progress.advance()
                done = step + 1
                if done % config.log_every == 0 or done == last:
                    self._report(watch, done, window, progress)
                if watch is not None and (
                    done % config.validation.every == 0 or done == config.steps
                ):
                    self._validate(watch, done)
                is_stopped = any_rank(accelerator, stop.is_requested)
                if is_stopped or done % config.checkpoint_every == 0 or done == last:
                    self._save(trainer, stage.state, done)
                if is_stopped and done < last:
                    raise PreemptedError(
                        f"enhancer train: asked to stop after step {done}; a rerun goes on there"
                    )
        if last == config.steps and accelerator.is_main_process:
            self._finish(trainer, stage, watch)

    def _warm_up(self, encoder: LatentEncoder) -> None:
        """Give a new conditioning net its head start; every process does the same work."""
        config = self._config
        whole = Layout(rank=0, world=1, micro=min(config.batch_size, 8), accumulation=1)
        steps = config.conditioning_warmup_steps
        # negative step numbers: examples of their own, beside those of the training
        loader = batches(
            self._sources, config, whole, run_seed=self._run.seed, first_step=-steps, last_step=0
        )
        seed = item_seed(self._run.seed, "enhancer train", "conditioning")
        with Progress(steps, "fit conditioning net", unit="step") as progress:
            left = warm_up(
                self._enhancer, encoder, loader, steps=steps,
                learning_rate=_CONDITIONING_RATE, generator=torch_generator(seed),
                advance=progress.advance,
            )  # fmt: skip
        _log.info("conditioning net: %.0f %% of the target's variance left", 100 * left)

    def _apply_speed_settings(self) -> None:
        if self._config.gradient_checkpointing:
            self._enhancer.unet.enable_gradient_checkpointing()
            self._enhancer.controlnet.enable_gradient_checkpointing()
        if self._config.channels_last:
            self._enhancer.to(memory_format=torch.channels_last)
        if self._config.compile:
            self._enhancer.compile()

    def _restore(self, trainer: Trainer, checkpoint: Mapping[str, Any]) -> int:
        """Go on from a checkpoint; returns the steps that are done."""
        trainer.restore(checkpoint)
        self._rejections.rows = list(checkpoint["rejected"])
        _log.info("going on after step %d", checkpoint["step"])
        return int(checkpoint["step"])

    def _save(self, trainer: Trainer, state: Path, done: int) -> None:
        trainer.check_ranks_agree(done)
        if self._accelerator.is_main_process:
            values = {**trainer.state(), "rejected": self._rejections.rows}
            save_checkpoint(state, done, values, keep=self._config.keep_checkpoints)

    def _watch(self, first: int) -> Watch | None:
        if not self._accelerator.is_main_process:
            return None
        return Watch(self._folder, first_step=first, use_tensorboard=self._config.tensorboard)

    def _counted(self, loader: Iterator[Batch]) -> Iterator[Batch]:
        """Record the images that could not be read, and stop when they are too many."""
        seen = 0
        for batch in loader:
            seen += len(batch.examples)
            for example in batch.examples:
                for key, reason in example.skipped:
                    self._rejections.add(key, "unreadable", reason)
            if self._rejections.rows and seen >= 100:
                self._rejections.check(seen, where="enhancer.train.sources", what="training images")
            yield batch

    def _report(
        self, watch: Watch | None, done: int, window: "_Window", progress: Progress
    ) -> None:
        losses, timesteps = window.take(self._accelerator)
        if watch is not None:
            watch.training(
                done, losses, timesteps, images=len(losses),
                learning_rate=learning_rate(self._config, done - 1),
                gradient_norm=window.norm, eta_s=progress.seconds_left(),
            )  # fmt: skip

    def _validate(self, watch: Watch, done: int) -> None:
        self._enhancer.eval()
        settings = self._config.validation
        losses = validation.held_out_loss(
            self._enhancer, self._held_out, self._text, self._schedule, settings.timesteps,
            self._run.seed,
        )  # fmt: skip
        watch.validation(done, **losses)
        if settings.shown_images:
            count = min(settings.shown_images, len(self._held_out.keys))
            condition01 = self._held_out.condition01[:count]
            noise = validation.fixed_noise(self._held_out, self._run.seed)[:count]
            latent = validation.enhance(
                self._enhancer, condition01, noise, self._text, self._schedule,
                settings.solver_steps,
            )  # fmt: skip
            shown = validation.decode_u8(self._vae, latent)
            conditions = validation.tensor_u8(condition01)
            path = self._folder / f"validation/step-{done:08}.png"
            columns = (self._held_out.clean_u8[:count], conditions, shown)
            watch.sheet(done, validation.write_sheet(path, columns))
        self._enhancer.train()

    def _finish(self, trainer: Trainer, stage: "_Opened", watch: Watch | None) -> None:
        if trainer.average is not None:
            trainer.average.copy_to_model()
        files = save_nets(self._folder, self._enhancer.unet, self._enhancer.controlnet)
        facts = self._compare_with_base()
        if watch is not None:
            watch.validation(self._config.steps, **facts)
            watch.close()
        assert stage.run is not None, "only the first process finishes the stage"
        stage.run.finish(
            counts={
                "steps": self._config.steps,
                "examples": self._config.steps * self._config.batch_size,
                "rejected": self._rejections.counts(),
            },
            files=files,
            held_out={name: round(value, 3) for name, value in facts.items()},
        )
        stage.run.clear_state()

    def _compare_with_base(self) -> dict[str, float]:
        """PSNR of held-out crops: enhanced from the clean crop, and the base model alone."""
        self._enhancer.eval()
        steps = self._config.validation.solver_steps
        held_out = self._held_out
        noise = validation.fixed_noise(held_out, self._run.seed)
        enhanced = validation.enhance(
            self._enhancer, held_out.clean01, noise, self._text, self._schedule, steps
        )
        plain = UNet2DConditionModel.from_pretrained(self._base / "unet").to(noise.device).eval()
        alone = validation.sample_base(plain, noise, self._text, self._schedule, steps)
        clean_u8 = held_out.clean_u8
        return {
            "psnr_db_enhanced": validation.psnr_db(
                validation.decode_u8(self._vae, enhanced), clean_u8
            ),
            "psnr_db_base": validation.psnr_db(validation.decode_u8(self._vae, alone), clean_u8),
        }


@dataclass(frozen=True)
class _Opened:
    """The stage as every process sees it; only the first one holds the record."""

    state: Path
    run: StageRun | None


class _Window:
    """Losses since the last row of metrics.jsonl."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._timesteps: list[torch.Tensor] = []
        self.norm = 0.0

    def add(self, losses: torch.Tensor, timesteps: torch.Tensor, norm: float) -> None:
        self._losses.append(losses)
        self._timesteps.append(timesteps)
        self.norm = norm

    def take(self, accelerator: Accelerator) -> tuple[torch.Tensor, torch.Tensor]:
        losses, timesteps = torch.cat(self._losses), torch.cat(self._timesteps)
        self._losses.clear()
        self._timesteps.clear()
        return accelerator.gather(losses).cpu(), accelerator.gather(timesteps).cpu()


class _StopRequest:
    is_requested = False


@contextmanager
def _stop_requests() -> Iterator[_StopRequest]:
    """Turn SIGTERM into a flag, so that the step that runs is finished and saved."""
    request = _StopRequest()

    def handle(_number: int, _frame: FrameType | None) -> None:
        request.is_requested = True

    earlier = signal.signal(signal.SIGTERM, handle)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _open_sources(run: RunSettings, config: TrainConfig) -> list[ImageSource]:
    if config.sources:
        return [open_source(source) for source in config.sources]
    return [crops_source(crop_rows(run.root, ["train"]))]


def _start_nets(run: RunSettings, config: TrainConfig, base: Path) -> Enhancer:
    if config.enhancer is not None:
        unet, controlnet = load_nets(config.enhancer)
    else:
        unet, controlnet = new_nets(
            base / "unet",
            init=config.init,
            seed=item_seed(run.seed, "enhancer train", "start"),
            conditioning_channels=config.conditioning_channels,
        )
    enhancer = Enhancer(unet, controlnet).train()
    _log.info("%d trained parameters", freeze_all_but_trained(enhancer))
    return enhancer


def _open_on_first_process(
    accelerator: Accelerator, run: RunSettings, base: Path, folder: Path, *, replace: bool
) -> "_Opened | None":
    """Open the stage on the first process and tell the others; None if it is already done."""
    opened: StageRun | None = None
    message: list[Any] = [None, False]
    if accelerator.is_main_process:
        try:
            opened = open_stage(
                TRAIN, run, manifest=folder / "manifest.json", state=folder / ".state",
                inputs=_inputs(run, base), replace=replace,
            )  # fmt: skip
            message[1] = opened.is_complete
        except PipelineError as error:
            message[0] = str(error)
    broadcast_object_list(message)
    if message[0] is not None:
        raise DataError(message[0])
    return None if message[1] else _Opened(folder / ".state", opened)


def _inputs(run: RunSettings, base: Path) -> list[Path]:
    inputs = [run.root / "crops/manifest.json"]
    return [*inputs, base / "manifest.json"] if base == run.root / "base" else inputs


def _last_good(state: Path) -> str:
    found = list_checkpoints(state)
    if not found:
        return "there is no checkpoint yet; lower the learning rate and start again"
    return f"the last good checkpoint is {found[-1]}; lower the learning rate or go on from it"


def _own_cores() -> int:
    """This process's share of the cores it may use."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // processes)
