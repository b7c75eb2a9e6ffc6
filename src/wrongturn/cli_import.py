"""The commands ``wrongturn import`` and ``wrongturn export``: other tools' logs in, runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wrongturn import export as exporting
from wrongturn import importers
from wrongturn.cli_common import Folder, Json, emit, out, warn
from wrongturn.store import Run


def import_(
    format: Annotated[
        str, typer.Argument(help=f"One of {', '.join(importers.FORMATS)}; {importers.AUTO} tells by the file.")
    ],
    path: Annotated[Path, typer.Argument(help="A log, or a folder: all logs of the format in it are read.")],
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Run folder, new or of an earlier import, which is added to.")
    ],
    task: Annotated[
        str, typer.Option(help="Task of the problems: how regrade reads and grades their answers.")
    ] = "exact",
    metric: Annotated[
        str | None,
        typer.Option(help="Metric of the log that says right or wrong. Default: the first that is 0 or 1 in each row."),
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help="lm-eval only: the filter whose rows count. Default: the first row's.")
    ] = None,
    requests: Annotated[
        Path | None, typer.Option(help="openai-batch only: the batch's input file, which has the prompts.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import logs of other tools into a run folder; the same log again adds nothing."""
    done = importers.load(
        format, path, folder, task=task, metric=metric, filter=filter, requests_file=requests, warn=warn
    )
    emit(done.dict(), as_json, _show_import)


def export(
    folder: Folder,
    format: Annotated[str, typer.Option(help=f"One of {', '.join(exporting.FORMATS)}.")],
    target: Annotated[Path, typer.Option("--out", "-o", help="File to write; one that is there is replaced.")],
    as_json: Json = False,
) -> None:
    """Write a run for other tools: a flat Parquet table, an Inspect log, or chat JSON lines."""
    count = exporting.write(Run.open(folder), format, target)
    emit({"traces": count, "file": str(target)}, as_json, lambda f: out.print(f"{f['traces']} traces in {f['file']}"))


def _show_import(facts: dict[str, Any]) -> None:
    out.print(f"{facts['traces']} traces added; {facts['run']} has {facts['problems']} problems", highlight=False)
    for reason, count in facts["skipped"].items():
        out.print(f"  {count} left out: {reason}", highlight=False)
