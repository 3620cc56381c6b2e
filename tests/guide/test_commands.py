"""Commands of the guide for other machines and in sentences have existing programs, options and files."""

import re
import shlex
import subprocess
from collections.abc import Sequence

import click
import pytest
import ray.scripts.scripts
import typer

from ganseg_dist.cli.main import app
from ganseg_dist.cli.submit import SUBMITTED
from tests.guide.pages import ROOT, commands, pages

GANSEG = typer.main.get_command(app)
PARSED = {"ganseg": GANSEG, "ray": ray.scripts.scripts.cli}
"""Programs whose own parsers check the arguments."""
OTHERS = {"cd", "docker", "export", "kubectl", "make", "mkdir", "sbatch", "source"}
"""Programs of which only files of this repository are checked."""
OURS = re.compile(r"^(?:\$GANSEG/|\./)?((?:deploy|docs|scripts|tune_spaces|benchmarks)/[\w./-]*)$")

CONSOLE = [
    pytest.param(args, id=f"{page.path.stem}: {' '.join(args)[:60]}")
    for page in pages()
    for block in page.blocks
    if block.kind == "console"
    for args in commands(block.text)
]


def check(args: Sequence[str]) -> None:
    """Raises click.UsageError, or fails, for what no program would take."""
    program, *rest = args
    if args[:3] == ["python", "-m", "ganseg_dist"]:
        program, rest = "ganseg", list(args[3:])
    for word in args:
        check_command_exists(word.partition("=")[2] or word)
    if program in PARSED:
        parse(PARSED[program], program, rest)
    elif OURS.match(program) is None:
        assert program in OTHERS, f"{program} is not known to this test"
    if program == "make":
        assert re.search(rf"^{rest[-1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), rest


def parse(group: click.Command, name: str, args: Sequence[str]) -> None:
    """Parse the arguments with the program's own parser."""
    command, arguments = group, list(args)
    while isinstance(command, click.Group):
        shown = arguments[0] if arguments else ""
        found = command.commands.get(shown)
        assert found is not None, f"{name}: has no command {shown!r}"
        command, arguments = found, arguments[1:]
    inner = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    command.make_context(name, arguments)
    if inner[:3] == ["python", "-m", "ganseg_dist"]:
        check(inner)
    elif inner and name == "ganseg":
        assert inner[0] in SUBMITTED
        check(["ganseg", *inner])


def check_command_exists(word: str) -> None:
    """A file of this repository is there, and bash reads it where it is a script."""
    found = OURS.match(word)
    if found is None:
        return
    path = ROOT / found[1]
    assert path.exists(), f"{word} is not there"
    if path.suffix == ".sh":
        subprocess.run(["bash", "-n", path], check=True, timeout=20)


@pytest.mark.parametrize("args", CONSOLE)
def test_guide_console_command_parses_and_its_files_exist(args):
    check(args)


@pytest.mark.parametrize(
    "line",
    [
        "ganseg train ganet_seg --data /data --worker 2",
        "ganseg trian ganet_seg --data /data",
        "ganseg submit --adress http://head:8265 -- train ganet_seg --data /data",
        "ganseg submit -- train ganet_seg --dat /data",
        "ganseg submit -- predict first scan.nii",
        "ray job submit --addres http://head:8265 -- python -m ganseg_dist train ganet_seg --data /data",
        "ray job submit -- python -m ganseg_dist train ganet_seg --dta /data",
        "kubectl apply -f deploy/ray/rayjobs.yaml",
        "make demos",
        "frobnicate",
    ],
)
def test_check_rejects_misspelt_command(line):
    with pytest.raises((click.UsageError, AssertionError)):
        check(shlex.split(line))


INLINE = [
    pytest.param(span, id=f"{page.path.stem}: {span[:60]}")
    for page in pages()
    for span in re.findall(r"`(ganseg [^`]+)`", page.prose)
]


@pytest.mark.parametrize("span", INLINE)
def test_guide_inline_command_has_known_options(span):
    command, (_, *args) = GANSEG, shlex.split(span)
    while isinstance(command, click.Group) and args and not args[0].startswith("-"):
        assert args[0] in command.commands, span
        command, args = command.commands[args[0]], args[1:]
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
    named = [word.partition("=")[0] for word in args[: args.index("--") if "--" in args else None]]
    assert [word for word in named if word.startswith("--") and word not in known] == []
