from pathlib import Path

import pytest


@pytest.fixture
def own_runs(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and MLflow in the test's own folder; prepared slices are shared."""
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GANSEG_STORE", str(store))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
