"""What the anatomy of every task has: first errors by class, and how much of a search was in vain.

The failed-step fraction is that of "What Characterizes Effective Reasoning?" (2025), here read off the parse of the
trace instead of judged by a model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wrongturn import stats
from wrongturn.diagnose.intervals import share
from wrongturn.stats import Estimate

Classes = Mapping[str, tuple[str, ...]]
"""What people read: a class's name, and the checker's errors in it."""


@dataclass(frozen=True, slots=True)
class Read:
    """One trace, read: its first error, whether its answer is right, its tokens, and what of it was in vain.

    ``failed_steps`` is a share of steps, NaN where the trace ends without an answer; what a step is, and which failed,
    the task says.
    """

    problem: str
    group: str
    error: str | None
    correct: bool
    tokens: int
    failed_steps: float


@dataclass(frozen=True, slots=True)
class Group:
    """First errors of one distribution: counts by the checker's names, and the share of traces by class."""

    distribution: str
    traces: int
    problems: int
    failed: int
    first_errors: dict[str, int]
    shares: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class FailedSteps:
    """Failed-step fraction: means over right and wrong traces, and how well it tells wrong from right.

    ``within`` compares traces of the same problem only (AUROC, .5 is chance); ``pooled`` all traces, where it also
    tells hard problems from easy ones. ``length_within`` is the same for the number of tokens, for comparison.
    """

    right: Estimate
    wrong: Estimate
    pooled: float
    within: Estimate
    length_within: Estimate


def class_of(classes: Classes) -> dict[str, str]:
    """The class of each error."""
    return {error: name for name, errors in classes.items() for error in errors}


def group(name: str, found: Sequence[Read], classes: Classes) -> Group:
    """First errors of the traces of one distribution."""
    problems = [r.problem for r in found]
    errors = Counter(r.error for r in found if r.error is not None)
    kinds = class_of(classes)
    shares = {kind: share([kinds.get(r.error or "") == kind for r in found], problems) for kind in classes}
    return Group(name, len(found), len(set(problems)), errors.total(), dict(errors.most_common()), shares)


def failed_steps(found: Sequence[Read]) -> FailedSteps:
    """Of the traces that end with an answer."""
    known = [r for r in found if not math.isnan(r.failed_steps)]
    fraction = np.array([r.failed_steps for r in known])
    wrong = np.array([not r.correct for r in known], bool)
    problems = np.array([r.problem for r in known])

    def mean(of: np.ndarray) -> Estimate:
        return stats.bootstrap(fraction[of], np.mean, clusters=problems[of])

    tokens = np.array([r.tokens for r in known], float)
    return FailedSteps(
        mean(~wrong),
        mean(wrong),
        stats.auroc(wrong, fraction),
        stats.within_auroc(wrong, fraction, problems),
        stats.within_auroc(wrong, tokens, problems),
    )
