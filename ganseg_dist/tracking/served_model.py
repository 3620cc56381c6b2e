"""The script that MLflow runs to load a logged model: preprocessing, networks and thresholds behind one `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from ganseg_dist.data.grid import Grid
from ganseg_dist.data.scan import Scan, load_scan, voxel_flaw
from ganseg_dist.errors import DataError
from ganseg_dist.inference.inputs import read_inputs
from ganseg_dist.inference.predictor import Predictor


class SegmentationModel(PythonModel):
    """Masks from image files, or from raw slices in memory."""

    def load_context(self, context: Any) -> None:
        """Load the model folder."""
        self.predictor = Predictor.load(Path(context.artifacts["model"]))

    # MLflow takes a hint of one known type without inferring a schema from it; a union it warns about on every load.
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Masks at the model's thresholds, regions in the model's order.

        Args:
            context: MLflow's; not used after loading.
            model_input: a data frame whose column `path` names a file or a case folder in each row, or an array
                (N, C, H, W) of one case's slices, intensities as scanned, channels in the model's order.
            params: ignored.

        Returns:
            For a data frame, one with a row a case: `path`, `case`, `regions` (their names), `mask` (R, X, Y, Z)
            bool on the image's grid, and `labels` (X, Y, Z), the same in the values of the training masks,
            which the model's metadata name. For an array, (N, R, H, W) bool.

        Raises DataError when an input cannot be used.
        """
        if isinstance(model_input, np.ndarray):
            return self._slices(model_input)
        if not isinstance(model_input, pd.DataFrame) or "path" not in model_input:
            raise DataError("model input: expected a data frame with the column path, or an array (N, C, H, W)")
        rows = [row for path in model_input["path"] for row in self._cases(str(path))]
        return pd.DataFrame(rows, columns=["path", "case", "regions", "mask", "labels"])

    def _cases(self, path: str) -> list[dict[str, Any]]:
        modalities, regions = self.predictor.modalities, self.predictor.regions
        rows = []
        for case in read_inputs(Path(path), modalities):
            mask = self.predictor.predict_scan(load_scan(case, modalities, with_mask=False)).regions
            labels = self.predictor.scheme.label_map(mask, regions)
            rows.append({"path": path, "case": case.id, "regions": regions, "mask": mask, "labels": labels})
        return rows

    def _slices(self, slices: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        modalities = self.predictor.modalities
        if slices.ndim != 4 or slices.shape[1] != len(modalities):
            raise DataError(
                f"model input: an array of {slices.shape}; expected (N, {len(modalities)}, H, W) "
                f"with the channels {', '.join(modalities)}"
            )
        image = np.ascontiguousarray(np.moveaxis(slices, 0, -1), dtype=np.float32)
        flaw = voxel_flaw("the array", image)
        if flaw is not None:
            raise DataError(f"model input: {flaw.problem}; {flaw.remedy}")
        shape = (int(image.shape[1]), int(image.shape[2]), int(image.shape[3]))
        regions = self.predictor.predict_scan(
            Scan(modalities, image, None, Grid(shape, None), case="the array")
        ).regions
        return np.moveaxis(regions, -1, 0)


set_model(SegmentationModel())
