"""Options that several commands share: their help, and the config that they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import typer

from ganseg_dist.config import RunConfig, override, parse_assignments
from ganseg_dist.registry import reader_names
from ganseg_dist.systems import recipe as named_recipe

DATA_HELP = (
    "The cohort: a folder as BraTS, Decathlon, nnU-Net or kaggle_3m lay it out, pictures in images/ and masks/ or in a "
    "folder a class, or a CSV manifest."
)
LABELS_HELP = (
    "What the values in the masks mean, where names do not or wrongly state it: binary, brats (1, 2, 4), brats2023 "
    "(1, 2, 3), brats2024-gli (1, 2, 3; 4 the cavity), brats2024-ped (1 enhancing, 2 and 3 core, 4 oedema), or a JSON "
    "file of labels and regions, as the README shows."
)


def one_of(names: Iterable[str]) -> str:
    """`brats, decathlon or manifest`."""
    *others, last = names
    return f"{', '.join(others)} or {last}"


LAYOUT_HELP = f"Read DATA as {one_of(reader_names())}; recognised when not given."


def _absolute_scheme(labels: str | None) -> str | None:
    """Make the path of a scheme's file absolute: a run stores it and may resume from another folder."""
    if labels is None:
        return None
    from ganseg_dist.data.labels import is_scheme_path

    return str(Path(labels).absolute()) if is_scheme_path(labels) else labels


SET_HELP = "A field of the config, as in train.epochs=5; repeatable. ganseg recipes RECIPE lists them."

RUN = typer.Argument(metavar="RUN", help="A run's name, its folder or its MLflow id.")
RECIPE = typer.Argument(metavar="RECIPE", help="As ganseg recipes lists them.")
DATA = typer.Option(..., metavar="DATA", help=DATA_HELP)
SETTINGS = typer.Option([], "--set", metavar="FIELD=VALUE", help=SET_HELP)
LAYOUT = typer.Option(None, metavar="NAME", help=LAYOUT_HELP)
LABELS = typer.Option(None, metavar="SCHEME", help=LABELS_HELP, callback=_absolute_scheme)
SKEW = typer.Option(None, metavar="dirichlet:ALPHA|fets", help="How unlike each other simulated hospitals are.")
GPU = typer.Option(False, "--gpu", help="Predict on a GPU.")


def recipe_config(
    recipe: str, assignments: list[str], *, from_sweep: str | None = None, changes: Mapping[str, Any] | None = None
) -> RunConfig:
    """The recipe's config with the fields that a sweep found best, then `changes`, then those of --set.

    Raises ConfigError for an unknown recipe or field and for an invalid value.
    """
    best: Mapping[str, Any] = {}
    if from_sweep is not None:
        from ganseg_dist.cli.remote_runs import fetch_sweep
        from ganseg_dist.studies.sweeps.publish import best_values

        fetch_sweep(from_sweep)
        best = best_values(from_sweep)
    return override(named_recipe(recipe), {**best, **(changes or {}), **parse_assignments(assignments)})


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its last parameter, a dataclass of options, as options that Typer sees."""
    *own, last = inspect.signature(command, eval_str=True).parameters.values()
    fields = inspect.signature(last.annotation, eval_str=True).parameters

    @wraps(command)
    def with_fields(**values: Any) -> None:
        options = last.annotation(**{name: values.pop(name) for name in fields})
        command(**values, **{last.name: options})

    parameters = [*own, *fields.values()]
    with_fields.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_fields.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_fields


def paragraphs(text: str) -> str:
    """Join each paragraph into one line, which the terminal wraps at its own width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))
