import shutil
from pathlib import Path

import pytest


@pytest.fixture
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and prepared slices in the test's own folder; tests.conftest's `own_runs` shares the slices."""
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GANSEG_STORE", str(tmp_path / "store"))


@pytest.fixture
def cohort_copy(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom to change."""
    return shutil.copytree(phantom, tmp_path / "own")
