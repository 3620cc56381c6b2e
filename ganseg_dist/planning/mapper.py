"""Work case by case: in this process, or over a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol


class Mapper(Protocol):
    """Applies a pure function to items, here or over a cluster, and yields results as they come, with their index."""

    def __call__(self, function: Callable[[Any], Any], items: list[Any]) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) in any order."""
        ...


def map_here(function: Callable[[Any], Any], items: list[Any]) -> Iterator[tuple[int, Any]]:
    """In this process, one after the other."""
    for index, item in enumerate(items):
        yield index, function(item)
