"""A figure of the page with its words, and how intervals become its bars."""

from __future__ import annotations

from dataclasses import dataclass

from ganseg_dist.metrics.statistics import Interval
from ganseg_dist.plots.intervals import Bar


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure and the sentence under it."""

    title: str
    figure: str
    caption: str


def interval_bar(label: str, interval: Interval, *, emphasised: bool = False) -> Bar:
    """The mean, with its ends where they are known."""
    low, high = (interval.low, interval.high) if interval.known else (None, None)
    return Bar(label, interval.mean, low, high, emphasised)
