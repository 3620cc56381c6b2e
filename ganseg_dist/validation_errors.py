"""What pydantic reports of invalid data, as one line for a user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ganseg_dist.printable import printable
from ganseg_dist.suggestion import suggestion


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
        message = " ".join(problem["msg"].removeprefix("Value error, ").split())
        return cls(tuple(map(str, problem["loc"])), problem["type"], message, problem.get("input"))

    @property
    def field(self) -> str:
        """The dotted name of the field."""
        return printable(".".join(self.place))


def first_problem(error: ValidationError, whole: str = "") -> str:
    """`FIELD: MESSAGE` of the first problem, without the value; `whole` stands for several fields together."""
    problem = Problem.first(error)
    return f"{problem.field or whole}: {problem.message}".removeprefix(": ")


def no_such_field(field: str, known: Iterable[str], otherwise: str) -> str:
    """Message for an unknown field: `FIELD: no such field; did you mean KNOWN?`, or `otherwise` if none is close."""
    return f"{field}: no such field; {suggestion(field, known, otherwise)}"
