"""Checkpoints: a folder of safetensors and JSON with a digest of each file. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ganseg_dist.atomic import save_new
from ganseg_dist.engine.state import Position, State
from ganseg_dist.errors import RunError
from ganseg_dist.files import read_json, sha256

FORMAT = 1
KEPT = 2
"""Checkpoints in a folder: where the newest is damaged on disk, the one before it costs an epoch and not the run."""
PARTS = ("networks", "averages", "best", "optimizers", "rng")


class Checkpoints(Protocol):
    """Where a runner keeps checkpoints."""

    def latest(self) -> Path | None:
        """The newest whole checkpoint's folder."""
        ...

    def save(self, scores: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """Called on every rank after every epoch; `write` fills a folder and is for rank 0 alone."""
        ...


class NoCheckpoints:
    """Keeps nothing: for benchmarks, and for callers that carry the state themselves."""

    def latest(self) -> Path | None:
        """Nothing to resume from."""
        return None

    def save(self, scores: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """Nothing."""


class FolderCheckpoints:
    """The newest whole checkpoints in a folder. A new one is written beside them and renamed into place."""

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder, self.writes = folder, writes

    def latest(self) -> Path | None:
        """The newest checkpoint's folder; half-written ones have another name."""
        return max(self.folder.glob("step-*"), default=None)

    def last(self) -> Path:
        """The newest, after training. Raises RunError when there is none."""
        newest = self.latest()
        if newest is None:
            raise RunError(f"{self.folder}: holds no checkpoint after training")
        return newest

    def save(self, scores: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """Write, rename, then drop the oldest: a kill at any moment leaves the newest whole.

        Raises RunError when the disk refuses; the checkpoints before are then still there.
        """
        if not self.writes:
            return
        try:
            self._add(write)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"{self.folder}: no checkpoint can be written ({error}); free space and start the same command again: "
                "it goes on from the last whole one"
            ) from None

    def _add(self, write: Callable[[Path], None]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".unfinished-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished = self.folder / f".unfinished-{os.getpid()}"
        unfinished.mkdir()
        write(unfinished)
        position = read_json(unfinished / "state.json", finite=False)["position"]
        # A stage's end has the step of the last epoch before it: the stage makes its name another, and a later one.
        unfinished.replace(self.folder / f"step-{position['step']:09d}-stage-{position['stage']}")
        for oldest in sorted(self.folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(oldest, ignore_errors=True)


def save_checkpoint(folder: Path, state: State) -> None:
    """Write the whole state into an existing empty folder."""
    optimizer_tensors, optimizer_settings = _split_optimizers(state)
    parts: dict[str, dict[str, Tensor]] = {
        "networks": _weights(state.networks),
        "averages": _weights({name: average.module for name, average in state.averages.items()}),
        "best": dict(state.best),
        "optimizers": optimizer_tensors,
        "rng": _rng_states(),
    }
    digests = {}
    for name in PARTS:
        file = folder / f"{name}.safetensors"
        tensors = {key: value.contiguous() for key, value in parts[name].items()}
        save_new(file, partial(save_file, tensors))
        digests[file.name] = sha256(file)
    state.position.balances = {phase: dict(balance.norms) for phase, balance in state.balances.items()}
    described = {
        "format": FORMAT,
        "position": asdict(state.position),
        "optimizers": optimizer_settings,
        "averaged": {name: int(average.n_averaged) for name, average in state.averages.items()},
        "digests": digests,
    }
    (folder / "state.json").write_text(json.dumps({**described, "digest": _json_digest(described)}, indent=1))
    _sync(folder)


def load_checkpoint(folder: Path, state: State) -> None:
    """Fill a fresh state. Raises RunError naming the file that is missing, damaged or of another model."""
    described = _read_description(folder)
    parts = {name: _read_part(folder / f"{name}.safetensors", described["digests"]) for name in PARTS}
    try:
        for name, network in state.networks.items():
            network.load_state_dict(_under(parts["networks"], name))
        for name, average in state.averages.items():
            average.module.load_state_dict(_under(parts["averages"], name))
            average.n_averaged.fill_(described["averaged"][name])
        for name, optimizer in state.optimizers.items():
            optimizer.load_state_dict(
                _joined_optimizer(_under(parts["optimizers"], name), described["optimizers"][name])
            )
        for phase, norms in described["position"]["balances"].items():
            state.balances[phase].norms = dict(norms)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"{folder}: holds another model than the config describes ({reason})") from None
    state.best = parts["best"]
    state.position = Position(**described["position"])
    _restore_rng(parts["rng"])


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / "state.json"
    try:
        described: dict[str, Any] = read_json(file, finite=False)
        if described["format"] != FORMAT:
            raise RunError(f"{file}: checkpoint format {described['format']}; this version reads {FORMAT}")
        if described.pop("digest") != _json_digest(described):
            raise ValueError("something in it was changed")
    except (OSError, ValueError, TypeError, KeyError):  # no text, no JSON, no object, or not all of it
        raise RunError(f"{file}: is missing or damaged; delete {folder} and resume again") from None
    return described


def _read_part(file: Path, digests: Mapping[str, str]) -> dict[str, Tensor]:
    try:
        if sha256(file) != digests.get(file.name):
            raise RunError(f"{file}: is damaged (its digest differs); delete {file.parent} and resume again")
        return load_file(file)
    except (OSError, SafetensorError):
        raise RunError(f"{file}: is missing or damaged; delete {file.parent} and resume again") from None


def _weights(networks: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()}


def _under(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _split_optimizers(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Optimizer states as flat tensors `network.index.field`, and their settings as JSON."""
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for name, optimizer in state.optimizers.items():
        described = optimizer.state_dict()
        settings[name] = described["param_groups"]
        for index, fields in described["state"].items():
            tensors |= {f"{name}.{index}.{field}": value for field, value in fields.items()}
    return tensors, settings


def _joined_optimizer(tensors: Mapping[str, Tensor], groups: Any) -> dict[str, Any]:
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, field = key.partition(".")
        states.setdefault(int(index), {})[field] = value
    return {"state": states, "param_groups": groups}


def _rng_states() -> dict[str, Tensor]:
    """Torch's generators. The engine's own draws are keyed by seed, epoch and example and need none."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_rng(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _json_digest(value: dict[str, Any]) -> str:
    """Of the value and not of its file: JSON brings back every number to the bit, and the order of the keys."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _sync(folder: Path) -> None:
    """Flush to disk before the rename makes it the latest."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
