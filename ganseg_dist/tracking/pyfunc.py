"""A trained model in MLflow: the model folder, the code that reads it, and what that code needs. No pickle."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import ganseg_dist
from ganseg_dist.atomic import set_default_modes
from ganseg_dist.inference.model_folder import read_scheme
from ganseg_dist.tracking.connection import long_requests

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "model"
REQUIREMENTS = (
    "mlflow", "nibabel", "numpy", "pandas", "pillow", "pydantic", "safetensors", "scikit-image", "scipy",
    "tifffile", "torch", "torchmetrics",
)  # fmt: skip
"""What prediction imports; listed here because MLflow would infer it by loading the model in a new process."""


class ModelUpload:
    """Logs a model folder with its run, in place of the model that the run has: calibration changes a logged model.

    A retry after a failure continues with the entry that the failed attempt created.
    """

    def __init__(self, run_id: str, folder: Path) -> None:
        self.run_id, self.folder = run_id, folder
        self.model_id: str | None = None

    def send(self, client: MlflowClient) -> str:
        """Upload, and return the model's id: `models:/ID` and `runs:/RUN_ID/model` both load it."""
        from mlflow.entities import LoggedModelOutput

        run = client.get_run(self.run_id)
        linked = [] if run.outputs is None else [output.model_id for output in run.outputs.model_outputs]
        if self.model_id is None and linked:
            self.model_id = linked[-1]
        elif self.model_id is None:
            phantom = run.data.tags.get("ganseg.phantom", "false")
            created = client.create_logged_model(
                run.info.experiment_id, name=NAME, source_run_id=self.run_id, tags={"ganseg.phantom": phantom}
            )
            self.model_id = str(created.model_id)
        with tempfile.TemporaryDirectory() as temporary, long_requests():
            packed = Path(temporary) / NAME
            pack(self.folder, packed, run_id=self.run_id, model_id=self.model_id)
            client.log_model_artifacts(self.model_id, str(packed))
        if self.model_id not in linked:
            client.log_outputs(self.run_id, [LoggedModelOutput(self.model_id, step=0)])
        client.finalize_logged_model(self.model_id, "READY")
        return self.model_id


def pack(folder: Path, target: Path, *, run_id: str | None = None, model_id: str | None = None) -> None:
    """Write a model folder as an MLflow model into a new folder. Needs no server and no network."""
    import mlflow.pyfunc
    from mlflow.models import Model

    package = Path(ganseg_dist.__file__).parent
    mlflow.pyfunc.save_model(
        target,
        python_model=str(package / "tracking" / "served_model.py"),
        artifacts={"model": str(folder)},
        code_paths=[str(package)],
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
        metadata={"labels": read_scheme(folder).to_json()},
        mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
    )
    set_default_modes(target)  # the artifact store keeps them
