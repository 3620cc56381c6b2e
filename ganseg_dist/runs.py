"""A run's folder: everything about it that other commands need, as JSON and safetensors.

runs/NAME/config.json       the resolved config
runs/NAME/split.json        patients by part
runs/NAME/data.json         the cohort's fingerprint: layout, cases with content hashes, what was excluded
runs/NAME/run.json          status, code version, workers, times, MLflow ids
runs/NAME/checkpoints/      the newest whole checkpoint (local runner) or Ray's folder
runs/NAME/history.json      losses and scores of every epoch
runs/NAME/model/            what `ganseg export` copies: weights, config, thresholds, card
runs/NAME/evaluation/PART/  cases.csv, summary.json, thresholds.csv, gallery.npz
runs/NAME/report.html
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganseg_dist.atomic import write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.errors import RunError

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def runs_root() -> Path:
    """The folder of runs: `GANSEG_RUNS`, or `runs` in the working folder; absolute."""
    return Path(os.environ.get("GANSEG_RUNS", "runs")).absolute()


@dataclass(frozen=True, slots=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def model(self) -> Path:
        """The model folder, there once training has finished."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are kept."""
        return self.folder / "checkpoints"

    def evaluation(self, part: str) -> Path:
        """Results on one part of the split (train, validation, test) or on all of another cohort."""
        return self.folder / "evaluation" / part

    def config(self) -> RunConfig:
        """The resolved config."""
        return RunConfig.load(self.folder / "config.json")

    def split(self) -> Split:
        """The patients by part."""
        return Split.from_dict(self.read("split.json"))

    def read(self, name: str) -> Any:
        """A JSON file of the folder. Raises RunError naming it."""
        path = self.folder / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise RunError(f"{path}: is missing; is {self.name} a finished run?") from None
        except (OSError, json.JSONDecodeError) as error:
            raise RunError(f"{path}: cannot be read ({error})") from None

    def write(self, name: str, value: Any) -> None:
        """Replace a JSON file of the folder."""
        write_json(self.folder / name, value)

    def describe(self, **changes: Any) -> None:
        """Update fields of run.json."""
        path = self.folder / "run.json"
        self.write("run.json", {**(self.read("run.json") if path.exists() else {}), **changes})

    @property
    def finished(self) -> bool:
        """Whether training ran to its end."""
        return (self.folder / "run.json").exists() and self.read("run.json").get("status") == "finished"


def named_run(name: str) -> Run:
    """The run of this name under the runs folder, whether or not it exists. Raises RunError on an unusable name."""
    if not RUN_NAME.fullmatch(name):
        raise RunError(f"{name!r}: a run's name is made of letters, digits, dots, dashes and underscores")
    return Run(runs_root() / name)


def all_runs() -> Iterator[Run]:
    """Every run under the runs folder, newest first."""
    described = sorted(runs_root().glob("*/run.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return (Run(path.parent) for path in described)


def find_run(reference: str) -> Run:
    """A run by its name, its folder or its MLflow id. Raises RunError listing the newest runs."""
    for folder in (Path(reference), runs_root() / reference):
        if (folder / "run.json").is_file():
            return Run(folder.absolute())
    for run in all_runs():
        if run.read("run.json").get("mlflow", {}).get("run_id") == reference:
            return run
    known = ", ".join(run.name for run, _ in zip(all_runs(), range(5), strict=False))
    raise RunError(f"{reference}: no such run in {runs_root()}" + (f"; the newest are {known}" if known else ""))
