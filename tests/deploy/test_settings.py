"""Environment variables that deploy/ sets: each is read by the program that it is for."""

import re
import subprocess
from pathlib import Path

import ray

from tests.deploy.manifests import MLFLOW, RAY, ROOT, compose, of_kind, only

SITE_PACKAGES = Path(ray.__file__).parents[1]
READERS = {
    "GANSEG": [ROOT / "ganseg_dist"],
    "DO_NOT_TRACK": [SITE_PACKAGES / "mlflow"],
    "MLFLOW": [SITE_PACKAGES / "mlflow", MLFLOW / "serve.sh"],
    "RAY": [SITE_PACKAGES / "ray"],
    "GIT_PYTHON": [SITE_PACKAGES / "git"],
    "AWS": [SITE_PACKAGES / "botocore"],
}
"""Who reads variables of this prefix."""


def settings() -> set[str]:
    """Names of all variables in manifests, scripts and Dockerfiles."""
    launcher = only(RAY / "cluster.yaml")["docker"]
    options = [*launcher["run_options"], *launcher["worker_run_options"]]
    texts = [(RAY / "slurm.sh").read_text(), (ROOT / "deploy" / "docker" / "Dockerfile").read_text()]
    return (
        {option.removeprefix("--env ").partition("=")[0] for option in options if option.startswith("--env ")}
        | {name for text in texts for name in re.findall(r"\b((?:GANSEG|MLFLOW|RAY|DO_NOT|GIT_PYTHON)_[A-Z_]+)=", text)}
        | set(only(RAY / "runtime_env.yaml")["env_vars"])
        | set(compose()["services"]["server"]["environment"])
        | {name for folder in ("ray", "mlflow") for name in of_kind(folder, "ConfigMap")["data"]}
    )


def words_in(places: list[Path], names: set[str]) -> set[str]:
    """Those of the names that occur in source files or libraries."""
    patterns = [word for name in names for word in ("-e", name)]
    kinds = [f"--include=*.{kind}" for kind in ("py", "sh", "so")]
    command = ["grep", "-rhoaFw", *kinds, "--exclude-dir=thirdparty_files", *patterns, *places]
    return set(subprocess.run(command, capture_output=True, text=True, timeout=120).stdout.split())


def test_every_environment_variable_is_read_by_its_program():
    unread = {name for name in settings() if not name.startswith(tuple(READERS))}
    for prefix, places in READERS.items():
        names = {name for name in settings() if name.startswith(prefix)}
        unread |= names - words_in(places, names)
    assert unread == set()
