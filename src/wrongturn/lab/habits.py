"""Searches for a Countdown solution, read: first errors, steps in vain, and the four habits in right and wrong traces.

The habits are those of "Cognitive Behaviors that Enable Self-Improving Reasoners" (2025), counted by the grammar:
lines that are true, wherever in the trace they stand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wrongturn import stats
from wrongturn.diagnose.intervals import Resamples, share
from wrongturn.lab.dissection import Classes, Read
from wrongturn.stats import Estimate
from wrongturn.tasks import Problem, Segment
from wrongturn.tasks import countdown as cd
from wrongturn.trace import Trace

CLASSES: Classes = {
    "numbers": ("not_there",),
    "arithmetic": ("arithmetic",),
    "goals": ("goal",),
    "checks": ("verification", "unverified"),
    "backtrack": ("backtrack",),
    "answer": ("answer",),
    "form": ("syntax", "truncated"),
}

KINDS = ("all", "right", "wrong")
"""Of traces, by their answers; "all" is the base rate of the other two."""


@dataclass(frozen=True, slots=True)
class Solution(Read):
    """One trace: ``habits`` counts its true lines by habit. ``failed_steps``: see :func:`failed_step_fraction`."""

    habits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Shown:
    """A habit in one kind of traces: the share of them that show it, and how many of a trace's lines do, on average."""

    share: Estimate
    count: Estimate


@dataclass(frozen=True, slots=True)
class HabitGroup:
    """The habits in the traces of one distribution: how many traces of each kind, and ``habits[habit][kind]``."""

    distribution: str
    traces: dict[str, int]
    habits: dict[str, dict[str, Shown]]


@dataclass(frozen=True, slots=True)
class Habits:
    """Each distribution, and over all of them how well a habit's count tells wrong traces from right ones (AUROC).

    Above .5, wrong traces show more of it. ``within`` compares traces of the same problem only; ``pooled`` all, where
    it also tells hard problems from easy ones. Longer traces have more lines of every kind: ``length_within`` is what
    the number of tokens tells by itself.
    """

    groups: list[HabitGroup]
    pooled: dict[str, float]
    within: dict[str, Estimate]
    length_within: Estimate


def solution(trace: Trace, problem: Problem) -> Solution:
    """Read one trace. O(tokens)."""
    puzzle, ids = cd.parse_prompt(problem.prompt), [int(i) for i in trace.ids]
    checked = cd.check(puzzle, ids)
    failed = math.nan if trace.answer is None else _failed(ids, checked.segments)
    correct = bool(trace.correct)
    return Solution(trace.problem, trace.group, checked.error, correct, len(ids), failed, habits=cd.habits(puzzle, ids))


def failed_step_fraction(puzzle: cd.Puzzle, ids: Sequence[int]) -> float:
    """The share of a completion's steps that are not in force at its answer, because it went back before them.

    A step is a true line that makes a new state, which going back takes away again: ``a+b=c`` or ``@h=g-n``. NaN for
    a completion without such a line, or without an answer.
    """
    return math.nan if cd.answer(ids) is None else _failed(ids, cd.check(puzzle, ids).segments)


def _failed(ids: Sequence[int], segments: Sequence[Segment]) -> float:
    made = in_force = 0
    for s in segments:
        line = cd.pieces(ids[s.start : s.stop])
        if s.error is not None:
            continue
        if s.kind == "backtrack":
            in_force = int(line[1])
        elif s.kind == "step" or (s.kind == "goal" and "=" in line):
            made, in_force = made + 1, in_force + 1
    return 1 - in_force / made if made else math.nan


def habits(by_group: Mapping[str, Sequence[Solution]]) -> Habits:
    """The four habits in right and wrong traces. Intervals resample problems."""
    found = [s for group in by_group.values() for s in group]
    wrong, problems = [not s.correct for s in found], [s.problem for s in found]
    counts = {habit: [float(s.habits[habit]) for s in found] for habit in cd.HABITS}
    return Habits(
        [_group(name, group) for name, group in by_group.items()],
        {habit: stats.auroc(wrong, count) for habit, count in counts.items()},
        {habit: stats.within_auroc(wrong, count, problems) for habit, count in counts.items()},
        stats.within_auroc(wrong, [float(s.tokens) for s in found], problems),
    )


def _group(name: str, found: Sequence[Solution]) -> HabitGroup:
    right = np.array([s.correct for s in found], bool)
    names, index = np.unique([s.problem for s in found], return_inverse=True)
    resamples = Resamples(len(names))
    kinds = dict(zip(KINDS, (np.ones(len(found), bool), right, ~right), strict=True))

    def shown(count: np.ndarray, of: np.ndarray) -> Shown:
        mean = resamples.mean(index[of], count[of])
        if len(set(count[of])) < 2:  # resamples of one value know nothing of how rare others are
            mean = Estimate(mean.value, math.nan, math.nan, mean.n)
        return Shown(share(count[of] > 0, index[of]), mean)

    counts = {habit: np.array([s.habits[habit] for s in found], float) for habit in cd.HABITS}
    table = {habit: {kind: shown(count, of) for kind, of in kinds.items()} for habit, count in counts.items()}
    return HabitGroup(name, {kind: int(of.sum()) for kind, of in kinds.items()}, table)
