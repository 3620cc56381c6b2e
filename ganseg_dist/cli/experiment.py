"""`ganseg experiment`: the experiments that the papers claim, each one command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.words import DATA_HELP, LAYOUT_HELP, SET_HELP, paragraphs

if TYPE_CHECKING:
    from ganseg_dist.config import RunConfig
    from ganseg_dist.data.cohort import Cohort, Split
    from ganseg_dist.experiments.trials import Trial

experiment = typer.Typer(no_args_is_help=True, help="Repeat an experiment of the papers: many runs, one table.")

RECIPE = typer.Argument(metavar="RECIPE", help="As ganseg recipes lists them.")
DATA = typer.Option(..., metavar="DATA", help=DATA_HELP)
NAME = typer.Option(
    None, metavar="NAME", help="Name of the experiment; made of its kind, recipe and data if not given."
)
SETTINGS = typer.Option([], "--set", metavar="FIELD=VALUE", help=SET_HELP)
LAYOUT = typer.Option(None, metavar="NAME", help=LAYOUT_HELP)
LOCAL = typer.Option(False, "--local", help="One trial after the other in this process, without Ray.")
SEEDS = typer.Option(1, min=1, metavar="N", help="Runs of each row, each with its own seed.")
ARMS = typer.Option("real,classical,gan,both", metavar="ARMS", help="What is compared: real, classical, gan, both.")
SCORES = ("dice", "iou", "sensitivity")


def fractions(
    recipe: str = RECIPE,
    data: Path = DATA,
    fractions: str = typer.Option("10,25,50,100", metavar="PERCENT", help="Percentages of the training patients."),
    arms: str = ARMS,
    seeds: int = SEEDS,
    run_name: str | None = NAME,
    assignments: list[str] = SETTINGS,
    layout: str | None = LAYOUT,
    local: bool = LOCAL,
) -> None:
    """How much data is enough: from a tenth of the training patients to all, with and without augmentation.

    Patients are nested; validation and test patients stay. GAN-OSMOSIS, Tables 2 to 5, as a measurement: its
    published figures stand in columns of their own, of other images.
    """
    from ganseg_dist.experiments.fractions import PUBLISHED, fraction_trials

    def trials(config: RunConfig, cohort: Cohort, split: Split) -> list[Trial]:
        return fraction_trials(
            config, split, percentages=_whole_numbers("--fractions", fractions), arm_names=_words(arms), seeds=seeds
        )

    published = PUBLISHED if recipe.startswith("gan_osmosis") else None
    _run("fractions", recipe, data, layout, run_name, assignments, local, trials,
         x="fraction", published=published, published_by="fraction")  # fmt: skip


def folds(
    recipe: str = RECIPE,
    data: Path = DATA,
    folds: int = typer.Option(5, metavar="K", help="Folds."),
    run_name: str | None = NAME,
    assignments: list[str] = SETTINGS,
    layout: str | None = LAYOUT,
    local: bool = LOCAL,
) -> None:
    """K-fold cross-validation by patient: everybody is tested once."""
    from ganseg_dist.experiments.folds import fold_trials

    def trials(config: RunConfig, cohort: Cohort, split: Split) -> list[Trial]:
        return fold_trials(config, cohort, folds=folds)

    _run("folds", recipe, data, layout, run_name, assignments, local, trials)


def transfer(
    recipe: str = RECIPE,
    data: Path = DATA,
    arms: str = typer.Option("classical,both", metavar="ARMS", help="What is compared: real, classical, gan, both."),
    run_name: str | None = NAME,
    assignments: list[str] = SETTINGS,
    layout: str | None = LAYOUT,
    local: bool = LOCAL,
) -> None:
    """Leave one hospital out: train on the others, test on its patients."""
    from ganseg_dist.experiments.transfer import transfer_trials

    def trials(config: RunConfig, cohort: Cohort, split: Split) -> list[Trial]:
        return transfer_trials(config, cohort, arm_names=_words(arms))

    _run("transfer", recipe, data, layout, run_name, assignments, local, trials)


def ablation(
    recipe: str = RECIPE,
    data: Path = DATA,
    seeds: int = SEEDS,
    run_name: str | None = NAME,
    assignments: list[str] = SETTINGS,
    layout: str | None = LAYOUT,
    local: bool = LOCAL,
) -> None:
    """Each loss term off in turn, the paper's printed reading, and the control without a GAN."""
    from ganseg_dist.experiments.ablation import ablation_trials

    def trials(config: RunConfig, cohort: Cohort, split: Split) -> list[Trial]:
        return ablation_trials(config, split, seeds=seeds)

    _run("ablation", recipe, data, layout, run_name, assignments, local, trials)


for command in (fractions, folds, transfer, ablation):
    experiment.command(command.__name__, help=paragraphs(command.__doc__ or ""))(command)


def _run(
    kind: str,
    recipe: str,
    data: Path,
    layout: str | None,
    run_name: str | None,
    assignments: list[str],
    local: bool,
    trials_of: Callable[[RunConfig, Cohort, Split], list[Trial]],
    *,
    x: str | None = None,
    published: Any = None,
    published_by: str = "",
) -> None:
    """Check the cohort once, make the trials, run them, show the table."""
    from contextlib import nullcontext

    from ganseg_dist.config import override, parse_assignments
    from ganseg_dist.data.cohort import split_by_patient
    from ganseg_dist.experiments.run import run_experiment
    from ganseg_dist.experiments.table import header_and_cells, save_table, tabulate
    from ganseg_dist.recipes import recipe as named
    from ganseg_dist.runners.cluster import map_on_cluster, ray_cluster
    from ganseg_dist.runners.prepare import map_here
    from ganseg_dist.runners.session import TrainingRequest, plan_training

    config = override(named(recipe), parse_assignments(assignments))
    plan = plan_training(TrainingRequest(config, data, layout, local=True), bar=show.bar)
    fractions = config.data
    split = split_by_patient(
        plan.cohort, validation=fractions.validation_fraction, test=fractions.test_fraction, seed=config.seed
    )
    trials = trials_of(config, plan.cohort, split)
    name = run_name or f"{kind}-{recipe}-{data.resolve().stem}"
    with nullcontext() if local else ray_cluster(), show.bar(f"{kind}: trials") as advance:
        found, outcomes, parent = run_experiment(
            name, kind, trials, data, layout, mapper=map_here if local else map_on_cluster, advance=advance
        )
    region = (plan.config.data.regions or ("wt",))[0]
    rows = tabulate(outcomes, [f"{region}/{score}" for score in SCORES], published, published_by=published_by)
    header, cells = header_and_cells(rows)
    title = f"{kind}: {recipe} on {plan.cohort.root.name}"
    table, figure = save_table(found.folder, rows, x=x, title=title)
    for file in (table, figure):
        if parent.run_id is not None:
            parent.persist(file.name, lambda client, file=file: client.log_artifact(parent.run_id, str(file)))  # type: ignore[misc]
    parent.end("FINISHED")
    show.table(f"{title} (mean, 95% interval over test patients)", header, cells)
    typer.echo(f"written: {table} and {figure}")


def _words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _whole_numbers(option: str, text: str) -> list[int]:
    from ganseg_dist.errors import ConfigError

    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise ConfigError(f"{option} {text}: expected whole numbers, as in {option} 10,50,100") from None
