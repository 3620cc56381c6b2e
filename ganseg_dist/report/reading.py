"""Reads a run's JSON files as typed records, whichever command wrote them."""

from __future__ import annotations

import math
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ganseg_dist.errors import RunError
from ganseg_dist.runs import Run
from ganseg_dist.validation_errors import first_problem

Parsed = TypeVar("Parsed")


class Record(BaseModel):
    """A node of a run's JSON files; fields that the report does not use are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Interval(Record):
    """A mean with its 95% interval over n subjects."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether the interval has a width: with one subject, or with equal values, it has none."""
        return self.low < self.high


class Difference(Record):
    """One arm minus another over the same subjects."""

    difference: Interval
    differs: bool | None
    """None: too few subjects to tell."""
    p_sign_flip: float | None = None
    p_wilcoxon: float | None = None


def read_record(run: Run, name: str, adapter: TypeAdapter[Parsed]) -> Parsed | None:
    """Read a JSON file of the run's folder; None where it is missing. Raises RunError naming the file and the field."""
    path = run.folder / name
    if not path.exists():
        return None
    try:
        return adapter.validate_python(run.read(name))
    except ValidationError as error:
        raise RunError(f"{path}: {first_problem(error)}; write it again with the command that made it") from None


def finite(text: str) -> float:
    """The text as a number. Raises ValueError when it is none, or is NaN or infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
