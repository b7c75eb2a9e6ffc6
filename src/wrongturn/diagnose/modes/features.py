"""What failure modes are told from: per completion the summaries of its whole trace and of its prefixes.

Two sources give the same :class:`Features`: a published table, whose columns are named ``{summary}[_prefinal][_w{T}]``
(T: length of the prefix in tokens), and the traces of a run, whose per-token signals are summarised here over any grid
of prefixes. "Prefinal" summaries end before the line that states the answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.modes.audit import OUTCOMES, counts, outcomes
from wrongturn.diagnose.modes.table import Table, is_missing
from wrongturn.errors import WrongturnError
from wrongturn.signals import windows
from wrongturn.store import Run
from wrongturn.trace import Trace

SUMMARIES = (
    "entropy_mean",
    "entropy_max",
    "nll_mean",
    "nll_max",
    "margin_mean",
    "margin_max",
    "nucleus_size_mean",
    "nucleus_size_max",
    "near_tie_mean",
    "near_tie_max",
    "fork_rate",
)
"""The published feature set, in the order in which the regression gets them."""

SOUND = tuple("margin_min" if name == "margin_max" else name for name in SUMMARIES)
"""Ours: the largest margin is 1 up to rounding on every trace; the smallest says where the model was torn."""

RELATIVE = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)  # prefixes of a run's traces, as fractions, unless told otherwise
_PREFINAL_LENGTHS = ("prefinal_len", "preboxed_generated_len")
_FEWEST_PREFINAL = 5  # failures; with fewer the published procedure falls back to whole traces
_MOST_PREFINAL = 0.9  # of right and of wrong answers must have a prefinal segment, or choosing rows by it is selection

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """n completions of known outcome, W prefixes, F summaries.

    ``full`` is ``[n, F]``, ``early`` ``[W, n, F]`` (missing: NaN), ``windows`` ``[W]`` in tokens, or as fractions of
    the trace with ``relative``. ``lengths`` ``[n]`` are tokens (NaN: not known), ``groups`` ``[n]`` say which
    completions answer one problem. ``warnings`` tell what a reader of the result should know about the input,
    ``outcomes`` how many completions of the source had which outcome, where that was audited.
    """

    source: str
    failed: NDArray[np.bool_]
    names: tuple[str, ...]
    full: Array
    windows: tuple[float, ...]
    early: Array
    mode: str
    lengths: Array
    groups: NDArray[np.str_] | None = None
    relative: bool = False
    warnings: tuple[str, ...] = ()
    outcomes: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.failed)


def table_features(table: Table, group: str | None = None) -> Features:
    """Features of a published table, by the published choice of rows and columns.

    Rows with a prefinal segment are kept and summarised over it; where these hold fewer than 5 failures, or the table
    does not say which rows have one, all rows and whole traces are used, with a warning.

    Raises:
        WrongturnError: a label that is not 0 or 1, a missing column, or a cell that is no number.
    """
    failed = labels(table)
    valid, warnings = _prefinal_rows(table, failed)
    warnings += _repetition(table.repeated(), "kept, as published")
    rows = np.ones(len(table), np.bool_) if valid is None else valid
    return _gather(table, failed, rows, valid is not None, SUMMARIES, group, warnings)


def answered_features(table: Table, group: str | None = None) -> Features:
    """Features of the completions with an answer, right or wrong; what became of the others is only counted.

    Prefinal segments are used where nearly all of both have one, so that rows are not chosen by their outcome.

    Raises:
        WrongturnError: as :func:`table_features`; a missing label is an outcome here.
    """
    outcome = outcomes(table)
    failed, answered = outcome == "wrong", np.isin(outcome, ("correct", "wrong"))
    lengths = next((table.numbers(name) for name in _PREFINAL_LENGTHS if name in table), np.zeros(len(table)))
    valid = lengths > 0
    kinds = [valid[answered & (failed == kind)] for kind in (True, False)]
    prefinal = bool(valid.any()) and all(kind.mean() >= _MOST_PREFINAL for kind in kinds if len(kind))
    names = tuple(
        name for name in SOUND if name != "margin_min" or "margin_min" + ("_prefinal" if prefinal else "") in table
    )
    warnings = [] if prefinal else ["too few rows have a prefinal segment: whole traces are used, answers included"]
    again = table.repeated()
    warnings += _repetition(again, "left out")
    answered[[second - 2 for _, second in again]] = False  # in a fold and in its fit they would give themselves away
    found = _gather(table, failed, answered & valid if prefinal else answered, prefinal, names, group, warnings)
    return replace(found, outcomes=counts(outcome))


def _gather(
    table: Table,
    failed: NDArray[np.bool_],
    rows: NDArray[np.bool_],
    prefinal: bool,
    names: Sequence[str],
    group: str | None,
    warnings: list[str],
) -> Features:
    """The features of some ``rows`` ``[n]``, over prefinal segments or whole traces."""
    grid = window_lengths(table)
    suffix = "_prefinal" if prefinal else ""
    full = np.column_stack([table.numbers(name + suffix) for name in names])[rows]
    early = [np.column_stack([table.numbers(f"{name}{suffix}_w{T}") for name in names])[rows] for T in grid]
    return Features(
        source=table.path,
        failed=failed[rows],
        names=tuple(names),
        full=full,
        windows=tuple(float(T) for T in grid),
        early=np.stack(early),
        mode="prefinal" if prefinal else "regular",
        lengths=_lengths(table, prefinal)[rows],
        groups=None if group is None else _groups(table, group, rows),
        warnings=tuple(warnings),
    )


def _groups(table: Table, name: str, rows: NDArray[np.bool_]) -> NDArray[np.str_]:
    """The group of each of the ``rows``. A row without one is an error: together they would be one large group."""
    cells = table.column(name)
    for i in np.flatnonzero(rows).tolist():
        if is_missing(cells[i]):
            raise table.wrong(i, name, cells[i], "the name of a group")
    return np.array([str(cell) for cell in cells])[rows]


def _repetition(repeated: list[tuple[int, int]], what: str) -> list[str]:
    """A warning about rows that stand there more than once, if any do."""
    if not repeated:
        return []
    first, second = repeated[0]
    return [f"{len(repeated)} repeated rows, e.g. row {second} is row {first} again: {what}"]


def labels(table: Table) -> NDArray[np.bool_]:
    """Which rows failed, from the column ``correct``, which must be 0 or 1 in each."""
    correct = table.numbers("correct")
    wrong = np.flatnonzero((correct != 0) & (correct != 1))
    if len(wrong):
        raise table.wrong(int(wrong[0]), "correct", table.column("correct")[wrong[0]], "0 or 1")
    return correct == 0


def window_lengths(table: Table) -> list[int]:
    """The prefixes T that columns are named for, in tokens, ascending."""
    found = {int(match[1]) for name in table.columns if (match := re.search(r"_w(\d+)$", name))}
    if not found:
        raise WrongturnError(f"{table.path}: no column is named for a window (expected e.g. 'entropy_mean_w128')")
    return sorted(found)


def _prefinal_rows(table: Table, failed: NDArray[np.bool_]) -> tuple[NDArray[np.bool_] | None, list[str]]:
    """Rows ``[n]`` with a prefinal segment, or None where whole traces must do; and why."""
    name = next((name for name in _PREFINAL_LENGTHS if name in table), None)
    if name is None:
        return None, [f"no column {_PREFINAL_LENGTHS[0]!r}: whole traces are used, answers included"]
    valid = table.numbers(name) > 0
    left = int((failed & valid).sum())
    if left >= _FEWEST_PREFINAL:
        return valid, []
    return None, [
        f"{int(valid.sum())} rows with {left} failures have a prefinal segment, too few: "
        "all rows and whole traces are used, answers included"
    ]


def _lengths(table: Table, prefinal: bool) -> Array:
    names = ("full_len_prefinal", *_PREFINAL_LENGTHS) if prefinal else ("full_len", "generated_len")
    return next((table.numbers(name) for name in names if name in table), np.full(len(table), math.nan))


def run_features(
    run: Run,
    grid: Sequence[float] = RELATIVE,
    relative: bool = True,
    names: Sequence[str] = SUMMARIES,
    answered: bool = False,
) -> Features:
    """Features of the graded plain samples of a run: prefixes of ``grid`` tokens, or fractions of a trace.

    Completions of one problem are one group. With ``answered``, failures at the token limit or without an answer are
    left out and only counted, as in :func:`answered_features`.

    Raises:
        WrongturnError: the run has no graded plain samples. ValueError: a grid that is not ascending and positive.
    """
    if list(grid) != sorted(set(grid)) or not grid or grid[0] <= 0 or (relative and grid[-1] > 1):
        raise ValueError(f"a grid of prefixes must ascend from above 0 (fractions: up to 1), got {list(grid)}")
    edges = [(0.0, float(stop)) for stop in (*grid, 1.0 if relative else math.inf)]
    failed, tables, lengths, groups = [], [], [], []
    found = dict.fromkeys(OUTCOMES, 0)
    for trace in run.traces(top_k=False, strategy="sample"):
        outcome = _outcome(trace)
        found[outcome] += 1
        if outcome == "missing" or (answered and outcome not in ("correct", "wrong")):
            continue
        summary = windows(trace.signals, edges, relative)
        tables.append(np.stack([summary[name] for name in names], axis=1))
        failed.append(outcome != "correct")
        lengths.append(len(trace))
        groups.append(trace.problem)
    if not failed:
        raise WrongturnError(f"{run.path}: no graded plain samples to tell failure modes from")
    table = np.stack(tables, axis=1)
    infinite = np.isinf(table)  # of a token of probability zero: no regression has a place for it
    warnings = [f"{found['missing']} ungraded traces are left out"] if found["missing"] else []
    if infinite.any():
        warnings.append(
            f"infinite nll in {infinite.any(axis=(0, 2)).sum()} traces: there its mean and maximum are unknown"
        )
    table = np.where(infinite, np.nan, table)
    return Features(
        source=str(run.path),
        failed=np.array(failed),
        names=tuple(names),
        full=table[-1],
        windows=tuple(float(stop) for stop in grid),
        early=table[:-1],
        mode="regular",
        lengths=np.array(lengths, np.float64),
        groups=np.array(groups),
        relative=relative,
        warnings=tuple(warnings),
        outcomes=found,
    )


def _outcome(trace: Trace) -> str:
    """One of ``OUTCOMES``; a trace without a label or without tokens tells nothing and counts as missing."""
    if trace.correct is None or not len(trace):
        return "missing"
    return "correct" if trace.correct else trace.outcome
