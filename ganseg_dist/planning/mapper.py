"""Work case by case, in this process or over a cluster, and how its progress is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Opens a progress bar with a title; its value is called with (done, total). The command line shows it."""


class Mapper(Protocol):
    """Applies a pure function to items, here or over a cluster, and yields results as they come, with their index."""

    def __call__(self, function: Callable[[Any], Any], items: list[Any]) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) in any order."""


def map_here(function: Callable[[Any], Any], items: list[Any]) -> Iterator[tuple[int, Any]]:
    """In this process, one after the other."""
    return enumerate(map(function, items))


@contextmanager
def no_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows nothing."""
    yield lambda done, total: None
