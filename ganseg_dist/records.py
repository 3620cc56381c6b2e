"""Typed JSON files, one frozen class each that every reader gets back, and pydantic's errors as one line for a user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ganseg_dist.errors import RunError
from ganseg_dist.printable import printable, shortened
from ganseg_dist.suggestion import suggestion

Parsed = TypeVar("Parsed")

LONGEST_MESSAGE = 300
LONGEST_FIELD = 100
"""Characters of a problem's text and of its field, which a file or a message may have chosen."""


class Record(BaseModel):
    """An object in a JSON file; fields that a newer version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def validated(kind: type[Parsed], value: Any, file: Path) -> Parsed:
    """The value as this type. Raises RunError naming the file and the first field that is wrong."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        remedy = "restore it, or write it again with the command that made it"
        raise RunError(f"{file}: {first_problem(error)}; {remedy}") from None


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a `ValidationError`."""

    place: tuple[str, ...]
    """Names and indices from the root to the field; empty for a problem of several fields together."""
    kind: str
    """Pydantic's type of error, such as `extra_forbidden`."""
    message: str
    value: Any
    """The value that was given, which may be confidential."""

    @classmethod
    def first(cls, error: ValidationError) -> Problem:
        """The first problem of an error."""
        problem = error.errors(include_url=False)[0]
        message = shortened(printable(" ".join(problem["msg"].removeprefix("Value error, ").split())), LONGEST_MESSAGE)
        return cls(tuple(map(str, problem["loc"])), problem["type"], message, problem.get("input"))

    @property
    def field(self) -> str:
        """The dotted name of the field."""
        return shortened(printable(".".join(self.place)), LONGEST_FIELD)


def first_problem(error: ValidationError, whole: str = "") -> str:
    """`FIELD: MESSAGE` of the first problem, without the value; `whole` stands for several fields together."""
    problem = Problem.first(error)
    return f"{problem.field or whole}: {problem.message}".removeprefix(": ")


def no_such_field(field: str, known: Iterable[str], otherwise: str) -> str:
    """Message for an unknown field: `FIELD: no such field; did you mean KNOWN?`, or `otherwise` if none is close."""
    return f"{field}: no such field; {suggestion(field, known, otherwise)}"
