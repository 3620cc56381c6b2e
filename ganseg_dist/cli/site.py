"""`ganseg site`: a hospital's folder for federations, its policy, and what the policy permits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import LABELS, LAYOUT, SET_HELP, paragraphs, recipe_config
from ganseg_dist.errors import ConfigError
from ganseg_dist.plural import counted

if TYPE_CHECKING:
    from ganseg_dist.config import RunConfig

HOME = typer.Argument(metavar="HOME", help="The hospital's folder for federations.")


def init(
    home: Path = HOME,
    name: str = typer.Option(..., metavar="NAME", help="The hospital's name, as registered with its key."),
    data: Path = typer.Option(..., metavar="DATA", help="Its images, as ganseg check takes them."),
    layout: str | None = LAYOUT,
    labels: str | None = LABELS,
    gpu: bool = typer.Option(False, "--gpu", help="Train on a GPU."),
) -> None:
    """Write HOME/site.toml: the hospital's data, and a policy with safe defaults and a comment for each field.

    The policy limits what leaves the hospital and what a federation may use of its machine, whatever a server requests.

    [bold]ganseg site init home --name north --data /data/gliomas[/bold]
    """
    from ganseg_dist.atomic import private_folder, write_text
    from ganseg_dist.federation.site_settings import FILE, SiteSettings
    from ganseg_dist.names import SiteName, is_name

    file = home / FILE
    if file.exists():
        raise ConfigError(f"{file}: exists already; edit it, or choose another folder")
    if not is_name(name, SiteName):
        raise ConfigError("--name: is not one line of 1 to 60 printable characters; choose another")
    if not data.exists():
        raise ConfigError(f"--data {data}: no such file or folder; check the path")
    settings = SiteSettings(name=name, data=data.absolute(), layout=layout, labels=labels, gpu=gpu)
    private_folder(home)
    write_text(file, settings.to_toml())
    show.echo(f"written: {file}; read its policy, then: ganseg site check {home}")


def check(
    home: Path = HOME,
    recipe: str | None = typer.Option(None, metavar="RECIPE", help="Judge a federation of this recipe."),
    assignments: list[str] = typer.Option([], "--set", metavar="FIELD=VALUE", help=f"{SET_HELP} With --recipe."),
    config: Path | None = typer.Option(None, metavar="FILE", help="Judge a federation of this config.json."),
) -> None:
    """Check the hospital's folder and, with --recipe or --config, list what its policy permits a federation.

    Exit code 1 when the policy denies something.

    [bold]ganseg site check home --recipe ganet_seg_small --set federation.rounds=50[/bold]
    """
    from clients.node import SiteNode

    federation = None if recipe is None and config is None else _federation(recipe, assignments, config)
    node = SiteNode(home)
    cohort, parts = node.check()
    sizes = ", ".join(f"{len(patients)} {part}" for part, patients in parts.to_dict().items())
    show.echo(f"{node.settings.name}: {counted(len(cohort.patients), 'patient')} in {cohort.root} ({cohort.layout})")
    show.echo(f"split: {sizes}; no federation changes it")
    if federation is None:
        return
    answers = list(node.policy_rules(federation))
    for rule in answers:
        show.echo(f"{'allowed' if rule.allowed else 'denied '}  {rule.subject}: {rule.answer}")
    if not all(rule.allowed for rule in answers):
        raise typer.Exit(1)


def _federation(recipe: str | None, assignments: list[str], config: Path | None) -> RunConfig:
    """The config to judge."""
    from ganseg_dist.config import RunConfig

    if config is None:
        assert recipe is not None
        return recipe_config(recipe, assignments)
    if recipe is not None or assignments:
        raise ConfigError("--config: is a whole config; leave out --recipe and --set")
    return RunConfig.load(config)


site = typer.Typer(no_args_is_help=True, help="Prepare a hospital's folder for federations, and see what it permits.")
for command in (init, check):
    site.command(help=paragraphs(command.__doc__ or ""))(command)
