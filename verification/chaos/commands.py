"""Commands that are killed: each is run again until it ends, as its user would."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mlflow import MlflowClient

from verification.chaos.trial import (
    LONGEST,
    WEIGHTS,
    Command,
    Outcome,
    Reference,
    differences,
    digests,
    leftovers,
)

RECIPE = "ganet_seg_debug"
SHORT = ("--set", "data.test_fraction=0.3", "--set", "data.validation_fraction=0.3")


@dataclass(frozen=True)
class CommandScenario:
    """A command, its results, and its share of the kills."""

    name: str
    share: int
    words: tuple[str, ...]
    """After `ganseg`."""
    results: tuple[str, ...] = WEIGHTS

    def reference(self, folder: Path) -> Reference:
        """Run the command once; the time is without what the first use of a machine takes."""
        self._run_to_end(folder / "warm")
        started = time.monotonic()
        self._run_to_end(folder / "run")
        return Reference(time.monotonic() - started, digests(folder / "run", self.results))

    def trial(self, folder: Path, rng: random.Random, reference: Reference, kills: int) -> Outcome:
        """Kill the command at random moments, then let it end, then run it once more: no lock may be in its way."""
        outcome = Outcome()
        while outcome.kills < kills:
            moment = rng.uniform(0, reference.seconds)
            command = self.start(folder)
            if command.ended_within(moment):
                break
            command.kill()
            outcome.kills += 1
            outcome.moments.append(round(moment, 1))
        for purpose in ("to its end", "once more"):
            command = self.start(folder)
            if not command.ended_within(LONGEST):
                command.kill()
                outcome.problems.append(f"{purpose}: hangs")
            elif command.process.returncode != 0:
                outcome.problems.append(f"{purpose}: exits with {command.process.returncode}: {command.last_line()}")
        outcome.problems += self.compared(folder, reference, command) + unfinished_runs(folder)
        return outcome

    def start(self, folder: Path, changes: Mapping[str, str] = MappingProxyType({})) -> Command:
        """Start the command in a folder; `changes` replace variables of its `environment`."""
        words = [sys.executable, "-m", "ganseg_dist", *self.words]
        return Command.start(words, folder, folder / "output.log", {**environment(folder), **changes})

    def compared(self, folder: Path, reference: Reference, command: Command) -> list[str]:
        """Problems after the last run: a traceback, other results, and what is left over."""
        traceback = ["prints a traceback"] if "Traceback" in command.output() else []
        return traceback + differences(reference.digests, digests(folder, self.results)) + leftovers(folder)

    def _run_to_end(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        command = self.start(folder)
        if not command.ended_within(LONGEST) or command.process.returncode != 0:
            command.kill()
            raise RuntimeError(f"{self.name}: does not run undisturbed: {command.last_line()}")


def environment(folder: Path) -> dict[str, str]:
    """Runs, prepared images and MLflow in the trial's folder; one thread, so that sums have one order."""
    return {
        "GANSEG_RUNS": str(folder / "runs"), "GANSEG_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": "", "COLUMNS": "200",
    }  # fmt: skip


def unfinished_runs(folder: Path) -> list[str]:
    """MLflow's runs that no command ended."""
    database = folder / "runs" / "mlflow.db"
    if not database.exists():
        return []
    client = MlflowClient(f"sqlite:///{database}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [
        f"MLflow: {run.info.run_name} is {run.info.status}"
        for run in client.search_runs(experiments)
        if run.info.status != "FINISHED"
    ]


def scenarios(cohort: Path) -> list[CommandScenario]:
    """What is killed, on one cohort."""
    data = ("--data", str(cohort))
    return [
        CommandScenario("train", 25, ("train", RECIPE, *data, "--run-name", "r", "--local", *SHORT)),
        CommandScenario("prepare", 15, ("prepare", str(cohort), "--recipe", RECIPE, "--local"), ("store/**/*",)),
        CommandScenario(
            "study", 15, ("experiment", "folds", RECIPE, *data, "--folds", "3", "--run-name", "s", "--local", *SHORT)
        ),
        CommandScenario(
            "tune",
            15,
            ("tune", RECIPE, *data, "--trials", "3", "--scheduler", "none", "--search", "random", "--run-name", "t",
             *SHORT),
        ),
        CommandScenario(
            "federate", 15, ("federate", RECIPE, *data, "--sites", "2", "--run-name", "f", "--local", *SHORT)
        ),
    ]  # fmt: skip
