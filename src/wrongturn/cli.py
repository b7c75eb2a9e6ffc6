"""The command line. No logic of its own: every command is one call of :mod:`wrongturn.pipeline`."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated

import typer

import wrongturn
from wrongturn.cli_common import Interrupted, err, out
from wrongturn.cli_engine import engine
from wrongturn.cli_import import export, import_
from wrongturn.cli_lab import lab
from wrongturn.cli_locate import locate
from wrongturn.cli_modes import modes
from wrongturn.cli_probe import probe
from wrongturn.cli_recoverability import recoverability
from wrongturn.cli_regrade import regrade
from wrongturn.cli_rescue import rescue
from wrongturn.cli_route import route
from wrongturn.cli_run import collect, run
from wrongturn.cli_show import diagnose, report, show
from wrongturn.cli_triage import triage
from wrongturn.errors import WrongturnError

app = typer.Typer(
    name="wrongturn",
    help="Find where a language model's reasoning takes a wrong turn, and get it back on the road.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
LOOKING = (diagnose, report, show, modes, triage, locate, recoverability, rescue, regrade)
for command in (run, collect, *LOOKING, probe, export):
    app.command()(command)
app.command("import")(import_)
app.add_typer(route, name="route")
app.add_typer(engine, name="engine")
app.add_typer(lab, name="lab")


@app.callback(invoke_without_command=True)
def version(
    shown: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if shown:
        out.print(wrongturn.__version__, highlight=False)
        raise typer.Exit


def main() -> None:
    """Entry point: problems of the user's making are one line and exit code 2; an interruption says how to go on."""
    try:
        app()
    except (WrongturnError, ValueError) as problem:
        if os.environ.get("WRONGTURN_DEBUG"):
            raise
        err.print(f"wrongturn: {problem}", style="red", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as problem:  # a file that is a folder, a full disk
        if os.environ.get("WRONGTURN_DEBUG"):
            raise
        where = f"{problem.filename}: " if problem.filename else ""
        err.print(f"wrongturn: {where}{problem.strerror or problem}", style="red", highlight=False, soft_wrap=True)
        sys.exit(2)
    except Interrupted:
        again = shlex.join(["wrongturn", *sys.argv[1:]])
        err.print(f"interrupted; what was collected is kept. Go on with: {again}", soft_wrap=True)
        sys.exit(130)
