"""Many traces as flat arrays: one row per trace, per token, per segment. Everything in a study is arithmetic on these.

Two kinds of error are kept apart: an *outcome* error is a wrong answer (``right`` is 0), a *process* error is a wrong
token (``onset`` >= 0). A trace with a process error and a right answer made a *slip*; one with a wrong answer and an
onset is *lost*. Running out of tokens is neither step nor token: such a trace has no onset in a study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wrongturn import tasks
from wrongturn.diagnose.segments import segments
from wrongturn.tasks.base import Check, Task
from wrongturn.trace import Problem, Trace

Array = NDArray[np.float64]
Index = NDArray[np.intp]

SIGNALS = ("entropy", "nll", "margin", "fork")
NONE, UNJUDGED = -1, -2
_CUT = "truncated"  # the class a checker gives a trace that stopped before the end token


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """N traces, T tokens and S segments in all. Tokens and segments of trace i: ``first[i]:first[i + 1]`` and
    ``first_segment[i]:first_segment[i + 1]``; all token indices are within the trace."""

    problems: tuple[str, ...]
    groups: tuple[str, ...]
    problem: Index  # [N] into problems
    group: Index  # [N] into groups
    length: Index  # [N] tokens
    right: Array  # [N] 1: right answer, 0: wrong, NaN: ungraded
    onset: Index  # [N] first wrong token; == length: cut off before any; NONE; UNJUDGED
    error: tuple[str | None, ...]  # [N] class of the first wrong token
    finish: tuple[str, ...]
    first: Index  # [N + 1]
    ids: NDArray[np.int32]  # [T]
    signals: dict[str, Array]  # [T] each; NaN where not measured
    first_segment: Index  # [N + 1]
    start: Index  # [S]
    stop: Index  # [S]
    valid: Array  # [S] 1: valid on what stands before it, 0: invalid, NaN: not judged
    onset_segment: Index  # [N] within the trace; -1 where the trace has no wrong token

    def __len__(self) -> int:
        return len(self.length)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Wrong answer."""
        return self.right == 0

    @property
    def wrong_turn(self) -> NDArray[np.bool_]:
        """A wrong token was written."""
        return (self.onset >= 0) & (self.onset < self.length)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Wrong answer and a wrong token: what an onset is studied on."""
        return self.failed & self.wrong_turn

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Every token is right."""
        return self.onset == NONE

    @property
    def segments(self) -> Index:
        """[N] number of segments."""
        return np.diff(self.first_segment)

    @property
    def segment_trace(self) -> Index:
        """[S] the trace each segment belongs to."""
        return np.repeat(np.arange(len(self)), self.segments)

    @property
    def token_trace(self) -> Index:
        """[T] the trace each token belongs to."""
        return np.repeat(np.arange(len(self)), self.length)

    def entropy_of(self, trace: int | np.intp) -> Array:
        """Entropies of one trace's tokens."""
        return self.signals["entropy"][self.first[trace] : self.first[trace + 1]]


def tabulate(traces: Sequence[Trace], problems: Mapping[str, Problem]) -> Table:
    """The table of ``traces``, each judged by its task's exact checker where there is one.

    Where there is none, ``trace.onset`` is believed, and single segments are not judged.
    """
    names, problem = _index([trace.problem for trace in traces])
    groups, group = _index([trace.group for trace in traces])
    onsets, errors, spans, verdicts = [], [], [], []
    for trace in traces:
        onset, error, span, valid = _judge(trace, problems.get(trace.problem))
        onsets.append(onset)
        errors.append(error)
        spans.append(span)
        verdicts.append(valid)
    length = np.array([len(trace.ids) for trace in traces], np.intp)
    onset = np.array(onsets, np.intp)
    onset = np.minimum(onset, length)
    flat = np.concatenate([np.zeros((0, 2), np.intp), *spans])
    first_segment = _starts([len(span) for span in spans])
    turned = (onset >= 0) & (onset < length)
    before = np.repeat(onset, np.diff(first_segment)) >= flat[:, 1]  # segments that end before the onset
    trace = np.repeat(np.arange(len(length)), np.diff(first_segment))
    position = np.bincount(trace[before], minlength=len(length))
    return Table(
        problems=names,
        groups=groups,
        problem=problem,
        group=group,
        length=length,
        right=np.array([math.nan if trace.correct is None else float(trace.correct) for trace in traces]),
        onset=onset,
        error=tuple(errors),
        finish=tuple(trace.finish for trace in traces),
        first=_starts(length),
        ids=np.concatenate([np.zeros(0, np.int32), *(np.asarray(trace.ids, np.int32) for trace in traces)]),
        signals={name: np.concatenate([np.zeros(0), *(_signal(trace, name) for trace in traces)]) for name in SIGNALS},
        first_segment=first_segment,
        start=flat[:, 0],
        stop=flat[:, 1],
        valid=np.concatenate([np.zeros(0), *verdicts]),
        onset_segment=np.where(turned, position, -1),
    )


def summaries(values: Array, start: Index, stop: Index) -> dict[str, Array]:
    """Mean, max, min and population std of ``values[start:stop]``, NaN left out; NaN where nothing is known.

    An infinite value (the nll of a token of probability zero) makes mean and max of its spans infinite, their std NaN.
    """
    known = ~np.isnan(values)
    pairs = np.column_stack((start, stop)).ravel()

    def reduced(by: np.ufunc, part: Array, fill: float) -> Array:
        """Each span by itself: one infinite sum must not reach the next. An empty span gets any value."""
        return by.reduceat(np.append(np.where(known, part, fill), fill), pairs)[::2] if len(pairs) else np.zeros(0)

    count = np.where(stop > start, reduced(np.add, known.astype(np.float64), 0.0), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, reduced(np.add, values, 0.0) / count, np.nan)
        std = np.sqrt(np.maximum(reduced(np.add, values * values, 0.0) / count - mean * mean, 0.0))
    extremes = {
        name: np.where(count > 0, reduced(by, values, fill), np.nan)
        for name, by, fill in (("max", np.maximum, -np.inf), ("min", np.minimum, np.inf))
    }
    return {"mean": mean, "std": std, **extremes}


def _judge(trace: Trace, problem: Problem | None) -> tuple[int, str | None, Index, Array]:
    """Onset, error class, spans [n, 2] and their validity [n]."""
    task = _task(trace.task)
    check: Check | None = task.check(problem, trace.ids.tolist()) if task and problem else None
    if check is not None:
        span = np.array([(part.start, part.stop) for part in check.segments], np.intp).reshape(-1, 2)
        valid = [math.nan if part.error == _CUT else float(part.error is None) for part in check.segments]
        return check.index, check.error, span, np.array(valid)
    span = (
        segments(task, trace)
        if task
        else np.array([(0, len(trace.ids))] * bool(len(trace.ids)), np.intp).reshape(-1, 2)
    )
    return UNJUDGED if trace.onset is None else int(trace.onset), trace.error, span, np.full(len(span), np.nan)


def _task(name: str) -> Task | None:
    try:
        return tasks.get(name)
    except ValueError:  # imported traces may come from a task nobody here can grade
        return None


def _signal(trace: Trace, name: str) -> Array:
    values = np.asarray(getattr(trace.signals, name), np.float64)
    return values if len(values) == len(trace.ids) else np.full(len(trace.ids), np.nan)


def _index(labels: list[str]) -> tuple[tuple[str, ...], Index]:
    names, index = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)
    return tuple(map(str, names)), index.astype(np.intp)


def _starts(lengths: Sequence[int] | Index) -> Index:
    return np.concatenate(([0], np.cumsum(np.asarray(lengths, np.intp)))).astype(np.intp)
