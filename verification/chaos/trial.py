"""A trial: something is disturbed until it has ended, and its results are compared with those of an undisturbed one."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.deploy.processes import Running

WEIGHTS = ("**/model/*.safetensors",)
"""Of every model that a command makes."""
LONGEST = 1200.0
"""Seconds after which a command counts as hanging."""
KILLS = 5
"""Of one trial; then it may end."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An undisturbed run."""

    seconds: float
    digests: Mapping[str, str]
    """SHA-256 of each result, by its path in the trial's folder."""


@dataclass(slots=True)
class Outcome:
    """A trial's."""

    kills: int = 0
    moments: list[float] = field(default_factory=list)
    """Of each kill, in seconds after the start of what was killed."""
    problems: list[str] = field(default_factory=list)


class Scenario(Protocol):
    """What is disturbed."""

    name: str
    share: int
    """Of a hundred kills."""

    def reference(self, folder: Path) -> Reference:
        """Run it undisturbed in an empty folder."""

    def trial(self, folder: Path, rng: random.Random, reference: Reference, kills: int) -> Outcome:
        """Disturb it so many times in an empty folder, then let it end."""


@dataclass(frozen=True)
class Command(Running):
    """A command as a group of processes, with its output at the end of a file."""

    @classmethod
    def start(cls, words: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> Command:
        """Start it in a folder."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                words, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return cls(process, log)

    def ended_within(self, seconds: float) -> bool:
        """Wait for its end, for at most so long."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.returncode is not None

    def last_line(self) -> str:
        """Of its output."""
        lines = self.output().splitlines()
        return lines[-1] if lines else ""


def digests(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file that one of the patterns names, by its path in the folder.

    MLflow's copies of models, in folders of random names, are left out.
    """
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    files = sorted(file for file in found if "mlartifacts" not in file.parts)
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def differences(reference: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is missing, what is new, and what is not equal bit for bit."""
    return [
        *(f"{name} is missing" for name in reference.keys() - found.keys()),
        *(f"{name} is not in the reference" for name in found.keys() - reference.keys()),
        *(f"{name} differs" for name in reference.keys() & found.keys() if reference[name] != found[name]),
    ]


def leftovers(folder: Path) -> list[str]:
    """Files and folders that were being written when something died, and that nothing removed."""
    return [f"{path.relative_to(folder)} is left over" for path in folder.rglob(".unfinished-*")]


def emptied(folder: Path) -> Path:
    """The folder, without what an interrupted trial left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
