"""`ganseg experiment`: the papers' experiments, one command each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import DATA, LABELS, LAYOUT, RECIPE, RUN, SETTINGS, expanded, paragraphs, recipe_config
from ganseg_dist.cli.publish import cohort_title, ending, publish
from ganseg_dist.errors import ConfigError

if TYPE_CHECKING:
    from ganseg_dist.config import RunConfig
    from ganseg_dist.data.cohort import Case, Cohort, Split
    from ganseg_dist.runs import Run
    from ganseg_dist.studies.experiments.measures import Measure
    from ganseg_dist.studies.study import Study
    from ganseg_dist.studies.trial import Trial

experiment = typer.Typer(no_args_is_help=True, help="Repeat an experiment of the papers: many runs, one table.")

LOCAL = typer.Option(False, "--local", help="One trial after the other in this process, without Ray.")
SEEDS = typer.Option(1, min=1, metavar="N", help="Runs of each row, each with its own seed.")
TRAINED_ON = typer.Option(..., metavar="DATA", help="The cohort it was trained on; its test patients are scored.")
RUN_EXPERIMENT = typer.Option(
    None, metavar="NAME", help="Name of the experiment; made of its kind and the run if not given."
)


@dataclass(frozen=True, slots=True)
class Options:
    """Of every experiment that trains."""

    run_name: str | None = typer.Option(
        None, metavar="NAME", help="Name of the experiment; made of its kind, recipe and data if not given."
    )
    assignments: list[str] = SETTINGS
    layout: str | None = LAYOUT
    labels: str | None = LABELS
    local: bool = LOCAL


@expanded
def fractions(
    recipe: str = RECIPE,
    data: Path = DATA,
    fractions: str = typer.Option("10,25,50,100", metavar="PERCENT", help="Percentages of the training patients."),
    arms: str = typer.Option(
        "real,classical,gan,both", metavar="ARMS", help="What is compared: real, classical, gan, both."
    ),
    seeds: int = SEEDS,
    *,
    options: Options,
) -> None:
    """How much data is enough: from a tenth of the training patients to all, with and without augmentation.

    Patients are nested; validation and test patients stay. GAN-OSMOSIS, Tables 2 to 5, as a measurement: its
    published figures, of other images, are in separate columns.
    """
    from ganseg_dist.studies.experiments.arms import image_arms
    from ganseg_dist.studies.experiments.splits import check_percentages, fraction_trials

    percentages, names = _whole_numbers("--fractions", fractions), _split_names(arms)
    check_percentages(percentages)
    _run("fractions", recipe, data, options,
         lambda config, cohort, split: fraction_trials(
             config, split, percentages=percentages, arm_names=names, seeds=seeds
         ),
         validate=lambda config: image_arms(names, config), x="percentage", published_by="percentage")  # fmt: skip


@expanded
def folds(
    recipe: str = RECIPE,
    data: Path = DATA,
    folds: int = typer.Option(5, metavar="K", help="Folds."),
    *,
    options: Options,
) -> None:
    """K-fold cross-validation by patient: each patient is tested once, by a model that never saw them.

    New images are then for all the folds together: ganseg predict NAME.
    """
    from ganseg_dist.studies.experiments.splits import check_folds, fold_trials
    from ganseg_dist.studies.experiments.table import SHARED_TRAINING

    check_folds(folds)
    found = _run("folds", recipe, data, options,
                 lambda config, cohort, split: fold_trials(config, cohort, folds=folds))  # fmt: skip
    show.err.print(f"note: {SHARED_TRAINING}")
    show.echo(f"next: ganseg predict {found.name} INPUT --out DIR")


@expanded
def transfer(
    recipe: str = RECIPE,
    data: Path = DATA,
    arms: str = typer.Option("classical,both", metavar="ARMS", help="What is compared: real, classical, gan, both."),
    *,
    options: Options,
) -> None:
    """Leave one hospital out: train on the others, test on its patients."""
    from ganseg_dist.studies.experiments.arms import image_arms
    from ganseg_dist.studies.experiments.splits import transfer_trials

    names = _split_names(arms)
    _run("transfer", recipe, data, options,
         lambda config, cohort, split: transfer_trials(config, cohort, arm_names=names),
         validate=lambda config: image_arms(names, config))  # fmt: skip


@expanded
def ablation(
    recipe: str = RECIPE,
    data: Path = DATA,
    seeds: int = SEEDS,
    *,
    options: Options,
) -> None:
    """Each loss term off in turn, the paper's printed reading, and the control without a GAN."""
    from ganseg_dist.studies.experiments.arms import ablation_trials, check_loss_terms

    _run("ablation", recipe, data, options,
         lambda config, cohort, split: ablation_trials(config, split, seeds=seeds),
         validate=check_loss_terms)  # fmt: skip


@expanded
def augmentation(
    recipe: str = typer.Argument("gan_detector_small", metavar="[RECIPE]", help="A recipe of the GAN detector."),
    data: Path = DATA,
    seeds: int = typer.Option(3, min=1, metavar="N", help="Runs of each arm, each with its own seed."),
    *,
    options: Options,
) -> None:
    """What a detector gains by generated images: augmentation none, classical, by a GAN, and both.

    AUROC, AUPRC, sensitivity at a threshold that keeps 90% specificity on validation patients, the specificity it
    has on the test patients, accuracy; differences to none over the same patients are in table.csv for each.
    """
    from ganseg_dist.studies.experiments.arms import AUGMENTATION_MEASURES, augmentation_trials, check_detector

    _run("augmentation", recipe, data, options,
         lambda config, cohort, split: augmentation_trials(config, cohort, split, seeds=seeds),
         validate=check_detector, measures=AUGMENTATION_MEASURES)  # fmt: skip


@expanded
def classifiers(
    recipe: str = typer.Argument("dl_gan_cnn_small", metavar="[RECIPE]", help="A recipe of DL-GAN-CNN."),
    data: Path = DATA,
    seeds: int = SEEDS,
    *,
    options: Options,
) -> None:
    """DL-GAN-CNN beside the plain CNN and a VGG16 from random weights.

    Accuracy, and macro precision, recall and F1: Tables 1 to 4 as a measurement. The published figures, of other
    images, are in separate columns.
    """
    from ganseg_dist.studies.experiments.arms import check_baselines, classifier_trials
    from ganseg_dist.studies.experiments.measures import CLASSIFICATION

    _run("classifiers", recipe, data, options,
         lambda config, cohort, split: classifier_trials(config, split, seeds=seeds),
         validate=check_baselines, measures=CLASSIFICATION, published_by="arm")  # fmt: skip


def robustness(
    run: str = RUN,
    data: Path = TRAINED_ON,
    seed: int = typer.Option(0, min=0, metavar="N", help="What is drawn for a case depends on it and on this."),
    run_name: str | None = RUN_EXPERIMENT,
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
    local: bool = LOCAL,
) -> None:
    """A run's test patients as other scanners might have seen them; nothing is trained.

    Images as they are, under noise, a bias field and another contrast, at three strengths each, and without each
    of their modalities. Scans are changed on their own grids, before preparation.
    """
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.runs import generated_name
    from ganseg_dist.studies.experiments.figures import intervals
    from ganseg_dist.studies.experiments.measures import measures_of
    from ganseg_dist.studies.experiments.robustness import robustness_trials, score_changed
    from ganseg_dist.studies.experiments.run import run_experiment
    from ganseg_dist.studies.experiments.table import tabulate

    trained, cohort, cases = _test_cases(run, data, layout, labels)
    name = run_name or generated_name("robustness", trained.name)
    fetch_runs(name)
    trials = robustness_trials(trained, cases, trained.config().data.modalities or (), seed=seed)
    study, results, parent = run_experiment(
        name, "robustness", trials, data, layout, cohort.labels, work=score_changed, local=local, bar=show.bar
    )
    with ending(parent):
        rows = tabulate(results, measures_of(trained.config()), compared=("perturbation", "strength"))
        title = f"robustness: {trained.name} on {cohort_title(cohort)}"
        publish(study, parent, rows, intervals(rows, title), title)


def thresholds(
    run: str = RUN,
    data: Path = TRAINED_ON,
    run_name: str | None = RUN_EXPERIMENT,
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
) -> None:
    """What a discriminator finds: slices called abnormal where its realism is below a threshold.

    GANet-Seg's Table 1 as a measurement on the run's test patients, with specificity, AUROC, AUPRC and the
    threshold that ganseg calibrate chose; the published figures, of other images, are in separate columns.
    """
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.inference.model_folder import read_thresholds
    from ganseg_dist.runs import generated_name
    from ganseg_dist.studies.experiments import thresholds as table_1
    from ganseg_dist.studies.experiments.run import run_experiment
    from ganseg_dist.studies.experiments.table import interval_text, tabulate

    trained, cohort, cases = _test_cases(run, data, layout, labels)
    trial = table_1.threshold_trial(trained, cases)
    calibrated = read_thresholds(trained.model).realism
    name = run_name or generated_name("thresholds", trained.name)
    fetch_runs(name)
    study, (result,), parent = run_experiment(
        name, "thresholds", [trial], data, layout, cohort.labels, work=table_1.score_slices, bar=show.bar,
        task="scoring slices",
    )  # fmt: skip
    with ending(parent):
        areas = table_1.areas(result)
        rows = tabulate(
            table_1.at_thresholds(result, calibrated), table_1.MEASURES,
            trained.config().system.published.get("thresholds", {}),
            published_by="threshold", compared=(),
        )  # fmt: skip
        title = f"thresholds: {trained.name} on {cohort_title(cohort)}"
        figure = table_1.calibration_figure(result, calibrated, areas["auroc"], title)
        publish(study, parent, rows, figure, title, table_1.save_areas(study.folder, result, areas))
        auroc, auprc = (f"{name.upper()} {interval_text(areas[name], name)}" for name in ("auroc", "auprc"))
        show.echo(f"{len(result.rows)} slices: {auroc}, {auprc}")
        if calibrated is None:
            show.err.print(
                f"note: {trained.name} has no calibrated threshold; choose it first with: "
                f"ganseg calibrate {trained.name}"
            )


for command in (fractions, folds, transfer, ablation, robustness, thresholds, augmentation, classifiers):
    experiment.command(command.__name__, help=paragraphs(command.__doc__ or ""))(command)


def _run(
    kind: str,
    recipe: str,
    data: Path,
    options: Options,
    trials_of: Callable[[RunConfig, Cohort, Split], list[Trial]],
    *,
    validate: Callable[[RunConfig], object] = lambda config: None,
    x: str | None = None,
    measures: Sequence[Measure] | None = None,
    published_by: str = "",
) -> Study:
    """Check the cohort once, make the trials, run them, show the table.

    Args:
        validate: raises ConfigError for a config that the experiment does not support, before anything is read.
        x: the label that a curve runs over; None: the figure has a row for each arm.
        measures: measures of the table; None: the usual ones of the system's task.
        published_by: the label by which the paper's figures are listed.
    """
    from ganseg_dist.cli.remote_runs import fetch_runs, fetch_trials
    from ganseg_dist.data.cohort import split_as_configured
    from ganseg_dist.data.readers import read_cohort
    from ganseg_dist.planning.plan import check_plan, plan_training
    from ganseg_dist.planning.request import TrainingRequest
    from ganseg_dist.runs import generated_name
    from ganseg_dist.studies.experiments.figures import curves, intervals
    from ganseg_dist.studies.experiments.measures import measures_of
    from ganseg_dist.studies.experiments.run import check_classes, run_experiment
    from ganseg_dist.studies.experiments.table import tabulate

    layout, labels, local = options.layout, options.labels, options.local
    config = recipe_config(recipe, options.assignments)
    validate(config)

    def trials_on(cohort: Cohort) -> list[Trial]:
        return trials_of(config, cohort, split_as_configured(cohort, config))

    name = options.run_name or generated_name(kind, recipe, data.resolve().stem)
    fetch_runs(name, writing=True)
    trials_on(read_cohort(data, layout, labels))  # fails early on too few patients or sites, before images are checked
    request = TrainingRequest(config, data, layout, local=True, labels=labels)
    plan = plan_training(request, bar=show.bar)
    trials = trials_on(plan.cohort)
    check_plan(plan, request, {trial.name: trial.split for trial in trials}, show.warn)
    if plan.config.system.task == "classification":
        with show.bar("Reading classes") as advance:
            for done, part in enumerate(splits := sorted({trial.split for trial in trials}, key=repr), start=1):
                check_classes(plan.config, plan.cohort, part)
                advance(done, len(splits))
    fetch_trials(name, [trial.name for trial in trials])
    study, results, parent = run_experiment(name, kind, trials, data, layout, labels, local=local, bar=show.bar)
    with ending(parent):
        published = config.system.published.get(kind)
        rows = tabulate(results, measures or measures_of(plan.config), published, published_by=published_by)
        title = f"{kind}: {recipe} on {cohort_title(plan.cohort)}"
        publish(study, parent, rows, curves(rows, x, title) if x is not None else intervals(rows, title), title)
    return study


def _test_cases(run: str, data: Path, layout: str | None, labels: str | None) -> tuple[Run, Cohort, Sequence[Case]]:
    """A finished run, its cohort, and the cases of its test patients."""
    from ganseg_dist.cli.models import cases_of_part, finished_run, stated_labels
    from ganseg_dist.cli.remote_runs import fetch_runs
    from ganseg_dist.data.readers import read_cohort

    fetch_runs(run)
    trained = finished_run(run)
    cohort = read_cohort(data, layout, labels or stated_labels(trained))
    return trained, cohort, cases_of_part(trained, cohort, "test")


def _split_names(text: str) -> Sequence[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        return [int(number) for number in _split_names(text)]
    except ValueError:
        raise ConfigError(f"{option} {text}: expected whole numbers, as in {option} 10,50,100") from None
