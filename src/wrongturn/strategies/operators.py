"""Operators: bounded interventions on a problem that was got wrong before (arXiv 2606.05145, and controls for each).

Each is a strategy that may look at ``ctx.earlier``: traces of the same problem, thought to be wrong. Where there are
none, one is sampled first. A *steer* draws from a mix of the model and its ancestor (the model it was trained from).

Where an operator acts is told by ``where``: "junction" is where the two models part (:meth:`Exceeds` on demotion
pressure; in a finished trace the token of the highest demotion), "entropy" where the model is unsure, "random" the
control for both. The threshold of a fresh trace is a quantile of the same quantity over the earlier ones.
"""

from __future__ import annotations

import inspect
import math
from typing import Annotated

import numpy as np

from wrongturn.engines.edits import Ban, Mix
from wrongturn.errors import EngineError
from wrongturn.strategies.base import Context, Draft
from wrongturn.strategies.conditions import Exceeds
from wrongturn.strategies.named import Between, Count, Named, OneOf, Share, strategy

RUN = math.nan
"""As a temperature: the run's own."""

Where = Annotated[str, OneOf(("junction", "entropy", "random"))]
Kind = Annotated[str, OneOf(("path", "coverage"))]
Temperature = Annotated[float, Between(0, math.inf)]
Weight = Annotated[float, Between(0, math.inf)]

CUES = {"strategy": "Let me try a different approach.", "hint": "Let me check each step before going on."}


@strategy
async def retry(ctx: Context, temperature: Temperature = RUN) -> Draft:
    """A fresh trace: what every other operator must beat."""
    return await ctx.sample(temperature=own(temperature))


@strategy
async def steer(
    ctx: Context,
    weight: Weight = 0.7,
    kind: Kind = "path",
    where: Where = "junction",
    q: Share = 0.99,
    after: Count = 20,
    offset: int = 0,
) -> Draft:
    """Sparse steer: a fresh trace, one token of which is the likeliest under the mix; ``offset`` tokens from there."""
    draft = ctx.start()
    if await reach(ctx, draft, where, q, after, offset):
        ctx.log("steer", at=len(draft))
        await ctx.decode(draft, max_tokens=1, temperature=0.0, edit=Mix(weight, kind))
        await ctx.decode(draft)
    return draft


@strategy
async def dense(ctx: Context, weight: Weight = 0.7, kind: Kind = "path", temperature: Temperature = RUN) -> Draft:
    """Every token from the mix. Published with temperature 0; its control is then ``greedy``, not ``retry``."""
    return await ctx.sample(temperature=own(temperature), edit=Mix(weight, kind))


@strategy
async def lift(
    ctx: Context, temperature: Temperature = 1.5, where: Where = "junction", q: Share = 0.99, after: Count = 20
) -> Draft:
    """A fresh trace, one token of which is drawn at another temperature."""
    draft = ctx.start()
    if await reach(ctx, draft, where, q, after):
        ctx.log("lift", at=len(draft))
        await ctx.decode(draft, max_tokens=1, temperature=temperature)
        await ctx.decode(draft)
    return draft


@strategy
async def rewind(ctx: Context, where: Where = "entropy", temperature: Temperature = RUN) -> Draft:
    """Cut an earlier trace before the step where it seems to have gone wrong, and go on from there."""
    failed = await one_of(ctx, where)
    if not len(failed):
        return failed
    at = step_start(ctx, failed, await place(ctx, failed, where))
    return await ctx.fork(failed, at=at, temperature=own(temperature), reason="rewind")


@strategy
async def ban(ctx: Context, where: Where = "entropy") -> Draft:
    """Cut an earlier trace before the token where it seems to have gone wrong; any token but that one, then go on."""
    failed = await one_of(ctx, where)
    if not len(failed):
        return failed
    at = await place(ctx, failed, where)
    draft = await ctx.fork(failed, at=at, max_tokens=1, edit=Ban((int(failed.ids[at]),)), reason="ban")
    await ctx.decode(draft)
    return draft


@strategy
async def switch(ctx: Context, cue: Annotated[str, OneOf(tuple(CUES))] = "strategy") -> Draft:
    """A fresh trace that begins with words that ask for another way ("strategy"), or for care ("hint")."""
    words = ctx.encode(CUES[cue])
    if not words:
        raise EngineError(f"switch begins with the words {CUES[cue]!r}, which this model has no tokens for", fatal=True)
    draft = ctx.start()
    ctx.write(draft, words)
    await ctx.decode(draft)
    return draft


def needs_ancestor(operator: Named) -> bool:
    """Whether it compares the model with its ancestor."""
    defaults = {name: p.default for name, p in inspect.signature(operator.function).parameters.items()}
    return operator.function.__name__ in ("steer", "dense") or (defaults | operator.options).get("where") == "junction"


def always_the_same(operator: Named) -> bool:
    """Whether every try of it is the same trace."""
    name = operator.function.__name__
    if name == "greedy":
        return True
    return name in ("retry", "dense") and operator.options.get("temperature") == 0


# -- where -------------------------------------------------------------------------------------------------------------


async def reach(ctx: Context, draft: Draft, where: str, q: float, after: int, offset: int = 0) -> bool:
    """Decode up to where an operator acts; False: the trace ended before."""
    if where == "random":
        at = ctx.rng("where").randint(after, max(after, ctx.max_tokens // 2))
        await ctx.decode(draft, max_tokens=at)
        return not draft.ended
    if not await ctx.decode(draft, until=Exceeds(*await background(ctx, where, q), after)):
        return False
    if offset < 0:
        ctx.cut(draft, max(0, len(draft) + offset))
    elif offset > 0:
        await ctx.decode(draft, max_tokens=offset)
    return not draft.ended


async def background(ctx: Context, where: str, q: float) -> tuple[str, float]:
    """The signal to watch, and its quantile over the earlier traces: infinite where none has a token."""
    signal, traces = "pressure" if where == "junction" else "entropy", await earlier(ctx, where)
    if not traces:
        return signal, math.inf
    known = [(await ctx.score(t)).pressure if where == "junction" else t.signals.entropy for t in traces]
    return signal, float(np.nanquantile(told(np.concatenate(known), where), q))


async def place(ctx: Context, failed: Draft, where: str) -> int:
    """The token of a finished trace where it seems to have gone wrong."""
    if where == "random":
        return ctx.rng("where").randrange(len(failed))
    known = (await ctx.score(failed)).demotion if where == "junction" else failed.signals.entropy
    return int(np.nanargmax(told(known, where)))


def told(values: np.ndarray, where: str) -> np.ndarray:
    """``values`` per token, some of which are known. Raises ``EngineError`` where none is."""
    if np.isnan(values).all():
        raise EngineError(f"where={where} goes by probabilities: no token of the earlier trace has any", "no logprobs")
    return values


def step_start(ctx: Context, failed: Draft, at: int) -> int:
    """The first token of the step that token ``at`` is in."""
    ends = np.flatnonzero(np.isin(failed.ids[:at], ctx.boundaries))
    return int(ends[-1]) + 1 if len(ends) else 0


async def earlier(ctx: Context, where: str) -> list[Draft]:
    """The earlier traces that have tokens; a fresh one where there are none, unless the model writes nothing."""
    if where == "entropy":
        ctx.require_logprobs()
    if not any(len(draft) for draft in ctx.earlier):
        ctx.earlier.append(await ctx.sample())
    return [draft for draft in ctx.earlier if len(draft)]


async def one_of(ctx: Context, where: str) -> Draft:
    """One of the earlier traces, by lot; an empty one where the model writes nothing."""
    traces = await earlier(ctx, where)
    return ctx.rng("which").choice(traces) if traces else ctx.earlier[-1]


def own(temperature: float) -> float | None:
    """A temperature option as :meth:`Context.decode` takes it."""
    return None if math.isnan(temperature) else temperature
