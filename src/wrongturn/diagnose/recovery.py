"""Recoverability by resampling: can a failed trace still be saved from just before its onset, and does the onset
matter?

``plan`` says where to cut which failed traces; whoever has an engine samples continuations and hands the children
back with ``lineage`` (parent, at, reason = condition) and the prefix as part of their ids; ``summarise`` compares.
Conditions:

- ``before_onset``:    the prefix up to the first invalid segment
- ``after_onset``:     the prefix with that segment: what is left once the wrong turn is taken
- ``random_boundary``: another step of the same trace, at random
- ``restart``:         nothing kept: what the same tokens buy on the same problem

Failed traces come from hard problems, so only differences between conditions on the *same* traces say anything.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from wrongturn.diagnose.intervals import Resamples, share
from wrongturn.diagnose.table import Table, tabulate
from wrongturn.stats import Estimate
from wrongturn.trace import Problem, Trace

CONDITIONS = ("before_onset", "after_onset", "random_boundary", "restart")
CONTRASTS = {
    "before_minus_after": ("before_onset", "after_onset"),
    "before_minus_random": ("before_onset", "random_boundary"),
    "before_minus_restart": ("before_onset", "restart"),
}


@dataclass(frozen=True, slots=True)
class Cut:
    """Sample ``samples`` continuations of the first ``at`` completion tokens of trace ``parent``.

    A condition with several cuts of a parent says which after an @ (``locate@17``). ``first`` numbers the samples on
    where some of the cut were taken before.
    """

    parent: str
    at: int
    condition: str
    samples: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """``mean``: success of one continuation; ``any_of``: of at least one of ``m`` (unbiased: Chen et al. 2021);
    ``decoded``: mean tokens decoded for one."""

    n_parents: int
    n_children: int
    m: int
    mean: Estimate
    any_of: Estimate
    decoded: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """Conditions by name, and differences of mean success on the traces that have both conditions."""

    conditions: dict[str, Condition]
    contrasts: dict[str, Estimate]


def plan(
    traces: Sequence[Trace], problems: Mapping[str, Problem], *, per_trace: int = 4, max_traces: int = 60, seed: int = 0
) -> list[Cut]:
    """Cuts for up to ``max_traces`` lost traces (wrong answer, wrong token), from as many problems as possible.

    A condition that would leave nothing to decode (the onset is in the last segment) or that has no place (a trace
    with no other step) is left out for that trace.
    """
    if per_trace < 1 or max_traces < 0:
        raise ValueError(f"per_trace must be at least 1 and max_traces at least 0, not {per_trace} and {max_traces}")
    table, rng = tabulate(traces, problems), random.Random(seed)
    rows = [int(i) for i in np.flatnonzero(table.lost)]
    rng.shuffle(rows)
    seen, turn = Counter[int](), {}
    for i in rows:  # a problem's second trace comes after every problem's first
        turn[i] = seen[table.problem[i]]
        seen[table.problem[i]] += 1
    chosen = sorted(sorted(rows, key=turn.__getitem__)[:max_traces])
    return [
        Cut(traces[i].id, at, condition, per_trace)
        for i in chosen
        for condition, at in _places(table, i, random.Random(f"{seed}/{traces[i].id}")).items()
    ]


def _places(table: Table, trace: int, rng: random.Random) -> dict[str, int]:
    segment = slice(table.first_segment[trace], table.first_segment[trace + 1])
    starts, stops = table.start[segment].tolist(), table.stop[segment].tolist()
    tau = int(table.onset_segment[trace])
    others = [at for at in starts[1:] if at != starts[tau]]
    places = {"before_onset": starts[tau], "restart": 0}
    if stops[tau] < table.length[trace]:
        places["after_onset"] = stops[tau]
    if others:
        places["random_boundary"] = rng.choice(others)
    return {condition: places[condition] for condition in CONDITIONS if condition in places}


def summarise(
    parents: Sequence[Trace], children: Sequence[Trace], *, n_boot: int = 2000, seed: int = 0
) -> Recovery | None:
    """What the graded children say; None where no child belongs to a parent and a condition."""
    problem_of = {trace.id: trace.problem for trace in parents}
    outcomes: dict[str, _ByParent] = {condition: {} for condition in CONDITIONS}
    for child in children:
        fork = child.lineage
        if fork and child.correct is not None and fork.parent in problem_of and fork.reason in outcomes:
            decoded = child.usage.decoded or max(len(child.ids) - fork.at, 0)
            outcomes[fork.reason].setdefault(fork.parent, []).append((child.correct, decoded))
    groups = [results for by_parent in outcomes.values() for results in by_parent.values()]
    if not groups:
        return None
    m = min(map(len, groups))
    names = {problem_of[parent] for by_parent in outcomes.values() for parent in by_parent}
    number = {name: i for i, name in enumerate(sorted(names))}
    cluster = {parent: number[problem] for parent, problem in problem_of.items() if problem in number}
    boot = Resamples(len(number), n_boot, seed)
    return Recovery(
        {name: _condition(by_parent, cluster, m) for name, by_parent in outcomes.items() if by_parent},
        {name: _contrast(outcomes[a], outcomes[b], cluster, boot) for name, (a, b) in CONTRASTS.items()},
    )


_ByParent = dict[str, list[tuple[bool, int]]]  # (right answer, decoded tokens) of each child


def _condition(by_parent: _ByParent, cluster: dict[str, int], m: int) -> Condition:
    children = [(good, tokens, cluster[parent]) for parent, results in by_parent.items() for good, tokens in results]
    good, tokens, of_child = (np.array(column) for column in zip(*children, strict=True))
    any_of = [_any_of(sum(good for good, _ in results), len(results), m) for results in by_parent.values()]
    return Condition(
        n_parents=len(by_parent),
        n_children=len(children),
        m=m,
        mean=share(good, of_child),
        any_of=share(any_of, [cluster[parent] for parent in by_parent]),
        decoded=float(tokens.mean()),
    )


def _contrast(first: _ByParent, second: _ByParent, cluster: dict[str, int], boot: Resamples) -> Estimate:
    both = [parent for parent in first if parent in second]
    a, b = (np.array([np.mean([good for good, _ in by[parent]]) for parent in both]) for by in (first, second))
    return boot.mean(np.array([cluster[parent] for parent in both], np.intp), a - b, base_rate=0.0)


def _any_of(successes: int, n: int, m: int) -> float:
    """Chance that m of the n continuations, drawn without replacement, hold a success."""
    return 1 - comb(n - successes, m) / comb(n, m)
