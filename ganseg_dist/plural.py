"""Numbers with their nouns, for messages."""

from __future__ import annotations


def counted(n: int, singular: str, plural: str | None = None) -> str:
    """`1 case`, `2 cases`."""
    return f"{n} {singular if n == 1 else plural or singular + 's'}"
