"""A local run that is killed at any moment and resumed ends with the weights of an uninterrupted run, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ganseg_dist.config import RunConfig, override
from ganseg_dist.engine.checkpoint import FolderCheckpoints, load_checkpoint
from ganseg_dist.engine.trainer import prepare_state, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.runs import Run
from ganseg_dist.systems import build_system
from tests.contract import members
from tests.contract.conftest import SHORT

KILLED = -signal.SIGKILL
STOPS_EARLY = {"system.healthy_epochs": 8, "system.healthy_patience": 1, "system.healthy_learning_rate": 0.02}
"""Such large steps make the reconstruction worse again after a few epochs."""


@pytest.fixture(scope="session")
def file_events(config: RunConfig, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """File operations of an uninterrupted run in its checkpoints, in order."""
    folder = tmp_path_factory.mktemp("listed")
    listed = folder / "events.txt"
    assert members.exit_code_of(members.train_and_list_events, folder / "run", config, prepared, listed) == 0
    return listed.read_text().splitlines()


def renames(file_events: list[str]) -> list[int]:
    """Positions of the events in which a finished checkpoint gets its name."""
    return [number for number, event in enumerate(file_events) if event.startswith("os.rename .unfinished")]


def assert_whole(folder: Path, config: RunConfig) -> int:
    """The newest checkpoint can be loaded; its step."""
    newest = FolderCheckpoints(folder / "checkpoints").latest()
    assert newest is not None, "the kill left no checkpoint"
    system = build_system(config)
    state = prepare_state(system, config, World())
    load_checkpoint(newest, state)
    return state.position.step


def described(folder: Path) -> dict:
    """The position of the newest checkpoint."""
    newest = FolderCheckpoints(folder / "checkpoints").latest()
    assert newest is not None, "the kill left no checkpoint"
    return json.loads((newest / "state.json").read_text())["position"]


def test_train_resumes_bit_for_bit_after_kills_during_checkpoint_writes(
    config, prepared, undisturbed, file_events, tmp_path
):
    folder = tmp_path / "run"
    saves = renames(file_events)
    assert len(saves) == 7, "an epoch or a stage's end no longer saves"
    # First before the third checkpoint, the end of the first stage, gets its name.
    assert members.exit_code_of(members.train_until_event, folder, config, prepared, saves[2]) == KILLED
    assert list((folder / "checkpoints").glob(".unfinished-*")), "the kill was not inside a write"
    first = assert_whole(folder, config)
    # Then after some files of the resumed run's second checkpoint are written.
    assert members.exit_code_of(members.train_until_event, folder, config, prepared, saves[0] + 6) == KILLED
    assert assert_whole(folder, config) >= first
    assert members.exit_code_of(members.train, folder, config, prepared) == 0
    assert members.differing(members.final_weights(folder), members.final_weights(undisturbed)) == []
    assert not list((folder / "checkpoints").glob(".unfinished-*"))


@pytest.mark.slow
def test_train_resumes_bit_for_bit_for_every_system(other, tmp_path):
    config, prepared, undisturbed = other
    for number in (1, 1):  # inside the first stage, then around its end
        assert members.exit_code_of(members.train_until_save, tmp_path, config, prepared, number) == KILLED
        assert_whole(tmp_path, config)
    assert members.exit_code_of(members.train, tmp_path, config, prepared) == 0
    assert members.differing(members.final_weights(tmp_path), members.final_weights(undisturbed)) == []


def test_train_leaves_finished_run_unchanged(config, prepared, undisturbed):
    before = members.final_weights(undisturbed)
    assert members.exit_code_of(members.train, undisturbed, config, prepared) == 0
    assert members.differing(before, members.final_weights(undisturbed)) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", ["optimizers.safetensors", "state.json"])
def test_train_resumes_bit_for_bit_when_newest_checkpoint_is_damaged(config, prepared, undisturbed, tmp_path, file):
    """The run is killed after the checkpoint of its second epoch, which is then truncated."""
    assert members.exit_code_of(members.train_until_save, tmp_path, config, prepared, 2) == KILLED
    checkpoints = FolderCheckpoints(tmp_path / "checkpoints")
    first, second = checkpoints.all()
    whole = (second / file).read_bytes()
    (second / file).write_bytes(whole[: len(whole) // 2])
    assert checkpoints.latest() == first
    assert members.exit_code_of(members.train_until_save, tmp_path, config, prepared, 1) == KILLED
    assert checkpoints.all() == [first, second], "the epoch was not trained again"
    assert checkpoints.latest() == second
    assert members.exit_code_of(members.train, tmp_path, config, prepared) == 0
    assert members.differing(members.final_weights(tmp_path), members.final_weights(undisturbed)) == []


@pytest.mark.slow
def test_train_restores_damaged_last_checkpoint_of_finished_run(config, prepared, undisturbed, tmp_path):
    shutil.copytree(undisturbed / "checkpoints", tmp_path / "checkpoints")
    checkpoints = FolderCheckpoints(tmp_path / "checkpoints")
    newest = checkpoints.newest()
    (newest / "networks.safetensors").unlink()
    assert members.exit_code_of(members.train, tmp_path, config, prepared) == 0
    assert checkpoints.latest() == checkpoints.newest() == newest
    assert members.differing(members.final_weights(tmp_path), members.final_weights(undisturbed)) == []
    for folder in checkpoints.all():
        (folder / "rng.safetensors").write_bytes(b"")
    assert members.exit_code_of(members.train, tmp_path, config, prepared) == 1
    assert len(checkpoints.all()) == 2, "what may be looked at was deleted"


@pytest.mark.slow
def test_train_depends_on_seed(config, prepared, undisturbed, tmp_path):
    other = override(config, {"seed": 1})
    assert members.exit_code_of(members.train, tmp_path, other, prepared) == 0
    assert members.differing(members.final_weights(tmp_path), members.final_weights(undisturbed)) != []


@pytest.mark.slow
@pytest.mark.parametrize("ema", [None, 0.8])
def test_train_resumes_bit_for_bit_around_early_stop(config, prepared, tmp_path, ema):
    config = override(config, {"train.ema": ema, **STOPS_EARLY})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert members.exit_code_of(members.train, whole, config, prepared) == 0
    healthy = [record["epoch"] for record in described(whole)["history"] if record["stage"] == "healthy"]
    assert 2 <= len(healthy) < config.system.healthy_epochs, "the rule did not stop the stage"

    def train_until_save(number: int) -> dict:
        assert members.exit_code_of(members.train_until_save, killed, config, prepared, number) == KILLED
        return described(killed)

    before = train_until_save(len(healthy) - 1)
    assert (before["epoch"], before["stopped"]) == (len(healthy) - 1, False)
    at_stop = train_until_save(1)
    assert (at_stop["stage"], at_stop["epoch"], at_stop["stopped"]) == (0, len(healthy), True)
    after = train_until_save(1)
    assert (after["stage"], after["epoch"], after["stopped"]) == (1, 0, False)
    assert members.exit_code_of(members.train, killed, config, prepared) == 0
    assert described(killed) == described(whole)
    assert members.differing(members.final_weights(killed), members.final_weights(whole)) == []


@pytest.mark.parametrize(("device", "held"), [("cpu", True), ("cuda", False)])
def test_seeded_enables_deterministic_algorithms_on_cpu_only(config, monkeypatch, device, held):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        seeded(config, torch.device(device))
        assert torch.are_deterministic_algorithms_enabled() == held
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_train_resumes_bit_for_bit_after_kill_before_any_file_operation(
    config, prepared, undisturbed, file_events, tmp_path
):
    """Around the second checkpoint, and around the end of the first stage, which has the step of the one before."""
    wanted = members.final_weights(undisturbed)
    saves = renames(file_events)
    for number in range(saves[0] + 1, saves[3] + 1):
        folder = tmp_path / str(number)
        assert members.exit_code_of(members.train_until_event, folder, config, prepared, number) == KILLED
        assert_whole(folder, config)
        if number % 5 == 0 or number in saves:
            assert members.exit_code_of(members.train, folder, config, prepared) == 0
            assert members.differing(members.final_weights(folder), wanted) == [], file_events[number]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_train_command_resumes_bit_for_bit_after_random_kills(
    phantom, config, prepared, undisturbed, tmp_path, monkeypatch
):
    """`ganseg train` is killed shortly after each new checkpoint."""
    monkeypatch.setenv("GANSEG_RUNS", str(tmp_path))
    settings = [f"--set={field}={value}" for field, value in SHORT.items()]
    command = [sys.executable, "-m", "ganseg_dist", "train", "ganet_seg_debug", "--data", str(phantom)]
    command += ["--local", "--run-name", "killed", *settings]
    checkpoints = Run(tmp_path / "killed").checkpoints
    delays = random.Random(0)
    kills = 0
    for _ in range(30):
        known = {path.name for path in checkpoints.glob("step-*")}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and {path.name for path in checkpoints.glob("step-*")} <= known:
            time.sleep(0.002)
        time.sleep(delays.uniform(0, 0.1))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode == 0:
            break  # killed in its last moment, a finished run too exits with 0 when it is started again
        assert process.returncode == KILLED, errors
        kills += 1
    assert process.returncode == 0
    assert kills >= 4
    assert Run(tmp_path / "killed").finished
    assert Run(tmp_path / "killed").config() == config
    assert members.differing(members.final_weights(tmp_path / "killed"), members.final_weights(undisturbed)) == []
