"""The typed config tree. A recipe returns one, `override` edits it, every run saves it.

It imports nothing heavy, so that `--help`, `--dry-run` and sweep drivers are fast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, StrictInt, ValidationError, model_validator
from pydantic_core import CoreSchema

from ganseg_dist.config.data import DataConfig
from ganseg_dist.config.federation import AnyFederationConfig, federation_class
from ganseg_dist.config.fields import Frozen
from ganseg_dist.config.system import SystemConfig
from ganseg_dist.config.train import TrainConfig
from ganseg_dist.errors import ConfigError
from ganseg_dist.files import read_text
from ganseg_dist.printable import shortened
from ganseg_dist.records import Problem, no_such_field
from ganseg_dist.registry import load, registered


class _OfRegisteredSystem:
    """Validates a field as the config of the registered system that its `name` gives."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        union: Any = reduce(or_, (load(entry.config) for entry in registered().values()))
        return handler.generate_schema(Annotated[union, Field(discriminator="name")])


AnySystemConfig = Annotated[SystemConfig, _OfRegisteredSystem()]

LONGEST_VALUE = 80
"""Characters of a value in an error."""

FIXED = ("recipe", "system.name")
"""Fields that identify the recipe and cannot be changed: another value would not fit the rest."""


class RunConfig(Frozen):
    """Everything that decides a run's weights."""

    # The systems' and strategies' classes import this package, so they are looked up when the first config is made.
    model_config = ConfigDict(defer_build=True)

    recipe: str
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0
    """Seed of the split, the weights, the order of the data and every random transform."""
    data: DataConfig = DataConfig()
    system: AnySystemConfig
    train: TrainConfig = TrainConfig()
    federation: AnyFederationConfig = Field(default_factory=lambda: federation_class()())

    @model_validator(mode="after")
    def _networks_fit_the_slices(self) -> RunConfig:
        size = self.data.size
        for field, widths in self.system.unet_widths.items():
            if size % 2 ** (len(widths) - 1):
                raise ValueError(
                    f"data.size: {size} is no multiple of {2 ** (len(widths) - 1)}, which the {len(widths)} widths of "
                    f"system.{field} need; take another size or fewer widths"
                )
        for field, widths in self.system.patch_widths.items():
            least = 2 * 2 ** len(widths)  # instance norm needs more than one patch
            if size < least:
                raise ValueError(
                    f"data.size: {size} is below {least}, which the {len(widths)} widths of system.{field} need; "
                    "take a larger size or fewer widths"
                )
        return self

    def to_json(self) -> str:
        """The resolved tree, readable and stable, which a machine without the packages of unused strategies reads."""
        return self.model_dump_json(indent=2, exclude={"federation": self.federation.of_other_packages()})

    def flat(self) -> dict[str, Any]:
        """Every field's value as a JSON type, by dotted name, as `override` takes them."""

        def fields(node: Mapping[str, Any], prefix: str) -> dict[str, Any]:
            values: dict[str, Any] = {}
            for name, value in node.items():
                values |= fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
            return values

        return fields(self.model_dump(mode="json"), "")

    def fields(self) -> list[str]:
        """The dotted names of the fields that can be set."""
        return [name for name in self.flat() if name not in FIXED]

    @classmethod
    def from_json(cls, text: str, source: str = "config.json") -> RunConfig:
        """A config from its JSON text. Raises ConfigError naming the source and the field."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_first_problem(error)}") from None

    @classmethod
    def load(cls, path: Path) -> RunConfig:
        """Read a saved config. Raises ConfigError naming the file."""
        try:
            return cls.from_json(read_text(path), str(path))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: is no text; give the config.json that a run saved") from None


def override(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Replace dotted fields, as in `{"train.epochs": 5}`; text values are read as JSON where they parse.

    `--set`, sweeps and federated runs all change a config here.
    Raises ConfigError naming the field, the value and, for an unknown field, a similar known one.
    """
    tree = config.model_dump(mode="json")
    for field, value in changes.items():
        if not _assign(tree, field, _parsed(value)):
            lists_them = f"ganseg recipes {config.recipe} lists the fields"
            raise ConfigError(no_such_field(field, config.fields(), lists_them))
    try:
        return RunConfig.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from None


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """`["train.epochs=5"]` to `{"train.epochs": "5"}`."""
    changes = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals or not field:
            raise ConfigError(f"--set {assignment}: expected FIELD=VALUE, such as train.epochs=5")
        changes[field.strip()] = value.strip()
    return changes


def _assign(tree: dict[str, Any], field: str, value: Any) -> bool:
    """Set a dotted field in the tree. Returns whether the tree has it."""
    *parents, last = field.split(".")
    node: Any = tree
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        return False
    # The word none means null, unless the field holds text.
    node[last] = None if value == "none" and not isinstance(node[last], str) else value
    return True


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return [_parsed(part.strip()) for part in value.split(",")] if "," in value else value


def _first_problem(error: ValidationError) -> str:
    problem, system = Problem.first(error), next(iter(registered()))
    if problem.place[:1] == ("system",):  # pydantic inserts the system's name after it
        system = "".join(problem.place[1:2])
        problem = replace(problem, place=(*problem.place[:1], *problem.place[2:]))
    field, value = problem.field, problem.value
    if problem.kind == "extra_forbidden":
        known = RunConfig.model_validate({"recipe": "", "system": {"name": system}}).fields()
        return no_such_field(field, known, "take it out")
    if problem.kind == "value_error" and not field:
        return problem.message  # it relates fields of two nodes and names them itself
    value_text = "" if isinstance(value, dict) else f" (got {shortened(repr(value), LONGEST_VALUE)})"
    if problem.kind == "tuple_type":
        return f'{field}: is a list; write it as ["a", "b"]{value_text}'
    return f"{field or 'config'}: {problem.message}{value_text}"
