"""The commands that a server's operator and a hospital's engineer type."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args

SCRIPTS = Path(__file__).parents[2] / "deploy" / "flower"
COMMANDS = sorted(SCRIPTS.glob("*.sh"))


def said_by(script: Path, *words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}"}
    command = [script, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=20)


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


def test_a_runs_words_reach_flower_as_toml(tmp_path, monkeypatch):
    (tmp_path / "state" / "flower").mkdir(parents=True)
    (tmp_path / "state" / "flower" / "config.toml").touch()
    stand_in = tmp_path / "bin" / "flwr"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nfor word; do last=$word; done\nprintf %s "$last"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent), prepend=os.pathsep)
    fields = 'federation.local=["critic"] data.classes=no lesion,lesion'
    said = said_by(
        SCRIPTS / "run.sh", "state", "run-name=2026-trial", "least-sites=3", f"set={fields}", folder=tmp_path
    )
    assert parse_config_args([said.stdout]) == {"run-name": "2026-trial", "least-sites": 3, "set": fields}


def test_a_node_runs_no_agents():
    said = subprocess.run([SCRIPTS / "node_bin" / "flwr-agentapp"], capture_output=True, text=True, timeout=20)
    assert said.returncode == 1
    assert "flwr-agentapp" in said.stderr
