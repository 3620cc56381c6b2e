"""What a trial of a sweep costs beyond its training: its process, its checkpoints, its reports and its run.

    python -m benchmarks.sweep_overhead [--trials 8]

Trials of the debug recipe, one at a time on all cores, against the same training bare: the engine with the data open,
without checkpoints, tracking or a run. The sweep is timed from its first trial's start to its last one's end; the
start of Ray and the preparation of the slices are not trials.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

import ganseg_dist.studies.sweeps.search
from benchmarks.cohorts import phantom_cohort
from benchmarks.measure import compare_seconds, machine, parser, report, seconds_of
from ganseg_dist.cluster.tune import run_trials
from ganseg_dist.config import RunConfig, override
from ganseg_dist.engine.checkpoint import Checkpoints
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.engine.trainer import train_member
from ganseg_dist.engine.world import World
from ganseg_dist.planning.prepare import Prepared
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.studies.sweeps.request import SweepRequest
from ganseg_dist.studies.sweeps.run import run_sweep
from ganseg_dist.studies.sweeps.trainers import TrialJob
from ganseg_dist.systems import recipe
from tune_spaces import spaces

LIMIT = 2.5
"""Seconds a trial may cost beyond its training."""


@dataclass(slots=True)
class Watched:
    """Wraps `run_trials` to time a sweep's trials and keep their values."""

    seconds: float = 0.0
    job: TrialJob | None = None
    values: list[Mapping[str, Any]] = field(default_factory=list)

    def run(self, plan: Any, trial: Any, folder: Any, ended: Any) -> Any:
        """Replaces `run_trials`, and records the job, the seconds and the trials' values."""
        self.job = trial.__self__
        start = time.perf_counter()
        ends = run_trials(plan, trial, folder, ended)
        self.seconds = time.perf_counter() - start
        self.values = [end.values for end in ends]
        return ends


def bare(config: RunConfig, prepared: Prepared, values: Sequence[Mapping[str, Any]]) -> float:
    """Mean seconds of the same trainings in this process, after a warm-up with the first."""
    device = torch.device("cpu")

    def train(trial_values: Mapping[str, Any]) -> None:
        train_member(
            override(config, trial_values), prepared.open(config), World(device=device), Tracker(), Checkpoints()
        )

    train(values[0])
    return mean(seconds_of(lambda one=one: train(one), device) for one in values)


def main() -> None:
    """Measure and report."""
    options = parser(__doc__)
    options.add_argument("--trials", type=int, default=8)
    args = options.parse_args()
    trials = 2 if args.quick else args.trials
    config = override(recipe("ganet_seg_debug"), {"train.threads": os.cpu_count() or 1})
    cohort = phantom_cohort(patients=7, spacing_mm=6)
    watched = Watched()
    with (
        TemporaryDirectory(prefix="ganseg-sweep-") as folder,
        patch.dict("os.environ", {"GANSEG_RUNS": folder, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}),
        patch.object(ganseg_dist.studies.sweeps.search, "run_trials", watched.run),
    ):
        training = TrainingRequest(config, cohort.root, run_name="sweep")
        run_sweep(SweepRequest(training, spaces()["ganet_seg_feedback"], trials, scheduler="none"))
        assert watched.job is not None
        alone = bare(watched.job.config, watched.job.prepared, watched.values)
    each = watched.seconds / trials
    print(machine(torch.device("cpu")))
    print(f"beyond its training a trial costs {each - alone:.2f} s, mean of {trials} (to stay under {LIMIT} s)")
    report([compare_seconds("a trial, against its training bare", [each], [alone])], args)


if __name__ == "__main__":
    main()
