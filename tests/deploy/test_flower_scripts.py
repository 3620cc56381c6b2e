"""deploy/flower's scripts, which a server's operator and a hospital's engineer start; stand-ins for what they start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.processes import free_port
from tests.modes import mode

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPTS = DEPLOY / "flower"
STAND_IN = """#!/bin/bash
printf '%s\\n' "$0" "$@" >>"$CALLS"
echo "FLWR_HOME=$FLWR_HOME" >>"$CALLS"
exit "${CODE:-0}"
"""
CERTIFICATES = ("ca.crt", "server.crt", "server.key")


def run_script(script: Path, *words: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """In the folder, with the programs of its `bin` before those of this environment."""
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [script, *map(str, words)], cwd=folder, env={**os.environ, "PATH": path, "CALLS": str(folder / "calls")}
        | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def stand_ins(tmp_path):
    """Programs that write down their arguments and FLWR_HOME into `calls`."""
    (tmp_path / "bin").mkdir()
    for name in ("python", "ganseg", "mlflow", "flower-superexec", "flower-supernode"):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path / "calls"


@pytest.mark.parametrize("script", sorted(script.name for script in SCRIPTS.glob("*.sh")))
def test_script_without_arguments_prints_its_usage_and_writes_nothing(script, tmp_path):
    done = run_script(SCRIPTS / script, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {script} ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "words", "file"),
    [
        ("server.sh", ("state", "certificates"), "certificates/ca.crt"),
        ("register.sh", ("state", "north.pub"), "state"),
        ("revoke.sh", ("state", "north"), "state"),
        ("sites.sh", ("state",), "state"),
        ("run.sh", ("state", "recipe=ganet_seg_debug"), "state"),
        ("node.sh", ("home", "north.key", "ca.crt", "hub.example.org:9092"), "home/site.toml"),
    ],
)
def test_script_names_a_missing_file_in_one_line(script, words, file, tmp_path):
    done = run_script(SCRIPTS / script, *words, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {file}: ")
    assert len(done.stderr.splitlines()) == 1


# The server.


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A server's folder, of a server that does not run."""
    (tmp_path / "state" / "flower").mkdir(parents=True)
    (tmp_path / "state" / "flower" / "config.toml").write_text('[superlink.federation]\naddress = "127.0.0.1:9"\n')
    return tmp_path / "state"


def test_run_submits_its_settings_to_the_servers_flower(state, stand_ins, tmp_path):
    settings = ("recipe=ganet_seg_debug", "run-name=first", "set=train.epochs=2 seed=3")
    done = run_script(SCRIPTS / "run.sh", "state", *settings, folder=tmp_path, CODE="1")
    assert done.returncode == 1
    python, *words = stand_ins.read_text().splitlines()
    assert python == str(tmp_path / "bin" / "python")
    assert words == ["-m", "server.submit", str(DEPLOY.parent), *settings, f"FLWR_HOME={state}/flower"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("register", ("state", "north.pub")),
        ("register", ("state", "north.pub", "Klinik Nord")),
        ("revoke", ("state", "Klinik Nord")),
        ("sites", ("state",)),
    ],
)
def test_site_scripts_pass_their_arguments_to_the_servers_flower(state, stand_ins, tmp_path, script, words):
    (tmp_path / "north.pub").touch()
    assert run_script(SCRIPTS / f"{script}.sh", *words, folder=tmp_path).returncode == 0
    command = "list" if script == "sites" else script
    called = stand_ins.read_text().splitlines()
    assert called[1:] == ["-m", "server.registration", command, *words, f"FLWR_HOME={state}/flower"]


def test_register_rejects_a_private_key(state, tmp_path):
    (tmp_path / "north.key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    done = run_script(SCRIPTS / "register.sh", "state", "north.key", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: north.key: is a secret key; give north.pub, and never send the other\n"


@pytest.mark.parametrize("script", ["flower/server.sh", "mlflow/one.sh"])
@pytest.mark.parametrize("name", ["what?", "50%", "a#b"])
def test_server_rejects_a_folder_whose_name_changes_a_databases_address(script, name, tmp_path):
    for file in CERTIFICATES:
        (tmp_path / file).touch()
    words = [name, *(["."] if script.startswith("flower") else [])]
    done = run_script(DEPLOY / script, *words, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / name}: holds one of % ? #")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", ["flower/server.sh", "mlflow/one.sh", "mlflow/prepare.sh"])
def test_server_makes_an_open_folder_its_owners_only(script, state, stand_ins, tmp_path):
    state.chmod(0o755)
    for name in CERTIFICATES:
        (tmp_path / name).touch()
    words = ["state", *(["."] if script.startswith("flower") else [])]
    assert run_script(DEPLOY / script, *words, folder=tmp_path).returncode == 0
    assert mode(state) == 0o700


# A hospital's node.


@pytest.fixture
def node(tmp_path: Path) -> tuple[object, ...]:
    """The words of a node."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "site.toml").write_text("")
    for file in ("north.key", "ca.crt"):
        (tmp_path / file).touch()
    return ("home", "north.key", "ca.crt", "hub.example.org:9092")


def test_node_checks_its_folder_and_then_connects_with_tls_and_its_key(node, stand_ins, tmp_path):
    assert run_script(SCRIPTS / "node.sh", *node, free_port(), folder=tmp_path).returncode == 0
    words = stand_ins.read_text().splitlines()
    assert words[1:4] == ["site", "check", f"{tmp_path}/home"]
    supernode = words[words.index("clients.supernode") + 1 :]
    options = dict(zip(supernode[::2], supernode[1::2], strict=False))
    assert options["--superlink"] == "hub.example.org:9092"
    assert options["--root-certificates"] == f"{tmp_path}/ca.crt"
    assert options["--auth-supernode-private-key"] == f"{tmp_path}/north.key"
    assert options["--node-config"] == f"home='{tmp_path}/home'"
    assert "--insecure" not in supernode


def test_node_does_not_connect_when_its_check_fails(node, stand_ins, tmp_path):
    assert run_script(SCRIPTS / "node.sh", *node, free_port(), folder=tmp_path, CODE="2").returncode == 2
    assert "clients.supernode" not in stand_ins.read_text()
    assert [entry.name for entry in (tmp_path / "home").iterdir()] == ["site.toml"]


def test_node_rejects_a_port_that_is_taken(node, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_script(SCRIPTS / "node.sh", *node, port, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"error: port {port} is taken on this machine; give LOCAL_PORT\n"


def test_node_runs_no_agents():
    done = subprocess.run([SCRIPTS / "node_bin" / "flwr-agentapp"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "flwr-agentapp" in done.stderr
