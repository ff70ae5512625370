"""The command line that all stages share: same flags, same order, same exit codes.

Exit code 0: done; 2: a user or data error, in one line; 75: asked to stop, retry; 1: a bug,
with its traceback (in the log file as well).
"""

import argparse
import errno
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import PipelineError, ResourceError

_log = logging.getLogger(__name__)
_DISK_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "quota exceeded"}


@dataclass(frozen=True)
class Command:
    """One verb of a stage.

    Attributes:
        name: the verb as typed.
        help: one line.
        example: a command that can be copied, and the files read and written.
        add_arguments: declares the verb's flags.
        run: does the work; raises PipelineError for what the user can mend.
    """

    name: str
    help: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def add_stage_flags(parser: argparse.ArgumentParser, *, has_shards: bool = False) -> None:
    """Declare the flags that every stage of a run takes."""
    parser.add_argument("--config", type=Path, required=True, help="the run's config.resolved.json")
    if has_shards:
        parser.add_argument("--shard", type=int, required=True, help="number of the shard, from 0")
    parser.add_argument("--limit", type=int, help="stop after this many items (for a try-out)")
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    parser.add_argument(
        "--replace", action="store_true", help="discard work made with other settings"
    )


def run_cli(prog: str, commands: Sequence[Command], argv: Sequence[str] | None = None) -> int:
    """Parse the command line of a stage and run one verb; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for command in commands:
        sub = verbs.add_parser(
            command.name,
            help=command.help,
            description=command.help,
            epilog=command.example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(sub)
        sub.add_argument("--log", type=Path, help="write the log to this file as well")
        sub.set_defaults(run=command.run)
    arguments = parser.parse_args(argv)
    start_logging(arguments.log)
    _log.info(
        "%s %s, python %s, pid %d", prog, arguments.verb, platform.python_version(), os.getpid()
    )
    return guarded(lambda: arguments.run(arguments))


def guarded(work: Callable[[], None]) -> int:
    """Run `work` and turn its errors into exit codes and messages."""
    try:
        work()
    except PipelineError as error:
        _log.error("error: %s", error)
        return error.exit_code
    except KeyboardInterrupt:
        _log.error("interrupted; finished work is kept, rerun to go on")
        return 130
    except Exception as error:
        full = _full_disk(error)
        if full is not None:
            _log.error("error: %s", full)
            return full.exit_code
        request = "" if isinstance(error, OSError) else " (a bug: please report it with this log)"
        _log.exception("unexpected error%s", request)
        return 1
    return 0


def _full_disk(error: BaseException | None) -> ResourceError | None:
    """What to say if this error, or one that it arose from, is a full disk.

    Libraries in Rust (polars, safetensors) give the number in their text only; torch raises a
    RuntimeError while it handles the file's OSError.
    """
    while error is not None:
        for number, meaning in _DISK_FULL.items():
            is_meant = isinstance(error, OSError) and error.errno == number
            if is_meant or f"(os error {number})" in str(error):
                place = getattr(error, "filename", None) or "disk"
                return ResourceError(f"{place}: {meaning}; free some and rerun")
        error = error.__cause__ or error.__context__
    return None


def start_logging(log_file: Path | None) -> None:
    """Log to stderr, and to `log_file` if there is one."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, mode="a", encoding="utf-8"))
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
        force=True,
    )
