"""Keeps a model's predictions of scans, so that thresholds are tried in seconds, without predicting again.

FOLDER/index.json           the digest of the weights, and each case with its file
FOLDER/0003.safetensors     a case, inside the box that the masks or any threshold can reach
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from scipy.ndimage import find_objects

from ganseg_dist.atomic import save_new, whole_folder, write_json
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.grid import Volume
from ganseg_dist.data.scan import load_scan
from ganseg_dist.digests import Damaged, damage_as, read_sealed, sealed, verify_file
from ganseg_dist.errors import RunError
from ganseg_dist.evaluation.segmentation import region_masks
from ganseg_dist.files import sha256
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.masks import Mask

LOWEST = 0.02
"""The lowest threshold that can be tried: outside the box every probability is lower."""
INDEX = "index.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptCase:
    """The model's prediction of one scan, and its true mask."""

    case: str
    patient: str
    spacing_mm: tuple[float, ...] | None
    """None where it is not known; distances are then in pixels."""
    shape: tuple[int, int, int]
    """(X, Y, Z) of the scan."""
    corner: tuple[int, int, int]
    """Where the box begins in it."""
    probability: Volume
    """(R, x, y, z) in [0, 1], inside the box."""
    truth: Mask
    """(R, x, y, z), inside the box."""
    score: npt.NDArray[np.float32]
    """(S,) realism of its usable slices; empty where the model has no discriminator."""
    abnormal: npt.NDArray[np.bool_]
    """(S,) whether they hold tumour."""

    def whole(self, boxed: Mask) -> Mask:
        """(X, Y, Z) of a mask (x, y, z) inside the box."""
        mask = np.zeros(self.shape, bool)
        mask[tuple(slice(low, low + size) for low, size in zip(self.corner, boxed.shape, strict=True))] = boxed
        return mask


def keep_probabilities(
    folder: Path,
    predictor: Predictor,
    weights: str | None,
    cases: Sequence[Case],
    *,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Predict these cases into the folder, unless it holds the same predictions undamaged.

    Args:
        weights: the model's digest, which identifies its predictions.
        cases: with masks.

    Raises DataError when a case cannot be read, GansegError when a file cannot be written.
    """
    contents = {
        "weights": weights,
        "regions": list(predictor.regions),
        "cases": [{"case": case.id, "patient": case.patient} for case in cases],
    }
    if (folder / INDEX).exists():
        try:
            index = _verified_index(folder)
            if all(index.get(name) == value for name, value in contents.items()):
                return
        except Damaged as damage:
            logger.warning("%s; the cases are predicted again", damage)
    with whole_folder(folder) as unfinished:
        digests = []
        for number, case in enumerate(cases):
            file = unfinished / _file(number)
            save_new(file, partial(save_file, _arrays(_predict_case(predictor, case))))
            digests.append(sha256(file))
            advance(number + 1, len(cases))
        write_json(unfinished / INDEX, sealed(contents | {"digests": digests}))


def read_probabilities(folder: Path) -> tuple[KeptCase, ...]:
    """The cases that `keep_probabilities` kept. Raises RunError naming the file that is missing or damaged."""
    with damage_as(RunError, f"delete {folder} and search again"):
        cases = _verified_index(folder)["cases"]
    return tuple(_read(folder / _file(number), **case) for number, case in enumerate(cases))


def _predict_case(predictor: Predictor, case: Case) -> KeptCase:
    scan = load_scan(case, predictor.modalities)
    prediction = predictor.predict_scan(scan)
    truth = region_masks(scan, predictor.regions)
    corner, box = _box_of(np.any((prediction.probability >= LOWEST) | truth, axis=0))
    return KeptCase(
        case.id,
        case.patient,
        scan.grid.spacing_mm,
        prediction.probability.shape[1:],
        corner,
        prediction.probability[:, *box],
        truth[:, *box],
        *prediction.realism(),
    )


def _box_of(reached: Mask) -> tuple[tuple[int, int, int], tuple[slice, ...]]:
    """The corner and the slices of the smallest box around the voxels; without any it is a single voxel."""
    x, y, z = find_objects(reached, max_label=1)[0] or (slice(0, 1),) * 3
    return (x.start, y.start, z.start), (x, y, z)


def _arrays(kept: KeptCase) -> dict[str, npt.NDArray[Any]]:
    arrays = {
        "probability": kept.probability.astype(np.float32, copy=False),
        "truth": kept.truth,
        "score": kept.score.astype(np.float32, copy=False),
        "abnormal": kept.abnormal,
        "shape": np.array(kept.shape),
        "corner": np.array(kept.corner),
        "spacing_mm": np.array(kept.spacing_mm or (), np.float64),
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _read(file: Path, case: str, patient: str) -> KeptCase:
    arrays = load_file(file)
    x, y, z = (int(size) for size in arrays["shape"])
    i, j, k = (int(place) for place in arrays["corner"])
    spacing = tuple(float(size) for size in arrays["spacing_mm"]) or None
    return KeptCase(
        case, patient, spacing, (x, y, z), (i, j, k),
        arrays["probability"], arrays["truth"], arrays["score"], arrays["abnormal"],
    )  # fmt: skip


def _verified_index(folder: Path) -> dict[str, Any]:
    """Read the index. Raises Damaged where it, or the file of a case, is not as it was written."""
    index = read_sealed(folder / INDEX)
    for number, digest in enumerate(index.get("digests", ())):
        verify_file(folder / _file(number), digest)
    return index


def _file(number: int) -> str:
    return f"{number:04d}.safetensors"
