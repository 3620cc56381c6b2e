"""A hospital's own file, site.toml: its data, and its policy (`federation.policy`)."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import BaseModel, Field, ValidationError

from ganseg_dist.config.fields import Frozen
from ganseg_dist.config.privacy import PrivacyDemand
from ganseg_dist.errors import ConfigError
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.files import read_text
from ganseg_dist.names import SiteName
from ganseg_dist.records import Problem, first_problem, no_such_field

FILE = "site.toml"
WRITTEN_BY = "write one with: ganseg site init"
WIDTH = 100
"""Characters of a comment's line."""


class SiteSettings(Frozen):
    """site.toml, which the hospital writes and which never leaves it."""

    name: SiteName
    """The hospital's name for the other parties, registered with its key; it leaves the hospital."""
    data: Path
    """Folder of the images, as `ganseg check` takes it."""
    layout: str | None = Field(default=None, examples=["brats"])
    """Layout of the images, as `ganseg check --layout` takes it; without it the layout is recognised."""
    labels: str | None = Field(default=None, examples=["brats"])
    """Meaning of the masks' values, as `ganseg check --labels` takes it; without it the layout's."""
    gpu: bool = False
    """Whether to train on a GPU."""
    patients: tuple[str, ...] | None = Field(default=None, examples=[["patient-001", "patient-002"]])
    """Take part with these patients alone; without it with all."""
    split: Mapping[str, tuple[str, ...]] | None = Field(
        default=None, examples=[{"train": ["patient-001"], "validation": ["patient-002"], "test": ["patient-003"]}]
    )
    """Patients by train, validation and test; without it they are sampled once and kept in split.json. No federation
    trains on a patient that was ever a test patient."""
    policy: SitePolicy = SitePolicy()

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a site.toml. Raises ConfigError naming the file and the field that is wrong."""
        try:
            return cls.model_validate(tomllib.loads(read_text(file)))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror}); {WRITTEN_BY}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{file}: is no text; {WRITTEN_BY}") from None
        except ValidationError as error:
            raise ConfigError(f"{file}: {_problem(error)}") from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{file}: is not valid TOML ({error}); correct it") from None

    def to_toml(self, *, comments: bool = True) -> str:
        """TOML that `load` reads, with each field's description as a comment above it."""
        return "\n\n".join(_tables(self, (), comments=comments)) + "\n"


def _tables(model: BaseModel, place: tuple[str, ...], *, comments: bool) -> list[str]:
    """The blocks of a table: its header, its values, then the tables in it."""
    values, tables = [f"[{'.'.join(place)}]"] if place else [], []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            tables += _tables(value, (*place, name), comments=comments)
        elif value is not None or comments:
            shown = _plain(field.examples[0] if value is None and field.examples else value)
            line = _line((*place, name), shown) if isinstance(shown, dict) else _line((name,), shown)
            about = textwrap.fill(field.description or "", WIDTH, initial_indent="# ", subsequent_indent="# ")
            block = textwrap.indent(line, "# " if value is None else "")
            (tables if isinstance(shown, dict) else values).append(f"{about}\n{block}" if comments else block)
    return values + tables


def _line(place: tuple[str, ...], value: Any) -> str:
    """The value at its place, as TOML."""
    for name in reversed(place):
        value = {name: value}
    return tomli_w.dumps(value).rstrip()


def _plain(value: Any) -> Any:
    """The value in TOML's types."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _problem(error: ValidationError) -> str:
    """The field and its problem; for an unknown field, the known name closest to it."""
    problem = Problem.first(error)
    if problem.kind == "extra_forbidden":
        parents = problem.place[:-1]
        table: Any = {(): SiteSettings, ("policy",): SitePolicy}.get(parents, PrivacyDemand)
        names = [".".join([*parents, name]) for name in table.model_fields]
        return no_such_field(problem.field, names, f"the fields are {', '.join(names)}")
    return f"{problem.field}: is missing" if problem.kind == "missing" else first_problem(error, "file")
