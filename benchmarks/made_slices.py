"""Prepared slices of noise in the layout of the prepared store: the cost of a step does not depend on the images.

No images and no readers are needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ganseg_dist.config import RunConfig
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.data.store import write_prepared
from ganseg_dist.engine.trainer import StageData

SLICES_A_CASE = 40


def made_stage_data(folder: Path, config: RunConfig, slices: int) -> StageData:
    """`slices` slices with a lesion and as many without, on disk below `folder`; no validation slices."""
    rng = np.random.default_rng(0)
    modalities, regions = config.data.channels, config.data.regions or ()
    cases = []
    for start in range(0, 2 * slices, SLICES_A_CASE):
        lesion = np.arange(start, min(start + SLICES_A_CASE, 2 * slices)) % 2 == 0
        cases.append(_write_case(folder / f"case-{start:05d}", config, lesion, rng))
    return StageData(SliceSet.open(cases, modalities, regions), SliceSet.open([], modalities, regions))


def _write_case(folder: Path, config: RunConfig, lesion: np.ndarray, rng: np.random.Generator) -> Path:
    """Write a round head of grey noise; slices where `lesion` is True hold a disc that all regions share."""
    size, regions = config.data.size, config.data.regions or ()
    modalities = config.data.channels
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    foreground, disc = np.hypot(rows, columns) < 0.8, np.hypot(rows - 0.2, columns + 0.1) < 0.25
    image = rng.normal(0, 0.3, (len(lesion), len(modalities), size, size)).clip(-0.99, 1)
    masks = np.zeros((len(lesion), len(regions), size, size), np.uint8)
    masks[lesion] = disc
    folder.mkdir()
    description = {
        "id": folder.name,
        "patient": folder.name,
        "site": "made",
        "modalities": modalities,
        "regions": regions,
        "size": size,
        "sides_known": False,
        "class": None,
        "foreground": [float(foreground.mean())] * len(lesion),
        "lesion": (masks.any(axis=1).sum(axis=(1, 2))).tolist(),
    }
    write_prepared(folder, description, np.where(foreground, image, -1).astype(np.float16), masks)
    return folder
