"""Errors that end a stage with one clear line instead of a traceback.

A message says where, what was found, what was expected and what to do.
"""


class PipelineError(Exception):
    """Base of every error that the user can act on; exit code 2."""

    exit_code = 2


class ConfigError(PipelineError):
    """The configuration is wrong: unknown key, value out of range, disagreement."""


class DataError(PipelineError):
    """An input file, table, image or checkpoint is not what it should be."""


class ResourceError(PipelineError):
    """Something outside the data is missing or used up: disk, memory, device, package."""


class PreemptedError(PipelineError):
    """The job was asked to stop (SIGTERM); finished work is kept and a retry goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: the scheduler may retry
