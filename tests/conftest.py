import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.storage.remote import RemoteFolder, remote_folder
from ganseg_dist.systems import recipe
from tests.tiny import prepare, resolved

SLOW_SECONDS = 900
"""Time limit of a slow test, by which only a hang is meant: a busy machine takes several times as long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images, in $GANSEG_DATA or beside the repository."""
    folder = Path(os.environ.get("GANSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set GANSEG_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of seven patients and one healthy subject from two sites at 6 mm; read it, do not change it."""
    pytest.importorskip("nilearn", reason="phantoms are made of nilearn's MNI152 maps")
    from ganseg_dist.data.phantom.folder import make_phantom

    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    make_phantom(folder, patients=7, healthy=1, sites=2, seed=1, spacing_mm=6.0)
    return folder


@pytest.fixture(scope="session")
def cohort(phantom: Path) -> Cohort:
    """The phantom, read."""
    return read_cohort(phantom)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of prepared slices that the tests share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def debug_config(cohort: Cohort) -> RunConfig:
    """The debug recipe, resolved from the phantom."""
    return resolved(recipe("ganet_seg_debug"), cohort)


@pytest.fixture(scope="session")
def prepared(cohort: Cohort, debug_config: RunConfig, store: Path) -> Prepared:
    """The phantom's patients, split and prepared by the debug recipe."""
    return prepare(cohort, debug_config, store)


@pytest.fixture(params=[0o077, 0o002], ids=["owner alone", "group"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Umask of the process during the test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store in SQLite with its tables, to copy: MLflow makes them in three seconds of CPU time."""
    from ganseg_dist.tracking.connection import connect

    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def own_runs(tmp_path: Path, store: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and MLflow in the test's own folder; prepared slices are shared."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GANSEG_STORE", str(store))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Options of an S3 URI that point pyarrow to a server on loopback."""
    server = pytest.importorskip("moto.server", reason="moto[s3] plays S3 in tests")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "of-the-tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        yield f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        running.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name of a new bucket, set as GANSEG_RUNS_URI."""
    boto3 = pytest.importorskip("boto3", reason="makes the bucket")
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    endpoint = s3.partition("=")[2].partition("&")[0]
    boto3.client("s3", endpoint_url=f"http://{endpoint}").create_bucket(Bucket=name)
    monkeypatch.setenv("GANSEG_RUNS_URI", f"s3://{name}/runs?{s3}")
    return name


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that GANSEG_RUNS_URI names."""
    folder = tmp_path / "shared" / "runs"
    monkeypatch.setenv("GANSEG_RUNS_URI", folder.as_uri())
    return folder


@pytest.fixture
def remote(shared: Path) -> RemoteFolder:
    """The remote folder that GANSEG_RUNS_URI names."""
    found = remote_folder()
    assert found is not None
    return found
