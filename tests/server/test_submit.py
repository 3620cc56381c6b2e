"""server.submit, which run.sh starts: settings, end of a run, and exit codes."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args

from ganseg_dist.compat.flower_control import FlowerRun
from ganseg_dist.errors import ConfigError, FederationError, RunError
from server import submit as module
from server.submit import as_toml, main, run_config_of, submit

ROOT = Path(__file__).parents[2]
GOOD = ("recipe=ganet_seg_debug", "run-name=first", "least-sites=3")


def listed(status: str, sub_status: str = "", number: int = 7) -> FlowerRun:
    return FlowerRun(number, {}, "", status, sub_status)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((*GOOD, "rund-name=x"), "rund-name: no such key; did you mean run-name"),
        ((*GOOD, "zzz=x"), "zzz: no such key; the keys are recipe, run-name"),
        (GOOD[1:], "recipe: is not given"),
        ((GOOD[0], GOOD[2]), "run-name: is not given"),
        (GOOD[:2], "least-sites: is not given"),
        ((*GOOD, "recipe=ganet_seg_smal"), "did you mean ganet_seg_small"),
        ((*GOOD, "set=train.epoch=3"), "did you mean train.epochs"),
        ((*GOOD, "run-name=../first"), "run-name"),
        ((*GOOD, "least-sites=few"), "least-sites: few"),
        ((*GOOD, "data=/data"), "data: is for a simulation"),
        ((*GOOD, "set=data.classes='lesion'"), "which Flower cannot read"),
        (("first",), "first: is no KEY=VALUE"),
    ],
)
def test_run_config_rejects_invalid_settings_and_names_the_key(args, message):
    with pytest.raises(ConfigError, match=message):
        run_config_of(ROOT, args)


def test_flower_parses_the_run_config_back_to_the_same_keys():
    fields = 'federation.local=["critic"] data.classes=no lesion,lesion'
    keys = run_config_of(ROOT, ("recipe=ganet_seg_debug", "run-name=2026-trial", "least-sites=3", f"set={fields}"))
    assert keys == {"recipe": "ganet_seg_debug", "run-name": "2026-trial", "least-sites": 3, "set": fields}
    assert parse_config_args([as_toml(keys)]) == keys


@pytest.fixture
def flower(monkeypatch):
    """A SuperLink's runs of the name before and after `flwr run`, and what that command and the log print."""
    started: list[list[str]] = []

    def stands_in(
        before: Sequence[FlowerRun], *after: Sequence[FlowerRun] | None, code: int = 0, printed: str = ""
    ) -> list[list[str]]:
        """Each of `after` is one list of runs; None for a server that does not answer."""
        answers = [before, *after]

        def runs_of(connection: str) -> Sequence[FlowerRun]:
            runs = answers.pop(0) if len(answers) > 1 else answers[0]
            if runs is None:
                raise ConnectionError("gone")
            return [dataclasses.replace(run, settings={"run-name": "first"}) for run in runs]

        def log_of(connection: str, number: int, after: float) -> Iterator[tuple[str, float]]:
            if answers[0] is None:
                raise ConnectionError("gone")
            yield f"the log of {number}\n", 1.0

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            started.append(command)
            return subprocess.CompletedProcess(command, code, printed, "")

        monkeypatch.setenv("FLWR_HOME", "state/flower")
        monkeypatch.setattr(module, "runs_of", runs_of)
        monkeypatch.setattr(module, "log_of", log_of)
        monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.0)
        monkeypatch.setattr("server.control.address_of", lambda connection: ("127.0.0.1:9", None))
        monkeypatch.setattr(subprocess, "run", run)
        return started

    return stands_in


def test_submit_prints_the_log_and_returns_when_run_completes(flower, capsys):
    started = flower([listed("finished", "failed", 6)], [listed("running")], [listed("finished", "completed")])
    submit(ROOT, GOOD)
    (command,) = started
    assert command[:4] == ["flwr", "run", str(ROOT), "federation"]
    assert capsys.readouterr().out == "first: run 7 is started\nthe log of 7\n"


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (listed("finished", "failed"), "first: run 7 is not completed, it is failed"),
        (listed("finished", "stopped"), "it is stopped"),
    ],
)
def test_submit_raises_for_a_run_that_does_not_complete(flower, after, message):
    flower([], [after])
    with pytest.raises(FederationError, match=message):
        submit(ROOT, GOOD)


def test_submit_names_flowers_reason_when_it_does_not_start_the_run(flower):
    flower(
        [listed("finished", "failed", 6)],
        code=1,
        printed="╭ Error ─╮\n│ [code: 15] Invalid run configuration. │\n╰─╯\n",
    )
    with pytest.raises(FederationError, match=r"^first: was not started; \[code: 15\] Invalid run configuration\.$"):
        submit(ROOT, GOOD)


@pytest.mark.parametrize(
    "after",
    [([listed("running")], None), (None,)],
    ids=["while the run is followed", "while it is started"],
)
def test_submit_does_not_claim_that_nothing_was_started_when_the_server_is_killed(flower, after):
    flower([], *after, code=1)
    with pytest.raises(
        FederationError, match="first: the connection to the server is lost; the run may be in progress"
    ) as caught:
        submit(ROOT, GOOD)
    assert "rerun the same command to resume" in str(caught.value)
    assert "not started" not in str(caught.value)


def test_submit_goes_on_with_a_log_that_broke_off(flower, capsys):
    flower([], *[[listed("running")]] * 3, [listed("finished", "completed")])
    submit(ROOT, GOOD)
    assert capsys.readouterr().out.count("the log of 7") > 1


def test_submit_follows_a_run_that_was_started_although_its_command_failed(flower):
    flower([], [listed("running")], [listed("finished", "completed")], code=1)
    submit(ROOT, GOOD)


@pytest.mark.parametrize("status", ["pending", "starting", "running"])
def test_submit_rejects_a_run_name_that_is_being_trained(flower, status):
    started = flower([listed(status)])
    with pytest.raises(RunError, match="FLWR_HOME=state/flower flwr stop 7"):
        submit(ROOT, GOOD)
    assert started == []


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (("recipe=ganet_seg_debug", "run-nam=first"), 2, "run-nam: no such key; did you mean run-name?"),
        (GOOD, 1, "the server does not answer"),
    ],
    ids=["a misspelt key", "no server"],
)
def test_main_exits_with_one_line_for_an_error(args, code, line, tmp_path, monkeypatch, capsys):
    (tmp_path / "config.toml").write_text('[superlink.federation]\naddress = "127.0.0.1:9"\n')
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["server.submit", str(ROOT), *args])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == code
    assert error.startswith(f"error: {line}")
    assert len(error.splitlines()) == 1
