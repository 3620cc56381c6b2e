"""A federation over TLS, as `deploy/flower` sets it up, of which the server, a hospital's node, or both are killed."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ganseg_dist.federation.certificates import make_certificates
from ganseg_dist.federation.egress_manifest import verify
from tests.deploy.flower import SCRIPTS, SHORT, environment, make_sites, settings
from tests.deploy.processes import free_port
from verification.chaos.trial import LONGEST, WEIGHTS, Command, Outcome, Reference, differences, digests, leftovers

NODES = ("north", "south")
STARTED = 120.0
"""Seconds in which a server, or a node, starts."""
AGAIN = 5.0
"""Seconds before a run is requested again: the SuperLink notices within a minute that a killed run is over."""
IN_PROGRESS = " is started"
"""In run.sh's output."""
FIELDS = {
    **SHORT, "train.epochs": 4,
    # Every site in every round, and the last weights: a site that misses a round's scores must not change what is kept.
    "federation.quorum": 1.0, "federation.deadline_seconds": 60, "train.keep": "last",
}  # fmt: skip


@dataclass
class Deployment:
    """A server and two nodes, in a folder."""

    folder: Path
    cohort: Path
    host: str = "localhost"
    """By which nodes reach the server."""
    within: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Words before a process's command, by its name, such as those that enter a network namespace."""
    port: int = 0
    running: dict[str, Command] = field(default_factory=dict)

    def start(self) -> None:
        """Keys, policies, server, registration, nodes."""
        self.port = free_port()
        make_sites(self.folder, self.cohort, NODES, answers_per_round=1000)
        make_certificates(self.folder / "keys", ["localhost", *({self.host} - {"localhost"})], NODES, days=2)
        self.start_server()
        for name in NODES:
            subprocess.run(
                [*self.within.get("server", ()), SCRIPTS / "register.sh", "state", f"keys/{name}.pub"],
                cwd=self.folder, env={**os.environ, **environment()}, check=True, capture_output=True,
            )  # fmt: skip
            self.start_node(name)

    def start_server(self) -> None:
        """Start it, and wait until it listens."""
        self._start("server", "Uvicorn running on", "server.sh", "state", "keys", str(self.port))

    def start_node(self, name: str) -> None:
        """Start it, and wait until it is connected."""
        words = (name, f"keys/{name}.key", "keys/ca.crt", f"{self.host}:{self.port}", str(free_port()))
        self._start(name, "SuperNode ID: ", "node.sh", *words)

    def request(self) -> Command:
        """Start the run, or resume it; returns once it is in progress, or was not started."""
        words = ("run.sh", "state", "recipe=ganet_seg_debug", "run-name=f", f"set={settings(FIELDS)}", "least-sites=2")
        before = self._count("run", IN_PROGRESS)
        run = self._command("run", *words)
        while self._count("run", IN_PROGRESS) <= before and not run.ended_within(0.2):
            pass
        return run

    def in_progress(self) -> bool:
        """Request the run until it is in progress. False where it has completed."""
        end = time.monotonic() + LONGEST
        while (run := self.running.get("run")) is None or run.ended_within(0):
            if run is not None and run.process.returncode == 0:
                return False
            if time.monotonic() > end:
                raise TimeoutError(f"does not complete: {run.last_line() if run else 'nothing was started'}")
            if run is not None:
                time.sleep(AGAIN)
            self.request()
        return True

    def stop(self) -> None:
        """End everything."""
        for command in self.running.values():
            command.kill()

    def _start(self, name: str, ready: str, script: str, *words: str) -> None:
        before = self._count(name, ready)
        command = self._command(name, script, *words)
        end = time.monotonic() + STARTED
        while self._count(name, ready) <= before:
            if command.ended_within(0.2) or time.monotonic() > end:
                raise RuntimeError(f"{name}: does not start: {command.last_line()}")

    def _count(self, name: str, words: str) -> int:
        log = self.folder / f"{name}.log"
        return log.read_text(errors="replace").count(words) if log.exists() else 0

    def _command(self, name: str, script: str, *words: str) -> Command:
        self.running[name] = Command.start(
            [*self.within.get(name, ()), str(SCRIPTS / script), *words],
            self.folder,
            self.folder / f"{name}.log",
            {**environment(), "MLFLOW_TRACKING_URI": ""},
        )
        return self.running[name]


@dataclass(frozen=True)
class DeploymentScenario:
    """What is killed, at random moments of a run."""

    name: str
    share: int
    killed: tuple[str, ...]
    cohort: Path

    def reference(self, folder: Path) -> Reference:
        """A run in which nothing is killed."""
        return undisturbed(Deployment(folder, self.cohort))

    def trial(self, folder: Path, rng: random.Random, reference: Reference, kills: int) -> Outcome:
        """Kill and start again what is named, and request the run again until it has completed."""
        disturb = partial(self._disturb, rng, reference)
        return disturbed(Deployment(folder, self.cohort), reference, disturb, kills)

    def _disturb(self, rng: random.Random, reference: Reference, deployment: Deployment) -> float | None:
        run = deployment.running["run"]
        moment = rng.uniform(0, reference.seconds)
        if run.ended_within(moment):
            return None
        for name in self.killed:
            deployment.running[name].kill()
        for name in sorted(self.killed, key=lambda name: name != "server"):
            deployment.start_server() if name == "server" else deployment.start_node(name)
        return moment


def undisturbed(deployment: Deployment) -> Reference:
    """A run to its end."""
    try:
        deployment.start()
        started = time.monotonic()
        run = deployment.request()
        if not run.ended_within(LONGEST) or run.process.returncode != 0:
            raise RuntimeError(f"{deployment.folder}: does not run undisturbed: {run.last_line()}")
        return Reference(time.monotonic() - started, digests(deployment.folder, WEIGHTS))
    finally:
        deployment.stop()


def disturbed(
    deployment: Deployment, reference: Reference, disturb: Callable[[Deployment], float | None], times: int
) -> Outcome:
    """A run that is disturbed so many times, requested again until it has completed, and compared.

    Args:
        disturb: returns the moment of a disturbance, in seconds after the run was requested; None if it had ended.
    """
    outcome, folder = Outcome(), deployment.folder
    try:
        deployment.start()
        while outcome.kills < times and deployment.in_progress():
            moment = disturb(deployment)
            if moment is not None:
                outcome.kills += 1
                outcome.moments.append(round(moment, 1))
        while deployment.in_progress():
            if not deployment.running["run"].ended_within(LONGEST):
                raise TimeoutError(f"hangs: {deployment.running['run'].last_line()}")
    except TimeoutError as error:
        outcome.problems.append(str(error))
    finally:
        deployment.stop()
    for name in ("server", *NODES, "run"):
        if "Traceback" in (folder / f"{name}.log").read_text(errors="replace"):
            outcome.problems.append(f"{name}.log has a traceback")
    for name in NODES:
        with (folder / name / "egress.jsonl").open("rb") as lines:
            faults = verify(lines, lambda entry: None).faults
        outcome.problems += [f"{name}: egress.jsonl: {fault}" for fault in faults]
    outcome.problems += differences(reference.digests, digests(folder, WEIGHTS)) + leftovers(folder)
    return outcome


def scenarios(cohort: Path) -> list[DeploymentScenario]:
    """What is killed, on one cohort."""
    return [
        DeploymentScenario("federate: server", 5, ("server",), cohort),
        DeploymentScenario("federate: node", 5, ("south",), cohort),
        DeploymentScenario("federate: both", 5, ("server", "south"), cohort),
    ]
