"""One process at a time works on a stage or shard, also after a crash of what started it.

A job whose Snakemake was killed goes on by itself. When the run is started again, the new job
for the same shard waits until the old one has ended, and then finds its work. The lock is a
record lock: it belongs to the process and ends with it.
"""

import fcntl
import logging
import os
import time
from pathlib import Path

_log = logging.getLogger(__name__)
_POLL_S = 0.5
_held: dict[Path, int] = {}


def hold(state: Path) -> None:
    """Wait until no other process holds `state`, and hold it; again in one process: nothing.

    Of the processes of one training only the first holds it. A file system without locks is
    taken as it is.
    """
    path = _lock_path(state)
    if path in _held or os.environ.get("RANK", "0") != "0":
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _wait_for(path, state)
    while not _is_still(path, handle):  # its last holder removed the file while we waited
        os.close(handle)
        handle = _wait_for(path, state)
    _held[path] = handle


def _wait_for(path: Path, state: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    is_told = False
    while not _try_lock(handle):
        if not is_told:
            _log.info("another process works on %s; waiting until it ends", state)
        is_told = True
        time.sleep(_POLL_S)
    return handle


def _is_still(path: Path, handle: int) -> bool:
    """Whether the path names the file that is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def release(state: Path) -> None:
    """Let others hold `state`, and leave no lock file behind."""
    path = _lock_path(state)
    handle = _held.pop(path, None)
    if handle is not None:
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock_path(state: Path) -> Path:
    return state.resolve().with_name(f"{state.name}.lock")


def _try_lock(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        _log.warning("no locks on this file system (%s)", error)
    return True
