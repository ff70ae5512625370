"""What a shard's run leaves behind while it works: one atomic file per finished image.

Below `samples/.state/{shard}/`: `done/<test_id>.tar` (json and png of a finished image),
`failed/<test_id>.json`, `parked.safetensors` (half-denoised images of a run that was asked
to stop).
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from enhancer.sample.board import Parked
from runtime.atomic import canonical_json, read_json, write_bytes, write_json
from runtime.tars import iter_samples, write_tar

# tried again in the next run, because the input may have been mended since
_RETRIED = "bad_input"


class ImageStore:
    """Finished, failed and parked images of one shard.

    Args:
        folder: the shard's state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._done = folder / "done"
        self._failed = folder / "failed"
        self._parked = folder / "parked.safetensors"

    def put(self, test_id: str, png: bytes, record: Mapping[str, Any]) -> None:
        """Keep a finished image; the file appears whole or not at all."""
        content = canonical_json(record).encode("utf-8")
        members = [(f"{test_id}.json", content), (f"{test_id}.png", png)]
        write_tar(self._done / f"{test_id}.tar", members)

    def put_failure(self, test_id: str, reason: str, detail: str) -> None:
        """Keep the reason why an image cannot be made."""
        write_json(self._failed / f"{test_id}.json", {"reason": reason, "detail": detail})

    def done(self) -> set[str]:
        """Keys of the finished images."""
        return {path.stem for path in self._done.glob("[!.]*.tar")}

    def failures(self) -> dict[str, dict[str, str]]:
        """Reason and detail of the failed images, by key."""
        paths = sorted(self._failed.glob("[!.]*.json"))
        return {path.stem: read_json(path, what="failure record") for path in paths}

    def forget_bad_inputs(self) -> None:
        """Let images whose input was unreadable be tried again."""
        for test_id, failure in self.failures().items():
            if failure["reason"] == _RETRIED:
                (self._failed / f"{test_id}.json").unlink()

    def members(self, test_ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Members of the shard's tar, for finished images in the order given."""
        for test_id in test_ids:
            for key, sample in iter_samples(self._done / f"{test_id}.tar"):
                yield from ((f"{key}.{extension}", sample[extension]) for extension in sample)

    def park(self, parked: Mapping[str, Parked]) -> None:
        """Keep half-denoised images."""
        if parked:
            positions = {key: item.position for key, item in parked.items()}
            tensors = {key: item.state.contiguous() for key, item in parked.items()}
            write_bytes(self._parked, save(tensors, {"positions": json.dumps(positions)}))

    def parked(self, finished: Collection[str]) -> dict[str, Parked]:
        """Read half-denoised images, less those finished since; none if unreadable."""
        if not self._parked.is_file():
            return {}
        try:
            with safe_open(self._parked, "pt") as file:
                positions = json.loads(file.metadata()["positions"])
                return {
                    key: Parked(position, file.get_tensor(key))
                    for key, position in positions.items()
                    if key not in finished
                }
        except (SafetensorError, OSError):
            return {}
