"""From a run to routers: try its failures, compare who would have chosen well, and keep the best choice as a policy."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wrongturn.diagnose.intervals import share
from wrongturn.diagnose.recoverability import fallback, features
from wrongturn.diagnose.recoverability.features import Features
from wrongturn.diagnose.recoverability.outcomes import RETRY, Outcomes, read_base, read_outcomes
from wrongturn.engines.base import Engine
from wrongturn.errors import WrongturnError
from wrongturn.folder import to_json
from wrongturn.jobs import Progress
from wrongturn.recoverability import Source, examine
from wrongturn.rescuing import BLIND, FOLDER, compared_at, described, operators, rescue
from wrongturn.routing import Comparison, Deployment, Policy, compare, deploy, fit_policy
from wrongturn.store import Run
from wrongturn.strategies.named import parse
from wrongturn.strategies.operators import needs_ancestor

PLAIN = (*fallback.PER_TRACE, *fallback.TOGETHER)
"""Features that one problem alone tells, without a grader."""
TWO_MODEL = tuple(dict.fromkeys((*features.names(), *PLAIN)))
"""The same with an ancestor."""
_FEATURES = "features.json"
_MOST = 5  # times as many tries of a cheap operator


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """Problems, what tries of them came to, and their features, two models compared at ``temperature``."""

    outcomes: Outcomes
    features: Features
    temperature: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Rescued:
    """What the tries of a run's failed problems came to, and how routers compare on them.

    ``comparison`` is None where there are too few problems to fit a router, ``deployment`` also where no problem was
    tried blind, or too few; ``reason`` says what there was too little of.
    """

    tried: Tried
    comparison: Comparison | None
    deployment: Deployment | None
    reason: str = ""

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON: the comparison, success and cost of a try of each operator, rates of every problem."""
        outcomes = self.tried.outcomes
        names, counts, costs = outcomes.operators, outcomes.counts(), outcomes.cost().tolist()
        told = zip(outcomes.problems, outcomes.groups, counts.rates.tolist(), strict=True)
        empty = {"failures": len(set(outcomes.problems)), "comparison": [], "operators": []}
        found = {
            "reason": self.reason,
            "tried": [
                {
                    "operator": name,
                    "rate": share(counts.rates[:, i], outcomes.clusters).dict(),
                    "tokens": costs[i],
                    "tries": int(counts.tries[:, i].sum()),
                }
                for i, name in enumerate(names)
            ],
            "without_grader": None if self.deployment is None else self.deployment.dict(),
            "problems": [
                {"id": name, "group": group, "rates": dict(zip(names, row, strict=True))} for name, group, row in told
            ],
        }
        return (self.comparison.dict() if self.comparison else empty) | json.loads(to_json(found))


async def rescued(
    engine: Engine,
    run: Run,
    names: Sequence[str] | None = None,
    *,
    tries: int = 12,
    most: int | None = None,
    budget: float | None = None,
    blind: bool = False,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Rescued:
    """Try failed problems with every operator of ``names`` (what the engine can do), then let the routers choose.

    ``budget``: decoded tokens a router may spend on a problem (two retries). Operators are tried at least ``tries``
    times, cheap ones as often as it takes to spend the budget three times. ``blind``: also try the problems whose
    samples disagree, as where nobody grades, half as often. Raises ``WrongturnError`` where the run is another model's
    or nothing failed.
    """
    await engine.ready()
    chosen = tuple(names or operators(engine))
    for unknowing in (False, True) if blind else (False,):
        with Run.create(run.path / (BLIND if unknowing else FOLDER), described(engine, run)) as out:
            options: dict[str, Any] = {"most": most, "blind": unknowing, "known": {}, "progress": progress}
            least = math.ceil(tries / 2) if unknowing else tries
            await rescue(engine, run, out, chosen, tries=least, **options)
            outcomes = read_outcomes(out)
            spend = two_retries(outcomes) if budget is None else budget
            cost = dict(zip(outcomes.operators, outcomes.cost().tolist(), strict=True))
            often = {name: max(least, min(math.ceil(3 * spend / cost[name]), _MOST * least)) for name in chosen}
            await rescue(engine, run, out, chosen, tries=often, **options)
            out.compact()
            source = Source(run, engine, engine.ancestor, unknowing)
            found = (await examine([source], progress=progress)).features
            known = routable(found, TWO_MODEL if engine.ancestor is not None else PLAIN)
            told = {"problems": known.problems, "names": known.names, "values": known.values}
            out.write(_FEATURES, told | {"temperature": compared_at(run)})
    return compared(run, budget, seed)


def compared(run: Run, budget: float | None = None, seed: int = 0) -> Rescued:
    """The routers on a run's stored tries."""
    tried = stored(run, FOLDER)
    spend = two_retries(tried.outcomes) if budget is None else budget
    try:
        comparison = compare(tried.features, tried.outcomes, budget=spend, seed=seed)
    except WrongturnError as few:
        return Rescued(tried, None, None, str(few))
    if not (run.path / BLIND / _FEATURES).exists():
        return Rescued(tried, comparison, None)
    try:
        base, blind, known = read_base(run), stored(run, BLIND), (tried.features, tried.outcomes)
        samples = samples_of(base.right)
        deployment = deploy(blind.features, base, blind.outcomes, known, samples=samples, budget=spend, seed=seed)
    except WrongturnError as few:
        return Rescued(tried, comparison, None, f"{run.path / BLIND}: {few}")
    return Rescued(tried, comparison, deployment)


def stored(run: Run, folder: str) -> Tried:
    """The tries in a run, and the features as they were written beside them.

    Raises ``WrongturnError`` where there are none.
    """
    path = run.path / folder
    if not (path / _FEATURES).exists():
        how = f"wrongturn rescue {run.path}{' --blind' if folder == BLIND else ''}"
        raise WrongturnError(f"{run.path}: there are no tries in {folder}/ yet ({how} makes them)")
    told = json.loads((path / _FEATURES).read_text())
    values = np.array([[math.nan if x is None else x for x in row] for row in told["values"]], np.float64)
    n = len(told["problems"])
    features = Features(tuple(told["problems"]), ("",) * n, tuple(told["names"]), values, np.zeros(n, np.intp))
    return Tried(read_outcomes(Run.open(path)), features, told.get("temperature", 1.0))  # once it was 1 and not told


def fit(run: Run, *, budget: float | None = None, graded: bool = False, plain: bool = False, seed: int = 0) -> Policy:
    """The policy that does best on a run's tries, as they are stored: no model is asked.

    It is one for where nobody grades, triggered by samples that disagree and fitted on blind tries, unless ``graded``.
    ``plain`` does without an ancestor. Raises ``WrongturnError`` where there are no such tries, or too few.
    """
    folder = FOLDER if graded else BLIND
    tried = stored(run, folder)
    outcomes, ancestor = tried.outcomes, Run.open(run.path / folder).settings["ancestor"]
    two = ancestor is not None and not plain
    if plain:
        kept = [i for i, name in enumerate(outcomes.operators) if not needs_ancestor(parse(name))]
        tables: dict[str, Any] = {name: getattr(outcomes, name)[:, kept] for name in ("right", "tokens", "answers")}
        outcomes = replace(outcomes, operators=tuple(outcomes.operators[i] for i in kept), **tables)
    base = None if graded else read_base(run)
    told = {name: run.settings.get(name) for name in ("engine", "model")} | {"ancestor": ancestor if two else None}
    policy = fit_policy(
        routable(tried.features, TWO_MODEL if two else PLAIN),
        outcomes,
        budget=two_retries(outcomes) if budget is None else budget,
        base=base,
        samples=None if base is None else samples_of(base.right),
        provenance=told,
        seed=seed,
    )
    asks = set(policy.features) <= set(PLAIN) and not any(needs_ancestor(parse(name)) for name in policy.operators)
    return replace(policy, signals="plain" if asks else "two-model", temperature=tried.temperature)


def routable(found: Features, names: Sequence[str]) -> Features:
    """Those of ``names`` that are there."""
    kept = tuple(name for name in names if name in found.names)
    return Features(found.problems, found.groups, kept, found.columns(kept), found.failed)


def two_retries(outcomes: Outcomes) -> float:
    """Decoded tokens of two retries."""
    return 2 * float(outcomes.cost()[outcomes.operators.index(RETRY)])


def samples_of(right: Any) -> int:
    """Samples that every problem has."""
    return int((~np.isnan(right)).sum(axis=1).min())
