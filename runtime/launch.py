"""Start a training on the devices that it gets: one process a device, on one or several nodes.

`python -m runtime launch --gpus 8 -- enhancer train ...` leases eight devices and becomes
`accelerate launch --num_processes 8 ... -m enhancer train ...`; with one device, or none, it
becomes `python -m enhancer train ...`. On several nodes SLURM starts it once on each of them
(`srun --ntasks-per-node 1`), and the devices are those that SLURM gave.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.devices import become, take_devices, visible_devices
from runtime.errors import ConfigError, ResourceError

_FIRST_PORT, _PORTS = 20_000, 20_000
# Of several processes torch's agent gets the SIGTERM: it passes it on, waits so long (30 s unless
# told) and kills who still saves. Less than the 300 s that the SLURM profile gives.
_SHUTDOWN_VARIABLE, _SHUTDOWN_S = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 280


def launch(gpus: int, nodes: int, accelerate_config: Path, command: Sequence[str]) -> None:
    """Become the training; does not return.

    Args:
        gpus: devices of the whole training.
        nodes: machines that they are on, the same number on each.
        accelerate_config: the profile's settings of `accelerate launch`.
        command: module and arguments.
    Raises:
        ConfigError: the devices do not divide over the nodes.
        ResourceError: SLURM gave other nodes or devices, or the command cannot be started.
    """
    if nodes == 1:
        take_devices(gpus)
        processes = len(visible_devices(os.environ)) if gpus > 0 else 0
        training = one_node_command(processes, accelerate_config, command)
    else:
        processes = gpus
        training = node_command(os.environ, gpus, nodes, accelerate_config, command)
    if processes > 1:
        os.environ.setdefault(_SHUTDOWN_VARIABLE, str(_SHUTDOWN_S))
    become(training)


def one_node_command(processes: int, accelerate_config: Path, command: Sequence[str]) -> list[str]:
    """The command of a training with so many processes on this machine."""
    if processes <= 1:
        return ["python", "-m", *command]
    return [*_accelerate(accelerate_config, processes), "-m", *command]


def node_command(
    variables: Mapping[str, str],
    gpus: int,
    nodes: int,
    accelerate_config: Path,
    command: Sequence[str],
) -> list[str]:
    """The command of one node's share, from SLURM's variables."""
    own, rest = divmod(gpus, nodes)
    if rest or own == 0:
        raise ConfigError(f"scheduling: {gpus} devices do not divide over {nodes} nodes")
    given = variables.get("SLURM_STEP_NUM_NODES", variables.get("SLURM_NNODES", "none"))
    if given != str(nodes):
        raise ResourceError(
            f"{nodes} nodes asked for, found {given} (SLURM_STEP_NUM_NODES); start the workflow "
            "with the SLURM profile (docs/cluster.md)"
        )
    seen = visible_devices(variables)
    if seen and len(seen) != own:
        raise ResourceError(
            f"node {variables['SLURM_NODEID']} sees {len(seen)} devices, {own} expected; add "
            f"--gpus-per-node={own} to the rule's slurm_extra"
        )
    port = _FIRST_PORT + int(variables["SLURM_JOB_ID"]) % _PORTS
    return [
        *_accelerate(accelerate_config, gpus),
        *("--num_machines", str(nodes), "--machine_rank", variables["SLURM_NODEID"]),
        *("--main_process_ip", _first_node(variables), "--main_process_port", str(port)),
        *("-m", *command),
    ]


def _accelerate(config: Path, processes: int) -> list[str]:
    return ["accelerate", "launch", "--config_file", str(config), "--num_processes", str(processes)]


def _first_node(variables: Mapping[str, str]) -> str:
    """Name of the first node of the job."""
    listing = ["scontrol", "show", "hostnames", variables["SLURM_JOB_NODELIST"]]
    try:
        shown = subprocess.run(listing, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise ResourceError(f"scontrol cannot name the job's nodes ({error})") from None
    return shown.stdout.split()[0]
