"""A trial: one of the runs that a study compares, what distinguishes it from the others, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Split
from ganseg_dist.evaluation.results import CaseRow
from ganseg_dist.runs import Run

TrialState = Literal["finished", "stopped", "diverged", "abandoned", "failed"]
"""finished: trained to the end. stopped: by the scheduler, as others scored better. diverged: its loss became infinite.
abandoned: its federation could not continue. failed: by an error; the trial runs again when the study is resumed.
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial that trains a run."""

    name: str
    """Unique within the study, fit for a folder."""
    values: Mapping[str, str | int | float]
    """What distinguishes it from the other trials, such as its arm and seed: columns of the table."""
    config: RunConfig
    split: Split

    def describe(self) -> dict[str, Any]:
        """Its entry in study.json; a study resumes only where this is the same."""
        config = self.config.model_dump(mode="json")
        return {"values": dict(self.values), "config": config, "split": self.split.to_dict()}


@dataclass(frozen=True, slots=True)
class ScoredTrial:
    """A trial that trains nothing: one way of scoring a finished run's test cases."""

    name: str
    values: Mapping[str, str | int | float]
    run: Run
    cases: tuple[str, ...]
    """Ids of the test cases."""
    seed: int = 0
    """Seed of the random changes, combined with the case."""

    def describe(self) -> dict[str, Any]:
        """Its entry in study.json, with the thresholds: a run calibrated again counts as another."""
        return {
            "values": dict(self.values),
            "run": self.run.name,
            "weights": self.run.read("model/model.json")["weights"],
            "thresholds": self.run.read("model/thresholds.json"),
            "cases": list(self.cases),
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How a trial ended: scores of test cases in an experiment, of all validation patients in a sweep."""

    name: str
    """Name of its run, where it trains one."""
    values: Mapping[str, Any]
    """As of the trial; in a sweep the values of the space's fields at the trial's end."""
    seconds: float = 0.0
    rows: tuple[CaseRow, ...] = ()
    """Scores by test case, or for a classifier by image."""
    patients_known: bool = True
    """False where images of unknown patients each count as a patient."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By metric of the sweep; a metric is missing where the trial ended before it was scored."""
    state: TrialState = "finished"
    reason: str = ""
    """Why it did not finish."""
    epochs: int = 0
    """Epochs of the last stage; 0 where nothing is trained."""
    curve: Sequence[tuple[int, float]] = ()
    """(epoch, first metric) for the epochs of the last stage, counted from 1, that score it."""
    kept: int | None = None
    """The epoch of the last stage, counted from 1, whose weights are kept and whose scores are in `scores`."""

    @property
    def number(self) -> str:
        """The last part of the name: `003` for a sweep's third trial."""
        return self.name.rpartition(".")[2]

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> TrialResult:
        """From its JSON, whose lists become tuples."""
        rows = tuple(CaseRow(**row) for row in record.get("rows", ()))
        curve = tuple((epoch, score) for epoch, score in record.get("curve", ()))
        return cls(**{**record, "rows": rows, "curve": curve})
