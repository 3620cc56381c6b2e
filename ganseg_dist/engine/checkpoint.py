"""Checkpoints: a folder of safetensors and JSON with a digest of each file. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ganseg_dist.engine.state import Position, State
from ganseg_dist.errors import RunError

FORMAT = 1
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
    """The last whole checkpoint in a folder. A new one is written beside it and renamed into place."""

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder, self.writes = folder, writes

    def latest(self) -> Path | None:
        """The newest epoch folder; half-written ones have another name."""
        whole = sorted(self.folder.glob("step-*"))
        return whole[-1] if whole else None

    def save(self, scores: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """Write, rename, then drop the older ones: a kill at any moment leaves a whole checkpoint."""
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".unfinished-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished = self.folder / f".unfinished-{os.getpid()}"
        unfinished.mkdir()
        write(unfinished)
        position = json.loads((unfinished / "state.json").read_text())["position"]
        older = list(self.folder.glob("step-*"))
        # A stage's end is kept beside the last epoch before it, which has the same step, until it is whole.
        unfinished.replace(self.folder / f"step-{position['step']:09d}-stage-{position['stage']}")
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)


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
        save_file({key: value.contiguous() for key, value in parts[name].items()}, file)
        digests[file.name] = _digest(file)
    state.position.balances = {phase: dict(balance.norms) for phase, balance in state.balances.items()}
    described = {
        "format": FORMAT,
        "position": asdict(state.position),
        "optimizers": optimizer_settings,
        "averaged": {name: int(average.n_averaged) for name, average in state.averages.items()},
        "digests": digests,
    }
    (folder / "state.json").write_text(json.dumps(described, indent=1))
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
        described: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):  # no text, or no JSON
        raise RunError(f"{file}: is missing or damaged; delete {folder} and resume again") from None
    if described.get("format") != FORMAT:
        raise RunError(f"{file}: checkpoint format {described.get('format')}; this version reads {FORMAT}")
    return described


def _read_part(file: Path, digests: Mapping[str, str]) -> dict[str, Tensor]:
    try:
        if _digest(file) != digests.get(file.name):
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


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Flush to disk before the rename makes it the latest."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
