"""Routers compared: the share of failures each rescues within the same budget of decoded tokens."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from wrongturn.diagnose.intervals import Resamples, share
from wrongturn.diagnose.recoverability.outcomes import RETRY, Bools, Outcomes
from wrongturn.folder import to_json
from wrongturn.routing.choosing import FOLDS, Kinds
from wrongturn.routing.playing import BEST_FIXED, BEST_PLAN, ORACLE, ROUTER, Played, Table, play
from wrongturn.routing.spending import ORDERS, Float
from wrongturn.stats import Estimate

CAVEATS = {
    ORACLE: "chooses by the problem's own other tries (which are few) and by its features: an upper bound only roughly",
    "bandit": "learns from the very problems that it is scored on, one after another",
    "published": (
        "this subset is chosen by the very tries that are scored, for few successes of retry and many of another "
        "operator: what is ahead of retry there is so by selection too; 'published on select' is the fair one"
    ),
    "intervals": "resample problems; what fitting a rule on other problems adds is not in them",
}
_SHUFFLES = 500
_SHORT = 0.1  # share of problems where tries ran out, to speak of


@dataclass(frozen=True, slots=True)
class Figures:
    """Over some of the problems. ``rescued``: a try within the budget is right. ``once``: one try is. ``voted``: the
    majority of the tries within the budget is. The differences are of ``rescued``, paired; None to itself."""

    rescued: Estimate
    once: Estimate
    voted: Estimate
    minus_retry: Estimate | None
    minus_best_fixed: Estimate | None
    minus_best_plan: Estimate | None


@dataclass(frozen=True, slots=True)
class Row:
    """A router, on all failures and on ``subsets`` of them (:func:`playing.subsets_of`).

    ``decoded_tokens``: mean per problem. ``short``: share of problems where all tries that were made fitted the budget,
    so that it had less to spend than it was given. ``plans``: how often it chose what.
    """

    router: str
    decoded_tokens: float
    short: float
    plans: dict[str, float]
    failures: Figures
    subsets: dict[str, Figures]

    def as_dict(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in ("router", "decoded_tokens", "short", "plans")}
        return told | _plain(self.failures) | {"subsets": {name: _plain(part) for name, part in self.subsets.items()}}


@dataclass(frozen=True, slots=True)
class Shuffled:
    """What the router rescues where its choices are dealt out anew among the problems of a group: mean and 95 % of the
    deals, and the share of deals (``p``) that do as well as the router."""

    rescued: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """``failures`` is how many failed problems all is told of, ``left_out`` those without two tries of each operator.

    ``rows``: the routers; ``operators``: each operator for every problem. ``kinds``: how often the router was what kind
    of rule.
    """

    budget: float
    failures: int
    left_out: int
    rows: tuple[Row, ...]
    operators: tuple[Row, ...]
    shuffled: Shuffled
    kinds: dict[str, int]

    def __getitem__(self, router: str) -> Row:
        return {row.router: row for row in (*self.operators, *self.rows)}[router]

    @property
    def caveats(self) -> dict[str, str]:
        """What to keep in mind, by what it is about."""
        short = [row for row in (*self.rows, *self.operators) if row.short > _SHORT]
        if not short:
            return CAVEATS
        worst = max(short, key=lambda row: row.short)
        said = (
            f"tries ran out before the budget for {len(short)} of {len(self.rows) + len(self.operators)} rows (for "
            f"{worst.router} on {100 * worst.short:.0f} % of problems), so they had fewer tokens than the others and "
            "what is said of them is too little: make more tries of the cheap operators, or give a smaller budget"
        )
        return CAVEATS | {"short": said}

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON: NaN is ``None``."""
        found = {
            "budget": self.budget,
            "failures": self.failures,
            "left_out": self.left_out,
            "comparison": [row.as_dict() for row in self.rows],
            "operators": [row.as_dict() for row in self.operators],
            "shuffled": self.shuffled,
            "kinds": self.kinds,
            "caveats": self.caveats,
        }
        return json.loads(to_json(found))


def compare(
    features: Table | None,
    outcomes: Outcomes,
    *,
    budget: float,
    folds: int = FOLDS,
    repeats: int = 4,
    kinds: Kinds | None = None,
    orders: int = ORDERS,
    n_boot: int = 2000,
    seed: int = 0,
) -> Comparison:
    """All routers on all failures, ``budget`` decoded tokens a problem. Without features only those that need none.

    Raises as :func:`play`.
    """
    played = play(
        features, outcomes, budget=budget, folds=folds, repeats=repeats, kinds=kinds, orders=orders, seed=seed
    )
    clusters = played.outcomes.clusters
    boot = Resamples(int(clusters.max()) + 1, n_boot, seed)
    names = played.outcomes.operators
    routers = [RETRY, *(name for name in played.shares if name not in names)]
    rows = {name: _row(name, played, boot) for name in {*routers, *names}}
    problems = len(set(played.outcomes.problems))
    return Comparison(
        budget=float(budget),
        failures=problems,
        left_out=len(set(outcomes.problems)) - problems,
        rows=tuple(rows[name] for name in routers),
        operators=tuple(rows[name] for name in names),
        shuffled=shuffled(played, seed=seed),
        kinds=dict(played.kinds),
    )


def largest_budget(outcomes: Outcomes) -> float:
    """The most tokens that each operator has tries for on nine in ten problems, in one half; NaN without a try.

    Beyond it, what is said of the cheapest operators is too little.
    """
    made, often = outcomes.made[:, ~outcomes.once], outcomes.tokens[:, ~outcomes.once]
    total = np.where(made, often, 0.0).sum(axis=2) / 2
    return float(np.quantile(total, 0.1, axis=0).min()) if total.size else math.nan


def shuffled(played: Played, draws: int = _SHUFFLES, seed: int = 0) -> Shuffled:
    """The router's plans dealt out anew within groups, each repeat on its own."""
    rng = np.random.default_rng(seed)
    groups = np.unique(np.array(played.outcomes.groups, dtype=str), return_inverse=True)[1]
    order = np.argsort(groups, kind="stable")
    plan = played.shares[ROUTER].argmax(axis=2)
    rows = np.arange(len(groups))
    found = np.zeros(draws)
    for draw in range(draws):
        for spent, chosen in zip(played.spent, plan, strict=True):
            dealt = np.empty(len(rows), np.intp)
            dealt[order] = chosen[np.lexsort((rng.random(len(rows)), groups))]
            found[draw] += spent.rescued[rows, dealt].mean() / len(plan)
    observed = played.value(ROUTER).mean()
    low, high = np.quantile(found, [0.025, 0.975])
    p = (1 + int((found >= observed - 1e-12).sum())) / (1 + draws)
    return Shuffled(float(found.mean()), float(low), float(high), p)


def _row(name: str, played: Played, boot: Resamples) -> Row:
    used = played.shares[name].mean(axis=(0, 1))
    return Row(
        name,
        float(played.value(name, "tokens").mean()),
        float(played.value(name, "short").mean()),
        {" + ".join(plan): float(part) for plan, part in zip(played.plans, used, strict=True) if part > 0},
        _figures(name, played, np.ones((len(played.spent), len(played.outcomes.problems)), bool), boot),
        {subset: _figures(name, played, kept, boot) for subset, kept in played.subsets.items()},
    )


def _figures(name: str, played: Played, kept: Bools, boot: Resamples) -> Figures:
    clusters = np.repeat(played.outcomes.clusters[None], len(kept), axis=0)[kept]

    def rate(what: str) -> Estimate:
        return share(np.clip(played.value(name, what)[kept], 0.0, 1.0), clusters)

    def minus(other: str) -> Estimate | None:
        away: Float = played.value(name) - played.value(other)
        return None if other == name else boot.mean(clusters, away[kept])

    return Figures(rate("rescued"), rate("once"), rate("voted"), minus(RETRY), minus(BEST_FIXED), minus(BEST_PLAN))


def _plain(figures: Figures) -> dict[str, Any]:
    """The rescued share flat, the rest as objects."""
    rescued = figures.rescued.dict()
    found: dict[str, Any] = {"rescued": rescued["value"], **{key: rescued[key] for key in ("low", "high", "n")}}
    for key in ("once", "voted", "minus_retry", "minus_best_fixed", "minus_best_plan"):
        estimate: Estimate | None = getattr(figures, key)
        found[key] = None if estimate is None else {k: v for k, v in estimate.dict().items() if k != "base_rate"}
    return found
