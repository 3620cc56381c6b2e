"""How a page's template takes what it shows: escaped, with control characters visible."""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from ganseg_dist.printable import printable_lines


def page_environment(*folders: str) -> Environment:
    """For the templates in these folders of the package."""
    return Environment(
        loader=ChoiceLoader([PackageLoader("ganseg_dist", folder) for folder in folders]),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: Any) -> Any:
    """Of text alone; markup is a figure, or what a template made."""
    return printable_lines(value) if type(value) is str else value
