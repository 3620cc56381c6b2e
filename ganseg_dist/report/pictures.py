"""Draws examples as tiles: a picture as a data URI, with outlines as paths over it that a reader can switch off."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ganseg_dist.data.cohort import COLOURS
from ganseg_dist.display import Convention, View
from ganseg_dist.evaluation.gallery import Example
from ganseg_dist.plots.images import Mask, Pixels, grey, heat, outline_path, png, rgb
from ganseg_dist.report.score_text import joined, modality_label, region_label
from ganseg_dist.report.section import PartResults

SHOWN_ON = {"wt": ("flair", "t2"), "tc": ("t1ce", "t1"), "et": ("t1ce", "t1")}
"""The modality on which a region's border is judged: oedema on FLAIR, enhancement after contrast."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a row."""

    caption: str
    description: str
    """The picture's alternative text."""
    uri: str
    width: int
    height: int
    truth: str = ""
    """SVG path of the true outline; empty: none is drawn."""
    predicted: str = ""
    letters: tuple[str, str] | None = None
    """The patient's side on the left and on the right, where they are known."""


@dataclass(frozen=True, slots=True)
class Strip:
    """An example's tiles."""

    example: Example
    tiles: tuple[Tile, ...]
    caption: str
    """Which side of the patient is on the left; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class AnomalyScale:
    """Values of the darkest and the brightest colour, the same for all anomaly maps."""

    low: float
    high: float
    bar: str
    """The colour bar as a data URI, dark to bright."""


def distinct(examples: Sequence[Example]) -> list[Example]:
    """Each slice once, with all its ranks: with few cases the same one can be the median and the worst."""
    ranks: dict[tuple[str, int], list[str]] = {}
    for example in examples:
        ranks.setdefault((example.case, example.slice), []).append(example.rank)
    first = {(example.case, example.slice): example for example in reversed(examples)}
    return [replace(first[key], rank=joined(names)) for key, names in ranks.items()]


def overlay_strips(results: PartResults) -> list[Strip]:
    """Each example plain, then with the true and the predicted outline of each region."""
    return [
        _strip(example, results.convention, partial(_overlay_tiles, example, results)) for example in results.examples
    ]


def healthy_strips(results: PartResults, scale: AnomalyScale | None) -> list[Strip]:
    """Each example with an anomaly map or a reconstruction: the slice, its lesion filled, and the anomaly map."""
    return [
        _strip(example, results.convention, partial(_healthy_tiles, example, results, scale))
        for example in results.examples
        if example.anomaly is not None or example.reconstruction is not None
    ]


def anomaly_scale(examples: Sequence[Example]) -> AnomalyScale | None:
    """One scale for all anomaly maps, so that they can be compared; None without maps."""
    inside = [example.anomaly[0][_foreground(example)] for example in examples if example.anomaly is not None]
    levels = np.concatenate(inside) if inside else np.zeros(0)
    if not levels.size:
        return None
    bar = heat(np.tile(np.linspace(0, 1, 256), (1, 1)), 0, 1)
    return AnomalyScale(float(levels.min()), float(levels.max()), _uri(bar))


def _strip(example: Example, convention: Convention, tiles: Callable[[View], list[Tile]]) -> Strip:
    view = View.of(convention, sides_known=example.sides_known)
    return Strip(example, tuple(tiles(view)), view.caption)


def _overlay_tiles(example: Example, results: PartResults, view: View) -> list[Tile]:
    modalities, regions = results.modalities, results.summary.regions
    names = _channel_names(modalities, len(example.image))
    where = f"slice {example.slice + 1} of case {example.case}"
    plain, modality = _background(example, names, regions[0] if regions else "wt")
    tiles = [
        picture_tile(
            f"{modality_label(modality)} alone", f"{modality_label(modality)}, {where}, without outlines", plain, view
        )
    ]
    for region, truth, predicted in zip(regions, example.truth, example.predicted, strict=False):
        background, modality = _background(example, names, region)
        label = region_label(region, regions, modalities)
        description = (
            f"{modality_label(modality)}, {where}, with the outlines of the {label.lower()}: "
            f"true {int(truth.sum())} pixels, predicted {int(predicted.sum())}, "
            f"shared {int(np.logical_and(truth, predicted).sum())}"
        )
        caption = f"{label} on {modality_label(modality)}"
        tiles.append(picture_tile(caption, description, background, view, truth=truth, predicted=predicted))
    return tiles


def _healthy_tiles(example: Example, results: PartResults, scale: AnomalyScale | None, view: View) -> list[Tile]:
    names = _channel_names(results.modalities, len(example.image))
    where = f"slice {example.slice + 1} of case {example.case}"
    region = next(iter(results.summary.regions), "wt")
    tiles = []
    if example.reconstruction is not None:
        gan_names = _channel_names(results.gan_modalities, len(example.reconstruction))
        modality = _best_modality(gan_names, region)
        before = example.image[names.index(modality) if modality in names else 0]
        after = example.reconstruction[gan_names.index(modality)]
        tiles += [
            picture_tile(
                f"{modality_label(modality)}, as scanned",
                f"{modality_label(modality)}, {where}, as scanned",
                grey(before),
                view,
            ),
            picture_tile(
                "Predicted lesion filled",
                f"{modality_label(modality)}, {where}, its predicted lesion filled with healthy tissue",
                grey(after, like=before),
                view,
                predicted=example.predicted[0],
            ),
        ]
    if example.anomaly is not None and scale is not None:
        anomaly, foreground = example.anomaly[0], _foreground(example)
        inside = anomaly[foreground] if foreground.any() else anomaly
        lesion = (example.truth[0] > 0) & foreground
        levels = f"mean {float(inside.mean()):.2f} over the foreground"
        if lesion.any():
            levels += f", {float(anomaly[lesion].mean()):.2f} in the true lesion"
        colours = heat(anomaly, scale.low, scale.high)
        colours[~foreground] = 0
        description = f"Anomaly map of {where}: {levels}"
        tiles.append(picture_tile(f"Anomaly: {levels}", description, colours, view, truth=example.truth[0]))
    return tiles


def picture_tile(
    caption: str,
    description: str,
    pixels: Pixels,
    view: View,
    *,
    truth: Mask | None = None,
    predicted: Mask | None = None,
) -> Tile:
    """A tile of 8-bit pixels (H, W) or (H, W, 3), laid out with the masks (H, W) whose outlines lie over it."""
    height, width = pixels.shape[:2]
    uri = _uri(view.lay_out(pixels, columns=1))
    true_path, predicted_path = (
        "" if mask is None else outline_path(view.lay_out(mask)) for mask in (truth, predicted)
    )
    return Tile(caption, view.describe(description), uri, width, height, true_path, predicted_path, view.letters)


def _background(example: Example, names: Sequence[str], region: str) -> tuple[Pixels, str]:
    """The pixels behind a region's outlines and their name: a whole picture in colour, or one modality in grey."""
    if set(names) == set(COLOURS):
        return rgb(example.image[[names.index(colour) for colour in COLOURS]]), "colour"
    modality = _best_modality(names, region)
    return grey(example.image[names.index(modality)]), modality


def _best_modality(names: Sequence[str], region: str) -> str:
    return next((name for name in SHOWN_ON.get(region, ()) if name in names), names[-1])


def _channel_names(modalities: Sequence[str], channels: int) -> list[str]:
    return list(modalities) if len(modalities) == channels else [f"channel {index + 1}" for index in range(channels)]


def _foreground(example: Example) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Pixels that are not background in every channel, (H, W)."""
    return np.asarray((example.image > -0.999).any(axis=0))


def _uri(pixels: Pixels) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
