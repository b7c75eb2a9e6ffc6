"""Where failed traces were lost, by resampling: many searches at once on one engine, every rollout kept in the run.

The searches (:mod:`wrongturn.diagnose.recoverability.designs`) say what they want to know next; all wishes of a round
are one batch of continuations, made and stored as any other. Rollout k of a cut is the same whoever asks for it: a
search that was interrupted, or another method on the same run, finds what is stored and pays for the rest.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wrongturn.diagnose import Cut
from wrongturn.diagnose.intervals import share
from wrongturn.diagnose.recoverability.bisection import bisection
from wrongturn.diagnose.recoverability.designs import (
    FOUND,
    INTERVAL,
    UNTOLD,
    Design,
    Onset,
    Plan,
    Rollout,
    Spans,
    omega,
)
from wrongturn.diagnose.recoverability.designs import curve as full_curve
from wrongturn.diagnose.table import tabulate
from wrongturn.engines.base import Engine
from wrongturn.errors import WrongturnError
from wrongturn.jobs import Made, Progress, fill, resample_jobs, same_model, settings_of
from wrongturn.stats import Estimate
from wrongturn.store import Failure, Run
from wrongturn.trace import Trace

METHODS = ("bisection", "omegaprm", "curve")
CONDITION = "locate"

Planner = Callable[[Spans], Plan]


@dataclass(frozen=True, slots=True)
class Located:
    """A failed trace of ``steps`` steps: what its search came to, and the true onset where a checker knows it."""

    trace: str
    problem: str
    group: str
    steps: int
    onset: Onset
    true_step: int | None
    true_token: int | None

    @property
    def near(self) -> float:
        """1 where the step named is at most one from the true one, 0 where not or where none is; NaN: not known."""
        if self.true_step is None:
            return float("nan")
        return float(self.onset.step is not None and abs(self.onset.step - self.true_step) <= 1)

    @property
    def chance(self) -> float:
        """``near`` of a step named at random."""
        if self.true_step is None:
            return float("nan")
        return sum(abs(step - self.true_step) <= 1 for step in range(self.steps)) / self.steps


@dataclass(frozen=True, slots=True)
class Onsets:
    """``failed`` plain samples of a run, those of them that were searched, and by which method."""

    failed: int
    method: str
    found: tuple[Located, ...]

    def near(self, *statuses: str) -> Estimate:
        """Share of traces with a known onset that were located within one step; only those of a status, if given."""
        rows = [row for row in self.found if not statuses or row.onset.status in statuses]
        known = [row.chance for row in rows if row.true_step is not None]
        base = float(np.mean(known)) if known else float("nan")
        return share([row.near for row in rows], [row.problem for row in rows], base)

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = [asdict(row) | {"onset": _plain(row.onset)} for row in self.found]
        spent = {key: sum(getattr(row.onset, key) for row in self.found) for key in ("rollouts", "decoded")}
        statuses = Counter(row.onset.status for row in self.found)
        return {
            "failed": self.failed,
            "method": self.method,
            "searched": len(self.found),
            "status": {name: statuses[name] for name in (FOUND, INTERVAL, UNTOLD)},
            "near": self.near().dict(),
            "near_found": self.near(FOUND).dict(),
            "rollouts": spent["rollouts"],
            "decoded_tokens": spent["decoded"],
            "traces": rows,
        }


def planner(method: str, rollouts: int = 64) -> Planner:
    """The search of that name for about ``rollouts`` rollouts a trace (the bisection: at most that many).

    Raises ``ValueError`` for another name.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r} (expected one of {', '.join(METHODS)})")
    if rollouts < 1:
        raise ValueError(f"rollouts must be at least 1, not {rollouts}")
    if method == "bisection":
        return lambda spans: bisection(spans, rollouts)
    if method == "curve":
        return lambda spans: full_curve(spans, max(1, rollouts // len(spans)))
    return lambda spans: omega(spans, max(1, rollouts // (1 + max(1, (len(spans) - 1).bit_length()))))


async def locate(
    engine: Engine,
    run: Run,
    plan: Planner,
    *,
    method: str = "bisection",
    most: int | None = None,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Onsets:
    """Search up to ``most`` failed plain samples of the run (all), from as many problems as possible.

    The run is open for writing; rollouts join it under the condition ``locate``. Raises ``WrongturnError`` where the
    run is another model's or has no failed trace with tokens, ``EngineError`` where the engine can do nothing.
    """
    same_model(engine, run, "say what their prefixes are worth")
    samples = sorted(run.traces(strategy="sample"), key=lambda trace: trace.id)
    failed = [trace for trace in samples if trace.correct is False and len(trace)]
    if not failed:
        raise WrongturnError(f"{run.path}: none of {len(samples)} plain samples failed: there is no onset to find")
    chosen = _chosen(failed, most, seed)
    parents, problems = {trace.id: trace for trace in chosen}, run.problems()
    table = tabulate(chosen, problems)
    spans = [
        np.column_stack((table.start, table.stop))[table.first_segment[i] : table.first_segment[i + 1]]
        for i in range(len(chosen))
    ]
    designs = {trace.id: Design(plan(span)) for trace, span in zip(chosen, spans, strict=True)}
    known = bank(run, parents)

    def keep(made: Made) -> None:
        if not isinstance(made, Failure):
            _keep(known, made[0], parents)

    asked = Counter[tuple[str, int]]()
    settings = settings_of(run)
    while wishes := {name: design.ask for name, design in designs.items() if design.ask is not None}:
        cuts = [
            Cut(name, ask.at, f"{CONDITION}@{ask.at}", ask.tries, asked[name, ask.at]) for name, ask in wishes.items()
        ]
        done = sum(len(design.rollouts) for design in designs.values())
        total = done + sum(cut.samples for cut in cuts)
        await fill(
            engine,
            run,
            resample_jobs(cuts, parents, problems),
            settings,
            lambda what, n, _, done=done, total=total: progress(what, done + n, total),
            "rollouts",
            seen=keep,
        )
        for cut in cuts:
            numbers = range(cut.first, cut.first + cut.samples)
            asked[cut.parent, cut.at] += cut.samples
            stored = known[cut.parent, cut.at]
            designs[cut.parent].tell([stored[k] for k in numbers if k in stored])
    return Onsets(len(failed), method, tuple(_located(table, i, t, designs[t.id]) for i, t in enumerate(chosen)))


def _chosen(failed: Sequence[Trace], most: int | None, seed: int) -> list[Trace]:
    """A problem's second trace comes after every problem's first."""
    order = list(failed)
    random.Random(seed).shuffle(order)
    turn: dict[str, int] = {}
    seen = Counter[str]()
    for trace in order:
        turn[trace.id] = seen[trace.problem]
        seen[trace.problem] += 1
    return sorted(sorted(order, key=lambda trace: turn[trace.id])[:most], key=lambda trace: trace.id)


_Bank = defaultdict[tuple[str, int], dict[int, Rollout]]


def bank(run: Run, parents: dict[str, Trace]) -> _Bank:
    """The stored rollouts, by (trace, cut) and number."""
    found: _Bank = defaultdict(dict)
    for trace in run.traces(top_k=False, strategy=f"resample:{CONDITION}"):
        _keep(found, trace, parents)
    return found


def _keep(bank: _Bank, trace: Trace, parents: dict[str, Trace]) -> None:
    fork = trace.lineage
    if fork is None or fork.parent not in parents or trace.correct is None:
        return
    parent, n = parents[fork.parent].ids, len(trace.ids)
    same = n == len(parent) and np.array_equal(trace.ids, parent)
    shared = min(n, len(parent))
    differ = np.flatnonzero(trace.ids[:shared] != parent[:shared])
    left = len(parent) if same else int(differ[0]) if len(differ) else shared
    bank[fork.parent, fork.at][trace.sample] = Rollout(fork.at, left, trace.correct, trace.usage.decoded)


def _located(table: Any, i: int, trace: Trace, design: Design) -> Located:
    assert design.onset is not None
    step = int(table.onset_segment[i])
    known = step >= 0
    return Located(
        trace.id,
        trace.problem,
        trace.group,
        int(table.segments[i]),
        design.onset,
        step if known else None,
        int(table.onset[i]) if known else None,
    )


def _plain(onset: Onset) -> dict[str, Any]:
    known = {
        key: value if np.isfinite(value) else None for key in ("probability", "p") for value in [getattr(onset, key)]
    }
    return asdict(onset) | known | {"drop": onset.drop.dict()}
