"""The contract that all stages share: fingerprint, resume, rejections, manifest written last.

A stage (or one shard of it) keeps what it needs to resume in a state folder that no
workflow rule declares, because Snakemake deletes declared outputs before a rerun.
`run.json` in that folder says what the work there was made with. The manifest is written
last, by atomic rename; it holds no times, so the same work gives the same bytes.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.atomic import read_json, sha256_file, write_json
from runtime.code_version import code_digest
from runtime.errors import ConfigError, DataError
from runtime.exclusive import hold, release
from runtime.settings import RunSettings, StageSpec, digest, stage_settings

_log = logging.getLogger(__name__)


def stage_key(spec: StageSpec, run: RunSettings) -> str:
    """Hash of the settings and the code of a stage; workflow rules hold it as a parameter."""
    return digest(_own_identity(spec, run))


def _own_identity(spec: StageSpec, run: RunSettings) -> dict[str, Any]:
    return {
        "stage": spec.name,
        "version": spec.version,
        "code": code_digest(spec.module),
        "settings": stage_settings(spec, run),
    }


class Rejections:
    """Items that were left out, each with its reason; shared by all stages.

    Args:
        max_fraction: share of rejected items above which the stage fails.
    """

    def __init__(self, max_fraction: float) -> None:
        self._max_fraction = max_fraction
        self.rows: list[dict[str, str]] = []

    def add(self, key: str, reason: str, detail: str = "") -> None:
        """Record that `key` was left out for `reason` (a short fixed word) with a `detail`."""
        self.rows.append({"key": key, "reason": reason, "detail": detail})
        _log.warning("left out %s: %s%s", key, reason, f" ({detail})" if detail else "")

    def counts(self) -> dict[str, int]:
        """Number of rejected items per reason, sorted by reason."""
        return dict(sorted(Counter(row["reason"] for row in self.rows).items()))

    def check(self, total: int, *, where: str, what: str) -> None:
        """Fail if too large a share of `total` items was rejected.

        Raises:
            DataError: naming the share, the limit and the histogram of reasons.
        """
        if total and len(self.rows) > self._max_fraction * total:
            histogram = ", ".join(f"{name}: {n}" for name, n in self.counts().items())
            raise DataError(
                f"{where}: {len(self.rows)} of {total} {what} were rejected ({histogram}); "
                f"max_failure_fraction allows {self._max_fraction:g}: repair the input or raise it"
            )


@dataclass
class StageRun:
    """One execution of a stage or shard.

    Attributes:
        manifest: the file that says that the stage is done.
        state: folder for what an interrupted run resumes from.
        is_complete: an earlier run with the same fingerprint already finished.
        is_resumed: work of an interrupted run with the same fingerprint is there.
    """

    manifest: Path
    state: Path
    identity: Mapping[str, Any]
    is_complete: bool = False
    is_resumed: bool = False
    _fingerprint: str = field(default="", repr=False)

    def finish(self, *, counts: Mapping[str, Any], files: Iterable[Path], **facts: Any) -> None:
        """Write the manifest: counts, facts and the sha256 of every output file."""
        base = self.manifest.parent
        write_json(
            self.manifest,
            {
                "stage": self.identity["stage"],
                "fingerprint": self._fingerprint,
                "code": self.identity["code"],
                "settings": self.identity["settings"],
                "inputs": self.identity["inputs"],
                "counts": dict(counts),
                "files": {
                    path.relative_to(base).as_posix(): {
                        "sha256": sha256_file(path),
                        "bytes": path.stat().st_size,
                    }
                    for path in sorted(files)
                },
                **facts,
            },
        )
        self.is_complete = True
        _log.info("%s: done, %s", self.identity["stage"], dict(counts))

    def clear_state(self) -> None:
        """Remove the state folder, once the manifest makes it needless."""
        shutil.rmtree(self.state, ignore_errors=True)
        release(self.state)


def open_stage(
    spec: StageSpec,
    run: RunSettings,
    *,
    manifest: Path,
    state: Path,
    inputs: Iterable[Path] = (),
    shard: int | None = None,
    replace: bool = False,
) -> StageRun:
    """Begin or resume a stage; waits while another process still works on it.

    Args:
        spec: what the stage's result depends on.
        run: the resolved configuration.
        manifest: the file to write last.
        state: folder for resumable work; nothing else may live in it.
        inputs: small files (manifests, tables) that stand for the stage's inputs.
        shard: number of the shard, for sharded stages.
        replace: discard work that was made with other settings, code or inputs.

    Raises:
        DataError: an input is missing.
        ConfigError: there is work with another fingerprint and `replace` is off; the message
            names what changed.
    """
    identity = {
        **_own_identity(spec, run),
        "shard": shard,
        "inputs": {_relative(path, run.root): _input_digest(path) for path in inputs},
    }
    fingerprint = digest(identity)
    hold(state)  # only once the inputs are there: a refused stage leaves nothing behind
    opened = StageRun(manifest, state, identity, _fingerprint=fingerprint)
    if manifest.is_file() and read_json(manifest).get("fingerprint") == fingerprint:
        opened.is_complete = True
        opened.clear_state()  # of a run that was killed between its manifest and this
        _log.info("%s: already done, %s is up to date", spec.name, manifest)
        return opened
    record = state / "run.json"
    earlier = read_json(record) if record.is_file() else None
    if earlier is None and manifest.is_file():
        earlier = read_json(manifest)
    # never of the manifest: one with this fingerprint has ended above
    opened.is_resumed = earlier is not None and earlier.get("fingerprint") == fingerprint
    if earlier is not None and not opened.is_resumed and not replace:
        raise ConfigError(
            f"{state}: holds work made with other {_difference(earlier, identity)}; "
            "pass --replace to discard it, or choose another run name"
        )
    # without a record too: an interrupted removal left it, and nobody knows what made it
    if not opened.is_resumed and state.exists():
        shutil.rmtree(state)
    manifest.unlink(missing_ok=True)
    write_json(record, {**identity, "fingerprint": fingerprint})
    return opened


def _relative(path: Path, root: Path) -> str:
    resolved = path.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else str(path)


def _input_digest(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: input not found; run the stage that writes it first")
    return sha256_file(path)


def _difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name what differs between two identities: settings by dotted key, code, inputs."""
    parts = sorted(_changed_keys(earlier.get("settings", {}), now["settings"], ""))
    if earlier.get("code") != now["code"]:
        parts.append("code")
    parts += sorted(_changed_keys(earlier.get("inputs", {}), now["inputs"], "input "))
    return ", ".join(parts) or "stage version"


def _changed_keys(one: Any, two: Any, prefix: str) -> list[str]:
    if not isinstance(one, Mapping) or not isinstance(two, Mapping):
        return [] if one == two else [prefix.rstrip(".")]
    return [
        key
        for name in {*one, *two}
        for key in _changed_keys(one.get(name), two.get(name), f"{prefix}{name}.")
    ]
