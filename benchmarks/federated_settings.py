"""What coarse updates and differential privacy cost a federation in Dice, and what they save in bytes.

    python -m benchmarks.federated_settings DATA [--set FIELD=VALUE ...] [--run-name NAME]

One federation of the data's own hospitals for every encoding, and one for every epsilon of client-level privacy with
the noise at a trusted server; same seed, same patients. Interrupted and started again, it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from benchmarks.federations import Arm, asked_config, options
from benchmarks.measure import machine
from clients.app import app
from ganseg_dist.config import override
from ganseg_dist.data.cohort import split_as_configured
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.experiments.measures import measures_of
from ganseg_dist.experiments.run import Job, Outcome, run_experiment
from ganseg_dist.experiments.scoring import score_run
from ganseg_dist.experiments.table import markdown, tabulate
from ganseg_dist.runners.session import TrainingRequest
from ganseg_dist.runs import named_run
from server.simulation import Rehearsal, rehearse

ARMS: Mapping[str, Mapping[str, object]] = {
    "fp32": {},
    "fp16": {"federation.encoding": "fp16"},
    "int8": {"federation.encoding": "int8"},
    "top 10%": {"federation.encoding": "topk", "federation.kept_share": 0.1},
    "top 1%": {"federation.encoding": "topk", "federation.kept_share": 0.01},
    **{
        f"epsilon {epsilon:g}": {"federation.privacy.epsilon": float(epsilon), "federation.largest_share": 0.0001}
        for epsilon in (100_000, 10_000, 1_000, 100, 8)
    },
}


def federated(job: Job) -> Outcome:
    """Train one federation, and score it."""
    arm: Arm = job.trial
    request = TrainingRequest(arm.config, job.data, run_name=job.run_name, split=arm.split, local=True)
    run = rehearse(Rehearsal(request), app)
    rows = score_run(run, read_cohort(job.data), arm.split)
    return Outcome(dict(arm.labels), float(run.description()["seconds"]), tuple(rows))


def main() -> None:
    """Every arm, then the table."""
    asked = options(__doc__, "federated-settings").parse_args()
    # A running average would take its part of the clipping and of the noise.
    config = asked_config(asked, **{"train.ema": None})
    split = split_as_configured(read_cohort(asked.data), config)
    arms = [Arm({"arm": name}, override(config, changes), split) for name, changes in ARMS.items()]
    _, outcomes, parent = run_experiment(asked.run_name, "federated-settings", arms, asked.data, work=federated)
    parent.end("FINISHED")
    print(machine(torch.device("cpu")))
    print(markdown("What coarse updates and privacy cost", tabulate(outcomes, measures_of(config))))
    print("\n| arm | bytes from the sites in all, MB |\n|---|---|")
    for arm in arms:
        record = named_run(f"{asked.run_name}.{arm.name}").federation()
        assert record is not None
        print(f"| {arm.labels['arm']} | {sum(part.bytes_in for part in record.rounds) / 1e6:.2f} |")


if __name__ == "__main__":
    main()
