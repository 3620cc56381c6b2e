"""A run's folder, with everything that other commands need of the run, as JSON and safetensors.

runs/NAME/config.json       the resolved config
runs/NAME/split.json        patients by part
runs/NAME/data.json         the cohort's fingerprint: layout, cases with content hashes, what was excluded
runs/NAME/run.json          status, code version, workers, times, MLflow ids, the epoch that each stage kept
runs/NAME/checkpoints/      the two newest intact checkpoints; beside them Ray's state
runs/NAME/history.json      losses and scores of every epoch
runs/NAME/federation.json   of a federation: each round, with every site's weight, losses and scores
runs/NAME/model/            what `ganseg export` copies: weights, config, thresholds, card
runs/NAME/probabilities/    the model's probabilities of validation scans, once thresholds were searched
runs/NAME/evaluation/PART/  summary.json; cases.csv, thresholds.csv, gallery.npz, or of a classifier images.csv
runs/NAME/report.html
runs/NAME/.copy.json        with GANSEG_RUNS_URI: the state of its copy there
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ganseg_dist import __version__
from ganseg_dist.atomic import write_json
from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.data.record import DataRecord
from ganseg_dist.digests import Damaged, read_sealed, sealed
from ganseg_dist.engine.state import Epoch
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.federation.record import FederationRecord
from ganseg_dist.files import read_json
from ganseg_dist.names import LONGEST, RunName, folder_name, is_name
from ganseg_dist.records import Parsed, Record, validated

LONGEST_MADE = 90
"""Characters of a generated name."""
SEALED = frozenset({"run.json", "split.json", "data.json", "federation.json", "study.json", "best.json"})
"""Records that contain their digest: they are not written by hand, and their content is not validated further."""
RUN_FORMAT = 2
"""Format of a run's folder, incremented whenever earlier folders can no longer be read correctly."""
VERSIONED = frozenset({"run.json", "study.json"})
"""Records with the format of their folder."""
SWEEP = "sweep"
"""Kind of the studies whose trials a search proposes; other kinds are experiments."""
OF_MLFLOW = re.compile(r"mlartifacts|mlflow\.db.*", re.IGNORECASE)
"""Names in the runs folder that are no runs: MLflow's database with its lock and journals, and its files."""


class RequestRecord(Record):
    """The request besides the config, as a resumed run repeats it; of a federation's site, its data alone."""

    data: str
    """Absolute path."""
    layout: str | None = None
    labels: str | None = None
    """The scheme of the masks' values, where the user stated it."""
    healthy: str | None = None
    """Absolute path."""
    workers: int = 1
    least_workers: int | None = None
    gpus: bool = False
    local: bool = False
    exclude_bad: bool = False


class MLflowRecord(Record):
    """Where MLflow keeps the run."""

    uri: str = ""
    """Without a password."""
    run_id: str | None = None
    """None: the run is untracked."""
    experiment_id: str | None = None


class Kept(Record):
    """The epoch whose weights a stage handed on."""

    epoch: int
    best_of: tuple[str, ...]
    """The scores whose mean is best in this epoch; none: it is the last epoch."""


class RunRecord(Record):
    """Facts of a run; those that are not known yet are not in the file."""

    name: str = ""
    recipe: str = "unknown"
    status: str = "unknown"
    """started, training, interrupted or finished; of a sweep's trial also how the sweep ended it."""
    created: str | None = None
    """ISO 8601, with its zone."""
    seconds: float | None = None
    """Wall time from all starts to their ends, together."""
    version: str | None = None
    commit: str | None = None
    """Of a source checkout; + at its end: files differ from it."""
    workers: int | None = None
    device: str | None = None
    command: str | None = None
    error: str | None = None
    """Why an unfinished run stopped: the exception's name and text."""
    request: RequestRecord | None = None
    mlflow: MLflowRecord | None = None
    sweep: str | None = None
    """The sweep whose trial it is."""
    federated: bool = False
    """Whether it is a site's part of a federation."""
    sites: dict[str, int] | None = None
    """Patients by site, of a simulated federation; a deployment's sites report theirs as they join. None: no
    federation."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Sites of a simulated federation that take no part, with why."""
    absent: tuple[str, ...] = ()
    """Networks that stayed at the sites."""
    kept: dict[str, Kept] = Field(default_factory=dict)
    """By stage, of a finished run."""


def runs_root() -> Path:
    """The folder of runs as an absolute path: `GANSEG_RUNS`, or `runs` in the working folder."""
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
        """The model folder, which exists once training has finished."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def evaluation(self, part: str) -> Path:
        """Results on one part of the split (train, validation, test) or on all of another cohort."""
        return self.folder / "evaluation" / part

    def config(self) -> RunConfig:
        """The resolved config. Raises RunError when the file is not one."""
        try:
            return RunConfig.from_json(json.dumps(self.read("config.json")), str(self.folder / "config.json"))
        except ConfigError as error:
            raise RunError(f"{error}; restore the file, or train again under another --run-name") from None

    def split(self) -> Split:
        """The patients by part. Raises RunError when the file does not list them."""
        try:
            return Split.from_dict(self.read("split.json"))
        except (KeyError, TypeError):
            raise RunError(
                f"{self.folder / 'split.json'}: lists no train, validation and test patients; restore it"
            ) from None

    def data(self) -> DataRecord:
        """The cohort that it was trained on. Raises RunError when the file is missing or damaged."""
        return self.read_record("data.json", DataRecord)

    def history(self) -> tuple[Epoch, ...]:
        """The epochs of a finished run. Raises RunError when the file is missing or damaged."""
        return self.read_record("history.json", tuple[Epoch, ...])

    def federation(self) -> FederationRecord | None:
        """The rounds of a federation's run; None for any other run and before the last round.

        Raises RunError naming the field of an invalid file.
        """
        return self.find_record("federation.json", FederationRecord)

    def description(self) -> RunRecord:
        """run.json. Raises RunError when it is missing or damaged."""
        return self.read_record("run.json", RunRecord)

    @property
    def study_kind(self) -> Literal["sweep", "experiment"] | None:
        """The kind of a study's folder, whose runs lie beside it; None for another folder.

        Raises RunError when study.json is damaged.
        """
        if not (self.folder / "study.json").is_file() or (self.folder / "run.json").is_file():
            return None
        return "sweep" if self.read("study.json").get("kind") == SWEEP else "experiment"

    @property
    def mlflow_id(self) -> str | None:
        """The id of its MLflow run; None if it has none."""
        mlflow = self.description().mlflow
        return None if mlflow is None else mlflow.run_id

    def read(self, name: str) -> Any:
        """A JSON file of the folder.

        Raises RunError naming it if it is missing, damaged, or of another version's format.
        """
        path = self.folder / name
        remedy = "restore it, or choose another --run-name"
        if not path.exists():
            raise RunError(f"{path}: is missing; is {self.name} a finished run?")
        try:
            value = read_sealed(path) if name in SEALED else read_json(path)
        except Damaged as damage:
            raise RunError(f"{damage}; {remedy}") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: is not readable JSON ({error}); {remedy}") from None
        if name in VERSIONED and (stated := value.pop("format", 1)) != RUN_FORMAT:
            writer = value.get("commit") or value.get("version") or "which is unknown"
            raise RunError(
                f"{path}: run format {stated}, and ganseg-dist {__version__} reads {RUN_FORMAT}; use the version that "
                f"wrote it, {writer}, or choose another --run-name"
            )
        return value

    def read_record(self, name: str, kind: type[Parsed]) -> Parsed:
        """A JSON file of the folder as the type that was written. Raises as `read`, or naming the field."""
        return validated(kind, self.read(name), self.folder / name)

    def find_record(self, name: str, kind: type[Parsed]) -> Parsed | None:
        """The same; None where the file is missing."""
        return self.read_record(name, kind) if (self.folder / name).exists() else None

    def write(self, name: str, value: Any) -> None:
        """Replace a JSON file of the folder, by a `Record` or by JSON; a `SEALED` one, an object, gets its digest."""
        if isinstance(value, Record):
            value = value.model_dump(exclude_unset=True)
        if name in VERSIONED:
            value = {**value, "format": RUN_FORMAT}
        write_json(self.folder / name, sealed(value) if name in SEALED else value)

    def describe(self, **changes: Any) -> None:
        """Update fields of run.json."""
        file = self.folder / "run.json"
        known = self.description().model_dump(exclude_unset=True) if file.exists() else {}
        self.write("run.json", validated(RunRecord, {**known, **changes}, file))

    @property
    def finished(self) -> bool:
        """Whether training ran to its end."""
        return (self.folder / "run.json").exists() and self.description().status == "finished"


def generated_name(*parts: str) -> str:
    """A valid run name made of these parts, short enough to append a number."""
    return folder_name("-".join(parts), longest=LONGEST_MADE)


def name_of_trial(experiment: str, trial: str) -> str:
    """The run name of an experiment's trial: `EXPERIMENT.TRIAL`, shortened if it is too long."""
    return folder_name(f"{experiment}.{trial}")


def named_run(name: str) -> Run:
    """The run of this name, whether or not it exists.

    Raises ConfigError for an invalid name.
    """
    if not is_name(name, RunName):
        raise ConfigError(f"--run-name {name!r}: use up to {LONGEST} letters, digits, dots, dashes and underscores")
    if OF_MLFLOW.fullmatch(name):
        raise ConfigError(f"--run-name {name}: is where MLflow keeps its files beside the runs; choose another")
    return Run(runs_root() / name)


def training_run(name: str) -> Run:
    """The `named_run` in which to train.

    Raises RunError for the name of a study, whose folder is not a run's, and ConfigError for an invalid name.
    """
    run = named_run(name)
    if (kind := run.study_kind) is not None:
        article = "a" if kind == "sweep" else "an"
        raise RunError(f"{run.folder}: is {article} {kind}, not a run; choose another --run-name")
    return run


def check_room_for_trials(sweep: Run, trials: int) -> None:
    """Raises ConfigError if the names of a sweep's trials, NAME.001 and so on, would be too long."""
    longest = LONGEST - len(f".{trials:03d}")
    if len(sweep.name) > longest:
        raise ConfigError(
            f"--run-name {sweep.name}: has {len(sweep.name)} characters, and its trials' numbers come after it; use up "
            f"to {longest}"
        )


def all_runs() -> Iterator[Run]:
    """Every run under the runs folder, newest first."""
    described = sorted(runs_root().glob("*/run.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return (Run(path.parent) for path in described)


def candidate_folders(reference: str) -> tuple[Path, Path]:
    """Candidate folders of a reference: this path, and this name in the runs folder."""
    return Path(reference), runs_root() / reference


def experiment_command(kind: str) -> str:
    """The command that runs an experiment of this kind."""
    return {"federation": "ganseg federate", SWEEP: "ganseg tune"}.get(kind, f"ganseg experiment {kind}")


def find_run(reference: str) -> Run:
    """A run by its name, its folder or its MLflow id. Raises RunError listing the newest runs."""
    for folder in candidate_folders(reference):
        if (folder / "run.json").is_file():
            return Run(folder.resolve())
        kind = Run(folder).study_kind
        if kind == "sweep":
            raise RunError(f"{folder.resolve()}: is a sweep, and a run is needed; give one of its trials'")
        if kind == "experiment":
            raise RunError(
                f"{folder.resolve()}: is an experiment, and a run is needed; give one of its runs, or resume it by the "
                "command that started it"
            )
    for run in all_runs():
        with suppress(RunError):  # skip damaged runs
            if run.mlflow_id == reference:
                return run
    known = ", ".join(run.name for run, _ in zip(all_runs(), range(5), strict=False))
    raise RunError(f"{reference}: no such run in {runs_root()}" + (f"; the newest are {known}" if known else ""))


def store_root() -> Path:
    """The prepared store: `GANSEG_STORE`, or `.store` in the runs folder; absolute."""
    return Path(os.environ.get("GANSEG_STORE", runs_root() / ".store")).absolute()
