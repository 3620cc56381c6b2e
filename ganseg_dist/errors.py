"""The errors that a user can correct. The command line prints each as one line and exits with its code."""

from __future__ import annotations

import sys
from typing import ClassVar, NoReturn

from ganseg_dist.printable import printable

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, and of a stopped job."""


class GansegError(Exception):
    """An error that a user can correct: the message names the file or field, the problem and the remedy."""

    exit_code: ClassVar[int] = 1


class ConfigError(GansegError):
    """An unknown recipe or field, or a value out of range."""

    exit_code = 2


class DataError(GansegError):
    """An image, a mask or a folder that cannot be used as it is."""


class RunError(GansegError):
    """A run that cannot be found, resumed or read."""


class TrainingDiverged(GansegError):
    """A loss became NaN or infinite."""


class MissingDependency(GansegError):
    """An optional package is needed; the message names the extra that installs it."""


class FederationError(GansegError):
    """A message between hospital and server that breaks their agreement, or a federation that cannot continue."""


class PolicyError(FederationError):
    """A federation that requests what the hospital's policy denies."""


def exit_with(error: GansegError) -> NoReturn:
    """End the process of a command other than `ganseg` by this error: a line on stderr, and its code."""
    print(printable(f"error: {error}"), file=sys.stderr, flush=True)
    sys.exit(error.exit_code)


def one_line(error: BaseException, *, last: bool = False, longest: int = 300) -> str:
    """A library's error for a message of ours: the first line of its text, or its type's name if it has none.

    Of an error in another process it is the last line, as the text begins with the traceback.
    """
    lines = str(error).strip().splitlines()
    return lines[-1 if last else 0].strip()[:longest] if lines else type(error).__name__
