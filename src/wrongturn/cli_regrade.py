"""The command ``wrongturn regrade``: grade a table or a run once more, and see which labels change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wrongturn.cli_common import Json, emit, estimate, out, progress_bars, table
from wrongturn.cli_modes import say
from wrongturn.errors import WrongturnError
from wrongturn.regrade import Regraded, relabelled
from wrongturn.regrade import regrade as grade_again

_SHOWN = 20


def regrade(
    source: Annotated[Path, typer.Argument(help="A table (.csv, .xlsx, .parquet) or a run folder.")],
    task: Annotated[str, typer.Option(help="How answers are graded: math, numeric, choice, exact, or any other task.")],
    to: Annotated[Path | None, typer.Option("--out", help="Write the table with the new labels to this .csv.")] = None,
    answer: Annotated[str | None, typer.Option(help="Column of a table that holds the answer.")] = None,
    reference: Annotated[str | None, typer.Option(help="Column of a table that holds the right answer.")] = None,
    extract: Annotated[
        bool, typer.Option("--extract", help="Take the answers from the text again, not as they are stored.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Which labels change when answers are graded again?"""
    if to is not None and to.suffix.lower() != ".csv":
        raise WrongturnError(f"--out {to}: labels are written as a table of comma-separated values: name it .csv")
    with progress_bars() as progress:
        found = grade_again(
            source,
            task,
            answer=answer,
            reference=reference,
            extract=extract,
            progress=lambda done, all_: progress("answers", done, all_),
        )
    if to is not None:
        try:
            to.write_text(relabelled(found), encoding="utf-8", newline="")
        except OSError as problem:
            raise WrongturnError(f"--out {to}: {problem.strerror}") from None
    emit(found.dict() if as_json else found, as_json, print_regraded)


def print_regraded(found: Regraded) -> None:
    changes = found.of("to right", "to wrong")
    if changes:
        listed = table("Labels that change", "where", "was", "is", "answer", "reference")
        for label in changes[:_SHOWN]:
            listed.add_row(label.where, word(label.old), word(label.new), short(label.answer), short(label.reference))
        out.print(listed)
    if len(changes) > _SHOWN:
        say(f"{_SHOWN} of {len(changes)}; all with --json\n")
    say(f"{len(found.labels)} answers: " + ", ".join(f"{n} {kind}" for kind, n in found.counts.items() if n))
    if failures := len(found.failures):
        told = estimate(found.mistaken.dict())
        say(f"Of {failures} failures with an answer and a verdict, right after all: {told} %")


def word(label: bool | None) -> str:
    return {True: "right", False: "wrong", None: "–"}[label]


def short(text: str | None, most: int = 28) -> str:
    """A cell's text on one line."""
    line = " ".join((text or "–").split())
    return line if len(line) <= most else line[: most - 1] + "…"
