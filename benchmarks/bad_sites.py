"""What one bad hospital costs the others' patients, with and without the server's defence.

    python -m benchmarks.bad_sites PHANTOM [--seeds N] [--only ATTACK ...] [--set FIELD=VALUE ...] [--run-name NAME]

A phantom's hospitals train together; the last of them sends NaN, sends its weights a thousand times, learns from
flipped labels, poisons slowly, dies in every round, or never answers. Undefended: plain averaging of whatever comes.
Defended: the firewall with the trimmed mean, and against flipped labels, whose updates look like any other, also with
the median and with Multi-Krum. Each stands beside a federation in which the bad hospital has no part, scored on the
same held-out patients of the other hospitals; every seed has its own weights and noise. Sites are Ray tasks, so that a
dying one is a dead process and a hanging one is killed.

Interrupted and started again, it goes on.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message

from benchmarks.federations import config_from, federation_trial, options
from benchmarks.measure import machine
from clients.app import app
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Cohort, Split, split_as_configured
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.partition import BY_HOSPITAL, partition
from ganseg_dist.federation.site_settings import SiteSettings
from ganseg_dist.federation.updates import Change, change_of, norm_of
from ganseg_dist.planning.request import TrainingRequest
from ganseg_dist.runs import runs_root
from ganseg_dist.studies.experiments.measures import measures_of
from ganseg_dist.studies.experiments.run import Job, run_experiment, score_run
from ganseg_dist.studies.experiments.table import markdown, tabulate
from ganseg_dist.studies.trial import Trial, TrialResult
from server.simulation import Simulation, simulate

SERVERS: Mapping[str, Mapping[str, object]] = {
    "undefended": {"federation.firewall": False, "federation.strategy": "fedavg"},
    "firewall, trimmed mean": {"federation.firewall": True, "federation.strategy": "trimmed"},
    "firewall, median": {"federation.firewall": True, "federation.strategy": "fedmedian"},
    "firewall, Multi-Krum": {"federation.firewall": True, "federation.strategy": "krum"},
}
EVERY_ATTACK = ("undefended", "firewall, trimmed mean")
"""Servers that face every attack; others only UNNOTICED, as the firewall stops the rest for any strategy."""
UNNOTICED = ("labels flipped", "poisons slowly")
POISON = 0.5
"""Length of what a slow poisoner adds to its honest update, in lengths of that update."""
LABEL = 4
"""Enhancing tumour, part of every region."""

Attack = Callable[[Message, Context], Message]


def not_a_number(message: Message, context: Context) -> Message:
    """The site sends NaN for every weight."""
    return _changed(app(message, context), lambda array: np.full_like(array, np.nan))


def a_thousand_times(message: Message, context: Context) -> Message:
    """The site sends its weights times 1000."""
    return _changed(app(message, context), lambda array: (array * 1000).astype(np.float32))


def flipped_labels(message: Message, context: Context) -> Message:
    """The site trains on masks in which healthy brain is tumour, and tumour healthy."""
    file = Path(str(context.node_config["home"])) / "site.toml"
    site = SiteSettings.load(file)
    if not site.data.name.endswith("-flipped"):
        data = _flipped(site.data, site.patients or ())
        file.write_text(site.model_copy(update={"data": data}).to_toml())
    return app(message, context)


def poisoning(message: Message, context: Context) -> Message:
    """The site sends its honest update, turned towards one from flipped labels, at the honest one's length.

    Nothing in its norm shows that: each round moves the average a little. It trains twice, each time in a folder of its
    own.
    """
    home = Path(str(context.node_config["home"]))
    other = runs_root() / f"{home.parent.parent.name}-poison"
    if not other.exists():
        shutil.copytree(home, other)
    flipped = flipped_labels(message, Context(context.run_id, context.node_id, {"home": str(other)}, context.state, {}))
    honest = app(message, context)
    if message.metadata.message_type != "train":
        return honest
    sent = {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
    good, bad = _change(honest, sent), _change(flipped, sent)
    turned = {name: good[name] + POISON * norm_of(good) / norm_of(bad) * bad[name] for name in good}
    scale = norm_of(good) / norm_of(turned)
    arrays = {name: Array((sent[name] + scale * turned[name]).astype(np.float32)) for name in turned}
    honest.content["arrays"] = ArrayRecord(arrays)
    return honest


def dying(message: Message, context: Context) -> Message:
    """The site's process ends in the middle of the round."""
    os._exit(1)


def hanging(message: Message, context: Context) -> Message:
    """The site never replies."""
    time.sleep(10**6)
    raise AssertionError


ATTACKS: Mapping[str, Attack] = {
    "sends NaN": not_a_number,
    "weights times 1000": a_thousand_times,
    "labels flipped": flipped_labels,
    "poisons slowly": poisoning,
    "dies in every round": dying,
    "never answers": hanging,
}
NOBODY = "none: it has no part"


def federated(job: Job) -> TrialResult:
    """Train one arm's federation, and score it."""
    arm: Trial = job.trial
    patients = {patient for part in arm.split.to_dict().values() for patient in part}
    data = _only(job.data, patients)
    request = TrainingRequest(arm.config, data, run_name=job.run_name, split=arm.split)
    try:
        run = simulate(Simulation(request, BY_HOSPITAL), _app_of(arm))
    except FederationError as error:
        print(f"{arm.name}: the federation ends: {error}")
        return TrialResult(job.run_name, arm.values, 0.0, ())
    rows = score_run(run, read_cohort(job.data), arm.split)
    return TrialResult(job.run_name, arm.values, run.description().seconds, tuple(rows))


def _app_of(arm: Trial) -> Attack:
    """The hospitals' app. The last hospital attacks in training, or with flipped labels in every message."""
    attack = ATTACKS.get(arm.values["bad site"])

    def respond(message: Message, context: Context) -> Message:
        home = Path(str(context.node_config["home"]))
        bad = attack is not None and home.name == max(folder.name for folder in home.parent.iterdir())
        misbehaves = message.metadata.message_type == "train" or attack in (flipped_labels, poisoning)
        return attack(message, context) if bad and misbehaves and attack is not None else app(message, context)

    return respond


def _changed(reply: Message, change: Callable[[np.ndarray], np.ndarray]) -> Message:
    arrays = {name: Array(change(array.numpy())) for name, array in reply.content.array_records["arrays"].items()}
    reply.content["arrays"] = ArrayRecord(arrays)
    return reply


def _change(reply: Message, sent: Mapping[str, np.ndarray]) -> Change:
    return change_of({name: array.numpy() for name, array in reply.content.array_records["arrays"].items()}, sent)


def _only(cohort: Path, patients: set[str]) -> Path:
    """A folder of links to these patients' cases and the cohort's files."""
    cases = read_cohort(cohort).of_patients(patients)
    folder = runs_root() / f"{cohort.name}-{len(cases)}"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {source.files[0].parent for case in cases for source in case.images.values()}
    for item in (*kept, *(file for file in cohort.iterdir() if file.is_file())):
        with suppress(FileExistsError):
            (folder / item.name).symlink_to(item.absolute())
    return folder


def _flipped(cohort: Path, patients: Sequence[str]) -> Path:
    """A copy of these patients' cases in which tumour is healthy and the rest of the brain is tumour."""
    folder = runs_root() / f"{cohort.name}-flipped"
    for file in cohort.iterdir():
        if file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder)
    for case in read_cohort(cohort).of_patients(patients):
        assert case.mask is not None
        for source in case.images.values():
            for image in source.files:
                (folder / image.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(image, folder / image.parent.name)
        mask = nib.load(case.mask.files[0])
        brain = np.asarray(nib.load(case.first_image.files[0]).dataobj) > 0
        labels = np.where(brain & (np.asarray(mask.dataobj) == 0), LABEL, 0).astype(np.uint8)
        target = folder / case.mask.files[0].parent.name / case.mask.files[0].name
        nib.save(nib.Nifti1Image(labels, mask.affine), target)
    return folder


def trials(config: RunConfig, cohort: Cohort, attacks: Sequence[str], seeds: int) -> list[Trial]:
    """Every server with and without the bad hospital, for every seed."""
    members = partition(cohort, BY_HOSPITAL, skew=None, seed=config.seed)
    split = split_as_configured(cohort, config)
    bad = set(members[max(members)])
    good = split.of(case.patient for case in cohort.cases if case.patient not in bad)
    all_teach = Split(good.train + tuple(sorted(bad)), good.validation, good.test)
    return [
        federation_trial(
            {"server": server, "bad site": attack, "seed": seed},
            override(config, {**changes, "seed": seed}),
            good if attack == NOBODY else all_teach,
        )
        for server, changes in SERVERS.items()
        for attack in (NOBODY, *attacks)
        if server in EVERY_ATTACK or attack in (NOBODY, *UNNOTICED)
        for seed in range(seeds)
    ]


def main() -> None:
    """Run every arm, then print the table."""
    parser = options(__doc__, "bad-sites")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", action="append", choices=[*ATTACKS], metavar="ATTACK", help="one attack; repeat")
    args = parser.parse_args()
    config = config_from(args)
    arms = trials(config, read_cohort(args.data), args.only or [*ATTACKS], args.seeds)
    _, results, parent = run_experiment(args.run_name, "bad-sites", arms, args.data, work=federated)
    parent.end("FINISHED")
    rows = tabulate([result for result in results if result.rows], measures_of(config), compared=("bad site",))
    print(machine(torch.device("cpu")))
    print(markdown("One bad hospital", rows))


if __name__ == "__main__":
    main()
