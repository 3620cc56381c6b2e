"""MLflow's servers as deploy/mlflow starts them: PostgreSQL, an S3 that requires keys, and runs that log at once."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import pytest
import requests
import yaml
from botocore.exceptions import ClientError
from mlflow import MlflowClient

from ganseg_dist.runs import Run
from tests.deploy.processes import Processes, Running, free_port, processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FOLDER = Path(__file__).parents[2] / "deploy" / "mlflow"
PROGRAMS = Path(sys.executable).parent
STARTED, TRAINED, ENDED = 180, 400, 60
"""Seconds, generous for a busy machine."""
SHORT = ("--set", "system.gan=false", "--set", "system.supervised_epochs=2")
KEYLESS = {
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


# PostgreSQL and S3.


def postgres_programs() -> Path:
    """The newest that Debian installed, or what is on the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    if found is None:
        pytest.skip("no PostgreSQL server here (initdb); Debian: apt-get install postgresql")
    return Path(found).parent


@dataclass(frozen=True)
class Database:
    """A PostgreSQL that requires a password on loopback."""

    programs: Path
    port: int
    password: str

    def query(self, sql: str, *, database: str = "mlflow") -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="mlflow", password=self.password, dbname=database
        )
        connection.autocommit = True  # databases are not made in a transaction
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    def program(self, name: str, *words: object) -> None:
        """pg_dump and the like, to its end."""
        place = ("--host", "127.0.0.1", "--port", str(self.port), "--username", "mlflow")
        environment = os.environ | {"PGPASSWORD": self.password}
        subprocess.run(
            [self.programs / name, *place, *map(str, words)], env=environment, check=True, timeout=ENDED
        )  # fmt: skip


@contextmanager
def postgres(password: str) -> Iterator[Database]:
    """It rejects running as root, and a test's folder is its user's alone: so it has one of its own."""
    programs, port = postgres_programs(), free_port()
    as_user = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory(prefix="ganseg-postgres-") as name, ExitStack() as ends:
        folder = Path(name)
        (folder / "password").write_text(password)
        if as_user:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres")
        server = ends.enter_context(processes(folder))
        server.run(
            *as_user, programs / "initdb", "--pgdata", folder / "data", "--username", "mlflow",
            "--pwfile", folder / "password", "--auth", "scram-sha-256", "--no-sync", "--locale", "C.UTF-8",
            seconds=STARTED,
        )  # fmt: skip
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off"}
        options = [word for setting, value in settings.items() for word in ("-c", f"{setting}={value}")]
        running = server.start("postgres", *as_user, programs / "postgres", "-D", folder / "data", *options)
        running.wait_for("ready to accept connections", seconds=STARTED)
        database = Database(programs, port, password)
        database.query("create database mlflow", database="postgres")
        yield database


@dataclass(frozen=True)
class Bucket:
    """An S3 that rejects requests that are not signed with the key."""

    url: str
    key: str
    secret: str

    def client(self, service: str = "s3") -> Any:
        return boto3.client(
            service, endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id=self.key, aws_secret_access_key=self.secret,
        )  # fmt: skip

    def names(self, prefix: str) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket="mlflow", Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        return self.client().get_object(Bucket="mlflow", Key=name)["Body"].read()


def s3(started: Processes) -> Bucket:
    port = free_port()
    server = started.start("s3", PROGRAMS / "moto_server", "--host", "127.0.0.1", "--port", port)
    server.wait_for("Running on ", seconds=STARTED)
    url = f"http://127.0.0.1:{port}"
    iam = Bucket(url, "first", "first").client("iam")
    iam.create_user(UserName="mlflow")
    everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [everything]}
    iam.put_user_policy(UserName="mlflow", PolicyName="s3", PolicyDocument=json.dumps(policy))
    made = iam.create_access_key(UserName="mlflow")["AccessKey"]
    requests.post(f"{url}/moto-api/reset-auth", data="0", timeout=10).raise_for_status()  # from now on it requires keys
    return Bucket(url, made["AccessKeyId"], made["SecretAccessKey"])


# The team's server, as compose.yaml starts it.


def healthy(url: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{url}/health", timeout=2).ok
    return False


def wait_until_healthy(url: str, server: Running) -> None:
    end = time.monotonic() + STARTED
    while not healthy(url):
        assert server.process.poll() is None, server.output()
        assert time.monotonic() < end, server.output()
        time.sleep(0.2)


def stop(server: Running) -> None:
    """As Docker and Kubernetes stop a container."""
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=ENDED)


def ended_well(running: Running) -> str:
    assert running.process.wait(timeout=TRAINED) == 0, running.output()
    return running.output()


def settings_of_compose() -> dict[str, str]:
    """The settings that compose.yaml gives the server."""
    environment = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["server"]["environment"]
    return {name: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", value) for name, value in environment.items()}


@dataclass
class Team:
    """A server's stores, its settings, and the people who use it."""

    folder: Path
    database: Database
    bucket: Bucket
    settings: dict[str, str]
    clients: dict[str, str]
    """The environment of whoever uses it, without a name."""
    passwords: dict[str, str]
    ends: ExitStack
    servers: list[Running] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.clients["MLFLOW_TRACKING_URI"]

    def operator(self) -> Processes:
        """Starts things as Compose would."""
        return self.ends.enter_context(processes(self.folder, **self.settings))

    def start(self) -> None:
        self.servers.append(self.operator().start(f"server{len(self.servers)}", FOLDER / "serve.sh", "start"))
        wait_until_healthy(self.url, self.servers[-1])

    def stop(self) -> None:
        stop(self.servers[-1])
        assert not healthy(self.url)

    def register(self, name: str) -> None:
        """As the README's command does."""
        self.passwords[name] = f"{name}-has-a-long-password"
        requests.post(
            f"{self.url}/api/2.0/mlflow/users/create",
            json={"username": name, "password": self.passwords[name]},
            auth=("admin", self.passwords["admin"]),
            timeout=20,
        ).raise_for_status()

    def person(self, name: str) -> Processes:
        """Starts things as this person would."""
        return self.ends.enter_context(processes(self.folder, **self.clients, **self.login(name)))

    def login(self, name: str) -> dict[str, str]:
        return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": self.passwords[name]}

    @contextmanager
    def client(self, name: str) -> Iterator[MlflowClient]:
        """In this process, as this person."""
        with pytest.MonkeyPatch.context() as patch:
            for setting, value in (self.clients | self.login(name)).items():
                patch.setenv(setting, value)
            yield MlflowClient(self.url)


@pytest.fixture(scope="module")
def team(tmp_path_factory, store) -> Iterator[Team]:
    """A server that was started for the first time, with a bucket and two people."""
    folder = tmp_path_factory.mktemp("team")
    subprocess.run([FOLDER / "prepare.sh", folder / "home"], check=True, capture_output=True, timeout=ENDED)
    secrets = folder / "home" / "secrets"
    with ExitStack() as ends:
        database = ends.enter_context(postgres((secrets / "database-password").read_text()))
        bucket = s3(ends.enter_context(processes(folder)))
        (secrets / "s3-credentials").write_text(
            f"[default]\naws_access_key_id = {bucket.key}\naws_secret_access_key = {bucket.secret}\n"
        )
        port = free_port()
        here = {
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://mlflow@127.0.0.1:{database.port}/mlflow",
            "MLFLOW_S3_ENDPOINT_URL": bucket.url,
            "MLFLOW_SECRETS": str(secrets),
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(port),
        }
        settings = settings_of_compose()
        assert here.keys() - {"PATH"} < settings.keys()
        clients = {
            "PATH": here["PATH"],
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
            "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
            "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
            "GANSEG_RUNS": str(folder / "runs"),
            "GANSEG_STORE": str(store),
            "OMP_NUM_THREADS": "1",
            **KEYLESS,
        }
        admin = {"admin": (secrets / "admin-password").read_text()}
        team = Team(folder, database, bucket, settings | here, clients, admin, ends)
        for _ in range(2):  # whenever Compose starts it
            keys = {"AWS_SHARED_CREDENTIALS_FILE": str(secrets / "s3-credentials")}
            with processes(folder, **team.settings, **keys) as setting_up:
                setting_up.run(sys.executable, FOLDER / "bucket.py", seconds=STARTED)
        team.start()
        for name in ("anna", "ben"):
            team.register(name)
        yield team


@pytest.fixture(scope="module")
def logged(team, phantom) -> dict[str, Run]:
    """One person's training and another's sweep of two trials, at once: the runs' folders, by name."""
    tune = ("tune", "ganet_seg_debug", "--data", phantom, "--trials", 2, "--scheduler", "none", "--run-name", "sweep")
    train = ("train", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "alone")
    started = [
        team.person(name).start(words[0], sys.executable, "-m", "ganseg_dist", *words, *SHORT)
        for name, words in (("anna", train), ("ben", tune))
    ]
    for running in started:
        assert "MLflow" not in ended_well(running), "nothing was in the way"
    return {name: Run(team.folder / "runs" / name) for name in ("alone", "sweep", "sweep.001", "sweep.002")}


def runs_of(client: MlflowClient) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("ganseg")
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def assert_complete(client: MlflowClient, run_id: str, run: Run) -> None:
    """Every number of every epoch, as the run's own folder has it."""
    epochs = run.read("history.json")
    assert len(epochs) >= 2
    expected: dict[str, list[tuple[int, float]]] = {}
    for epoch in epochs:
        for name, value in epoch["scores"].items():
            expected.setdefault(f"{epoch['stage']}/{name}", []).append((epoch["step"], value))
    assert expected
    for name, points in expected.items():
        assert [(point.step, point.value) for point in client.get_metric_history(run_id, name)] == points, name


def test_server_has_every_score_of_all_runs_with_trials_nested_in_their_sweep(team, logged):
    with team.client("anna") as client:
        runs = {name: run for name, run in runs_of(client).items() if name in logged}
        assert runs.keys() == logged.keys()
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
        sweep = runs["sweep"].info.run_id
        assert parents == {"alone": None, "sweep": None, "sweep.001": sweep, "sweep.002": sweep}
        for name in ("alone", "sweep.001", "sweep.002"):
            assert_complete(client, runs[name].info.run_id, logged[name])


def test_runs_are_rows_in_postgresql(team, logged):
    kept = dict(team.database.query("select name, status from runs"))
    assert {name: kept.get(name) for name in logged} == dict.fromkeys(logged, "FINISHED")
    nested = "select count(*) from tags where key = 'mlflow.parentRunId'"
    assert team.database.query(nested) == [(2,)]
    with team.client("admin") as client:
        run_id = runs_of(client)["alone"].info.run_id
        ((points,),) = team.database.query(f"select count(*) from metrics where run_uuid = '{run_id}'")
        assert points > len(client.get_run(run_id).data.metrics)


def test_artifacts_are_in_the_bucket_and_download_without_its_keys(team, logged, tmp_path):
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        Bucket(team.bucket.url, "another", "key").names("")
    with team.client("ben") as client:
        runs = runs_of(client)
        assert all(run.info.artifact_uri.startswith("mlflow-artifacts:/") for run in runs.values())
        for name, files in {"alone": ("config.json", "history.json"), "sweep": ("report.html",)}.items():
            run_id = runs[name].info.run_id
            for file in files:
                (key,) = [key for key in team.bucket.names("artifacts/") if key.endswith(f"{run_id}/artifacts/{file}")]
                local = Path(client.download_artifacts(run_id, file, str(tmp_path)))
                assert local.read_bytes() == team.bucket.read(key) != b""
        model = client.get_run(runs["alone"].info.run_id).outputs.model_outputs[0].model_id
    weights = logged["alone"].model / "networks.safetensors"
    (key,) = [key for key in team.bucket.names("artifacts/") if model in key and key.endswith(weights.name)]
    assert team.bucket.read(key) == weights.read_bytes()


def test_server_rejects_requests_without_password_or_for_another_host(team):
    search = f"{team.url}/api/2.0/mlflow/experiments/search?max_results=1"
    assert requests.get(search, timeout=10).status_code == 401
    assert requests.get(search, auth=("anna", "wrong"), timeout=10).status_code == 401
    known = ("anna", team.passwords["anna"])
    assert requests.get(search, auth=known, timeout=10).status_code == 200
    assert requests.get(search, auth=known, headers={"Host": "elsewhere.example.org"}, timeout=10).status_code == 403


def test_no_secret_is_in_the_servers_arguments_or_log(team):
    secrets = [file.read_text() for file in Path(team.settings["MLFLOW_SECRETS"]).iterdir()]
    server = team.servers[-1]
    assert len(server.family()) > 2, "a supervisor and its workers"
    words = [word for process in server.family() for word in process.cmdline()]
    for secret in (*secrets, team.bucket.secret):
        assert not [word for word in words if secret.strip() in word]
        assert secret.strip() not in server.output()


def test_training_goes_on_while_the_server_is_stopped_and_logs_everything_after(team, logged, phantom):
    words = ("--run-name", "patient", "--local", *SHORT, "--set", "train.epochs=120")
    training = team.person("anna").start(
        "patient", sys.executable, "-m", "ganseg_dist", "train", "ganet_seg_debug", "--data", phantom, *words
    )
    training.wait_for("epoch 2/", seconds=TRAINED)
    with team.client("anna") as client:
        before = runs_of(client)
        assert before["patient"].info.status == "RUNNING"
    team.stop()
    training.wait_for("is not answering", seconds=TRAINED)
    team.start()
    output = ended_well(training)
    assert output.count("is not answering") == 1
    assert "could not be" not in output
    with team.client("anna") as client:
        runs = runs_of(client)
        patient = runs.pop("patient")
        assert patient.info.status == "FINISHED"
        assert_complete(client, patient.info.run_id, Run(team.folder / "runs" / "patient"))
        assert {name: run.to_dictionary() for name, run in runs.items()} == {
            name: run.to_dictionary() for name, run in before.items() if name != "patient"
        }


def test_backup_restores_every_run(team, logged, tmp_path):
    team.database.program("pg_dump", "--format", "custom", "--file", tmp_path / "mlflow.dump", "mlflow")
    team.database.query("create database restored", database="postgres")
    team.database.program("pg_restore", "--exit-on-error", "--dbname", "restored", tmp_path / "mlflow.dump")
    team.stop()
    backup = f"postgresql+psycopg2://mlflow@127.0.0.1:{team.database.port}/restored"
    team.settings["MLFLOW_BACKEND_STORE_URI"] = backup
    team.operator().run(FOLDER / "serve.sh", "upgrade", seconds=STARTED)
    team.start()
    with team.client("ben") as client:
        runs = runs_of(client)
        assert logged.keys() <= runs.keys()
        for name in ("alone", "sweep.001", "sweep.002"):
            assert_complete(client, runs[name].info.run_id, logged[name])
        local = Path(client.download_artifacts(runs["alone"].info.run_id, "history.json", str(tmp_path)))
        assert json.loads(local.read_text()) == logged["alone"].read("history.json")


# One person's server.


def test_one_persons_server_keeps_runs_in_sqlite_over_a_restart(tmp_path, phantom, store):
    port, state = free_port(), tmp_path / "state"
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": url,
        "GANSEG_RUNS": str(tmp_path / "runs"),
        "GANSEG_STORE": str(store),
        "OMP_NUM_THREADS": "1",
    }
    run = Run(tmp_path / "runs" / "mine")
    with processes(tmp_path, **environment) as started:
        for start in range(2):
            server = started.start(f"server{start}", FOLDER / "one.sh", "state", port)
            wait_until_healthy(url, server)
            if start == 0:
                words = ("train", "ganet_seg_debug", "--data", phantom, "--local", "--run-name", "mine", *SHORT)
                started.run(sys.executable, "-m", "ganseg_dist", *words, seconds=TRAINED)
            client = MlflowClient(url)
            (mine,) = runs_of(client).values()
            assert mine.info.status == "FINISHED"
            assert_complete(client, mine.info.run_id, run)
            local = Path(client.download_artifacts(mine.info.run_id, "history.json", str(tmp_path)))
            assert json.loads(local.read_text()) == run.read("history.json")
            if start == 0:
                with sqlite3.connect(state / "mlflow.db") as database:  # the README's backup, while it serves
                    database.execute("vacuum into ?", [str(tmp_path / "copy.db")])
            stop(server)
    assert list((state / "artifacts").rglob("history.json"))
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("select name, status from runs").fetchall() == [("mine", "FINISHED")]
    assert state.stat().st_mode & 0o077 == 0
