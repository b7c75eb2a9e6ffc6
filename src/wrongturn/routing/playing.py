"""Routers let loose on failed problems: what each would have chosen, and nothing it could not have known.

A problem's tries are split. Rules are fitted on the *select* halves of other folds; every router is scored on *score*
halves. So the noise a choice is made on never counts for it. All is repeated with other splits and folds, and a problem
stays one unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wrongturn.diagnose.recoverability.labels import HARD, STEERABLE, Counts, label
from wrongturn.diagnose.recoverability.outcomes import RETRY, Bools, Outcomes
from wrongturn.errors import WrongturnError
from wrongturn.routing.choosing import FOLDS, Kinds, choose, folds_of, lessons_of, picked
from wrongturn.routing.rules import Fixed, Lessons, Linear, Rule
from wrongturn.routing.spending import ORDERS, Float, Plan, Spent, all_plans, spend

BEST_FIXED, BEST_PLAN, ROUTER, ORACLE = "best fixed", "best plan", "router", "oracle"
_ALPHA = 0.1
_BANDITS = 64


class Table(Protocol):
    """Features of problems: ``values`` [problems, names], NaN where not known."""

    @property
    def problems(self) -> Sequence[str]: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def values(self) -> Float: ...


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """R repeats. ``spent``: the score half of each. ``shares``: how much of each plan each router gives each problem
    [R, P, N]. ``subsets`` [R, P]: see :func:`subsets_of`. ``kinds``: how often which rule was the router's."""

    outcomes: Outcomes
    plans: tuple[Plan, ...]
    spent: tuple[Spent, ...]
    shares: dict[str, Float]
    subsets: dict[str, Bools]
    kinds: Counter[str]

    def value(self, router: str, what: str = "rescued") -> Float:
        """[R, P]: ``rescued``, ``voted``, ``once``, ``tokens`` or ``short`` (see Spent) under a router."""
        tables = np.stack([getattr(spent, what) for spent in self.spent])
        return (self.shares[router] * tables).sum(axis=2)


def play(
    features: Table | None,
    outcomes: Outcomes,
    *,
    budget: float,
    folds: int = FOLDS,
    repeats: int = 4,
    kinds: Kinds | None = None,
    orders: int = ORDERS,
    votes: bool = True,
    seed: int = 0,
) -> Played:
    """Every router on every problem that has a try of each operator in both halves.

    Raises ``WrongturnError`` for a budget that is none, features of other problems, and fewer problems than folds.
    """
    kinds = kinds or Kinds()
    outcomes = checked(outcomes, budget, folds)
    names, values = aligned(features, outcomes.problems)
    plans = all_plans(outcomes.operators)
    shares: dict[str, list[Float]] = {}
    subsets: dict[str, list[Bools]] = {}
    spent, chosen = [], Counter()
    for repeat in range(repeats):
        rng = seed * repeats + repeat
        select, score = outcomes.halves(rng)
        before = spend(select, plans, budget, votes=False, orders=orders, seed=rng)
        spent.append(spend(score, plans, budget, votes=votes, orders=orders, seed=rng))
        lessons = lessons_of(outcomes, before, names, values)
        routed = {name: _always(plans, (name,), len(values)) for name in outcomes.operators}
        routed["random"] = np.mean([routed[name] for name in outcomes.operators], axis=0)
        crossed, expected = _crossed(lessons, folds, kinds, chosen, rng)
        routed |= crossed
        routed["bandit"] = _bandit(spent[-1], rng)
        routed[ORACLE] = _oracle(before, spent[-1], expected)
        for name, share in routed.items():
            shares.setdefault(name, []).append(share)
        for name, kept in subsets_of(select.counts(), outcomes.counts(), outcomes.operators).items():
            subsets.setdefault(name, []).append(kept)
    stacked = {name: np.stack(found) for name, found in shares.items()}
    return Played(
        outcomes, plans, tuple(spent), stacked, {name: np.stack(found) for name, found in subsets.items()}, chosen
    )


def subsets_of(select: Counts, every: Counts, operators: Sequence[str]) -> dict[str, Bools]:
    """Hard problems that some operator helps [P each].

    - ``steerable``: on the select half retry fails at least half of the time, and another operator beats it (Fisher,
      Holm over operators, p <= .1)
    - ``published on select``: the published thresholds, no test, on the select half
    - ``published``: the same on all tries, those that are scored among them
    """
    nothing = Counts(np.zeros_like(select.tries), np.zeros_like(select.tries))
    hard = 1 - select.rates[:, list(operators).index(RETRY)] >= HARD
    beaten = np.array([bool(row.rescuers) for row in label(nothing, select, operators, alpha=_ALPHA)])
    found = {"steerable": hard & beaten}
    for name, counts in (("published on select", select), ("published", every)):
        rows = label(counts, nothing, operators, compat="naive")
        found[name] = np.array([row.label == STEERABLE for row in rows])
    return found


def checked(outcomes: Outcomes, budget: float, folds: int) -> Outcomes:
    """The problems that everything was tried on often enough."""
    if not budget > 0:
        raise WrongturnError(f"a budget is a number of decoded tokens above 0, not {budget:g}")
    if RETRY not in outcomes.operators:
        raise WrongturnError(f"{RETRY!r} is not among the operators ({', '.join(outcomes.operators)})")
    kept = outcomes.take(outcomes.complete)
    n = len(set(kept.problems))
    if n < 2 * folds:
        raise WrongturnError(
            f"{n} of {len(set(outcomes.problems))} problems have two tries or more of every operator: {2 * folds} are "
            f"needed to fit and to judge a router"
        )
    return kept


def aligned(features: Table | None, problems: Sequence[str]) -> tuple[tuple[str, ...], Float]:
    """Names (each once) and the rows of these problems; NaN for one that has none."""
    if features is None:
        return (), np.zeros((len(problems), 0))
    row = {name: i for i, name in enumerate(features.problems)}
    if not row.keys() & set(problems):
        raise WrongturnError(f"the features are of other problems ({next(iter(row), 'none')}, not {problems[0]})")
    table = np.vstack([np.asarray(features.values, np.float64), np.full(len(features.names), np.nan)])
    first = {name: i for i, name in reversed(list(enumerate(features.names)))}
    columns = sorted(first.values())
    names = tuple(features.names[i] for i in columns)
    return names, table[np.ix_([row.get(name, -1) for name in problems], columns)]


def _crossed(
    lessons: Lessons, folds: int, kinds: Kinds, chosen: Counter[str], seed: int
) -> tuple[dict[str, Float], Float]:
    """The routers that are fitted, each fold by the others, and what logistic regression expects [P, operators]."""
    fold = folds_of(lessons.clusters, folds, seed)
    single = lessons.plans[: sum(len(plan) == 1 for plan in lessons.plans)]
    expected = np.zeros((len(lessons.value), len(single)))
    found: dict[str, Float] = {}
    for k in range(folds):
        train, test = lessons.take(fold != k), lessons.take(fold == k)
        router = choose(train, kinds, folds=folds, seed=seed)
        chosen[type(router).__name__.lower()] += 1
        rules: dict[str, Rule | None] = {BEST_FIXED: Fixed.fit(train), BEST_PLAN: Fixed.fit(train, most=2)}
        logistic = Linear.fit(train, penalty=1.0, most=1)
        expected[np.ix_(fold == k, lessons.index(logistic.plans))] = logistic.predict(test.features)
        if lessons.names:
            rules |= {"threshold": kinds.threshold(train), "logistic": logistic}
            rules |= {"published": kinds.standardised(train)}
        for name, rule in (rules | {ROUTER: router}).items():
            if rule is not None:
                share = found.setdefault(name, np.zeros(lessons.value.shape))
                share[np.flatnonzero(fold == k), picked(rule, test)] = 1.0
    return found, expected


def _always(plans: Sequence[Plan], plan: Plan, n: int) -> Float:
    share = np.zeros((n, len(plans)))
    share[:, list(plans).index(plan)] = 1.0
    return share


def _oracle(before: Spent, spent: Spent, expected: Float) -> Float:
    """The operator that the problem's own other tries speak for, weighed against what its features let one expect and
    what operators usually do: three weights, by least squares on the score half."""
    operators = expected.shape[1]  # plans of one operator come first
    own, scored = before.rescued[:, :operators], spent.rescued[:, :operators]
    usual = np.broadcast_to(own.mean(axis=0), own.shape)
    known = np.stack([_centred(table) for table in (own, expected, usual)], axis=2)
    weights = np.linalg.lstsq(known.reshape(-1, 3), _centred(scored).ravel(), rcond=None)[0]
    best = (known @ weights).argmax(axis=1)
    share = np.zeros(before.rescued.shape)
    share[np.arange(len(best)), best] = 1.0
    return share


def _centred(table: Float) -> Float:
    return table - table.mean(axis=1, keepdims=True)


def _bandit(spent: Spent, seed: int) -> Float:
    """Thompson sampling over single operators, problem after problem in random order, told whether each was rescued.

    It learns on what it is scored on, as it goes; the average of many passes.
    """
    rng = np.random.default_rng(seed)
    single = [i for i, plan in enumerate(spent.plans) if len(plan) == 1]
    rescued = spent.rescued[:, single]
    order = rng.permuted(np.tile(np.arange(len(rescued)), (_BANDITS, 1)), axis=1)
    won, lost = np.ones((2, _BANDITS, len(single)))
    share = np.zeros(spent.rescued.shape)
    passes = np.arange(_BANDITS)
    for problem in order.T:
        arm = rng.beta(won, lost).argmax(axis=1)
        np.add.at(share, (problem, np.array(single)[arm]), 1 / _BANDITS)
        reward = rng.random(_BANDITS) < rescued[problem, arm]
        won[passes, arm] += reward
        lost[passes, arm] += ~reward
    return share
