"""The `ganseg` command: one file a subcommand, one line an error, exit codes that scripts can trust."""

from __future__ import annotations

import errno
import os
import signal
import sys
from importlib import import_module

import click
import typer

from ganseg_dist import __version__
from ganseg_dist.cli import experiment, show, site, submit
from ganseg_dist.cli.options import paragraphs
from ganseg_dist.console import make_output_printable
from ganseg_dist.errors import INTERRUPTED, GansegError
from ganseg_dist.printable import printable

COMMANDS = (
    "phantom", "recipes", "check", "prepare", "train", "calibrate", "evaluate", "predict", "synthesize", "export",
    "report", "tune", "federate", "submit", "certificates", "audit",
)  # fmt: skip
"""In the order of a first project; each is the function of that name in the module of that name."""
WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


app = typer.Typer(
    name="ganseg",
    help=paragraphs("""GAN-assisted segmentation of tumours in medical images.

    A first run, on synthetic images:

    [bold]ganseg phantom cohort[/bold]

    [bold]ganseg train ganet_seg_debug --data cohort --run-name first[/bold]

    [bold]ganseg evaluate first --data cohort[/bold]

    RUN is a run's name, its folder or its MLflow id. Runs are kept in ./runs, or in GANSEG_RUNS.

    Exit codes: 0 done; 1 the data, the run or the machine needs attention; 2 wrong usage; 130 interrupted."""),
    no_args_is_help=True,
    suggest_commands=False,  # click does
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
for name in COMMANDS:
    function = getattr(import_module(f"ganseg_dist.cli.{name}"), name)
    # Options after the job's command belong to that command, with or without -- before it.
    settings = {"allow_interspersed_args": False} if name == "submit" else {}
    app.command(name, help=paragraphs(function.__doc__), context_settings=settings)(function)
app.add_typer(experiment.experiment, name="experiment")
app.add_typer(site.site, name="site")


def _version(requested: bool) -> None:
    if requested:
        show.echo(f"ganseg {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    if context.invoked_subcommand in submit.SUBMITTED:
        from ganseg_dist.cluster.jobs import check_runs_folder
        from ganseg_dist.runs import runs_root

        check_runs_folder(runs_root())


def main() -> None:
    """Run the command line; user errors end in one line on stderr, never in a traceback."""
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's end is a Ctrl-C
    make_output_printable()
    try:
        code = app(prog_name="ganseg", standalone_mode=False) or 0
    except GansegError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "ganseg"
        message = error.format_message().rstrip(".")
        _fail(f"{message}{' See' if message.endswith('?') else '; see'}: {command} --help", error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except MemoryError:
        _fail("memory: this machine has too little for these images; use a larger one or smaller files", 1)
    except OSError as error:
        _fail(_os_error_message(error), 1)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        _fail("memory: too little for this model; lower train.batch_size or data.size, or use a larger machine", 1)
    if code == INTERRUPTED:
        _fail("interrupted; rerun the same command to resume", INTERRUPTED)
    sys.exit(code)


def _os_error_message(error: OSError) -> str:
    place, why = error.filename or "this machine", error.strerror or error
    if error.errno in WRITE_ERRORS:
        return f"{place}: cannot be written or read ({why}); free space, correct permissions or choose another folder"
    return f"{place}: cannot be used ({why}); check the path"


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch ran out of memory: it raises its own class on a GPU, a plain RuntimeError on a CPU."""
    torch = sys.modules.get("torch")  # not loaded, it cannot have failed
    on_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return on_gpu or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _fail(message: str, code: int) -> None:
    """Print the message on one line, as a library's may have several, and exit with the code."""
    sys.stderr.write(f"error: {printable(' '.join(message.split()))}\n")
    sys.exit(code)
