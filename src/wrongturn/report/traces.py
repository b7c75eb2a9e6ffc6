"""What a reader sees of a trace: the texts of its tokens, where its steps end and go wrong, its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wrongturn import tasks
from wrongturn.diagnose.segments import blank_lines
from wrongturn.tasks.base import Check
from wrongturn.tasks.registry import ERRORS
from wrongturn.trace import Problem, Trace

Pieces = Callable[[Trace, Sequence[int]], Sequence[str]]
"""The text of each of some token ids, in the vocabulary of the trace."""

EVENTS = 200  # shown of a trace
_PLACES = ("at", "token", "index", "position")  # keys under which an event says at which token it happened
_NAMES = ("kind", "event", "name", "type")  # and what it was


def pieces_of(trace: Trace, ids: Sequence[int]) -> Sequence[str]:
    """Token texts by the trace's task; where that knows none, the bare ids, as ``⟨17⟩``."""
    try:
        return tasks.get(trace.task).pieces(ids)
    except ValueError:
        return [f"⟨{i}⟩" for i in ids]


def token_texts(trace: Trace, pieces: Pieces) -> Sequence[str]:
    """The text of each token of a trace: its own where it has them."""
    if (own := trace.pieces) is not None:
        return own
    distinct, inverse = np.unique(trace.ids, return_inverse=True)
    return np.array(pieces(trace, distinct.tolist()), object)[inverse].tolist()


def boundaries_of(trace: Trace, pieces: Sequence[str]) -> npt.NDArray[np.bool_]:
    """[tokens]: True at each token that ends a step; of an unknown task the blank lines."""
    try:
        return np.asarray(tasks.get(trace.task).boundaries(trace.ids), np.bool_)[: len(pieces)]
    except ValueError:
        return blank_lines(pieces)


def check_of(trace: Trace, problem: Problem | None) -> Check | None:
    """What the task's checker says of a trace; None where there is no problem, task or checker."""
    if problem is None:
        return None
    try:
        return tasks.get(trace.task).check(problem, trace.ids.tolist())
    except ValueError:  # an unknown task, or a prompt the checker cannot read
        return None


def error_text(error: str | None) -> str:
    """An error class and what it means, ``"revisit — expanded a node a second time"``; the bare class if unknown."""
    if not error:
        return "of no known class"
    return f"{error} — {ERRORS[error]}" if error in ERRORS else error


def entropy_scale(traces: Iterable[Trace]) -> float:
    """A round number of nats that nearly every token stays below: the dark end of the shading."""
    parts = [trace.signals.entropy for trace in traces]
    values = np.concatenate(parts) if parts else np.zeros(0)
    values = values[np.isfinite(values)]
    high = float(np.quantile(values, 0.995)) if values.size else 0.0
    return next((step for step in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0) if high <= step), 12.0)


def events_of(trace: Trace) -> Iterator[list[Any]]:
    """[token or None, name, detail] of a trace's events, whatever their other keys are."""
    for event in trace.events[:EVENTS]:
        at = next((event[key] for key in _PLACES if isinstance(event.get(key), int)), None)
        name = next((key for key in _NAMES if event.get(key)), None)
        detail = {k: v for k, v in event.items() if v is not None and k not in (*_PLACES, name)}
        text = ", ".join(f"{k} {f'{v:.3g}' if isinstance(v, float) else v}" for k, v in detail.items())
        yield [at, str(event[name]) if name else "event", text[:200]]
