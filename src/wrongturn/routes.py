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
from wrongturn.rescuing import FOLDER, described, operators, rescue
from wrongturn.routing import Comparison, Deployment, Policy, compare, deploy, fit_policy
from wrongturn.store import Run
from wrongturn.strategies.base import parse
from wrongturn.strategies.operators import needs_ancestor

PLAIN = (*fallback.PER_TRACE, *fallback.TOGETHER)
"""Features that one problem alone tells, without a grader."""
TWO_MODEL = tuple(dict.fromkeys((*features.names(), *PLAIN)))
"""The same with an ancestor."""
_FEATURES = "features.json"
_MOST = 5  # times as many tries of a cheap operator


@dataclass(frozen=True, slots=True, eq=False)
class Rescued:
    """What the tries of a run's failed problems came to, and how routers compare on them.

    ``comparison`` and ``deployment`` are None where there are too few problems to fit a router (``reason``); the second
    also where problems have one sample, for nobody can then tell what failed without a grader.
    """

    features: Features
    outcomes: Outcomes
    comparison: Comparison | None
    deployment: Deployment | None
    reason: str = ""

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON: the comparison, success and cost of a try of each operator, rates of every problem."""
        names, counts = self.outcomes.operators, self.outcomes.counts()
        told = zip(self.outcomes.problems, self.outcomes.groups, counts.rates.tolist(), strict=True)
        costs = self.outcomes.cost().tolist()
        empty = {"failures": len(set(self.outcomes.problems)), "comparison": [], "operators": []}
        found = {
            "reason": self.reason,
            "tried": [
                {
                    "operator": name,
                    "rate": share(counts.rates[:, i], self.outcomes.clusters).dict(),
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
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Rescued:
    """Try failed problems with every operator of ``names`` (what the engine can do), then let the routers choose.

    ``budget``: decoded tokens a router may spend on a problem (two retries). Operators are tried at least ``tries``
    times, cheap ones as often as it takes to spend the budget three times. Raises ``WrongturnError`` where the run is
    another model's or nothing failed.
    """
    names = tuple(names or operators(engine))
    with Run.create(run.path / FOLDER, described(engine, run)) as out:
        await rescue(engine, run, out, names, tries=tries, most=most, progress=progress)
        outcomes = read_outcomes(out)
        spend = two_retries(outcomes) if budget is None else budget
        cost = dict(zip(outcomes.operators, outcomes.cost().tolist(), strict=True))
        often = {name: max(tries, min(math.ceil(3 * spend / cost[name]), _MOST * tries)) for name in names}
        await rescue(engine, run, out, names, tries=often, most=most, progress=progress)
        out.compact()
        found = (await examine([Source(run, engine, engine.ancestor)], progress=progress)).features
        known = routable(found, TWO_MODEL if engine.ancestor is not None else PLAIN)
        out.write(_FEATURES, {"problems": known.problems, "names": known.names, "values": known.values})
    return compared(run, known, budget, seed)


def compared(run: Run, known: Features, budget: float | None = None, seed: int = 0) -> Rescued:
    """The routers on a run's stored tries."""
    outcomes = read_outcomes(Run.open(run.path / FOLDER))
    spend = two_retries(outcomes) if budget is None else budget
    try:
        comparison = compare(known, outcomes, budget=spend, seed=seed)
    except WrongturnError as few:
        return Rescued(known, outcomes, None, None, str(few))
    base = read_base(run)
    samples = samples_of(base.right)
    deployment = None
    if samples > 1:
        deployment = deploy(known, base, outcomes, samples=samples, budget=spend, seed=seed)
    return Rescued(known, outcomes, comparison, deployment)


def fit(run: Run, *, budget: float | None = None, graded: bool = False, plain: bool = False, seed: int = 0) -> Policy:
    """The policy that does best on a run's rescued problems, from its stored tries: no model is asked.

    It is one for where nobody grades, triggered by samples that disagree, unless ``graded``. ``plain`` does without an
    ancestor. Raises ``WrongturnError`` where the run was not rescued, or too few problems were.
    """
    folder = run.path / FOLDER
    if not (folder / _FEATURES).exists():
        raise WrongturnError(f"{run.path}: its failures were not rescued yet (wrongturn rescue {run.path})")
    tried = Run.open(folder)
    outcomes, ancestor = read_outcomes(tried), tried.settings["ancestor"]
    told = json.loads((folder / _FEATURES).read_text())
    values = np.array([[math.nan if x is None else x for x in row] for row in told["values"]], np.float64)
    n = len(told["problems"])
    stored = Features(tuple(told["problems"]), ("",) * n, tuple(told["names"]), values, np.zeros(n, np.intp))
    two = ancestor is not None and not plain
    if plain:
        kept = [i for i, name in enumerate(outcomes.operators) if not needs_ancestor(parse(name))]
        tables = {name: getattr(outcomes, name)[:, kept] for name in ("right", "tokens", "answers")}
        outcomes = replace(outcomes, operators=tuple(outcomes.operators[i] for i in kept), **tables)
    base = read_base(run)
    samples = None if graded else samples_of(base.right)
    if samples == 1:
        raise WrongturnError(
            f"{run.path}: problems have one sample, which can agree with none (collect with --samples 4, or --graded)"
        )
    policy = fit_policy(
        routable(stored, TWO_MODEL if two else PLAIN),
        outcomes,
        budget=two_retries(outcomes) if budget is None else budget,
        base=None if graded else base,
        samples=samples,
        provenance={name: run.settings.get(name) for name in ("engine", "model")}
        | {"ancestor": ancestor if two else None},
        seed=seed,
    )
    asks = set(policy.features) <= set(PLAIN) and not any(needs_ancestor(parse(name)) for name in policy.operators)
    return replace(policy, signals="plain" if asks else "two-model")


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
