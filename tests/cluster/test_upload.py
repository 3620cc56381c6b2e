"""What `--working-dir .` uploads: packed by Ray's own code, it is the package and nothing beside it."""

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
    """The folder as a job gets it."""
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
    """This one, as it looks after work."""
    folder = tmp_path / "repository"
    skipped = shutil.ignore_patterns(".venv", ".git", "runs", "demo", "docs", "tests", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=skipped)
    for made in ("runs/first/model/networks.safetensors", ".git/config", "cohort/p1/t1.nii.gz", "notes.ipynb",
                 ".venv/bin/python", "ganseg_dist/__pycache__/x.cpython-311.pyc", "tests/test_x.py"):  # fmt: skip
        (folder / made).parent.mkdir(parents=True, exist_ok=True)
        (folder / made).write_text("not for the cluster\n")
    return folder


@pytest.mark.parametrize("with_gitignore", [True, False])
def test_it_is_the_package_and_nothing_beside_it(repository, tmp_path, with_gitignore):
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


def test_the_size_that_is_told_is_rays(repository, tmp_path):
    uploaded = packed(repository, tmp_path)
    assert check_upload_size(repository) == sum((uploaded / name).stat().st_size for name in names(uploaded))


def test_there_it_comes_before_what_is_installed(tmp_path):
    uploaded = packed(ROOT, tmp_path)
    asked = "import sys, importlib.util as found; print(*(found.find_spec(name).origin for name in sys.argv[1:]))"
    said = subprocess.run(
        [sys.executable, "-c", asked, *sorted(PACKAGES)], cwd=uploaded, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(uploaded / name / "__init__.py") for name in sorted(PACKAGES)]


# deploy/ray/runtime_env.yaml


def test_ray_takes_the_runtime_env():
    told = yaml.safe_load(RUNTIME_ENV.read_text())
    assert set(told) == {"env_vars", "excludes"}
    assert parse_and_validate_env_vars(told["env_vars"]) == told["env_vars"]
    assert parse_and_validate_excludes(told["excludes"]) == told["excludes"]
    assert Path(told["env_vars"]["GANSEG_RUNS"]).is_absolute()


def test_its_packages_are_the_uploaded_ones_at_the_pinned_versions():
    """As whoever needs them takes the "# " away."""
    commented = RUNTIME_ENV.read_text()
    text = re.sub(r"^# (pip:|  packages:|    - )", r"\1", commented, flags=re.MULTILINE)
    pip = RuntimeEnv(**yaml.safe_load(text)).pip_config()
    upload = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
    assert pip["packages"] == [f"--constraint {upload}/constraints.txt", upload]


def test_its_excludes_keep_images_and_results_of_any_folder_at_home(tmp_path):
    folder = tmp_path / "mine"
    for made in ("train.sh", "pilot/p1/t1.nii.gz", "runs/first/run.json", "pilot/data/x.csv", "a.safetensors"):
        (folder / made).parent.mkdir(parents=True, exist_ok=True)
        (folder / made).write_text("x\n")
    told = yaml.safe_load(RUNTIME_ENV.read_text())
    assert names(packed(folder, tmp_path, excludes=told["excludes"])) == {"train.sh", "pilot/data/x.csv"}
