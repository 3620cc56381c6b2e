"""`ganseg recipes`: list the recipes and their fields."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

import typer
from pydantic import BaseModel
from rich.table import Table

from ganseg_dist.cli import show
from ganseg_dist.console import PlainConsole


def recipes(
    name: str | None = typer.Argument(None, metavar="[RECIPE]", help="Show this recipe's fields."),
    as_json: bool = typer.Option(False, "--json", help="The recipe's config, or all recipes' names, as JSON."),
) -> None:
    """List the recipes, or one recipe's fields: each with its value and what it means.

    Any field can be set: [bold]ganseg train RECIPE --data DATA --set train.epochs=5[/bold]
    """
    from ganseg_dist.systems import recipe
    from ganseg_dist.systems import recipes as known_recipes

    if name is not None:
        config = recipe(name)
        if as_json:
            show.echo_json(config.model_dump(mode="json"))
        else:
            _print([(field, value, meaning) for field, value, meaning in _fields(config)])
    elif as_json:
        show.echo_json(list(known_recipes()))
    else:
        _print([(key, (inspect.getdoc(make) or "").split("\n\n")[0]) for key, make in known_recipes().items()])


def _print(rows: list[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for index in range(len(rows[0])):
        table.add_column(no_wrap=index == 0)
    for row in rows:
        table.add_row(*(" ".join(cell.split()) for cell in row))
    # A file has no terminal width to wrap at.
    console = show.out if show.out.is_terminal else PlainConsole(width=show.WIDEST)
    console.print(table, soft_wrap=False)


def _fields(node: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Field, value and meaning of every field that `--set` accepts."""
    from ganseg_dist.config.tree import FIXED

    for name, field in type(node).model_fields.items():
        value = getattr(node, name)
        if isinstance(value, BaseModel):
            yield from _fields(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" not in FIXED:
            yield f"{prefix}{name}", json.dumps(node.model_dump(mode="json")[name]), field.description or ""
