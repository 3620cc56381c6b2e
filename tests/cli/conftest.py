"""One tiny trained model for all tests of the command line, and the command itself, run in this process."""

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from ganseg_dist.cli.main import main
from ganseg_dist.config import override
from ganseg_dist.inference.model_folder import Thresholds, write_model
from ganseg_dist.planning.plan import plan_training
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.planning.run_folder import open_run
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe
from tests.inference.untrained import untrained_weights

QUICK = ("--set", "train.epochs=1", "--set", "system.healthy_epochs=1")
KAGGLE_SHAPE = (41, 53)
DEAD_SERVER = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Result:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


Command = Callable[..., Result]


def run_command(*words: object) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["ganseg", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    return Result(ended.value.code or 0, out.getvalue(), err.getvalue())


def assert_error(result: Result, code: int, *messages: object) -> None:
    """The last line of stderr is the only error and contains all messages; stdout is empty, without traceback."""
    assert result.code == code, result
    assert len(result.errors) == 1, result.err
    assert result.err.splitlines()[-1] == result.errors[0]
    assert "Traceback" not in result.err
    assert result.out == ""
    for message in messages:
        assert str(message) in result.errors[0]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(autouse=True)
def _own_runs(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own runs, shares the store, and reaches no MLflow server by default."""
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GANSEG_STORE", str(workplace / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD_SERVER)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def ganseg() -> Command:
    return run_command


@pytest.fixture(scope="session")
def trained(phantom: Path, workplace: Path) -> Run:
    """`ganseg train`, once, tracked in an SQLite store; copy it, do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANSEG_RUNS", str(workplace / "runs"))
        patch.setenv("GANSEG_STORE", str(workplace / "store"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = run_command("train", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "tiny")
    assert result.code == 0, result.err
    return Run(workplace / "runs" / "tiny")


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy of the trained run to change, which MLflow does not know."""
    return copied(trained, tmp_path / "runs" / "tiny")


def copied(run: Run, folder: Path) -> Run:
    shutil.copytree(run.folder, folder)
    copy = Run(folder)
    copy.describe(mlflow=None)
    return copy


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients of two hospitals, seven colour slices of odd size each."""
    root = tmp_path_factory.mktemp("kaggle") / "kaggle_3m"
    for number in range(8):
        case = f"TCGA_{('CS', 'DU')[number % 2]}_{4940 + number}_20000101"
        write_colour_case(root / case, number)
    return root


def write_colour_case(folder: Path, number: int, slices: int = 7) -> Path:
    """Slices of an ellipse with a bright spot on FLAIR, and their masks."""
    rng = np.random.default_rng(number)
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[: KAGGLE_SHAPE[0], : KAGGLE_SHAPE[1]]
    head = ((rows - 20) / 17) ** 2 + ((columns - 26) / 22) ** 2 < 1
    for z in range(slices):
        lesion = (
            (rows - 14 - number % 3) ** 2 + (columns - 20) ** 2 < (4 + z % 3) ** 2 if z % 2 else np.zeros_like(head)
        )
        channels = [90 + 40 * rng.random(KAGGLE_SHAPE) + brighter * lesion for brighter in (0, 90, 20)]
        picture = np.where(head[..., None], np.stack(channels, -1), 0).astype(np.uint8)
        tifffile.imwrite(folder / f"{folder.name}_{z + 1}.tif", picture)
        tifffile.imwrite(folder / f"{folder.name}_{z + 1}_mask.tif", (255 * lesion).astype(np.uint8))
    return folder


@pytest.fixture
def kaggle_run(kaggle: Path, tmp_path: Path) -> Run:
    """A finished run on pictures with untrained weights."""
    return untrained_run("ganet_seg_debug", kaggle, tmp_path)


@pytest.fixture
def osmosis_run(kaggle: Path, tmp_path: Path) -> Run:
    """A finished GAN-OSMOSIS run with untrained weights."""
    return untrained_run("gan_osmosis_debug", kaggle, tmp_path)


def untrained_run(
    name: str,
    kaggle: Path,
    tmp_path: Path,
    run_name: str = "pictures",
    changes: Mapping[str, Any] | None = None,
    labels: str | None = None,
) -> Run:
    """A finished run of a recipe with untrained weights."""
    config = override(recipe(name), {"data.validation_fraction": 0.25, "data.test_fraction": 0.25, **(changes or {})})
    request = TrainingRequest(config, kaggle, local=True, labels=labels)
    plan = plan_training(request)
    run, _ = open_run(run_name, plan.config, plan.data_record, plan.cohort, request=request.to_record())
    weights = untrained_weights(plan.config, tmp_path / "untrained.safetensors")
    facts = {"channels": run.read("data.json")["channels"]}
    scheme = plan.cohort.scheme.of_regions(plan.config.data.regions or ())
    write_model(run.model, plan.config, weights, scheme, card="", facts=facts, thresholds=Thresholds())
    run.describe(status="finished", mlflow=None)
    return run


@pytest.fixture
def bad_cohort(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom to spoil; files that are replaced, not written into, leave the phantom as it is."""
    shutil.copytree(phantom, tmp_path / "cohort", copy_function=os.link)
    return tmp_path / "cohort"


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Limits the size of files that this process may write, as a full disk would; lifted after the test."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, to see that nothing changed."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
