"""The `ganseg` command: one file a subcommand, one line an error, exit codes that scripts can trust."""

from __future__ import annotations

import errno
import os
import sys

import typer

from ganseg_dist import __version__
from ganseg_dist.cli import calibrate, check, evaluate, export, phantom, predict, prepare, report, train
from ganseg_dist.errors import GansegError

app = typer.Typer(
    name="ganseg",
    help="""GAN-assisted segmentation of tumours in medical images.

    A first run:  ganseg check DATA,  ganseg train ganet_seg_small --data DATA,  ganseg evaluate RUN --data DATA.

    RUN is a run's name, its folder or its MLflow id. Runs are kept in ./runs, or where GANSEG_RUNS says.
    Exit codes: 0 done; 1 the data, the run or the machine needs attention; 2 wrong usage; 130 interrupted.""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
for command in (check, phantom, prepare, train, evaluate, calibrate, predict, export, report):
    name = command.__name__.rsplit(".", 1)[-1]
    app.command(name)(getattr(command, name))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ganseg {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None: ...


def main() -> None:
    """Run the command line; a person's mistakes end in one line, never in a traceback."""
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        app()
    except GansegError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on from the last checkpoint", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM):
            raise
        place = error.filename or "the disk"
        _fail(f"{place}: cannot be written ({error.strerror}); free space or choose another folder", 1)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(code)
