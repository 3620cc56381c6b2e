"""Behind `deploy/flower/run.sh`: checks the settings, starts the run, shows its log and reports how it ended.

    python -m server.submit APP KEY=VALUE ...

APP is the folder whose pyproject.toml names the keys; Flower finds the server in `FLWR_HOME`. `flwr run` itself finds a
mistake only once the run has begun, and exits with 0 when the run fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from ganseg_dist.compat.flower_control import FlowerRun, RequestRejected, log_of, runs_of
from ganseg_dist.errors import INTERRUPTED, ConfigError, FederationError, GansegError, RunError, exit_with
from ganseg_dist.printable import printable_log
from ganseg_dist.runs import named_run
from ganseg_dist.suggestion import suggestion
from server.app import FlowerRunRequest
from server.control import CONNECTION, control_errors

NEEDED = {"recipe": "recipe=ganet_seg_small", "run-name": "run-name=first", "least-sites": "least-sites=3"}
"""Keys that a deployment requires, each with an example."""
SIMULATION_ONLY = ("data", "layout", "labels", "sites", "skew")
"""Keys that only a simulation uses."""
RECONNECTIONS, RECONNECT_SECONDS = 3, 2.0
"""Attempts to follow a run again after its log broke off, and seconds before each."""


def submit(app: Path, settings: Sequence[str]) -> None:
    """Train to the end by `KEY=VALUE` settings.

    Raises ConfigError for invalid settings, RunError for a run that is being trained and where the server does not
    answer, FederationError when the run does not complete or the connection to the server is lost.
    """
    keys = run_config_of(app, settings)
    name = str(keys["run-name"])
    earlier = runs_named(name)
    running = [run for run in earlier if run.status != "finished"]
    if running:
        raise RunError(
            f"run-name: {name} is being trained; wait for it or end it: {_flower('stop', running[0].number)} (a "
            "killed server's run ends within a minute)"
        )
    started = _start(app, name, as_toml(keys), {run.number for run in earlier})
    print(f"{name}: run {started.number} is started", flush=True)
    run = _follow(name, started.number)
    if run.sub_status != "completed":
        raise FederationError(f"{name}: run {run.number} is not completed, it is {run.sub_status}")


def _start(app: Path, name: str, run_config: str, earlier: Set[int]) -> FlowerRun:
    """Start a run, which is none of the earlier ones of its name. Raises FederationError where it does not start."""
    command = ["flwr", "run", str(app), CONNECTION, "--run-config", run_config]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        # Whatever the command says: the answer to a request that the server obeyed may be lost.
        started = [run for run in runs_named(name) if run.number not in earlier]
    except RunError as error:
        raise FederationError(f"{_lost(name)} ({error})") from None
    if not started:
        raise FederationError(f"{name}: was not started; {last_line(done.stdout + done.stderr)}")
    return started[0]


def _follow(name: str, number: int) -> FlowerRun:
    """Print a run's log until it ends; returns the ended run.

    Raises FederationError when the connection to the server is lost.
    """
    printed, failed = 0.0, 0
    while True:
        try:
            for text, time_of_text in log_of(CONNECTION, number, printed):
                print(printable_log(text), end="", flush=True)
                printed, failed = time_of_text, 0
            run = next(run for run in runs_of(CONNECTION) if run.number == number)
            if run.status == "finished":
                return run
            time.sleep(RECONNECT_SECONDS)  # the log broke off before the run ended
        except (ConnectionError, RequestRejected, StopIteration):
            failed += 1
            if failed > RECONNECTIONS:
                raise FederationError(_lost(name)) from None
            time.sleep(RECONNECT_SECONDS)


def _lost(name: str) -> str:
    return (
        f"{name}: the connection to the server is lost; the run may be in progress or have ended; start server.sh if "
        "it is down, and rerun the same command to resume"
    )


def last_line(output: str) -> str:
    """The last line of what Flower's command printed, without its frame and symbols; it names the problem."""
    lines = (line.strip("│ \t") for line in printable_log(output).splitlines())
    texts = [line for line in lines if line and not line.startswith(("╭", "╰", "Usage:"))]
    return texts[-1] if texts else "Flower printed no reason; see server.sh's output"


def run_config_of(app: Path, settings: Sequence[str]) -> dict[str, Any]:
    """A Flower run's config from `KEY=VALUE` settings, after checking every value.

    Raises ConfigError naming the key or the field.
    """
    project = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
    known: dict[str, Any] = project["tool"]["flwr"]["app"]["config"]
    keys: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting}: is no KEY=VALUE, such as {NEEDED['run-name']}")
        if key not in known:
            listed = f"the keys are {', '.join(known)}"
            raise ConfigError(f"{key}: no such key; {suggestion(key, known, listed)}")
        if key in SIMULATION_ONLY:
            raise ConfigError(f"{key}: is for a simulation; each hospital names its own data in site.toml")
        if "'" in value:
            raise ConfigError(f"{key}: {value} holds a ', which Flower cannot read; leave it out")
        keys[key] = int(value) if value.isdecimal() else value
    for key, example in NEEDED.items():
        if key not in keys:
            raise ConfigError(f"{key}: is not given; add it, such as {example}")
    FlowerRunRequest.of(known | keys)
    named_run(str(keys["run-name"]))
    return keys


def as_toml(keys: Mapping[str, Any]) -> str:
    """The keys as TOML, as `flwr run --run-config` takes them."""
    return " ".join(f"{key}={value}" if isinstance(value, int) else f"{key}='{value}'" for key, value in keys.items())


def runs_named(name: str) -> list[FlowerRun]:
    """Flower's runs of this run-name, newest first. Raises RunError when the server does not answer."""
    with control_errors():
        runs = runs_of(CONNECTION)
    named = [run for run in runs if str(run.settings.get("run-name")) == name]
    return sorted(named, key=lambda run: run.submitted, reverse=True)


def _flower(*args: object) -> str:
    """A `flwr` command line for an error message."""
    return " ".join([f"FLWR_HOME={os.environ['FLWR_HOME']} flwr", *map(str, args)])


def main() -> None:
    """Submit from the command line. Exits with 0 when the run completed, with an error's code otherwise."""
    try:
        submit(Path(sys.argv[1]), sys.argv[2:])
    except GansegError as error:
        exit_with(error)
    except KeyboardInterrupt:
        print(f"the run continues; see it with: {_flower('list')}, then flwr log ID", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
