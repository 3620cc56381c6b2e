"""A place to keep runs at."""

from pathlib import Path

import pytest

from ganseg_dist.storage.remote import VARIABLE, RemoteFolder, remote_folder


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that GANSEG_RUNS_URI names."""
    folder = tmp_path / "shared" / "runs"
    monkeypatch.setenv(VARIABLE, folder.as_uri())
    return folder


@pytest.fixture
def remote(shared: Path) -> RemoteFolder:
    found = remote_folder()
    assert found is not None
    return found
