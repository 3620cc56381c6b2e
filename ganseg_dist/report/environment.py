"""The Jinja environment of HTML pages: it escapes values and makes control characters visible."""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from ganseg_dist.printable import printable_lines


def page_environment(*folders: str) -> Environment:
    """An environment for the templates in these folders of the package; an undefined name is an error."""
    return Environment(
        loader=ChoiceLoader([PackageLoader("ganseg_dist", folder) for folder in folders]),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: Any) -> Any:
    """Make the control characters of plain `str` visible; `Markup`, from figures and templates, passes unchanged."""
    return printable_lines(value) if type(value) is str else value
