"""Help texts that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path

import typer

from ganseg_dist.registry import reader_names

DATA_HELP = (
    "The cohort: a folder as BraTS, Decathlon, nnU-Net or kaggle_3m lay it out, pictures in images/ and masks/ or in a "
    "folder a class, or a CSV manifest."
)
DISPLAY_HELP = (
    "GANSEG_DISPLAY=neurological shows the patient's left on the left; radiological, the default, on the right."
)
LABELS_HELP = (
    "What the values in the masks mean, where names do not tell or tell wrongly: binary, brats (1, 2, 4), brats2023 "
    "(1, 2, 3), brats2024-gli (1, 2, 3; 4 the cavity), brats2024-ped (1 enhancing, 2 and 3 core, 4 oedema), or a JSON "
    "file of labels and regions, as the README shows."
)
RUN_HELP = "A run's name, its folder or its MLflow id."


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


LABELS = typer.Option(None, metavar="SCHEME", help=LABELS_HELP, callback=_absolute_scheme)
SET_HELP = "A field of the config, as in train.epochs=5; repeatable. ganseg recipes RECIPE lists them."


def paragraphs(text: str) -> str:
    """Join each paragraph into one line, which the terminal wraps at its own width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))
