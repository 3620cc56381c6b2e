"""What coarse updates and differential privacy cost a federation in Dice, and what they save in bytes.

    python -m benchmarks.federated_settings DATA [--set FIELD=VALUE ...] [--run-name NAME]

One federation of the data's own hospitals for every encoding, and one for every epsilon of client-level privacy with
the noise at a trusted server; same seed, same patients. Interrupted and started again, it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.federations import config_from, federation_trial, options
from benchmarks.measure import machine
from clients.app import app
from ganseg_dist.config import override
from ganseg_dist.data.cohort import split_as_configured
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import named_run
from ganseg_dist.studies.experiments.measures import measures_of
from ganseg_dist.studies.experiments.run import Job, run_experiment, score_run
from ganseg_dist.studies.experiments.table import Row, markdown, tabulate
from ganseg_dist.studies.trial import Trial, TrialResult
from server.simulation import Simulation, simulate

EPSILONS = (100_000, 10_000, 1_000, 100, 8)
ARMS: Mapping[str, Mapping[str, object]] = {
    "fp32": {},
    "fp16": {"federation.encoding": "fp16"},
    "int8": {"federation.encoding": "int8"},
    "top 10%": {"federation.encoding": "topk", "federation.kept_share": 0.1},
    "top 1%": {"federation.encoding": "topk", "federation.kept_share": 0.01},
    **{
        f"epsilon {epsilon:g}": {"federation.privacy.epsilon": float(epsilon), "federation.largest_share": 0.0001}
        for epsilon in EPSILONS
    },
}


def federated(job: Job) -> TrialResult:
    """Train one federation, and score it."""
    arm: Trial = job.trial
    request = TrainingRequest(arm.config, job.data, run_name=job.run_name, split=arm.split, local=True)
    run = simulate(Simulation(request), app)
    rows = score_run(run, read_cohort(job.data), arm.split)
    return TrialResult(job.run_name, arm.values, run.description().seconds, tuple(rows))


def plot(rows: Sequence[Row], file: Path) -> None:
    """Plot Dice against epsilon, with a band for the same federation without privacy."""
    scores = {str(row.labels["arm"]): row.scores["wt/dice"] for row in rows}
    plain, private = scores["fp32"], [scores[f"epsilon {epsilon:g}"] for epsilon in EPSILONS]
    figure, axes = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
    axes.axhspan(plain.low, plain.high, color="#0072b2", alpha=0.15, lw=0)
    axes.axhline(plain.mean, color="#0072b2", label="without privacy")
    means = np.array([score.mean for score in private])
    ends = np.array([[score.mean - score.low for score in private], [score.high - score.mean for score in private]])
    axes.errorbar(EPSILONS, means, ends, fmt="o-", color="#d55e00", label="hospitals' privacy, trusted server")
    axes.set(xscale="log", ylim=(0, 1), xlabel="epsilon at delta 1e-5, all rounds", ylabel="Dice of the whole tumour")
    axes.set_title(f"Phantom (synthetic); mean, 95% interval, n = {plain.n}", fontsize=9)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Run every arm, then print the table."""
    args = options(__doc__, "federated-settings").parse_args()
    # Averaged weights would take a share of the clipping and of the noise.
    config = config_from(args, **{"train.ema": None})
    split = split_as_configured(read_cohort(args.data), config)
    arms = [federation_trial({"arm": name}, override(config, changes), split) for name, changes in ARMS.items()]
    experiment, results, parent = run_experiment(args.run_name, "federated-settings", arms, args.data, work=federated)
    parent.end("FINISHED")
    print(machine(torch.device("cpu")))
    rows = tabulate(results, measures_of(config))
    print(markdown("What coarse updates and privacy cost", rows))
    plot(rows, experiment.folder / "privacy.png")
    print("\n| arm | bytes from the sites in all, MB |\n|---|---|")
    for arm in arms:
        record = named_run(f"{args.run_name}.{arm.name}").federation()
        assert record is not None
        print(f"| {arm.values['arm']} | {sum(part.bytes_in for part in record.rounds) / 1e6:.2f} |")


if __name__ == "__main__":
    main()
