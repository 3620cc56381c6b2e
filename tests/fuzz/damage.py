"""Seeded damage to one file: its bytes, its structure, or what lies in its place."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STRANGE = (
    None, True, -1, 0, 3.5, 1e308, 10**30, float("nan"), float("inf"), "", "x", "../../outside", "/etc/passwd",
    "\x1b[31mred", "a\nb", "\x00", "$", "[/bold]", "💥", [], {}, [[[]]], [None], {"a": None}, "9" * 400,
)  # fmt: skip
"""Values that replace that of a field."""

DEEP = 100_000
"""Nested brackets, deeper than any recursive parser can go."""


def damage(file: Path, rng: np.random.Generator) -> str:
    """Damage the file in a way that the generator chooses; returns what was done.

    The file is replaced and never written through, as its content may be shared by a hard link.
    """
    ways: list[Callable[[Path, np.random.Generator], None]] = [*BYTES, *PLACE]
    if file.suffix == ".json":
        ways += [*JSON, *JSON]
    elif file.suffix == ".csv":
        ways += [*CSV, *CSV]
    way = ways[rng.integers(len(ways))]
    way(file, rng)
    return f"{way.__name__.strip('_')} of {file.name}"


def replace(file: Path, content: bytes) -> None:
    """New content under a new inode."""
    file.unlink()
    file.write_bytes(content)


def _flip_bits(file: Path, rng: np.random.Generator) -> None:
    content = bytearray(file.read_bytes() or b"\0")
    for _ in range(rng.integers(1, 4)):
        content[_place(content, rng)] ^= 1 << int(rng.integers(8))
    replace(file, bytes(content))


def _truncate(file: Path, rng: np.random.Generator) -> None:
    content = file.read_bytes()
    replace(file, content[: _place(content, rng)])


def _empty(file: Path, rng: np.random.Generator) -> None:
    replace(file, b"")


def _overwrite_span(file: Path, rng: np.random.Generator) -> None:
    content = bytearray(file.read_bytes() or b"\0")
    start = _place(content, rng)
    length = min(int(rng.integers(1, 64)), len(content) - start)
    content[start : start + length] = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
    replace(file, bytes(content))


def _drop_span(file: Path, rng: np.random.Generator) -> None:
    content = file.read_bytes()
    start = _place(content, rng)
    replace(file, content[:start] + content[start + int(rng.integers(1, 64)) :])


def _repeat_span(file: Path, rng: np.random.Generator) -> None:
    content = file.read_bytes()
    start = _place(content, rng)
    stop = start + int(rng.integers(1, 64))
    replace(file, content[:stop] + content[start:])


def _append(file: Path, rng: np.random.Generator) -> None:
    replace(file, file.read_bytes() + rng.bytes(int(rng.integers(1, 64))))


def _noise(file: Path, rng: np.random.Generator) -> None:
    replace(file, rng.bytes(int(rng.integers(1, 4096))))


def _place(content: bytes | bytearray, rng: np.random.Generator) -> int:
    """A position in the content; in every second call one near its beginning, where headers are."""
    length = max(len(content), 1)
    return int(rng.integers(min(length, 400) if rng.random() < 0.5 else length))


def _remove(file: Path, rng: np.random.Generator) -> None:
    file.unlink()


def _folder_instead(file: Path, rng: np.random.Generator) -> None:
    file.unlink()
    file.mkdir()


def _dangling_link(file: Path, rng: np.random.Generator) -> None:
    file.unlink()
    file.symlink_to(file.with_name("nowhere"))


def _link_to_itself(file: Path, rng: np.random.Generator) -> None:
    file.unlink()
    file.symlink_to(file)


def _pipe_instead(file: Path, rng: np.random.Generator) -> None:
    file.unlink()
    os.mkfifo(file)


def _json_field(file: Path, rng: np.random.Generator) -> None:
    """Another value, or none, in some place of the tree."""
    tree = json.loads(file.read_text())
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            places.append((node, key))
            walk(node[key])

    walk(tree)
    if not places:
        _json_other(file, rng)
        return
    node, key = places[rng.integers(len(places))]
    what = rng.integers(4)
    if what == 0:
        del node[key]
    elif what == 1 and isinstance(node, dict):
        node[f"{key}_2"] = node.pop(key)
    else:
        node[key] = STRANGE[rng.integers(len(STRANGE))]
    replace(file, json.dumps(tree).encode())


def _json_other(file: Path, rng: np.random.Generator) -> None:
    """Valid JSON of another kind."""
    replace(file, json.dumps(STRANGE[rng.integers(len(STRANGE))]).encode())


def _json_deep(file: Path, rng: np.random.Generator) -> None:
    replace(file, b"[" * DEEP + b"]" * DEEP)


def _json_huge_number(file: Path, rng: np.random.Generator) -> None:
    replace(file, b'{"format": ' + b"9" * 10_000 + b"}")


def _csv_cell(file: Path, rng: np.random.Generator) -> None:
    rows = list(csv.reader(io.StringIO(file.read_text())))
    row = rows[rng.integers(len(rows))]
    what = rng.integers(4)
    at = int(rng.integers(len(row)))
    if what == 0:
        del row[at]
    elif what == 1:
        row.insert(at, "more")
    else:
        row[at] = str(STRANGE[rng.integers(len(STRANGE))])
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    replace(file, text.getvalue().encode())


def _csv_row(file: Path, rng: np.random.Generator) -> None:
    rows = file.read_text().splitlines(keepends=True)
    at = int(rng.integers(len(rows)))
    rows[at:at] = [rows[at]] if rng.random() < 0.5 else ['"', "\n", ",,,,\n"]
    replace(file, "".join(rows).encode())


def _csv_huge_cell(file: Path, rng: np.random.Generator) -> None:
    replace(file, file.read_bytes() + b"x" * 200_000 + b",1\n")


BYTES = (_flip_bits, _truncate, _empty, _overwrite_span, _drop_span, _repeat_span, _append, _noise)
PLACE = (_remove, _folder_instead, _dangling_link, _link_to_itself, _pipe_instead)
JSON = (_json_field, _json_field, _json_field, _json_other, _json_deep, _json_huge_number)
CSV = (_csv_cell, _csv_cell, _csv_row, _csv_huge_cell)
