"""Segments: the reasoning steps of a trace, as half-open token spans between the task's boundaries.

Onset and trigger live on this one grid (guard.md §1.1). A task marks its own boundaries; prose has blank lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wrongturn.tasks.base import Task
from wrongturn.trace import Trace

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*\Z")


def segments(task: Task, trace: Trace) -> NDArray[np.intp]:
    """``[n, 2]`` token spans ``start:stop`` that tile the trace; the last one may be unfinished.

    Where the task has no tokens of its own, blank lines end a step; one of unknown text is a single step.
    """
    try:
        return spans(task.boundaries(trace.ids))
    except ValueError:
        return spans(blank_lines(trace.pieces or [""] * len(trace)))


def spans(boundaries: ArrayLike) -> NDArray[np.intp]:
    """``[n, 2]`` spans that end after each true entry of ``boundaries`` [tokens], and at the end."""
    ends = np.asarray(boundaries, bool).copy()
    if len(ends):
        ends[-1] = True
    stops = np.flatnonzero(ends) + 1
    return np.column_stack((np.concatenate(([0], stops))[: len(stops)], stops)).astype(np.intp)


def blank_lines(pieces: Iterable[str]) -> NDArray[np.bool_]:
    """Boundaries of prose: True at each token after which the text so far ends in a blank line.

    It is the *text* that counts, so tokens such as ``".\\n\\n"`` or ``"**\\n\\n"`` are boundaries in any vocabulary.
    A run of newlines is one boundary, at the token that completes the blank line, and blank lines before any text are
    none: a decoder that only sees the past marks the same tokens.
    """
    marks, tail, blank = [], "", True
    for piece in pieces:
        tail = (tail + piece)[-256:]  # a blank line longer than this is a loop, not a paragraph
        resumed = not blank or bool(piece.strip())
        blank = not tail.strip() or _BLANK_LINE.search(tail) is not None
        marks.append(blank and resumed)
    return np.array(marks, bool)
