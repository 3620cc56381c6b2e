import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images, in $GANSEG_DATA or beside the repository."""
    folder = Path(os.environ.get("GANSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set GANSEG_DATA to their folder")
    return folder
