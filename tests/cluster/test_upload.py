"""The upload of `--working-dir .`, packed by Ray: the packages and nothing else."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray._private.runtime_env.validation import parse_and_validate_env_vars, parse_and_validate_excludes
from ray.runtime_env import RuntimeEnv

from ganseg_dist.cluster.jobs import check_upload_size

ROOT = Path(__file__).parents[2]
PACKAGES = {"ganseg_dist", "clients", "server", "tune_spaces"}
RUNTIME_ENV = ROOT / "deploy" / "ray" / "runtime_env.yaml"


def packed(folder: Path, place: Path, *, with_gitignore: bool = True, excludes: list[str] | None = None) -> Path:
    """The folder as unpacked for a job."""
    package = place / "package.zip"
    create_package(str(folder), package, include_gitignore=with_gitignore, excludes=excludes)
    with zipfile.ZipFile(package) as archive:
        archive.extractall(place / "unpacked")
    assert package.stat().st_size < 10 * 2**20
    return place / "unpacked"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of this repository with untracked files of daily work."""
    folder = tmp_path / "repository"
    skipped = shutil.ignore_patterns(".venv", ".git", "runs", "demo", "docs", "tests", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=skipped)
    for made in ("runs/first/model/networks.safetensors", ".git/config", "cohort/p1/t1.nii.gz", "notes.ipynb",
                 ".venv/bin/python", "ganseg_dist/__pycache__/x.cpython-311.pyc", "tests/test_x.py"):  # fmt: skip
        (folder / made).parent.mkdir(parents=True, exist_ok=True)
        (folder / made).write_text("not for the cluster\n")
    return folder


@pytest.mark.parametrize("with_gitignore", [True, False])
def test_working_dir_upload_holds_packages_only(repository, tmp_path, with_gitignore):
    uploaded = packed(repository, tmp_path, with_gitignore=with_gitignore)
    assert {path.name for path in uploaded.iterdir()} == PACKAGES | {"constraints.txt", "pyproject.toml", "README.md"}
    assert not [name for name in names(uploaded) if "__pycache__" in name]
    expected = {
        f"{package}/{name}"
        for package in PACKAGES
        for name in names(ROOT / package)
        if "__pycache__" not in name
    }  # fmt: skip
    assert len(expected) > 200
    assert {name for name in names(uploaded) if "/" in name} == expected


def test_check_upload_size_equals_size_of_ray_package(repository, tmp_path):
    uploaded = packed(repository, tmp_path)
    assert check_upload_size(repository) == sum((uploaded / name).stat().st_size for name in names(uploaded))


def test_working_dir_shadows_installed_package(tmp_path):
    uploaded = packed(ROOT, tmp_path)
    message = "import sys, importlib.util as found; print(*(found.find_spec(name).origin for name in sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", message, *sorted(PACKAGES)], cwd=uploaded, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(uploaded / name / "__init__.py") for name in sorted(PACKAGES)]


# deploy/ray/runtime_env.yaml


def test_runtime_env_passes_ray_validation():
    options = yaml.safe_load(RUNTIME_ENV.read_text())
    assert set(options) == {"env_vars", "excludes"}
    assert parse_and_validate_env_vars(options["env_vars"]) == options["env_vars"]
    assert parse_and_validate_excludes(options["excludes"]) == options["excludes"]
    assert Path(options["env_vars"]["GANSEG_RUNS"]).is_absolute()


def test_runtime_env_pip_option_installs_upload_with_constraints():
    """With the commented pip option enabled."""
    commented = RUNTIME_ENV.read_text()
    text = re.sub(r"^# (pip:|  packages:|    - )", r"\1", commented, flags=re.MULTILINE)
    pip = RuntimeEnv(**yaml.safe_load(text)).pip_config()
    upload = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
    assert pip["packages"] == [f"--constraint {upload}/constraints.txt", upload]


def test_runtime_env_excludes_images_and_results(tmp_path):
    folder = tmp_path / "mine"
    for made in ("train.sh", "pilot/p1/t1.nii.gz", "runs/first/run.json", "pilot/data/x.csv", "a.safetensors"):
        (folder / made).parent.mkdir(parents=True, exist_ok=True)
        (folder / made).write_text("x\n")
    options = yaml.safe_load(RUNTIME_ENV.read_text())
    assert names(packed(folder, tmp_path, excludes=options["excludes"])) == {"train.sh", "pilot/data/x.csv"}
