"""A small 2-D SwinUNETR (MONAI), trained from scratch on a finished run's own patients and scored beside the run.

    python -m benchmarks.swin_unetr --run NAME --minutes M [--learning-rate 5e-4]

A comparator, not a timing: same prepared slices, split, augmentation, Dice and cross-entropy, learning-rate schedule
and choice of the best epoch, thresholds chosen on the same validation patients where the run's were, and the same
scores on the same test patients. It trains through the engine, as the plain U-Net arm with another network in it.
As many epochs are planned as fit into the minutes.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import SwinUNETR

from benchmarks.cohorts import phantom_cohort, prepared_data, task
from benchmarks.engine import Engine
from benchmarks.measure import machine, parser, seconds_of
from ganseg_dist.atomic import write_json
from ganseg_dist.cli.models import cases_of_part, finished_run
from ganseg_dist.config import RunConfig, override
from ganseg_dist.data.cohort import Case
from ganseg_dist.data.labels import BRATS
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.engine.epochs import end_stage
from ganseg_dist.engine.trainer import StageData, seeded
from ganseg_dist.engine.world import World
from ganseg_dist.evaluation.arms import Arm, ModelArm
from ganseg_dist.evaluation.calibration import calibrate
from ganseg_dist.evaluation.segmentation import evaluate, summarise
from ganseg_dist.inference.model_folder import Model, Thresholds
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.plural import counted
from ganseg_dist.runs import store_root
from ganseg_dist.systems import recipe
from ganseg_dist.systems.ganet_seg.system import GANetSeg

NAME = "SwinUNETR"
FEATURES = 12
"""Half of MONAI's smallest published size, 24; it has 1.6 million weights in 2-D."""
PRINTED_SCORES = ("dice", "lesion_dice", "sensitivity", "hd95_mm", "hd95_px")


@dataclass(frozen=True, slots=True)
class Trial:
    """Data that the comparator is trained and scored on, and the run that it is compared with."""

    config: RunConfig
    data: StageData
    validation: tuple[Case, ...]
    test: tuple[Case, ...]
    beside: ModelArm | None
    """The model of the run."""
    seconds: float | None
    """Duration of the run."""


def trial_of_run(name: str, device: str) -> Trial:
    """The run's config, patients and model. Raises GansegError when the run or its data is missing."""
    run = finished_run(name)
    description, config = run.description(), run.config()
    request = description.request
    cohort = read_cohort(Path(request.data), request.layout, request.labels)
    used = {case.id for case in run.data().cases}
    cohort = cohort.without({case.id for case in cohort.cases} - used)
    return Trial(
        config,
        prepared_data(cohort, run.split(), config, store_root()),
        cases_of_part(run, cohort, "validation"),
        cases_of_part(run, cohort, "test"),
        ModelArm(run.name, "model", Predictor.load(run.model, device)),
        description.seconds,
    )


def quick_trial() -> Trial:
    """A phantom, without a run to compare with."""
    prepared = task(phantom_cohort(patients=6, spacing_mm=8.0), override(recipe("ganet_seg_debug"), {"data.size": 64}))
    parts = (prepared.cohort.of_patients(part) for part in (prepared.split.validation, prepared.split.test))
    return Trial(prepared.config, prepared.data, *parts, None, None)


def engine_of(trial: Trial, epochs: int, learning_rate: float, device: str, threads: int) -> Engine:
    """The plain U-Net arm with SwinUNETR as its segmenter."""
    config = override(
        trial.config,
        {
            "system.gan": False,
            "system.reading": "corrected",
            "train.epochs": epochs,
            "train.learning_rate": learning_rate,
            "train.threads": threads,
        },
    )
    seeded(config)
    system = GANetSeg(config)
    channels = len(config.data.modalities or ())
    network = SwinUNETR(channels, len(system.regions), feature_size=FEATURES, spatial_dims=2)
    system.networks = {"segmenter": network}
    return Engine.of(system, trial.data, config, World(device=torch.device(device)))


def trained(trial: Trial, args: argparse.Namespace) -> Engine:
    """Train as many epochs as the minutes allow, estimated from one epoch of a discarded engine."""
    probe = engine_of(trial, 1, args.learning_rate, args.device, args.threads)
    seconds = seconds_of(probe.epoch, probe.world.device)
    epochs = 1 if args.quick else max(1, round(60 * args.minutes / seconds))
    engine = engine_of(trial, epochs, args.learning_rate, args.device, args.threads)
    print(f"{machine(engine.world.device)}: {epochs} epochs of about {seconds:.0f} s", flush=True)
    for epoch in range(epochs):
        engine.epoch()
        scores = engine.state.position.history[-1].scores
        print(f"epoch {epoch + 1} of {epochs}: " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()), flush=True)
    return engine


def scored(trial: Trial, engine: Engine) -> dict[str, Any]:
    """The comparator's settings, and its rows as in `ganseg evaluate`."""
    position = engine.state.position
    facts = {
        "epochs": position.epoch,
        "best_epoch": position.best_epoch,
        "learning_rate": engine.config.train.learning_rate,
        "feature_size": FEATURES,
        "parameters": sum(weights.numel() for weights in engine.system.networks["segmenter"].parameters()),
    }
    end_stage(engine.state, engine.stage, engine.config)
    for network in engine.system.networks.values():
        network.eval().requires_grad_(False)
    thresholds, device = Thresholds(), str(engine.world.device)
    scheme = BRATS.of_regions(engine.config.data.regions or ())
    if trial.beside is None or trial.beside.predictor.thresholds.calibrated_on:
        uncalibrated = Predictor(Model(engine.config, engine.system, thresholds, (), scheme), device)
        thresholds, _ = calibrate(uncalibrated, trial.validation)
    predictor = Predictor(Model(engine.config, engine.system, thresholds, (), scheme), device)
    arms: list[Arm] = [ModelArm(NAME, "comparison", predictor)]
    if trial.beside is not None:
        arms.append(trial.beside)
    summary = summarise(evaluate(arms, trial.test, "test"), predictor)
    fields = {"part", "n_cases", "n_patients", "rows", "paired"}
    return {**facts, "thresholds": asdict(thresholds), **summary.model_dump(include=fields)}


def show(result: dict[str, Any]) -> None:
    """Print one row per arm, then the paired difference."""
    for row in result["rows"]:
        cells = [
            f"{name} {value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
            for name, value in row["scores"].items()
            if name.split("/")[1] in PRINTED_SCORES
        ]
        print(f"{row['name']} on {counted(result['n_patients'], 'test patient')}: " + "; ".join(cells))
    for pair in result["paired"]:
        gap = pair["difference"]
        print(
            f"{pair['a']} less {pair['b']}, {pair['score']}: {gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
        )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--run", metavar="NAME", help="a finished run: its name, folder or MLflow id")
    options.add_argument("--minutes", type=float, default=20, help="of training")
    options.add_argument("--learning-rate", type=float, default=5e-4)
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    args = options.parse_args()
    if not args.quick and args.run is None:
        options.error("--run NAME: name a finished run, or give --quick")
    if args.quick:
        args.threads = 1
    trial = quick_trial() if args.quick else trial_of_run(args.run, args.device)
    started = time.perf_counter()
    engine = trained(trial, args)
    seconds = time.perf_counter() - started
    result = {"name": NAME, "run": args.run, "seconds": seconds, "run_seconds": trial.seconds, **scored(trial, engine)}
    show(result)
    if args.json is None and not args.quick:
        args.json = finished_run(args.run).folder / "swin_unetr.json"
    if args.json is not None:
        write_json(args.json, result)
        print(f"written: {args.json}")


if __name__ == "__main__":
    main()
