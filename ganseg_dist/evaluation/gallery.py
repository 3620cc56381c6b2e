"""gallery.npz: one slice each of the best, the median and the worst case of an evaluation."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ganseg_dist.errors import RunError
from ganseg_dist.files import parse_json, read_bytes

Plane = npt.NDArray[np.floating]
Masks = npt.NDArray[np.integer]

ARRAYS = ("image", "truth", "predicted", "anomaly", "reconstruction")


@dataclass(frozen=True, slots=True)
class Example:
    """A case's slice with the most lesion; of a healthy case, with the most foreground."""

    case: str
    slice: int
    """Counted from 0."""
    dice: float
    """Of the whole case, in [0, 1]."""
    sides_known: bool
    """Whether columns run from the patient's left to right."""
    image: Plane
    """(C, H, W) in [-1, 1]."""
    truth: Masks
    """(R, H, W) in {0, 1}."""
    predicted: Masks
    """(R, H, W) in {0, 1}."""
    anomaly: Plane | None = None
    """(1, H, W) in [0, 1]."""
    reconstruction: Plane | None = None
    """(C', H, W) in [-1, 1]."""
    rank: str = ""
    """Among the cases by Dice, once written: best, median or worst."""


def write_gallery(file: Path, examples: Sequence[Example]) -> None:
    """Write the best, the median and the worst case's example."""
    by_dice = sorted(examples, key=lambda example: example.dice, reverse=True)
    ranks = {"best": 0, "median": len(by_dice) // 2, "worst": len(by_dice) - 1}
    arrays: dict[str, npt.NDArray[Any]] = {}
    index = []
    for k, (rank, position) in enumerate(ranks.items()):
        example = by_dice[position]
        arrays |= {f"{k}/{name}": array for name in ARRAYS if (array := getattr(example, name)) is not None}
        index.append({
            "k": k, "case": example.case, "rank": rank, "slice": example.slice, "dice": example.dice,
            "sides_known": example.sides_known,
        })  # fmt: skip
    arrays["index"] = np.array(json.dumps(index))
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_gallery(file: Path) -> tuple[Example, ...]:
    """The examples of a gallery.npz; none where it is missing. Raises RunError naming the file where it is damaged."""
    if not file.exists():
        return ()
    try:
        with np.load(io.BytesIO(read_bytes(file)), allow_pickle=False) as arrays:
            return tuple(_example(entry, arrays) for entry in parse_json(str(arrays["index"])))
    except Exception as error:  # a damaged archive raises errors of a dozen classes
        raise RunError(f"{file}: cannot be read ({error}); evaluate again") from None


def _example(entry: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Example:
    key = entry["k"]
    return Example(
        case=str(entry["case"]),
        slice=int(entry["slice"]),
        dice=float(entry["dice"]),
        sides_known=bool(entry["sides_known"]),
        **{name: arrays[f"{key}/{name}"] for name in ("image", "truth", "predicted")},
        anomaly=arrays.get(f"{key}/anomaly"),
        reconstruction=arrays.get(f"{key}/reconstruction"),
        rank=str(entry["rank"]),
    )
