"""The commands ``wrongturn import`` and ``wrongturn export``: other tools' logs in, runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wrongturn import export as exporting
from wrongturn import importers
from wrongturn.cli_common import Folder, Json, emit, err, out
from wrongturn.store import Run


def import_(
    format: Annotated[str, typer.Argument(help=f"{importers.AUTO}, {', '.join(importers.FORMATS)}.")],
    path: Annotated[Path, typer.Argument(help="A log, or a folder of which all logs of the format are read.")],
    folder: Annotated[Path, typer.Option("--out", "-o", help="Run folder; an imported one is added to.")],
    task: Annotated[str, typer.Option(help="Task the problems belong to, for grading them again.")] = "exact",
    metric: Annotated[
        str | None, typer.Option(help="Metric that says right or wrong; else the first binary one.")
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help="lm-eval: the filter whose rows count; else the first one.")
    ] = None,
    requests: Annotated[Path | None, typer.Option(help="OpenAI batch: the input file, for the prompts.")] = None,
    as_json: Json = False,
) -> None:
    """Import logs of other tools into a run folder."""
    done = importers.load(
        format, path, folder, task=task, metric=metric, filter=filter, requests_file=requests, warn=_warn
    )
    emit(done.dict(), as_json, _show_import)


def export(
    folder: Folder,
    format: Annotated[str, typer.Option(help=f"{', '.join(exporting.FORMATS)}.")],
    target: Annotated[Path, typer.Option("--out", "-o", help="File to write; it is replaced.")],
    as_json: Json = False,
) -> None:
    """Write a run in another tool's format: Parquet for data tools, an Inspect log, or chat JSON lines."""
    count = exporting.write(Run.open(folder), format, target)
    emit({"traces": count, "file": str(target)}, as_json, lambda f: out.print(f"{f['traces']} traces in {f['file']}"))


def _warn(line: str) -> None:
    err.print(f"wrongturn: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _show_import(facts: dict[str, Any]) -> None:
    out.print(f"{facts['traces']} traces added; {facts['run']} has {facts['problems']} problems", highlight=False)
    for reason, count in facts["skipped"].items():
        out.print(f"  {count} left out: {reason}", highlight=False)
