"""Typed JSON files: one frozen class each, which the writer builds and every reader gets back, validated."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ganseg_dist.errors import RunError
from ganseg_dist.validation_errors import first_problem

Parsed = TypeVar("Parsed")


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
