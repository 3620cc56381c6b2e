"""Sections of the report's results: charts, key figures, and the section of a system that its registry entry names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganseg_dist.config import RunConfig
from ganseg_dist.display import Convention
from ganseg_dist.evaluation.gallery import Example
from ganseg_dist.evaluation.results import Summary
from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.plots.intervals import Bar
from ganseg_dist.records import Parsed, validated
from ganseg_dist.registry import load, registered


@dataclass(frozen=True, slots=True)
class PartResults:
    """Measured on one part of the data."""

    file: Path
    """summary.json."""
    summary: Summary
    examples: tuple[Example, ...]
    """Each slice once."""
    modalities: tuple[str, ...]
    """Channels of the examples' images."""
    gan_modalities: tuple[str, ...]
    """Channels of their reconstructions."""
    convention: Convention
    """Orientation of pictures."""

    def evidence(self, kind: type[Parsed]) -> Parsed | None:
        """The evidence as the system wrote it; None where there is none. Raises RunError where it is damaged."""
        return None if self.summary.evidence is None else validated(kind, self.summary.evidence, self.file)


@dataclass(frozen=True, slots=True)
class Section:
    """Shows the recorded evidence of a system's GAN, on the page and on a terminal."""

    name: str
    """Its anchor, a word."""
    title: str
    view: Callable[[PartResults], Any]
    """Makes the template's `view`; returns None where there is nothing to show."""
    template: str
    """Jinja source of the section below its heading; it may import from `macros.html.j2`."""
    lines: Callable[[Mapping[str, Any]], Iterable[str]]
    """The evidence in lines for a terminal."""


def section_of(config: RunConfig | None) -> Section | None:
    """The section of the config's system; None where it has none. Raises ConfigError where it cannot be loaded."""
    path = None if config is None else registered()[config.system.name].section
    found: Section | None = None if path is None else load(path)
    return found


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure and the sentence under it."""

    title: str
    figure: str
    caption: str


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """A number shown at the top of the page."""

    name: str
    value: Interval
    score: str = ""
    """The score whose decimals it has; empty: three decimals."""


def interval_bar(label: str, interval: Interval, *, emphasised: bool = False) -> Bar:
    """The mean, with its ends where they are known."""
    low, high = (interval.low, interval.high) if interval.known else (None, None)
    return Bar(label, interval.mean, low, high, emphasised)
