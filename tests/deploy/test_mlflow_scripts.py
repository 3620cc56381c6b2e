"""deploy/mlflow's scripts, with stand-ins for mlflow and python: secrets, settings and what they would start."""

import configparser
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from mlflow.cli import cli

from tests.deploy.manifests import MLFLOW, of_kind
from tests.deploy.mlflow_home import SECRETS, prepared_home, run_script

SCRIPTS = sorted(script.name for script in MLFLOW.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_without_arguments_prints_its_usage_and_writes_nothing(script, tmp_path):
    done = run_script(script, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {script} ")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def home(tmp_path):
    return prepared_home(tmp_path)


def test_prepare_generates_secrets_once_and_makes_them_readable_by_their_owner_only(home, tmp_path):
    secrets = {file.name: file.read_text() for file in (home / "secrets").iterdir()}
    assert sorted(secrets) == sorted([*SECRETS, "s3.json"])
    for name in ("database-password", "admin-password", "session-key"):
        assert re.fullmatch("[0-9a-f]{48,64}", secrets[name]), name
    assert len(set(secrets.values())) == 5
    for path in (home, *home.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    shutil.rmtree(home / "s3")
    assert run_script("prepare.sh", "home", folder=tmp_path).returncode == 0
    assert secrets == {file.name: file.read_text() for file in (home / "secrets").iterdir()}
    assert (home / "s3").is_dir()


def test_prepare_gives_client_and_server_of_s3_the_same_key(home):
    client = configparser.ConfigParser()
    client.read(home / "secrets" / "s3-credentials")
    (identity,) = json.loads((home / "secrets" / "s3.json").read_text())["identities"]
    key, secret = (client["default"][name] for name in ("aws_access_key_id", "aws_secret_access_key"))
    assert identity["credentials"] == [{"accessKey": key, "secretKey": secret}]


def test_prepare_names_the_folders_owner_as_the_containers_user_and_never_root(home):
    settings = dict(line.split("=", 1) for line in (home / "compose.env").read_text().splitlines())
    owner = home.stat()
    assert settings == {"MLFLOW_HOME": str(home), "MLFLOW_USER": f"{owner.st_uid}:{owner.st_gid}"}
    assert owner.st_uid != 0
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (home / "secrets").iterdir()} == {
        (owner.st_uid, owner.st_gid)
    }


STAND_IN = """#!/bin/bash
printf '%s\\n' "$@" >>"$CALLS/words"
env >"$CALLS/environment"
[ -z "${MLFLOW_AUTH_CONFIG_PATH:-}" ] || cp "$MLFLOW_AUTH_CONFIG_PATH" "$CALLS/auth.ini"
"""


@pytest.fixture
def stand_in(tmp_path):
    """Variables that put a mlflow and a python first that write down how they are called."""
    (tmp_path / "bin").mkdir()
    for name in ("mlflow", "python"):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "CALLS": str(tmp_path)}


@pytest.fixture
def team(home, stand_in):
    """Variables of a team's server on Kubernetes."""
    return {**of_kind("mlflow", "ConfigMap")["data"], "MLFLOW_SECRETS": str(home / "secrets"), **stand_in}


def words_of(folder: Path) -> list[str]:
    return (folder / "words").read_text().splitlines()


def environment_of(folder: Path) -> dict[str, str]:
    lines = (folder / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def server_options(words: list[str], environment: dict[str, str], monkeypatch) -> dict[str, Any]:
    """The parameters of `mlflow server`."""
    for name, value in environment.items():
        if name.startswith("MLFLOW_"):
            monkeypatch.setenv(name, value)
    assert words[0] == "server"
    return cli.commands["server"].make_context("server", words[1:]).params


def test_serve_starts_mlflow_with_the_settings_as_options_and_secrets_from_files(home, tmp_path, team, monkeypatch):
    done = run_script("serve.sh", "start", folder=tmp_path, **team)
    assert (done.returncode, done.stderr) == (0, "")
    environment = environment_of(tmp_path)
    options = server_options(words_of(tmp_path), environment, monkeypatch)
    assert options["app_name"] == "basic-auth"
    assert options["serve_artifacts"] is True
    assert options["backend_store_uri"] == team["MLFLOW_BACKEND_STORE_URI"]
    assert options["artifacts_destination"] == team["MLFLOW_ARTIFACTS_DESTINATION"]
    assert (options["host"], options["port"], options["workers"]) == ("0.0.0.0", 5000, "2")
    assert options["allowed_hosts"] == team["MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert not options["disable_security_middleware"]
    for name, file in {
        "PGPASSWORD": "database-password",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "admin-password",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "session-key",
    }.items():
        assert environment[name] == (home / "secrets" / file).read_text()
    assert environment["AWS_SHARED_CREDENTIALS_FILE"] == str(home / "secrets" / "s3-credentials")
    assert environment["DO_NOT_TRACK"] == environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    auth = configparser.ConfigParser()
    auth.read(tmp_path / "auth.ini")
    assert auth["mlflow"]["database_uri"] == team["MLFLOW_BACKEND_STORE_URI"]
    assert auth["mlflow"]["default_permission"] == "EDIT"


def test_serve_without_s3_keys_leaves_them_to_the_pods_identity(home, tmp_path, team):
    (home / "secrets" / "s3-credentials").unlink()
    assert run_script("serve.sh", "start", folder=tmp_path, **team).returncode == 0
    assert "AWS_SHARED_CREDENTIALS_FILE" not in environment_of(tmp_path)


def test_serve_upgrade_upgrades_the_tables_of_runs_and_of_users(tmp_path, team):
    assert run_script("serve.sh", "upgrade", folder=tmp_path, **team).returncode == 0
    uri = team["MLFLOW_BACKEND_STORE_URI"]
    runs, users = ["db", "upgrade", uri], ["-m", "mlflow.server.auth", "db", "upgrade", "--url", uri]
    assert words_of(tmp_path) == [*runs, *users]


@pytest.mark.parametrize("missing", ["MLFLOW_BACKEND_STORE_URI", "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SECRETS"])
def test_serve_names_a_missing_setting_in_one_line(tmp_path, team, missing):
    del team[missing]
    done = run_script("serve.sh", "start", folder=tmp_path, **team)
    assert done.returncode == 1
    assert done.stderr == f"error: {missing}: is not set; the head of serve.sh explains it\n"


@pytest.mark.parametrize("missing", ["database-password", "admin-password", "session-key"])
def test_serve_names_an_empty_secret_in_one_line_and_starts_nothing(home, tmp_path, team, missing):
    (home / "secrets" / missing).write_text("")
    done = run_script("serve.sh", "start", folder=tmp_path, **team)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {home / 'secrets' / missing}: is empty or not there for user ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize(("words", "port"), [(("state",), 5000), (("state", "5123"), 5123)], ids=["default", "given"])
def test_one_persons_server_listens_on_this_machine_only(tmp_path, stand_in, monkeypatch, words, port):
    done = run_script("one.sh", *words, folder=tmp_path, **stand_in)
    assert (done.returncode, done.stderr) == (0, "")
    options = server_options(words_of(tmp_path), environment_of(tmp_path), monkeypatch)
    assert (options["host"], options["port"], options["workers"]) == ("127.0.0.1", port, "1")
    assert options["backend_store_uri"] == f"sqlite:///{tmp_path}/state/mlflow.db"
    assert options["artifacts_destination"] == f"{tmp_path}/state/artifacts"
    assert options["app_name"] is None
