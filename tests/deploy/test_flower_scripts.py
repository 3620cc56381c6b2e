"""The commands that a server's operator and a hospital's engineer type."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.processes import free_port
from tests.modes import mode

SCRIPTS = Path(__file__).parents[2] / "deploy" / "flower"
COMMANDS = sorted(SCRIPTS.glob("*.sh"))


def said_by(script: Path, *words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [script, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", COMMANDS, ids=lambda script: script.name)
def test_without_words_each_says_what_it_takes(script, tmp_path):
    said = said_by(script, folder=tmp_path)
    assert said.returncode == 2
    assert said.stderr.startswith(f"usage: {script.name} ")
    assert list(tmp_path.iterdir()) == []


def test_they_are_these():
    assert [script.name for script in COMMANDS] == ["node.sh", "register.sh", "run.sh", "server.sh"]


@pytest.mark.parametrize(
    ("script", "words", "file"),
    [
        ("server.sh", ("state", "certificates"), "certificates/ca.crt"),
        ("register.sh", ("state", "north.pub"), "state"),
        ("run.sh", ("state", "recipe=ganet_seg_debug"), "state"),
        ("node.sh", ("home", "north.key", "ca.crt", "hub.example.org:9092"), "home/site.json"),
    ],
)
def test_what_is_missing_is_named_in_one_line(script, words, file, tmp_path):
    said = said_by(SCRIPTS / script, *words, folder=tmp_path)
    assert said.returncode == 1
    assert said.stderr.startswith(f"error: {file}: ")
    assert len(said.stderr.splitlines()) == 1


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A server's folder, of a server that is not there."""
    (tmp_path / "state" / "flower").mkdir(parents=True)
    (tmp_path / "state" / "flower" / "config.toml").write_text('[superlink.federation]\naddress = "127.0.0.1:9"\n')
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("recipe=ganet_seg_debug", "run-nam=first"), 2, "run-nam: no such key; did you mean run-name?"),
        (("recipe=ganet_seg_debug", "run-name=first", "least-sites=2"), 1, "the server does not answer"),
    ],
    ids=["a mistake", "no server"],
)
def test_a_run_that_cannot_be_started_is_one_line(words, code, line, state, tmp_path):
    said = said_by(SCRIPTS / "run.sh", "state", *words, folder=tmp_path)
    assert said.returncode == code
    assert said.stderr.startswith(f"error: {line}")
    assert len(said.stderr.splitlines()) == 1


def test_a_secret_key_is_not_registered(state, tmp_path):
    (tmp_path / "north.key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    said = said_by(SCRIPTS / "register.sh", "state", "north.key", folder=tmp_path)
    assert said.returncode == 1
    assert said.stderr == "error: north.key: is a secret key; give north.pub, and never send the other\n"


@pytest.fixture
def node(tmp_path: Path) -> tuple[object, ...]:
    """The words of a node whose site.json has a mistake."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "site.json").write_text('{"name": "north", "data": "/data", "minimum_patient": 3}')
    for file in ("north.key", "ca.crt"):
        (tmp_path / file).touch()
    return ("home", "north.key", "ca.crt", "hub.example.org:9092")


def test_a_node_does_not_start_with_a_site_json_that_it_cannot_use(node, tmp_path):
    said = said_by(SCRIPTS / "node.sh", *node, free_port(), folder=tmp_path)
    assert said.returncode == 2
    file = tmp_path / "home" / "site.json"
    assert said.stderr == f"error: {file}: minimum_patient: no such field; did you mean minimum_patients?\n"
    assert [entry.name for entry in (tmp_path / "home").iterdir()] == ["site.json"]


def test_a_node_does_not_start_on_a_port_that_is_taken(node, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = said_by(SCRIPTS / "node.sh", *node, port, folder=tmp_path)
    assert said.returncode == 1
    assert said.stderr == f"error: port {port} is taken on this machine; give LOCAL_PORT\n"


def test_a_node_runs_no_agents():
    said = subprocess.run([SCRIPTS / "node_bin" / "flwr-agentapp"], capture_output=True, text=True, timeout=20)
    assert said.returncode == 1
    assert "flwr-agentapp" in said.stderr


@pytest.mark.parametrize("script", ["flower/server.sh", "mlflow/one.sh"])
@pytest.mark.parametrize("name", ["what?", "50%", "a#b"])
def test_a_folder_beside_which_the_database_would_lie_is_refused(script, name, tmp_path):
    for file in ("ca.crt", "server.crt", "server.key"):
        (tmp_path / file).touch()
    words = [name, *(["."] if script.startswith("flower") else [])]
    said = said_by(SCRIPTS.parent / script, *words, folder=tmp_path)
    assert said.returncode == 1
    assert said.stderr.startswith(f"error: {tmp_path / name}: holds one of % ? #")
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", ["deploy/flower/server.sh", "deploy/mlflow/one.sh", "deploy/mlflow/prepare.sh"])
def test_a_servers_folder_that_others_may_enter_is_its_owners_alone_from_then_on(script, state, tmp_path):
    state.chmod(0o755)
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for name in ("python", "mlflow", "flower-superexec"):
        (stand_ins / name).write_text("#!/bin/sh\n")
        (stand_ins / name).chmod(0o755)
    for name in ("ca.crt", "server.crt", "server.key"):
        (tmp_path / name).touch()
    words = [SCRIPTS.parents[1] / script, "state", *(["."] if script.endswith("server.sh") else [])]
    path = f"{stand_ins}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(words, cwd=tmp_path, env=os.environ | {"PATH": path}, check=True, capture_output=True, timeout=60)
    assert mode(state) == 0o700
