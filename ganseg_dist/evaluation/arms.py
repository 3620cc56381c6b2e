"""The methods that are scored side by side on the same cases: models, and a threshold on FLAIR as the baseline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ganseg_dist.config import DataConfig
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.preprocess import prepare_scan, restore
from ganseg_dist.data.scan import Scan, load_scan
from ganseg_dist.evaluation.results import ArmKind
from ganseg_dist.inference.predictor import CasePrediction, Predictor
from ganseg_dist.metrics.threshold import ThresholdScan

FLAIR_THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 100))
MOST_CASES_TO_FIT = 40


@dataclass(frozen=True, slots=True)
class ModelArm:
    """A trained model at its thresholds."""

    name: str
    kind: ArmKind
    predictor: Predictor

    @property
    def modalities(self) -> tuple[str, ...]:
        """The model's channels."""
        return self.predictor.modalities

    @property
    def regions(self) -> tuple[str, ...]:
        """The model's regions."""
        return self.predictor.regions

    def segment(self, scan: Scan) -> tuple[npt.NDArray[np.bool_], CasePrediction | None]:
        """Masks (R, X, Y, Z) on the scan's grid, and the model's whole prediction."""
        prediction = self.predictor.predict_scan(scan)
        return prediction.regions, prediction


@dataclass(frozen=True, slots=True)
class FlairThreshold:
    """Segments what is bright on FLAIR as whole tumour: the baseline that every trained model must beat."""

    threshold: float
    """On FLAIR scaled from [-1, 1] to [0, 1]."""
    config: DataConfig
    name: str = "FLAIR threshold"
    kind: ArmKind = "baseline"
    modalities: tuple[str, ...] = ("flair",)
    regions: tuple[str, ...] = ("wt",)

    @classmethod
    def fitted(cls, cases: Iterable[Case], config: DataConfig) -> FlairThreshold | None:
        """The threshold of the best mean Dice over these (training) cases; none when no case has FLAIR and a lesion."""
        usable = [case for case in cases if "flair" in case.images and case.mask is not None][:MOST_CASES_TO_FIT]
        if not usable:
            return None
        scan = ThresholdScan(thresholds=FLAIR_THRESHOLDS)
        for case in usable:
            prepared = prepare_scan(load_scan(case, ("flair",)), config, ("wt",))
            assert prepared.masks is not None
            scan.add(case.id, (prepared.image[None, :, 0] + 1) / 2, prepared.masks[None, :, 0] > 0)
        (best,) = scan.best()
        return None if best is None else cls(best.threshold, config)

    def segment(self, scan: Scan) -> tuple[npt.NDArray[np.bool_], CasePrediction | None]:
        """Masks (1, X, Y, Z), FLAIR at or above the threshold; there is no prediction."""
        flair = scan.modalities.index("flair")
        flair_scan = Scan(("flair",), scan.image[[flair]], None, scan.grid, case=scan.case)
        prepared = prepare_scan(flair_scan, self.config, ("wt",))
        brightness = restore(((prepared.image + 1) / 2).astype(np.float32), prepared.placement)
        return brightness >= self.threshold, None


Arm = ModelArm | FlairThreshold
