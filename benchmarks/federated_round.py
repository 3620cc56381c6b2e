"""What a simulated round costs beyond the sites' training, and beside Flower's own simulation of the same app.

    python -m benchmarks.federated_round [--sites 4 --rounds 5]

A round is asking, training, sending, checking, averaging, scoring and the checkpoint; its training is the engine's
`Trainer.fit` at the sites. Flower's simulation starts a Ray of its own, ours uses one that stays; from the second round
on both have their processes. The first round is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from benchmarks.cohorts import phantom_cohort
from benchmarks.measure import Comparison, compare_seconds, machine, parser, report
from clients.app import app
from ganseg_dist.config import RunConfig, override
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import Trainer
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import Run, named_run
from ganseg_dist.systems import recipe
from server.simulation import Simulation, simulate, simulate_on


class RoundClock(Tracker):
    """Records when each round ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """Record the end of a round."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """Seconds of each round but the first."""
        return [after - before for before, after in pairwise(self.ends)]


@contextmanager
def timed_training(seconds: list[float]) -> Any:
    """Within the block, append the seconds of every site's `Trainer.fit`."""
    fit = Trainer.fit

    def timed(trainer: Trainer, until: int | None = None) -> None:
        start = time.perf_counter()
        fit(trainer, until)
        seconds.append(time.perf_counter() - start)

    with patch.object(Trainer, "fit", timed):
        yield


def one_after_the_other(simulation: Simulation) -> tuple[list[float], list[float]]:
    """Seconds of each round in this process, and of its training."""
    clock, trained = RoundClock(), list[float]()
    with timed_training(trained):
        simulate(simulation, app, tracker=clock)
    sites = len(trained) // len(clock.ends)
    return clock.seconds, [sum(trained[start : start + sites]) for start in range(sites, len(trained), sites)]


def on_ray(simulation: Simulation) -> list[float]:
    """Seconds of each round, with the sites as Ray tasks."""
    clock = RoundClock()
    simulate(simulation, app, tracker=clock)
    return clock.seconds


def by_flower(simulation: Simulation, sites: int) -> list[float]:
    """Seconds of each round of the same federation in Flower's simulation."""
    clock, name = RoundClock(), simulation.request.name()
    federation = ServerApp()

    @federation.main()
    def main(grid: Grid, context: Context) -> None:
        def connect(homes: Sequence[Path]) -> Grid:
            return grid

        simulate_on(simulation, connect, tracker=clock)

    run_simulation(
        federation,
        _app_with_home(name),
        num_supernodes=sites,
        backend_config={"client_resources": {"num_cpus": simulation.cpus}},
    )
    return clock.seconds


def _app_with_home(name: str) -> ClientApp:
    """The hospitals' app; the number that Flower's simulation gives a node selects its folder."""

    class AppWithHome(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            homes = sorted((named_run(name).folder / "sites").iterdir())
            context.node_config["home"] = str(homes[int(context.node_config["partition-id"])])
            return app(message, context)

    return AppWithHome()


def describe_bytes(run: Run, config: RunConfig) -> str:
    """Bytes that a site sends in a round, and their ratio to its networks in full precision."""
    record = run.federation()
    assert record is not None
    last = record.rounds[-1]
    sent = last.bytes_in / len(last.sites)
    raw = sum(weights.nbytes for weights in _networks(run, config).values())
    return f"bytes a site sends in a round: {sent / 1e6:.3f} MB, {sent / raw:.3f} of its weights as raw float32"


def _networks(run: Run, config: RunConfig) -> Mapping[str, Any]:
    from ganseg_dist.engine.trainer import prepare_state
    from ganseg_dist.engine.world import World
    from ganseg_dist.federation.shared_parameters import SharedParameters
    from ganseg_dist.systems import build_system

    system = build_system(run.config())
    state = prepare_state(system, run.config(), World())
    return SharedParameters.of(state, system, config, 0).take(state)


def main() -> None:
    """Measure and report."""
    options = parser(__doc__)
    options.add_argument("--sites", type=int, default=4)
    options.add_argument("--rounds", type=int, default=5, help="that are counted")
    args = options.parse_args()
    rounds = 2 if args.quick else args.rounds + 1
    changes: dict[str, object] = {
        "system.gan": False,
        "train.ema": None,
        "train.epochs": rounds,
        "data.test_fraction": 0.0,
        "data.validation_fraction": 0.25,
        "federation.fingerprint": False,
    }
    config = override(recipe("ganet_seg_debug" if args.quick else "ganet_seg_small"), changes)
    cohort = phantom_cohort(patients=2 * args.sites, spacing_mm=6 if args.quick else 4)
    with (
        TemporaryDirectory(prefix="ganseg-rounds-") as folder,
        patch.dict("os.environ", {"GANSEG_RUNS": folder, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}),
    ):

        def request(name: str, *, local: bool) -> Simulation:
            return Simulation(TrainingRequest(config, cohort.root, run_name=name, local=local), str(args.sites))

        walls, training = one_after_the_other(request("here", local=True))
        ours, flowers = on_ray(request("ray", local=False)), by_flower(request("flower", local=True), args.sites)
        print(machine(torch.device("cpu")))
        print(describe_bytes(named_run("here"), config))
        report(_compared(walls, training, ours, flowers), args)


def _compared(*seconds: Sequence[float]) -> list[Comparison]:
    walls, training, ours, flowers = seconds
    return [
        compare_seconds("a round, against its training alone", walls, training),
        compare_seconds("a round on Ray, against Flower's own simulation", ours, flowers),
    ]


if __name__ == "__main__":
    main()
