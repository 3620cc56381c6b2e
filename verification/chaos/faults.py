"""What else goes wrong on machines: a full disk, a home that cannot be written, a mute MLflow, a cut network link.

Disks are mounted and links are cut as root alone (`mount`, `ip netns`); for others these scenarios are left out.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from verification.chaos import commands
from verification.chaos.commands import CommandScenario
from verification.chaos.deployment import NODES, Deployment, disturbed, undisturbed
from verification.chaos.trial import LONGEST, Command, Outcome, Reference, Scenario

HUB, SITE = "chaos-hub", "chaos-site"
"""Network namespaces of the server and of the nodes."""
HUB_ADDRESS, SITE_ADDRESS = "10.77.0.1", "10.77.0.2"
CUTS = 3
LONGEST_CUT = 90.0
"""Seconds: longer than the deadline of a round, and than the minute after which Flower calls a node lost."""
PATIENCE = 180.0
"""Seconds that a run may take longer because MLflow does not answer."""


@dataclass(frozen=True)
class TrainingFault:
    """A training on a faulty machine. The results are those of a training on a good one."""

    name: str
    training: CommandScenario
    share: int = 0

    def reference(self, folder: Path) -> Reference:
        """An undisturbed training."""
        return self.training.reference(folder)

    def trial(self, folder: Path, rng: random.Random, reference: Reference, kills: int) -> Outcome:
        """The training with the fault."""
        raise NotImplementedError

    def run(self, folder: Path, changes: Mapping[str, str], longest: float = LONGEST) -> tuple[int | None, Command]:
        """The exit code, None where it hangs, and the command."""
        command = self.training.start(folder, changes)
        if not command.ended_within(longest):
            command.kill()
            return None, command
        return command.process.returncode, command

    def compared(self, folder: Path, reference: Reference, code: int | None, command: Command) -> list[str]:
        """Problems after the last run."""
        problems = [] if code == 0 else [f"exits with {code}: {command.last_line()}"]
        return problems + self.training.compared(folder, reference, command)


class FullDisk(TrainingFault):
    """The disk is full at a random moment: one line says so, and the training resumes once there is space."""

    def trial(self, folder: Path, rng: random.Random, reference: Reference, kills: int) -> Outcome:
        """Train on a disk that is too small, then on the same one made larger."""
        needed = sum(file.stat().st_size for file in _good(folder).rglob("*") if file.is_file())
        size = int(needed * rng.uniform(0.2, 0.95)) // 4096 * 4096
        outcome = Outcome()
        with _disk(folder / "disk", f"size={size}") as disk:
            code, command = self.run(disk, {})
            line = command.last_line()
            if code != 1 or "cannot be written" not in line or "free space" not in line:
                outcome.problems.append(f"on a disk of {size} bytes it exits with {code}: {line}")
            subprocess.run(["mount", "-o", "remount,size=2g", disk], check=True)
            outcome.problems += self.compared(disk, reference, *self.run(disk, {}))
        return outcome


class ReadOnlyHome(TrainingFault):
    """No library's cache, credentials or settings can be written."""

    def trial(self, folder: Path, rng: random.Random, reference: Reference, kills: int) -> Outcome:
        """Train with a home on a disk that is mounted for reading."""
        with _disk(folder / "home", "ro") as home:
            code, command = self.run(folder, {"HOME": str(home)})
        return Outcome(problems=self.compared(folder, reference, code, command))


class MuteMLflow(TrainingFault):
    """The tracking server accepts connections and never answers."""

    def trial(self, folder: Path, rng: random.Random, reference: Reference, kills: int) -> Outcome:
        """Train beside it."""
        with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
            uri = f"http://127.0.0.1:{mute.getsockname()[1]}"
            code, command = self.run(folder, {"MLFLOW_TRACKING_URI": uri}, reference.seconds + PATIENCE)
        return Outcome(problems=self.compared(folder, reference, code, command))


@dataclass(frozen=True)
class CutLink:
    """The link between the server's machine and the hospitals' is cut and mended, at random moments."""

    cohort: Path
    name: str = "federate: link cut"
    share: int = 0

    def reference(self, folder: Path) -> Reference:
        """A run over a link that holds."""
        with _two_machines():
            return undisturbed(self._deployment(folder))

    def trial(self, folder: Path, rng: random.Random, reference: Reference, kills: int) -> Outcome:
        """Cut it some times."""

        def cut(deployment: Deployment) -> float | None:
            moment = rng.uniform(0, reference.seconds)
            if deployment.running["run"].ended_within(moment):
                return None
            _ip("-n", SITE, "link", "set", "site0", "down")
            time.sleep(rng.uniform(1, LONGEST_CUT))
            _ip("-n", SITE, "link", "set", "site0", "up")
            return moment

        with _two_machines():
            outcome = disturbed(self._deployment(folder), reference, cut, CUTS)
        outcome.kills = 0  # nothing was killed
        return outcome

    def _deployment(self, folder: Path) -> Deployment:
        hub, site = ("ip", "netns", "exec", HUB), ("ip", "netns", "exec", SITE)
        within = {"server": hub, "run": hub, **dict.fromkeys(NODES, site)}
        return Deployment(folder, self.cohort, HUB_ADDRESS, within)


def scenarios(cohort: Path) -> list[Scenario]:
    """Those that this machine permits; prints which are left out."""
    training = commands.scenarios(cohort)[0]
    found: list[Scenario] = [MuteMLflow("train: mute MLflow", training)]
    if os.geteuid() == 0 and shutil.which("mount"):
        found += [FullDisk("train: full disk", training), ReadOnlyHome("train: read-only home", training)]
    else:
        print("left out: full disk, read-only home: root alone can mount disks", file=sys.stderr)
    if os.geteuid() == 0 and shutil.which("ip"):
        found.append(CutLink(cohort))
    else:
        print("left out: link cut: needs root and iproute2", file=sys.stderr)
    return found


def _good(folder: Path) -> Path:
    """The undisturbed training's folder, beside a trial's."""
    return folder.parent / "reference" / "run"


@contextmanager
def _disk(folder: Path, options: str) -> Iterator[Path]:
    """A disk in memory, mounted with these options."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def _two_machines() -> Iterator[None]:
    """Two network namespaces with a link between them."""
    _remove()
    for name in (HUB, SITE):
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
    try:
        _ip("link", "add", "hub0", "netns", HUB, "type", "veth", "peer", "name", "site0", "netns", SITE)
        for name, device, address in ((HUB, "hub0", HUB_ADDRESS), (SITE, "site0", SITE_ADDRESS)):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "up")
        yield
    finally:
        _remove()


def _remove() -> None:
    for name in (HUB, SITE):
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
