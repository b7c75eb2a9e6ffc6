"""Nobody grades: what routing is worth where failures must be guessed and answers voted on.

Every problem is sampled a few times. Where the samples agree too little it is *flagged* and gets a plan within a
budget; the final answer is the majority over samples and tries. Beside it stands the same with failures known and
right answers recognised, given the same tokens in all, and plain retries given the same tokens on the same problems,
which is self-consistency that knows where to go on.

Two tables of tries: those of flagged problems were made *blind*, by operators that were shown all samples; those of
failed problems, which stand for knowing, by operators that were told which samples failed. Operators that start from a
trace do worse blind, so a policy for where nobody grades must be fitted on blind tries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wrongturn.diagnose.intervals import Resamples, share
from wrongturn.diagnose.recoverability.outcomes import RETRY, Base, Bools, Outcomes
from wrongturn.errors import WrongturnError
from wrongturn.folder import to_json
from wrongturn.routing.choosing import FOLDS, Kinds, choose, folds_of, lessons_of, picked
from wrongturn.routing.playing import BEST_FIXED, ROUTER, Table, aligned, checked
from wrongturn.routing.policy import Policy, Trigger
from wrongturn.routing.rules import Fixed, Lessons, Rule
from wrongturn.routing.spending import ORDERS, Float, Index, Spent, all_plans, spend
from wrongturn.stats import Estimate

SAMPLES, UNIFORM, KNOWN = "samples alone", "more samples of all", "failures known"


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to spend. ``decoded_tokens``: mean per problem, samples among them. Differences are paired; ``minus_retry``
    to retries of the flagged problems, ``minus_known`` to failures known (the loss of guessing). None to itself."""

    arm: str
    accuracy: Estimate
    decoded_tokens: float
    minus_retry: Estimate | None
    minus_known: Estimate | None


@dataclass(frozen=True, slots=True)
class Deployment:
    """``flagged``: share of problems; ``recall``: of those whose vote is wrong; ``in_vain``: of those whose is right.
    ``untried``: share flagged that has no tries. ``short``: share of treated problems where tries ran out."""

    problems: int
    samples: int
    budget: float
    agreement_below: float
    flagged: Estimate
    recall: Estimate
    in_vain: Estimate
    untried: float
    short: float
    arms: tuple[Arm, ...]

    def __getitem__(self, arm: str) -> Arm:
        return {row.arm: row for row in self.arms}[arm]

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON: NaN is ``None``."""
        return json.loads(to_json(self))


@dataclass(frozen=True, slots=True, eq=False)
class _Tried:
    """Outcomes of some of the problems of a run (``held``, by number), their first samples and their features."""

    outcomes: Outcomes
    held: Index
    first: Base
    names: tuple[str, ...]
    values: Float

    @classmethod
    def of(
        cls, features: Table | None, outcomes: Outcomes, base: Base, samples: int, budget: float, folds: int
    ) -> _Tried:
        outcomes = checked(outcomes, budget, folds)
        place = {name: i for i, name in enumerate(outcomes.problems)}
        at = np.array([place.get(name, -1) for name in base.problems])
        held = np.flatnonzero(at >= 0)
        if len(held) < 2 * folds:
            raise WrongturnError(f"only {len(held)} problems of the run have tries: {2 * folds} are needed")
        outcomes = outcomes.take(at[held])
        return cls(outcomes, held, base.take(held, slice(0, samples)), *aligned(features, outcomes.problems))

    def choices(self, spent: Spent, worth: Float, like: Bools, fold: Index, fit: Callable[[Lessons], Rule]) -> Index:
        """The plan of each problem, by a rule fitted on those of the other folds that are ``like`` what it is for."""
        lessons = lessons_of(self.outcomes, spent, self.names, self.values, worth)
        chosen, own = np.zeros(len(self.held), np.intp), fold[self.held]
        for k in range(int(fold.max()) + 1):
            rule = fit(lessons.take(_enough(own != k, like[self.held], int(fold.max()) + 1)))
            chosen[own == k] = picked(rule, lessons.take(own == k))
        return chosen


def deploy(
    features: Table | None,
    base: Base,
    blind: Outcomes,
    known: tuple[Table | None, Outcomes],
    *,
    samples: int,
    budget: float,
    folds: int = FOLDS,
    repeats: int = 4,
    kinds: Kinds | None = None,
    orders: int = ORDERS,
    n_boot: int = 2000,
    seed: int = 0,
) -> Deployment:
    """``features`` and ``blind`` are of problems whose samples disagree, ``known`` the same of failed problems.

    Thresholds and rules are fitted on other folds. Raises ``WrongturnError`` as :func:`playing.play`, and where a
    problem has fewer than ``samples`` samples.
    """
    right, agreement = first_votes(base, samples)
    asked = _Tried.of(features, blind, base, samples, budget, folds)
    told = _Tried.of(*known, base, samples, budget, folds)
    clusters = np.unique(np.array(base.problems, dtype=str), return_inverse=True)[1]
    cost = np.nansum(base.tokens[:, :samples], axis=1)
    plans, told_plans = all_plans(blind.operators), all_plans(known[1].operators)
    got: dict[str, list[Float]] = {}
    paid: dict[str, list[Float]] = {}
    flags, cuts, short = [], [], []

    def arm(name: str, tried: _Tried, treated: Bools, spent: Spent, chosen: Index, worth: Float) -> None:
        """Treat some of the tried problems as chosen; the others keep the vote of their samples."""
        rows = np.flatnonzero(treated[tried.held])
        gain, tokens = right.astype(np.float64), cost.copy()
        gain[tried.held[rows]] = worth[rows, chosen[rows]]
        tokens[tried.held[rows]] += spent.tokens[rows, chosen[rows]]
        got.setdefault(name, []).append(gain)
        paid.setdefault(name, []).append(tokens)

    for repeat in range(repeats):
        rng = seed * repeats + repeat
        fold = folds_of(clusters, folds, rng)
        flagged = np.zeros(len(right), bool)
        for k in range(folds):
            test = fold == k
            cuts.append(_cut(agreement[~test], right[~test]))
            flagged[test] = agreement[test] < cuts[-1]
        select, score = asked.outcomes.halves(rng)
        before = spend(select, plans, budget, base=asked.first, orders=orders, seed=rng)
        after = spend(score, plans, budget, base=asked.first, orders=orders, seed=rng)
        router = asked.choices(
            before, before.voted, flagged, fold, lambda x, s=rng: choose(x, kinds, folds=folds, seed=s)
        )
        arm(RETRY, asked, flagged, after, np.full(len(asked.held), plans.index((RETRY,))), after.voted)
        arm(
            BEST_FIXED,
            asked,
            flagged,
            after,
            asked.choices(before, before.voted, flagged, fold, Fixed.fit),
            after.voted,
        )
        arm(ROUTER, asked, flagged, after, router, after.voted)
        # knowing treats other problems: as many tokens in all
        even = budget * flagged[asked.held].sum() / max(int((~right).sum()), 1)
        select, score = told.outcomes.halves(rng)
        before = spend(select, told_plans, even, votes=False, orders=orders, seed=rng)
        known_spent = spend(score, told_plans, even, votes=False, orders=orders, seed=rng)
        best = told.choices(
            before, before.rescued, ~right, fold, lambda x, s=rng: choose(x, kinds, folds=folds, seed=s)
        )
        arm(KNOWN, told, ~right, known_spent, best, known_spent.rescued)
        if base.right.shape[1] > samples:
            more = _uniform(base, samples, budget * flagged[asked.held].sum() / len(right), orders, rng)
            got.setdefault(UNIFORM, []).append(more.voted[:, 0])
            paid.setdefault(UNIFORM, []).append(cost + more.tokens[:, 0])
        flags.append(flagged)
        treated = flagged[asked.held]
        short.append(after.short[treated, router[treated]].mean() if treated.any() else np.nan)
    got[SAMPLES], paid[SAMPLES] = [right.astype(np.float64)] * repeats, [cost] * repeats
    boot = Resamples(int(clusters.max()) + 1, n_boot, seed)
    flagged, every = np.array(flags, np.float64), np.tile(clusters, repeats)
    miss = np.tile(right, repeats)
    order = [name for name in (SAMPLES, UNIFORM, RETRY, BEST_FIXED, ROUTER, KNOWN) if name in got]
    return Deployment(
        problems=int(clusters.max()) + 1,
        samples=samples,
        budget=float(budget),
        agreement_below=float(np.mean(cuts)),
        flagged=share(flagged.ravel(), every),
        recall=share(flagged.ravel()[~miss], every[~miss]),
        in_vain=share(flagged.ravel()[miss], every[miss]),
        untried=float((flagged * ~np.isin(np.arange(len(right)), asked.held)).mean()),
        short=float(np.nanmean(short)) if np.isfinite(short).any() else 0.0,
        arms=tuple(_arm(name, got, paid, clusters, boot) for name in order),
    )


def fit_policy(
    features: Table | None,
    outcomes: Outcomes,
    *,
    budget: float,
    base: Base | None = None,
    samples: int | None = None,
    signals: str = "plain",
    kinds: Kinds | None = None,
    provenance: Mapping[str, Any] | None = None,
    folds: int = FOLDS,
    orders: int = ORDERS,
    seed: int = 0,
) -> Policy:
    """The simplest rule that is about as good as the best (:func:`choosing.choose`), learned from all tries.

    With ``base`` and ``samples`` it is one for where nobody grades: its trigger is fitted to the samples, and what
    counts is the final vote on flagged problems. Raises as :func:`playing.play`.
    """
    outcomes = checked(outcomes, budget, folds)
    trigger, first = None, None
    if base is not None and samples is not None:
        right, agreement = first_votes(base, samples)
        trigger = Trigger(samples, _cut(agreement, right))
        place = {name: i for i, name in enumerate(base.problems)}
        outcomes = checked(outcomes.take([name in place for name in outcomes.problems]), budget, folds)
        at = np.array([place[name] for name in outcomes.problems], np.intp)
        kept = _enough(np.ones(len(at), bool), agreement[at] < trigger.agreement_below, folds)
        outcomes, first = outcomes.take(kept), base.take(at[kept], slice(0, samples))
    names, values = aligned(features, outcomes.problems)
    used = [i for i in range(len(names)) if len(np.unique(values[~np.isnan(values[:, i]), i])) > 1]
    spent = spend(
        outcomes, all_plans(outcomes.operators), budget, base=first, votes=first is not None, orders=orders, seed=seed
    )
    worth = spent.rescued if first is None else spent.voted
    lessons = lessons_of(outcomes, spent, tuple(names[i] for i in used), values[:, used], worth)
    rule = choose(lessons, kinds, folds=folds, seed=seed)
    told = {"problems": len(set(outcomes.problems)), "tried": list(outcomes.operators)}
    costs = dict(zip(outcomes.operators, outcomes.cost().tolist(), strict=True))
    known = {name: costs[name] for plan in rule.plans for name in plan if np.isfinite(costs[name])}
    return Policy(rule, float(budget), signals, trigger, told | dict(provenance or {}), known)


def first_votes(base: Base, samples: int) -> tuple[Bools, Float]:
    """Per problem: whether the majority of the first ``samples`` is right, and the share of them that gave it."""
    right, answers = base.right[:, :samples], base.answers[:, :samples]
    few = np.flatnonzero((~np.isnan(right)).sum(axis=1) < samples)
    if samples < 1 or len(few):
        found = f"{base.problems[few[0]]} has fewer" if len(few) else "one is the least"
        raise WrongturnError(f"every problem needs {samples} graded samples to vote: {found}")
    count = ((answers[:, :, None] == answers[:, None, :]) & (answers >= 0)[:, None, :]).sum(axis=2)
    count[answers < 0] = 0
    winner = count.argmax(axis=1)
    rows = np.arange(len(count))
    return (right[rows, winner] == 1) & (answers[rows, winner] >= 0), count[rows, winner] / samples


def _cut(agreement: Float, right: Bools) -> float:
    """The agreement below which problems are flagged: most wrong votes less right ones, as shares (Youden's J)."""
    if right.all() or not right.any():
        return 1.0
    cuts = np.unique(agreement)[1:]
    if not len(cuts):
        return 1.0
    below = agreement[None, :] < cuts[:, None]
    return float(cuts[int((below[:, ~right].mean(axis=1) - below[:, right].mean(axis=1)).argmax())])


def _enough(train: Bools, like: Bools, folds: int) -> Bools:
    """Training problems that are like those the rule is for; all, where those are too few."""
    chosen = train & like
    return chosen if chosen.sum() >= 2 * folds else train


def _uniform(base: Base, samples: int, budget: float, orders: int, seed: int) -> Spent:
    """The same tokens on every problem, flagged or not: its further plain samples vote along."""
    rows = np.arange(len(base.problems))
    first, rest = base.take(rows, slice(0, samples)), base.take(rows, slice(samples, None))
    tables = rest.right[:, None], rest.tokens[:, None], rest.answers[:, None]
    more = Outcomes(base.problems, base.groups, ("sample",), *tables)
    spent = spend(more, (("sample",),), max(budget, 1e-9), base=first, orders=orders, seed=seed)
    alone = first_votes(base, samples)[0].astype(np.float64)[:, None]  # of problems that have no further sample
    voted, tokens = (np.where(np.isnan(a), b, a) for a, b in ((spent.voted, alone), (spent.tokens, 0.0)))
    return Spent(spent.plans, spent.rescued, voted, spent.once, tokens, spent.short)


def _arm(
    name: str, got: Mapping[str, list[Float]], paid: Mapping[str, list[Float]], clusters: np.ndarray, boot: Resamples
) -> Arm:
    every = np.tile(clusters, len(got[name]))

    def minus(other: str) -> Estimate | None:
        return None if other == name else boot.mean(every, np.ravel(got[name]) - np.ravel(got[other]))

    accuracy = share(np.clip(np.ravel(got[name]), 0.0, 1.0), every)
    return Arm(name, accuracy, float(np.mean(paid[name])), minus(RETRY), minus(KNOWN))
