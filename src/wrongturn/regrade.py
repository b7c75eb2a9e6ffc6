"""Grade what has been graded before once more, and say which labels change.

Many published labels are a matter of notation: ``14/3`` for ``\\frac{14}{3}`` counts as wrong. Whatever is told from
such labels is told from the grader. This grades the answers of a published table, or of a run, with a task of ours.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wrongturn import tasks
from wrongturn.diagnose.intervals import share
from wrongturn.diagnose.modes.table import Table, is_missing, read_table
from wrongturn.errors import WrongturnError
from wrongturn.stats import Estimate
from wrongturn.store import Run
from wrongturn.tasks import Task
from wrongturn.trace import Problem

ANSWERS = ("predicted_answer", "boxed_answer")
REFERENCES = ("true_answer", "correct_letter", "reference")
TEXTS = ("response_text", "assistant_output", "full_text")
_Given = tuple[str, bool | None, str | None, str | None, str]
"""Where an answer stands, its label, the answer, its reference, its problem."""
_AT_ONCE = 8  # answers with a slow grader: it has worker processes of its own


@dataclass(frozen=True, slots=True)
class Label:
    """One graded answer. ``where`` is "row 7" of a table (as a spreadsheet numbers them) or a trace's id; ``old`` and
    ``new`` are None where there is no label: it was not graded, or cannot be. ``problem`` is the trace's; a row of a
    table is one of its own."""

    where: str
    old: bool | None
    new: bool | None
    answer: str | None
    reference: str | None
    problem: str

    @property
    def kind(self) -> str:
        """What became of it: "no reference", "no answer" (which is wrong, whatever was said before), "undecided" (no
        verdict within the time limit, or a reference the grader cannot read), "new" (had no label), "kept", "to right",
        "to wrong"."""
        if self.reference is None:
            return "no reference"
        if self.answer is None and not self.old:
            return "no answer"
        if self.new is None:
            return "undecided"
        if self.old is None:
            return "new"
        return "kept" if self.old == self.new else "to right" if self.new else "to wrong"

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("where", "old", "new", "answer", "reference")
        return {name: getattr(self, name) for name in names} | {"kind": self.kind}


KINDS = ("kept", "to right", "to wrong", "new", "no answer", "undecided", "no reference")


@dataclass(frozen=True, slots=True)
class Regraded:
    """All labels of a source, in its order."""

    source: str
    task: str
    labels: tuple[Label, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many labels of each of ``KINDS``; they add up to all."""
        kinds = [label.kind for label in self.labels]
        return {kind: kinds.count(kind) for kind in KINDS}

    def of(self, *kinds: str) -> list[Label]:
        """The labels of these kinds."""
        return [label for label in self.labels if label.kind in kinds]

    @property
    def failures(self) -> list[Label]:
        """The failures with an answer, and with a verdict."""
        return [label for label in self.of("kept", "to right") if not label.old]

    @property
    def mistaken(self) -> Estimate:
        """Share of the ``failures`` that are right after all; ``n`` counts their problems."""
        rows = self.failures
        return share([label.kind == "to right" for label in rows], [label.problem for label in rows])

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON: counts, and every label that is not simply kept."""
        return {
            "source": self.source,
            "task": self.task,
            "n": len(self.labels),
            "counts": self.counts,
            "mistaken_failures": self.mistaken.dict(),
            "changes": [label.dict() for label in self.of("to right", "to wrong", "new")],
            "undecided": [label.dict() for label in self.of("undecided")],
        }


def regrade(
    source: str | os.PathLike[str],
    task: str,
    *,
    answer: str | None = None,
    reference: str | None = None,
    extract: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Regraded:
    """Grade the answers of a table (.csv, .xlsx, .parquet) or of the traces of a run with the task of that name.

    Args:
        answer, reference: columns of a table; those of published tables are known.
        extract: take the answers from the completions' text once more, not as they are stored.
        progress: called with (answers done, all of them).

    Raises:
        WrongturnError: the source cannot be read or lacks what is needed, there is no such task, or its grader cannot
            run here.
    """
    try:
        grader = tasks.get(task)
    except ValueError as problem:
        raise WrongturnError(f"--task: {problem}") from None
    path = Path(source)
    if not path.exists():
        raise WrongturnError(f"{path}: there is no such file or folder")
    if path.is_dir():
        if answer or reference:
            raise WrongturnError(f"{path}: columns of answers and references are for tables; a run knows its own")
        given = _run(Run.open(path), grader, extract)
    else:
        given = _table(read_table(path), grader, answer, reference, extract)
    return Regraded(str(path), task, tuple(_graded(grader, given, progress)))


def relabelled(found: Regraded) -> str:
    """The source with its new labels, as the text of a .csv file: ``correct`` is the new label (empty where there is
    none), ``correct_before`` the old. Of a run: a row for each trace."""
    before = [_cell(label.old) for label in found.labels]
    after = [_cell(label.new) for label in found.labels]
    if Path(found.source).is_dir():
        columns: dict[str, Sequence[Any]] = {
            "trace": [label.where for label in found.labels],
            "answer": [label.answer for label in found.labels],
            "reference": [label.reference for label in found.labels],
        }
    else:
        columns = dict(read_table(Path(found.source)).columns)
    columns |= {"correct": after, "correct_before": before}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _cell(label: bool | None) -> str:
    return "" if label is None else str(int(label))


def _table(table: Table, task: Task, answer: str | None, reference: str | None, extract: bool) -> list[_Given]:
    correct = table.numbers("correct")
    unknown = np.flatnonzero(~np.isnan(correct) & (correct != 0) & (correct != 1))
    if len(unknown):
        raise table.wrong(int(unknown[0]), "correct", table.column("correct")[unknown[0]], "0 or 1")
    old = [None if np.isnan(label) else bool(label) for label in correct]
    wanted = _texts(table.column(_which(table, reference, REFERENCES, "reference")))
    if extract:
        texts = _texts(table.column(_which(table, None, TEXTS, "text")))
        answers = [None if text is None else task.answer_text(text) for text in texts]
    else:
        answers = _texts(table.column(_which(table, answer, ANSWERS, "answer")))
    where = [f"row {i + 2}" for i in range(len(table))]
    return list(zip(where, old, answers, wanted, where, strict=True))


def _which(table: Table, named: str | None, known: Sequence[str], what: str) -> str:
    if named is not None:
        table.column(named)
        return named
    for name in known:
        if name in table:
            return name
    hint = "" if what == "text" else f"; name one with --{what}"
    raise WrongturnError(f"{table.path}: no column holds the {what} (looked for {', '.join(known)}{hint})")


def _texts(cells: Sequence[Any]) -> list[str | None]:
    return [None if is_missing(cell) else _plain(cell) for cell in cells]


def _plain(cell: Any) -> str:
    """A number as people write it: workbooks hold 18 as 18.0."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _run(run: Run, task: Task, extract: bool) -> list[_Given]:
    problems = run.problems()
    found = []
    for trace in run.traces(top_k=False):
        problem = problems.get(trace.problem)
        answer = task.answer_text(trace.text) if extract else trace.answer
        found.append((trace.id, trace.correct, answer, problem.reference if problem else None, trace.problem))
    if not found:
        raise WrongturnError(f"{run.path}: the run has no traces")
    return found


def _graded(
    task: Task,
    given: Sequence[_Given],
    progress: Callable[[int, int], None] | None,
) -> Iterable[Label]:
    """The labels, in order. The same answer to the same reference is graded once."""
    pairs = list(dict.fromkeys((reference, answer) for _, _, answer, reference, _ in given))

    def grade(pair: tuple[str | None, str | None]) -> bool | None:
        return task.grade(Problem("", task.name, "", reference=pair[0]), pair[1])

    verdicts: dict[tuple[str | None, str | None], bool | None] = {}
    with ThreadPoolExecutor(_AT_ONCE if task.slow else 1) as threads:
        for pair, verdict in zip(pairs, threads.map(grade, pairs), strict=True):
            verdicts[pair] = verdict
            if progress:
                progress(len(verdicts), len(pairs))
    for where, old, answer, reference, problem in given:
        yield Label(where, old, verdicts[reference, answer], answer, reference, problem)
