"""`--help` of every command."""

import subprocess
import sys

import click
import pytest
import typer

from ganseg_dist.cli.main import app


def commands(group: click.Group, *above: str) -> list[tuple[str, ...]]:
    """Names of every command, with those of its groups."""
    words = []
    for name, command in group.commands.items():
        words += commands(command, *above, name) if isinstance(command, click.Group) else [(*above, name)]
    return words


TOP = typer.main.get_command(app)
COMMANDS = commands(TOP)


def find_command(words: tuple[str, ...]) -> click.Command:
    command = TOP
    for word in words:
        command = command.commands[word]
    return command


def unwrapped(text: str) -> str:
    """Text without box characters and line breaks."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_help_describes_every_argument_and_option(ganseg, args):
    shown = ganseg(*args, "--help")
    assert shown.code == 0
    params = find_command(args).params
    assert params
    for param in params:
        assert param.help, f"{param.name} has no help"
        assert unwrapped(param.help) in unwrapped(shown.out)


def test_commands_include_groups():
    assert ("predict",) in COMMANDS
    assert ("experiment", "folds") in COMMANDS


def test_unknown_command_suggests_close_command(ganseg):
    result = ganseg("trian")
    assert result.code == 2
    assert "train" in result.errors[0].replace("trian", "")


def test_main_import_loads_no_heavy_library():
    heavy = ("numpy", "scipy", "pandas", "torch", "ray", "flwr", "mlflow")
    code = f"import sys, ganseg_dist.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
