"""What every phase starts from: device, processes, tables, pixels, the phase's folders."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from accelerate import Accelerator

from afine.config import TRAIN_PHASES, AfineConfig
from afine.pixels import ImageStore, set_folders
from afine.training.augment import VERSIONS
from afine.training.loop import LoopPlaces
from afine.training.order import GroupedOrder, RandomOrder, group_rows, repeated_rows
from afine.triplets.tables import read_images, read_triplets
from runtime.errors import DataError
from runtime.ranks import patience
from runtime.settings import RunSettings
from runtime.stage import StageRun, open_stage
from runtime.torch_device import choose_device, use_threads


@dataclass(frozen=True)
class Session:
    """One phase of one run in one process."""

    run: RunSettings
    settings: AfineConfig
    phase: int
    accelerator: Accelerator
    stage: StageRun

    @property
    def folder(self) -> Path:
        """Folder of the phase's results."""
        return phase_folder(self.run.root, self.phase)

    @property
    def versions(self) -> int:
        """Flips and transposes that training draws from."""
        return VERSIONS[self.settings.augmentation]

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        device: torch.device = self.accelerator.device
        return device

    def places(self) -> LoopPlaces:
        """Where the loop writes."""
        afine = self.run.root / "afine"
        return LoopPlaces(
            name=f"phase{self.phase}",
            checkpoint=self.stage.state / "checkpoint.pt",
            metrics=afine / "metrics.jsonl",
            tensorboard=afine / "tensorboard" / f"phase{self.phase}",
            is_main=bool(self.accelerator.is_main_process),
        )

    def images(self) -> pl.DataFrame:
        """The table of images."""
        return read_images(self.run.root)

    def store(self) -> ImageStore:
        """Pixels of all images."""
        folders = set_folders(self.run.root, self.settings.data)
        return ImageStore(self.images(), folders, threads=self.settings.decode_threads)

    def triplets(self, split: str, sets: set[str] | None = None) -> pl.DataFrame:
        """Triplets of a split, of some sets or of all that are trained on."""
        table = read_triplets(self.run.root, split)
        return table if sets is None else table.filter(pl.col("set").is_in(sorted(sets)))

    def order(self, triplets: pl.DataFrame, *, batch: int) -> RandomOrder:
        """The mixed order of the release."""
        return RandomOrder(
            len(triplets), batch=batch, seed=self.run.seed, phase=f"phase{self.phase}",
            versions=self.versions,
        )  # fmt: skip

    def grouped_order(self, triplets: pl.DataFrame, *, batch: int, limit: int) -> GroupedOrder:
        """The order by content."""
        return GroupedOrder(
            group_rows(triplets, limit=limit), batch=batch, seed=self.run.seed,
            phase=f"phase{self.phase}", versions=self.versions,
        )  # fmt: skip

    def balanced(self, triplets: pl.DataFrame) -> pl.DataFrame:
        """Repeat small sets if the configuration asks for it."""
        return triplets[repeated_rows(triplets["set"], self.settings.balance)]


def phase_folder(root: Path, phase: int) -> Path:
    """Folder of one phase's results."""
    return root / "afine" / f"phase{phase}"


def open_session(run: RunSettings, phase: int, *, replace: bool) -> Session:
    """Open a phase; the main process first, so that the others find its record."""
    settings = run.section("afine", AfineConfig)
    use_threads(settings.cpu_threads)
    accelerator = Accelerator(cpu=choose_device().type == "cpu", kwargs_handlers=[patience()])
    inputs = check_inputs(run, phase)
    with accelerator.main_process_first():
        stage = open_stage(
            TRAIN_PHASES[phase],
            run,
            manifest=phase_folder(run.root, phase) / "manifest.json",
            state=run.root / "afine" / ".state" / f"phase{phase}",
            inputs=inputs,
            replace=replace,
        )
    accelerator.wait_for_everyone()
    return Session(run, settings, phase, accelerator, stage)


def check_inputs(run: RunSettings, phase: int) -> list[Path]:
    """Return the manifests that a phase rests on.

    Raises:
        DataError: one is missing.
    """
    inputs = [run.root / "afine" / "triplets.manifest.json"]
    if phase > 1:
        inputs.append(phase_folder(run.root, phase - 1) / "manifest.json")
    for path in inputs:
        if not path.is_file():
            raise DataError(f"{path}: not found; run the step that writes it first")
    return inputs
