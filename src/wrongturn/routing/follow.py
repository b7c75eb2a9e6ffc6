"""The strategy that does what a policy says: ``policy:file=policy.json``, or ``wrongturn run --policy policy.json``."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wrongturn.diagnose.recoverability import fallback, features
from wrongturn.errors import WrongturnError
from wrongturn.routing.policy import Policy
from wrongturn.strategies.base import Context, Draft
from wrongturn.strategies.named import parse, strategy
from wrongturn.strategies.operators import always_the_same
from wrongturn.strategies.votes import majority


@strategy
async def policy(ctx: Context, file: str = "", id: str = "") -> Draft:
    """Sample; where the samples agree too little, try the plan that the policy has for such a problem, and vote.

    A policy without a trigger treats every problem. Where traces of the problem are known to be wrong already, these
    are what it goes by, and they do not vote. ``id`` is the beginning of the file's SHA-256: a run says by which
    policy it was made. The plan's operators take turns until the policy's budget of decoded tokens is spent: a try that
    is likely to cost more than what is left is begun by lot, so that the budget is spent in the mean.
    """
    told, drafts = load(file, id), list[Draft]()
    if not ctx.earlier:
        samples = 1 if told.trigger is None else told.trigger.samples
        drafts = await ctx.gather(ctx.sample() for _ in range(samples))
        if told.trigger is not None and agreement(drafts) >= told.trigger.agreement_below:
            return majority(drafts)
        ctx.earlier = list(drafts)
    if all(np.isnan(draft.signals.entropy).all() for draft in ctx.earlier):  # the engine tells no probabilities
        told.check(set(told.features) - set(fallback.PER_TRACE) | {"tokens"})
    plan = told.plan(await measure(ctx, ctx.earlier, told.features, told.temperature))
    ctx.log("plan", operators=list(plan), agreement=agreement(ctx.earlier))
    lot, left = ctx.rng("budget"), told.budget
    turns = [parse(name) for name in plan]
    while turns:
        for operator in turns:
            if drafts and (ctx.meter.left <= 0 or lot.random() * told.costs.get(operator.name, 0.0) >= left):
                return majority(drafts)
            before = ctx.meter.spent
            drafts.append(await operator(ctx))
            left -= max(ctx.meter.spent - before, 1)  # a model that says nothing is not asked for ever
        turns = [operator for operator in turns if not always_the_same(operator)]
    return majority(drafts)


async def measure(
    ctx: Context, drafts: Sequence[Draft], names: Sequence[str], temperature: float | None = None
) -> dict[str, float]:
    """The features of these names, as a policy was fitted on: means over traces, and what traces tell together.

    ``temperature``: at which two models are compared, as :meth:`Context.score` has it.
    """
    written: list[Any] = [draft for draft in drafts if len(draft)]  # they have all that is read of a trace here
    rows = [fallback.of_trace(draft) for draft in written]
    if set(names) & set(features.names()) - set(fallback.PER_TRACE):
        scored = [await ctx.score(draft, temperature) for draft in written]
        rows = [row | features.of_trace(apart) for row, apart in zip(rows, scored, strict=True)]
    known = {name: [row[name] for row in rows if not math.isnan(row[name])] for name in rows[0]} if rows else {}
    means = {name: sum(values) / len(values) for name, values in known.items() if values}
    found = means | fallback.of_problem(written)
    return {name: found.get(name, math.nan) for name in names}


def agreement(drafts: Sequence[Draft]) -> float:
    """Share of the drafts that give the most frequent answer."""
    votes = Counter(draft.answer for draft in drafts if draft.answer is not None)
    return max(votes.values(), default=0) / len(drafts)


@lru_cache(maxsize=8)
def load(file: str, id: str) -> Policy:
    """The policy of a file. Raises ``WrongturnError`` where there is none, or not that one."""
    if not file:
        raise WrongturnError("the strategy 'policy' needs a file: policy:file=policy.json")
    told = Policy.load(file)
    if id and fingerprint(file) != id:
        raise WrongturnError(f"{file} is not the policy {id} that this run began with, but {fingerprint(file)}")
    return told


def fingerprint(file: str) -> str:
    """The beginning of the SHA-256 of a file."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]


def spec(file: str) -> str:
    """How a policy is called as a strategy. Raises ``WrongturnError`` for a file that is none."""
    Policy.load(file)
    if "," in file:
        raise WrongturnError(f"{file}: a policy's path may have no comma")
    return f"policy:file={file},id={fingerprint(file)}"
