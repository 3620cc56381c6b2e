"""What `--help` shows a person."""

import subprocess
import sys

import click
import pytest
import typer

from ganseg_dist.cli.main import app


def commands(group: click.Group, *above: str) -> list[tuple[str, ...]]:
    """The words of every command, those of groups included."""
    words = []
    for name, command in group.commands.items():
        words += commands(command, *above, name) if isinstance(command, click.Group) else [(*above, name)]
    return words


TOP = typer.main.get_command(app)
COMMANDS = commands(TOP)


def declared(words: tuple[str, ...]) -> click.Command:
    command = TOP
    for word in words:
        command = command.commands[word]
    return command


def read(text: str) -> str:
    """The words, without the boxes they are drawn in and however they are wrapped."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_argument_and_option_is_explained(ganseg, words):
    shown = ganseg(*words, "--help")
    assert shown.code == 0
    params = declared(words).params
    assert params
    for param in params:
        assert param.help, f"{param.name} has no help"
        assert read(param.help) in read(shown.out)


def test_there_are_commands_with_arguments_and_groups():
    assert ("predict",) in COMMANDS
    assert ("experiment", "folds") in COMMANDS


def test_a_command_that_is_misspelt_is_answered_with_the_right_one(ganseg):
    refused = ganseg("trian")
    assert refused.code == 2
    assert "train" in refused.errors[0].replace("trian", "")


def test_help_waits_for_no_library_of_numbers():
    heavy = ("numpy", "scipy", "pandas", "torch", "ray", "flwr", "mlflow")
    code = f"import sys, ganseg_dist.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
