"""Scripts of deploy/mlflow as a person starts them, and the folder that prepare.sh makes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.deploy.manifests import MLFLOW

SECRETS = ["admin-password", "database-password", "s3-credentials", "session-key"]
"""Those that serve.sh reads."""


def run_script(name: str, *words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """In the folder, without settings of MLflow, S3 or PostgreSQL but the given."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_", "PG"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [MLFLOW / name, *map(str, words)], cwd=folder, env={**plain, "PATH": path, **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def prepared_home(folder: Path) -> Path:
    """The folder `home` in this folder, made by prepare.sh."""
    done = run_script("prepare.sh", "home", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"--env-file {folder}/home/compose.env --file {MLFLOW}/compose.yaml up" in done.stdout
    return folder / "home"
