"""The aggregator's Flower app: what `flwr run .` starts on the server.

On nodes that Flower simulates it does what `ganseg federate` does; on real ones, whose hospitals named their own
homes, it trains with whoever is registered. The keys of its run config are in pyproject.toml, `[tool.flwr.app.config]`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import InMemoryGrid

from ganseg_dist.config import RunConfig, override, parse_assignments
from ganseg_dist.console import PlainConsole
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.errors import ConfigError, GansegError
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe
from ganseg_dist.tracking.progress import RichProgress
from ganseg_dist.training.session import TrainingRequest
from server.deployment import Deployment, deploy
from server.simulation import Simulation, simulate_on

LINE = 160
"""Characters of a line of the log: Flower's has no terminal to measure."""

COMMAND = "flwr run"
"""What the run says it was started by: this process's own command line holds a secret of Flower's."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train a federation to the end; run again under its name, one that was interrupted goes on."""
    console = PlainConsole(file=sys.stdout, width=LINE, force_terminal=False)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    train = _simulated if isinstance(grid, InMemoryGrid) else _deployed
    try:
        asked = Asked.of(context.run_config)
        with closing(RichProgress(console)) as shown:
            run = train(grid, asked, shown, say)
    except GansegError as error:
        say(f"error: {error}")
        logging.getLogger("flwr").addFilter(_has_no_told_error)
        raise  # Flower calls a run that ends otherwise completed
    say(f"finished: {run.folder}")


def _has_no_told_error(record: logging.LogRecord) -> bool:
    """Whether a line of Flower's log is no traceback of an error that has been told in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], GansegError))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asked for by `flwr run --run-config`."""

    config: RunConfig
    run_name: str
    data: str
    layout: str | None
    labels: str | None
    sites: str
    skew: str | None
    least_sites: int

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> Asked:
        """Of a Flower run's config, in which an empty word and 0 stand for nothing said.

        Raises ConfigError naming the key or field.
        """
        named = {"federation.rounds": keys["rounds"], "federation.strategy": keys["strategy"]}
        changes = {field: value for field, value in named.items() if value}
        config = override(recipe(str(keys["recipe"])), changes | parse_assignments(assignments(str(keys["set"]))))
        least = keys["least-sites"]
        if type(least) is not int or least < 1:
            raise ConfigError(f"least-sites: {least} is no number of sites; give 1 or more")
        return cls(
            config,
            str(keys["run-name"]),
            str(keys["data"]),
            str(keys["layout"]) or None,
            str(keys["labels"]) or None,
            str(keys["sites"]),
            str(keys["skew"]) or None,
            least,
        )


def assignments(text: str) -> list[str]:
    """`"train.epochs=2 data.classes=no lesion,lesion"` apart: a space begins another where FIELD= follows."""
    return [part for part in re.split(r"\s+(?=[\w.]+=)", text.strip()) if part]


def _simulated(grid: Grid, asked: Asked, shown: Tracker, say: Callable[[str], None]) -> Run:
    data = Path(asked.data)
    if not asked.data or not data.is_absolute():
        raise ConfigError(
            f"data: {asked.data or 'nothing'} is no absolute path, and Flower's server works in a folder of its own; "
            "give --run-config 'data=\"/path/to/cohort\"'"
        )

    def connect(homes: Sequence[Path]) -> Grid:
        nodes = len(list(grid.get_node_ids()))
        if nodes != len(homes):
            raise ConfigError(
                f"num-supernodes: Flower simulates {nodes} and the federation has {len(homes)} sites; "
                f"give --federation-config num-supernodes={len(homes)}"
            )
        return grid

    # Flower has begun a Ray of its own for the sites; what the server does it does in its own process.
    request = TrainingRequest(
        asked.config, data, asked.layout, run_name=asked.run_name, local=True, labels=asked.labels
    )
    return simulate_on(Simulation(request, asked.sites, asked.skew, command=COMMAND), connect, shown=shown, say=say)


def _deployed(grid: Grid, asked: Asked, shown: Tracker, say: Callable[[str], None]) -> Run:
    if asked.data:
        raise ConfigError("data: is for a simulation; a server has none, and each hospital names its own in site.json")
    return deploy(Deployment(asked.config, asked.run_name, asked.least_sites), grid, shown=shown, say=say)
