"""The aggregator's Flower app: what `flwr run .` starts on the server.

On nodes that Flower simulates it does what `ganseg federate` does; on real nodes, whose hospitals name their own
folders, it trains with the registered ones. The keys of its run config are in pyproject.toml, `[tool.flwr.app.config]`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.filesize import decimal

from ganseg_dist.compat.flower import is_simulated
from ganseg_dist.compat.flower_log import explain, explain_flower_log
from ganseg_dist.config import RunConfig, override, parse_assignments
from ganseg_dist.console import PlainConsole
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.errors import ConfigError, FederationError, GansegError
from ganseg_dist.federation.protocol import COMMAND
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run, named_run
from ganseg_dist.storage.remote import remote_folder
from ganseg_dist.storage.transfer import fetch
from ganseg_dist.systems import recipe
from ganseg_dist.tracking.progress import RichProgress
from server.deployment import Deployment, deploy
from server.simulation import Simulation, simulate_on
from server.site_registry import Registry

LINE = 160
"""Characters of a line of Flower's log, which has no terminal width."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train a federation to the end; an interrupted one resumes when it is rerun under its name."""
    explain_flower_log()
    console = PlainConsole(file=sys.stdout, width=LINE, force_terminal=False)
    write_line = partial(console.print, soft_wrap=True)
    train = _simulated if is_simulated(grid) else _deployed
    try:
        request = FlowerRunRequest.of(context.run_config)
        _fetch_run(request.run_name, write_line)
        with closing(RichProgress(console)) as progress:
            run = train(grid, request, progress, write_line)
    except BaseException as error:  # Flower's for a run that was stopped is no Exception
        text = str(error) if isinstance(error, GansegError) else explain(error)
        if text is None:
            raise
        write_line(f"error: {text}")
        logging.getLogger("flwr").addFilter(_is_not_reported_error)
        # Flower marks a run as completed unless its app raises an Exception.
        raise (error if isinstance(error, GansegError) else FederationError(text)) from None
    write_line(f"finished: {run.folder}")


def _fetch_run(name: str, write_line: Callable[[str], None]) -> None:
    """Fetch the run to resume if GANSEG_RUNS_URI has a newer copy, after checking that it can be written there."""
    remote = remote_folder()
    if remote is not None:
        uri = remote.display_uri

        def report(done: int, total: int) -> None:
            if done == 0:
                write_line(f"Fetching {name} from {uri}: {decimal(total)}")

        remote.probe()
        fetch(named_run(name).folder, remote, report)


def _is_not_reported_error(record: logging.LogRecord) -> bool:
    """Log filter: drops Flower's traceback of an error that was already printed in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], GansegError))


@dataclass(frozen=True, slots=True)
class FlowerRunRequest:
    """The request that `flwr run --run-config` makes."""

    config: RunConfig
    run_name: str
    data: str
    layout: str | None
    labels: str | None
    sites: str
    skew: str | None
    least_sites: int

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> FlowerRunRequest:
        """From a Flower run's config, in which an empty string and 0 mean that the key is not set.

        Raises ConfigError naming the key or field.
        """
        settings = {"federation.rounds": keys["rounds"], "federation.strategy": keys["strategy"]}
        changes = {field: value for field, value in settings.items() if value}
        config = override(recipe(str(keys["recipe"])), changes | parse_assignments(assignments(str(keys["set"]))))
        least_sites = keys["least-sites"]
        if type(least_sites) is not int or least_sites < 1:
            raise ConfigError(f"least-sites: {least_sites} is no number of sites; give 1 or more")
        return cls(
            config,
            str(keys["run-name"]),
            str(keys["data"]),
            str(keys["layout"]) or None,
            str(keys["labels"]) or None,
            str(keys["sites"]),
            str(keys["skew"]) or None,
            least_sites,
        )


def assignments(text: str) -> list[str]:
    """Split `"train.epochs=2 data.classes=no lesion,lesion"` at each space that FIELD= follows."""
    return [part for part in re.split(r"\s+(?=[\w.]+=)", text.strip()) if part]


def _simulated(grid: Grid, request: FlowerRunRequest, tracker: Tracker, write_line: Callable[[str], None]) -> Run:
    data = Path(request.data)
    if not request.data or not data.is_absolute():
        raise ConfigError(
            f"data: {request.data or 'nothing'} is no absolute path, and Flower's server runs in another folder; "
            "give --run-config 'data=\"/path/to/cohort\"'"
        )

    def connect(folders: Sequence[Path]) -> Grid:
        nodes = len(list(grid.get_node_ids()))
        if nodes != len(folders):
            raise ConfigError(
                f"num-supernodes: Flower simulates {nodes} and the federation has {len(folders)} sites; "
                f"give --federation-config num-supernodes={len(folders)}"
            )
        return grid

    # Flower has started its own Ray for the sites; the server works in this process.
    training_request = TrainingRequest(
        request.config, data, request.layout, run_name=request.run_name, local=True, labels=request.labels
    )
    return simulate_on(
        Simulation(training_request, request.sites, request.skew, command=COMMAND),
        connect,
        tracker=tracker,
        write_line=write_line,
    )


def _deployed(grid: Grid, request: FlowerRunRequest, tracker: Tracker, write_line: Callable[[str], None]) -> Run:
    if request.data:
        raise ConfigError("data: is for a simulation; a server has none, and each hospital names its own in site.toml")
    deployment = Deployment(request.config, request.run_name, request.least_sites)
    return deploy(deployment, grid, Registry.from_environment(), tracker=tracker, write_line=write_line)
