"""Which GPU a job may use, when several jobs run on one machine.

Snakemake limits how many `gpu` are in use but does not say which. `python -m runtime lease
-- COMMAND` takes one free device (a file lock that dies with the process), sets
CUDA_VISIBLE_DEVICES and becomes COMMAND. On a machine without devices, and where a cluster
scheduler already gave this job just the devices that it asked for, it only becomes COMMAND.

A job that wants a device for itself locks it exclusively; jobs that may share a device hold
a shared lock on it, and one of its `jobs_per_device` slots.
"""

import fcntl
import itertools
import logging
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import ResourceError

_log = logging.getLogger(__name__)
_POLL_S = 0.2
_DRIVER_DEVICES = Path("/proc/driver/nvidia/gpus")
_SCHEDULER_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


def visible_devices(environment: Mapping[str, str]) -> list[str]:
    """List the devices that this user's jobs may share.

    CUDA_VISIBLE_DEVICES is honoured when set; DIFFIQA_DEVICES stands in for the hardware in
    tests ("0,1,2,3"); else `nvidia-smi` is asked, or the driver where there is no such program.
    """
    for variable in ("CUDA_VISIBLE_DEVICES", "DIFFIQA_DEVICES"):
        if variable in environment:
            names = [name.strip() for name in environment[variable].split(",")]
            # as in CUDA: a negative number hides itself and what follows it
            return [name for name in itertools.takewhile(_is_shown, names) if name]
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except FileNotFoundError:  # a slim container
        return [str(number) for number, _ in enumerate(_DRIVER_DEVICES.glob("*"))]
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]


def _is_shown(name: str) -> bool:
    return not name.startswith("-")


def lease_devices(
    count: int, *, jobs_per_device: int = 1, environment: Mapping[str, str] | None = None
) -> list[str] | None:
    """Take `count` devices, all or none, and wait until they are free.

    The locks are inherited by a program started with exec and end with the process, also
    when it is killed.

    Args:
        count: number of devices.
        jobs_per_device: how many jobs may share one device.
        environment: variables to look at; the process's own by default.

    Returns:
        The devices' names, or None where there is nothing to lease.

    Raises:
        ResourceError: more devices are asked for than there are.
    """
    variables = os.environ if environment is None else environment
    devices = visible_devices(variables) if count > 0 else []
    if not devices or (_allocation(variables) and len(devices) <= count):
        return None
    if count > len(devices):
        raise ResourceError(
            f"{count} devices asked for, {len(devices)} visible ({','.join(devices)}); "
            "lower the rule's gpu or make more devices visible"
        )
    folder = _lock_folder(variables)
    waits = 0
    while True:
        held = _try_lease(devices, count, jobs_per_device, folder)
        if held is not None:
            return held
        if waits == 0:
            _log.info("all of the devices %s are taken; waiting", ",".join(devices))
        waits += 1
        time.sleep(_POLL_S * (1 + random.random()))


def _try_lease(
    devices: Sequence[str], count: int, jobs_per_device: int, folder: Path
) -> list[str] | None:
    """Lock `count` devices, those with the fewest jobs first, or none."""
    taken: dict[str, list[int]] = {}
    for slot in range(jobs_per_device):
        for device in devices:
            if len(taken) < count and device not in taken:
                held = _try_device(folder, device, slot if jobs_per_device > 1 else None)
                if held:
                    taken[device] = held
    if len(taken) == count:
        return list(taken)
    for held in taken.values():
        _release(held)
    return None


def _try_device(folder: Path, device: str, slot: int | None) -> list[int]:
    """Lock one device for this job alone, or one slot of it; no locks if it is taken."""
    stem = f"device-{device.replace('/', '-')}"
    if slot is None:
        return _try_locks([(folder / f"{stem}.lock", fcntl.LOCK_EX)])
    return _try_locks(
        [
            (folder / f"{stem}.lock", fcntl.LOCK_SH),
            (folder / f"{stem}-{slot}.lock", fcntl.LOCK_EX),
        ]
    )


def _try_locks(wanted: Sequence[tuple[Path, int]]) -> list[int]:
    held: list[int] = []
    for path, kind in wanted:
        handle = _open_lock(path)
        held.append(handle)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            _release(held)
            return []
        os.set_inheritable(handle, True)
    return held


def _open_lock(path: Path) -> int:
    """Open a lock file that every user of the folder may open; make it if there is none.

    An existing one is opened without O_CREAT, which Linux refuses for another user's file in a
    folder like /tmp (fs.protected_regular).
    """
    with _explained(path), _no_umask():
        while True:
            try:
                return os.open(path, os.O_RDWR)
            except FileNotFoundError:
                pass
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:  # another job was faster
                pass


@contextmanager
def _no_umask() -> Iterator[None]:
    """Give new files the mode asked for from the first moment on."""
    umask = os.umask(0)
    try:
        yield
    finally:
        os.umask(umask)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say what to do where this user has no right.

    Raises:
        ResourceError: the folder or the file is closed to this user.
    """
    try:
        yield
    except PermissionError:
        raise ResourceError(
            f"{path}: no right to make, read and write it; let its owner open it to all "
            "(chmod 1777 the folder, 666 its files), or set DIFFIQA_LEASE_DIR to another folder"
        ) from None


def _release(handles: Sequence[int]) -> None:
    for handle in handles:
        os.close(handle)


def _allocation(variables: Mapping[str, str]) -> str:
    """Name of the scheduler's allocation that this process runs in, or nothing."""
    return next((variables[name] for name in _SCHEDULER_VARIABLES if name in variables), "")


def _lock_folder(variables: Mapping[str, str]) -> Path:
    """Folder of the locks, outside any working directory.

    One per machine and user; one per allocation under a scheduler, since two allocations may
    both call their devices 0, 1, ... One that the user names is open to all users, as /tmp is.
    """
    name = "-".join(filter(None, ["diffiqa-devices", str(os.getuid()), _allocation(variables)]))
    folder = Path(variables.get("DIFFIQA_LEASE_DIR", Path(tempfile.gettempdir()) / name))
    mode = 0o1777 if "DIFFIQA_LEASE_DIR" in variables else 0o700
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _no_umask():
            folder.mkdir(mode=mode, exist_ok=True)
    return folder


def take_devices(count: int, jobs_per_device: int = 1) -> None:
    """Lease devices and show only them to this process and what it becomes."""
    devices = lease_devices(count, jobs_per_device=jobs_per_device)
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        _log.info("leased device %s", ",".join(devices))


def exec_with_lease(count: int, jobs_per_device: int, command: Sequence[str]) -> None:
    """Lease devices, then become `command`; does not return."""
    take_devices(count, jobs_per_device)
    become(command)


def become(command: Sequence[str]) -> None:
    """Replace this process by a command; does not return.

    Raises:
        ResourceError: it cannot be started.
    """
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        raise ResourceError(f"{command[0]}: cannot be started ({error.strerror})") from None
