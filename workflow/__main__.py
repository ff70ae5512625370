"""`python -m workflow`: resolve a configuration, write its JSON schema and the reference page."""

import argparse
import json
import logging
import sys
from pathlib import Path

from runtime.atomic import write_text
from runtime.cli import Command, run_cli
from workflow.config import RunConfig, load_config
from workflow.reference import config_reference

_log = logging.getLogger(__name__)


def _resolve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--configfile", type=Path, nargs="+", required=True, help="YAML file(s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")


def _resolve(args: argparse.Namespace) -> None:
    run = load_config(args.configfile, args.overrides).save()
    _log.info("wrote %s", run.path)


def _schema_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schema", type=Path, default=Path("configs/schema.json"))
    parser.add_argument("--reference", type=Path, default=Path("docs/config.md"))


def _schema(args: argparse.Namespace) -> None:
    write_text(args.schema, schema_text())
    write_text(args.reference, config_reference(RunConfig))


def schema_text() -> str:
    """Render the JSON schema of the configuration."""
    return json.dumps(RunConfig.model_json_schema(), indent=2, sort_keys=True) + "\n"


COMMANDS = [
    Command(
        "resolve",
        "validate a configuration and write results/<run>/config.resolved.json",
        "example:\n  python -m workflow resolve --configfile configs/demo.yaml --set seed=7\n"
        "reads the YAML files; writes results/<run>/config.resolved.json",
        _resolve_arguments,
        _resolve,
    ),
    Command(
        "schema",
        "regenerate configs/schema.json and docs/config.md from the configuration models",
        "example:\n  python -m workflow schema\nwrites configs/schema.json and docs/config.md",
        _schema_arguments,
        _schema,
    ),
]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("workflow", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
