"""Which GPU a job may use, when several jobs run on one machine.

Snakemake limits how many `gpu` are in use but does not say which. `python -m runtime lease
-- COMMAND` takes one free device (a file lock that dies with the process), sets
CUDA_VISIBLE_DEVICES and becomes COMMAND. Under a cluster scheduler, which already chose the
devices, and on a machine without devices, it only becomes COMMAND.
"""

import fcntl
import logging
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.errors import ResourceError

_log = logging.getLogger(__name__)
_POLL_S = 0.2
_SCHEDULER_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


def visible_devices(environment: Mapping[str, str]) -> list[str]:
    """List the devices that this user's jobs may share.

    CUDA_VISIBLE_DEVICES is honoured when set; DIFFIQA_DEVICES stands in for the hardware in
    tests ("0,1,2,3"); else `nvidia-smi` is asked.
    """
    for variable in ("CUDA_VISIBLE_DEVICES", "DIFFIQA_DEVICES"):
        if variable in environment:
            return [name for name in environment[variable].split(",") if name.strip()]
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]


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
    if count < 1 or any(name in variables for name in _SCHEDULER_VARIABLES):
        return None
    devices = visible_devices(variables)
    if not devices:
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
    taken: list[tuple[str, int]] = []
    for slot in range(jobs_per_device):
        for device in devices:
            if len(taken) < count and device not in [name for name, _ in taken]:
                handle = _try_lock(folder / f"device-{device.replace('/', '-')}-{slot}.lock")
                if handle is not None:
                    taken.append((device, handle))
    if len(taken) == count:
        return [name for name, _ in taken]
    for _, handle in taken:
        os.close(handle)
    return None


def _try_lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    os.set_inheritable(handle, True)
    return handle


def _lock_folder(variables: Mapping[str, str]) -> Path:
    """Folder of the locks: one per machine and user, outside any working directory."""
    default = Path(tempfile.gettempdir()) / f"diffiqa-devices-{os.getuid()}"
    folder = Path(variables.get("DIFFIQA_LEASE_DIR", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def exec_with_lease(count: int, jobs_per_device: int, command: Sequence[str]) -> None:
    """Lease devices, then become `command`; does not return."""
    devices = lease_devices(count, jobs_per_device=jobs_per_device)
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        _log.info("leased device %s", ",".join(devices))
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        raise ResourceError(f"{command[0]}: cannot be started ({error.strerror})") from None
