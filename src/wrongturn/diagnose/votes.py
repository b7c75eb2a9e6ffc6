"""The plain samples of a run, problem by problem, and what their votes come to."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.modes.features import SOUND
from wrongturn.errors import WrongturnError
from wrongturn.signals import windows
from wrongturn.store import Run
from wrongturn.trace import Trace

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """N graded plain samples of problems with two or more, in the order in which they were drawn."""

    problem: Index  # [N], from 0
    right: Bools  # [N]
    answer: list[str | None]  # [N]
    features: Array  # [N, F]
    tokens: Array  # [N]
    outcomes: dict[str, int]

    @property
    def problems(self) -> int:
        return int(self.problem.max()) + 1

    @property
    def answered(self) -> Bools:
        return np.array([answer is not None for answer in self.answer])


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """Per problem: whether the voted answer is right, and the share of its samples that gave it (0: none answered)."""

    right: Bools
    agreement: Array


def read_samples(run: Run) -> Samples:
    """The graded plain samples. Raises ``WrongturnError`` where no problem has two."""
    traces = [t for t in run.traces(top_k=False, strategy="sample") if t.correct is not None and len(t)]
    traces.sort(key=lambda trace: trace.sample)
    times = Counter(trace.problem for trace in traces)
    kept = [trace for trace in traces if times[trace.problem] > 1]
    if not kept:
        raise WrongturnError(f"{run.path}: no problem has two graded plain samples (collect with --samples 4 or more)")
    _, problem = np.unique([trace.problem for trace in kept], return_inverse=True)
    return Samples(
        problem=problem,
        right=np.array([bool(trace.correct) for trace in kept]),
        answer=[trace.answer for trace in kept],
        features=np.stack([_summaries(trace) for trace in kept]),
        tokens=np.array([len(trace) for trace in kept], np.float64),
        outcomes=dict(Counter(trace.outcome for trace in kept)),
    )


def _summaries(trace: Trace) -> Array:
    summary = windows(trace.signals, [(0.0, math.inf)])
    known = np.array([summary[name][0] for name in SOUND])
    return np.where(np.isinf(known), np.nan, known)  # of a token of probability zero: no regression has a place for it


def vote(samples: Samples) -> Votes:
    """The most frequent answer of each problem; the answerless do not vote, first seen wins ties."""
    by_problem: list[Counter[str]] = [Counter() for _ in range(samples.problems)]
    right: dict[tuple[int, str], bool] = {}
    for problem, answer, correct in zip(samples.problem.tolist(), samples.answer, samples.right.tolist(), strict=True):
        if answer is not None:
            by_problem[problem][answer] += 1
            right.setdefault((problem, answer), correct)
    winners = [max(votes, key=votes.__getitem__) if votes else None for votes in by_problem]
    k = np.bincount(samples.problem)
    count = [0 if winner is None else votes[winner] for winner, votes in zip(winners, by_problem, strict=True)]
    good = [winner is not None and right[p, winner] for p, winner in enumerate(winners)]
    return Votes(np.array(good), np.array(count) / k)
