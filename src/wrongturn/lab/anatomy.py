"""The anatomy of failed searches: what the first wrong token does, and how much of a search was in vain.

Pure functions of traces of the tasks whose every token is checked. :mod:`wrongturn.lab.graph_anatomy` reads searches
of graphs and holds them against what is published; :mod:`wrongturn.lab.habits` reads Countdown.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from wrongturn.diagnose.claims import Claim
from wrongturn.errors import WrongturnError
from wrongturn.lab import graph_anatomy
from wrongturn.lab import habits as countdown
from wrongturn.lab.dissection import FailedSteps, Group, Read, failed_steps, group
from wrongturn.lab.habits import Habits
from wrongturn.tasks import Problem
from wrongturn.tasks.countdown import Countdown
from wrongturn.trace import Trace

TASKS = (*graph_anatomy.TASKS, Countdown.name)
"""Those with an exact checker."""

R = TypeVar("R", bound=Read)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What went wrong in the traces of one task. ``habits`` are Countdown's, ``claims`` those about graphs."""

    task: str
    groups: list[Group]
    claims: list[Claim]
    failed_steps: FailedSteps
    habits: Habits | None = None

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON; only what the task has."""
        return {name: value for name, value in _plain(asdict(self)).items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "base_rate"}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def anatomy(traces: Iterable[Trace], problems: Mapping[str, Problem], trained: str = "G15_2,4") -> Anatomy:
    """The anatomy of traces of one task; raises where there are several, or none."""
    found = anatomies(traces, problems, trained)
    if len(found) > 1:
        raise WrongturnError(f"traces of several tasks ({', '.join(a.task for a in found)}): one anatomy is of one")
    return found[0]


def anatomies(traces: Iterable[Trace], problems: Mapping[str, Problem], trained: str = "G15_2,4") -> list[Anatomy]:
    """What went wrong, task by task; ``trained`` is the distribution of graphs the model was trained on.

    Traces of other tasks are left out. Raises :class:`wrongturn.errors.WrongturnError` where nothing is left.
    """
    by_task: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        if trace.task in TASKS:
            by_task[trace.task].append(trace)
    if not by_task:
        raise WrongturnError(f"no traces of a task whose every token is checked (expected one of {', '.join(TASKS)})")
    return [_anatomy(task, of, problems, trained) for task, of in by_task.items()]


def _anatomy(task: str, traces: Sequence[Trace], problems: Mapping[str, Problem], trained: str) -> Anatomy:
    if task == Countdown.name:
        solutions = [countdown.solution(t, problems[t.problem]) for t in traces]
        by_group = _by_group(solutions)
        groups = [group(name, found, countdown.CLASSES) for name, found in by_group.items()]
        return Anatomy(task, groups, [], failed_steps(solutions), countdown.habits(by_group))
    searches = [graph_anatomy.search(t, problems[t.problem]) for t in traces]
    sized = _by_group(searches)
    groups = [group(name, found, graph_anatomy.CLASSES) for name, found in sized.items()]
    return Anatomy(task, groups, graph_anatomy.observations(task, sized, trained), failed_steps(searches))


def _by_group(found: Iterable[R]) -> dict[str, list[R]]:
    groups: dict[str, list[R]] = defaultdict(list)
    for one in found:
        groups[one.group].append(one)
    return groups
