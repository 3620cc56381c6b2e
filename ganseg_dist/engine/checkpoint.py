"""Checkpoints: a folder of safetensors and JSON with a digest of each file. Nothing is ever unpickled.

Training resumes from the newest whole checkpoint. One that is damaged on disk costs the epoch since the one before
it; repeating that epoch gives the same weights.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ganseg_dist.atomic import UNFINISHED, save_new, unfinished_folder
from ganseg_dist.digests import Damaged, damage_as, first_damage, read_sealed, sealed, verify_file
from ganseg_dist.engine.state import Epoch, Position, State, flat_weights, weights_of
from ganseg_dist.errors import RunError, one_line
from ganseg_dist.files import sha256
from ganseg_dist.records import validated

FORMAT = 2
KEPT = 2
"""Checkpoints in a folder: where the newest is damaged on disk, the one before it costs an epoch and not the run."""
PARTS = ("networks", "ema", "best", "optimizers", "rng")
DESCRIPTION = "state.json"
REMEDY = "rerun the same command, or delete {folder} to do without it"

Warn = Callable[[str], object]
"""Receives a warning for the user, one line."""

logger = logging.getLogger(__name__)


class Checkpoints:
    """Where a runner keeps checkpoints; here nowhere, for benchmarks and callers that keep the state themselves."""

    def latest(self, warn: Warn) -> Path | None:
        """The newest whole checkpoint's folder, the same on every rank; none where there is no checkpoint.

        `warn` is given a line for each newer one, which is damaged. Raises RunError when all are damaged.
        """
        return None

    def save(self, scores: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """Called on every rank after every epoch; `write` fills a folder and is for rank 0 alone."""


class FolderCheckpoints(Checkpoints):
    """The newest whole checkpoints in a folder. A new one is written beside them and renamed into place."""

    def __init__(self, folder: Path, *, writes: bool = True, kept: int = KEPT) -> None:
        self.folder, self.writes, self.kept = folder, writes, kept

    def all(self) -> list[Path]:
        """Every checkpoint's folder, oldest first; half-written ones have another name."""
        return sorted(self.folder.glob("step-*"))

    def newest(self) -> Path | None:
        """The newest checkpoint's folder, unread."""
        return max(self.all(), default=None)

    def latest(self, warn: Warn = logger.warning) -> Path | None:
        """The newest checkpoint's folder that is whole; none where there is no checkpoint.

        A writer puts newer ones, which are damaged, aside: the next checkpoint may get their name.

        Raises RunError when all are damaged.
        """
        return self.latest_of(self.all(), warn)

    def latest_of(self, folders: Sequence[Path], warn: Warn = logger.warning) -> Path | None:
        """As `latest`, of these checkpoints, oldest first.

        Raises RunError when all are damaged.
        """
        damaged: dict[Path, Damaged] = {}
        for folder in reversed(folders):
            damage = checkpoint_damage(folder)
            if damage is None:
                for newer, what in damaged.items():
                    warn(f"{what}; resuming from the checkpoint before it, {folder.name}")
                    if self.writes:
                        _put_aside(newer)
                return folder
            damaged[folder] = damage
        if damaged:
            first = next(iter(damaged.values()))
            raise RunError(f"{first}, and no checkpoint before it is whole; delete {self.folder} to start over")
        return None

    def history(self) -> list[Epoch]:
        """The epochs in the newest checkpoint whose description is whole; empty where there is none."""
        for folder in reversed(self.all()):
            with suppress(RunError):  # a trainer may delete it meanwhile
                return read_position(folder).history
        return []

    def last(self) -> Path:
        """The newest, after training. Raises RunError when there is none."""
        newest = self.newest()
        if newest is None:
            raise RunError(f"{self.folder}: holds no checkpoint after training")
        return newest

    def save(self, scores: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """Write, rename, then drop the oldest: a kill at any moment leaves the newest whole.

        Raises RunError when the file cannot be written; earlier checkpoints then stay.
        """
        if not self.writes:
            return
        try:
            self._add(write)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"{self.folder}: no checkpoint can be written ({error}); free space and rerun the same command: "
                "it resumes from the last whole one"
            ) from None

    def _add(self, write: Callable[[Path], None]) -> None:
        for leftover in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with unfinished_folder(self.folder) as unfinished:
            write(unfinished)
            position = read_position(unfinished)
            # A stage's end has the same step as its last epoch; the stage's number makes its name sort after that.
            unfinished.rename(self.folder / f"step-{position.step:09d}-stage-{position.stage}")
        for oldest in self.all()[: -self.kept]:
            shutil.rmtree(oldest, ignore_errors=True)


def checkpoint_damage(folder: Path) -> Damaged | None:
    """The first damage in a checkpoint; None where it is whole."""
    return first_damage(folder / DESCRIPTION)


def read_position(folder: Path) -> Position:
    """The position in the run. Raises RunError when the checkpoint's description is missing or damaged."""
    return validated(Position, _read_description(folder)["position"], folder / DESCRIPTION)


def save_checkpoint(folder: Path, state: State) -> None:
    """Write the whole state into an existing folder. Files that the caller has put there are part of the checkpoint."""
    optimizer_tensors, optimizer_settings = _split_optimizers(state)
    parts: dict[str, dict[str, Tensor]] = {
        "networks": flat_weights(state.networks),
        "ema": flat_weights({name: average.module for name, average in state.ema.items()}),
        "best": dict(state.best),
        "optimizers": optimizer_tensors,
        "rng": _rng_states(),
    }
    for name in PARTS:
        tensors = {key: value.contiguous() for key, value in parts[name].items()}
        save_new(folder / f"{name}.safetensors", partial(save_file, tensors))
    state.position.balances = {phase: dict(balance.norms) for phase, balance in state.balances.items()}
    described = {
        "format": FORMAT,
        "position": asdict(state.position),
        "optimizers": optimizer_settings,
        "averaged": {name: int(average.n_averaged) for name, average in state.ema.items()},
        "digests": {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != DESCRIPTION},
    }
    (folder / DESCRIPTION).write_text(json.dumps(sealed(described), indent=1), encoding="utf-8")
    _sync(folder)


def load_checkpoint(folder: Path, state: State) -> None:
    """Fill a fresh state. Raises RunError naming the file that is missing, damaged or of another model."""
    described = _read_description(folder)
    parts = {name: _read_part(folder / f"{name}.safetensors", described["digests"]) for name in PARTS}
    try:
        for name, network in state.networks.items():
            network.load_state_dict(weights_of(parts["networks"], name))
        for name, average in state.ema.items():
            average.module.load_state_dict(weights_of(parts["ema"], name))
            average.n_averaged.fill_(described["averaged"][name])
        for name, optimizer in state.optimizers.items():
            optimizer.load_state_dict(
                _joined_optimizer(weights_of(parts["optimizers"], name), described["optimizers"][name])
            )
        for phase, norms in described["position"]["balances"].items():
            state.balances[phase].norms = dict(norms)
    except (RuntimeError, KeyError, ValueError) as error:
        raise RunError(f"{folder}: holds another model than the config describes ({one_line(error)})") from None
    state.best = parts["best"]
    state.position = validated(Position, described["position"], folder / DESCRIPTION)
    _restore_rng(parts["rng"])


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / DESCRIPTION
    with damage_as(RunError, REMEDY.format(folder=folder)):
        described = read_sealed(file)
    if described.get("format") != FORMAT:
        raise RunError(f"{file}: checkpoint format {described.get('format')}; this version reads {FORMAT}")
    return described


def _read_part(file: Path, digests: Mapping[str, str]) -> dict[str, Tensor]:
    with damage_as(RunError, REMEDY.format(folder=file.parent)):
        verify_file(file, digests.get(file.name))
        return load_file(file)


def _put_aside(folder: Path) -> None:
    """Rename it to an unfinished one, which is deleted when the next checkpoint is written."""
    aside = folder.with_name(f"{UNFINISHED}{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):  # writing the next checkpoint raises the error
        folder.rename(aside)


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
    """Torch's generators. The engine's samples are keyed by seed, epoch and example and need none."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_rng(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _sync(folder: Path) -> None:
    """Flush to disk before the rename makes it the latest."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
