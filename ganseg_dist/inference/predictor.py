"""A trained model applied to one scan: prepared slice by slice, put back on the native grid."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ganseg_dist.data.batch import Batch
from ganseg_dist.data.grid import Grid, Volume
from ganseg_dist.data.nesting import Masks, Rows, regions_at
from ganseg_dist.data.preprocess import PreparedScan, prepare_scan, restore
from ganseg_dist.data.scan import Scan
from ganseg_dist.errors import DataError, RunError
from ganseg_dist.inference.ensemble import is_ensemble_folder, load_together, member_folders
from ganseg_dist.inference.model_folder import Model, load_model

SLICES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class PreparedPrediction:
    """The model's prediction of a prepared scan, on the prepared grid."""

    probability: Volume
    """(S, R, size, size) in [0, 1]."""
    anomaly: Volume | None
    """(S, 1, size, size) in [0, 1]."""
    reconstruction: Volume | None
    """(S, C', size, size) in [-1, 1]."""
    score: npt.NDArray[np.float32] | None
    """(S,) realism; low is abnormal."""


@dataclass(frozen=True, slots=True)
class CasePrediction:
    """The model's prediction of a scan, on the scan's grid."""

    grid: Grid
    probability: Volume
    """(R, X, Y, Z) in [0, 1]."""
    regions: Masks
    """(R, X, Y, Z), at the thresholds and nested."""
    thresholds: tuple[float, ...]
    """(R,) probabilities, the model's thresholds."""
    inside: Rows
    """For each region, its row and those of the regions inside it."""
    prepared: PreparedScan
    on_prepared: PreparedPrediction

    def realism(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Realism (N,) of the usable slices, and which of them hold a lesion (N,); empty without a discriminator."""
        score, usable = self.on_prepared.score, self.prepared.usable
        if score is None:
            return np.zeros(0, np.float32), np.zeros(0, bool)
        return score[usable], self.prepared.lesion[usable] > 0


def usable_device(name: str) -> torch.device:
    """The device. Raises RunError when it is a GPU that PyTorch cannot use here."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("GPU: PyTorch finds none on this machine; leave out --gpu or --gpus")
    return torch.device(name)


def check_finite(name: str, part: str, values: npt.ArrayLike) -> None:
    """Raises DataError, naming the case, where this part of a model's output holds NaN or infinity."""
    finite = np.isfinite(values)
    if not finite.all():
        n_bad = finite.size - int(finite.sum())
        raise DataError(
            f"{name}: the model's {part} is NaN or infinite in {n_bad} of {finite.size} values; use another model, "
            "or leave the case out"
        )


class Predictor:
    """A model ready to predict."""

    def __init__(self, model: Model, device: str = "cpu") -> None:
        """Raises RunError when the device is a GPU that this machine does not have."""
        self.config, self.system, self.thresholds = model.config, model.system, model.thresholds
        self.channels, self.absent, self.scheme = model.channels, model.absent, model.scheme
        self.device = usable_device(device)
        for network in self.system.networks.values():
            network.to(self.device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Predictor:
        """Load a model folder, or an exported ensemble. Raises RunError when it is incomplete or damaged."""
        model = load_together(member_folders(folder)) if is_ensemble_folder(folder) else load_model(folder)
        return cls(model, device)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The channels it needs, in order."""
        return self.config.data.modalities or ()

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions it segments, in order."""
        return self.config.data.regions or ()

    @property
    def inside(self) -> tuple[tuple[int, ...], ...]:
        """For each region, its row and those of the regions inside it."""
        return self.scheme.rows_inside(self.regions)

    def predict_scan(self, scan: Scan) -> CasePrediction:
        """Segment one scan; its modalities must be `self.modalities` in order.

        Raises DataError naming the case where the model gives NaN or infinity: a comparison with NaN is false and
        would be written as no tumour.
        """
        prepared = prepare_scan(scan, self.config.data, self.regions)
        on_prepared = self.predict_prepared(prepared.image)
        for part in fields(on_prepared):
            if (values := getattr(on_prepared, part.name)) is not None:
                check_finite(scan.case, part.name, values)
        probability = restore(on_prepared.probability, prepared.placement)
        thresholds = tuple(self.thresholds.of(region) for region in self.regions)
        regions = regions_at(probability, thresholds, self.inside)
        return CasePrediction(scan.grid, probability, regions, thresholds, self.inside, prepared, on_prepared)

    def predict_prepared(self, image: Volume) -> PreparedPrediction:
        """Predict slices (S, C, size, size) in [-1, 1], SLICES_AT_ONCE at a time."""
        parts: dict[str, list[Volume]] = {}
        with torch.inference_mode():
            for start in range(0, len(image), SLICES_AT_ONCE):
                planes = torch.from_numpy(np.ascontiguousarray(image[start : start + SLICES_AT_ONCE], np.float32))
                none = torch.zeros(len(planes), 0, *planes.shape[2:])
                unknown = torch.full((len(planes),), -1)
                batch = Batch(planes, none, torch.zeros_like(unknown), unknown).to(self.device)
                prediction = self.system.predict(batch)
                if "discriminator" in self.absent:
                    prediction = replace(prediction, anomaly=None, score=None)
                for name, part in {**prediction.pictures(), "score": prediction.score}.items():
                    if part is not None:
                        parts.setdefault(name, []).append(part.float().cpu().numpy())
        whole = {name: np.concatenate(pieces) for name, pieces in parts.items()}
        return PreparedPrediction(
            whole["probability"], whole.get("anomaly"), whole.get("reconstruction"), whole.get("score")
        )
