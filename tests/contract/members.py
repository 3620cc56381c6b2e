"""Functions that contract tests run in processes of their own, forked from a server that has loaded torch."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from clients.app import app
from ganseg_dist.config import RunConfig
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run, runs_root
from ganseg_dist.training.session import train_here
from server.simulation import Simulation, simulate

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])

FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def exit_code_of(target: Callable[..., None], *arguments: Any) -> int:
    """Run the target in a process of its own; its exit code, negative for the signal that killed it."""
    process = PROCESSES.Process(target=_as_here, args=(_places(), target, arguments))
    process.start()
    process.join(timeout=120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def _as_here(places: dict[str, str], target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """The fork server has the environment of the test that started it: another folder of runs, or none."""
    os.environ.update(places)
    target(*arguments)


def _places() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("GANSEG_")}


def train(folder: Path, config: RunConfig, prepared: Prepared) -> None:
    """A local run, from its newest checkpoint where there is one."""
    train_here(Run(folder), config, prepared, Tracker())


def train_and_list_events(folder: Path, config: RunConfig, prepared: Prepared, listed: Path) -> None:
    """A local run that lists its file operations in the checkpoints."""
    events: list[str] = []
    on_file_event(folder / "checkpoints", lambda event, path: events.append(f"{event} {Path(path).name}"))
    train(folder, config, prepared)
    listed.write_text("\n".join(events))


def train_until_event(folder: Path, config: RunConfig, prepared: Prepared, number: int) -> None:
    """A local run that is killed before its n-th file operation in the checkpoints, counted from 0."""
    kill_before(folder / "checkpoints", number, FILE_EVENTS)
    train(folder, config, prepared)


def train_until_save(folder: Path, config: RunConfig, prepared: Prepared, number: int) -> None:
    """A local run that is killed just before its n-th checkpoint gets its name, from 0."""
    kill_before(folder / "checkpoints", number, ("os.rename",))
    train(folder, config, prepared)


def federate_until_save(data: Path, config: RunConfig, name: str, number: int) -> None:
    """A federation of two hospitals whose server is killed just before its n-th checkpoint gets its name, from 0."""
    kill_before(runs_root() / name / "checkpoints", number, ("os.rename",))
    simulate(Simulation(TrainingRequest(config, data, run_name=name, local=True), "2"), app)


def kill_before(folder: Path, number: int, events: tuple[str, ...]) -> None:
    """Kill this process before the n-th of these events in the folder."""
    left = number

    def count(event: str, path: str) -> None:
        nonlocal left
        left -= event in events
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    on_file_event(folder, count)


def on_file_event(folder: Path, callback: Callable[[str, str], None]) -> None:
    """Call `callback` before each file operation of this process in the folder."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and str(arguments[0]).startswith(str(folder)):
            callback(event, str(arguments[0]))

    sys.addaudithook(hook)


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The networks of a finished run."""
    newest = FolderCheckpoints(folder / "checkpoints").latest()
    assert newest is not None
    return load_file(newest / "networks.safetensors")


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that differ in any bit or are missing on one side."""
    names = one.keys() | other.keys()
    return sorted(
        name for name in names if name not in one or name not in other or not torch.equal(one[name], other[name])
    )
