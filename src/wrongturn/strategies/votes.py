"""Strategies that sample whole traces and choose among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from wrongturn.strategies.base import Context, Draft
from wrongturn.strategies.named import Count, strategy


@strategy
async def sample(ctx: Context) -> Draft:
    """One trace, as the model writes it: what every comparison is made against."""
    return await ctx.sample()


@strategy
async def greedy(ctx: Context) -> Draft:
    """The most likely token at every step."""
    return await ctx.sample(temperature=0.0)


@strategy
async def self_consistency(ctx: Context, n: Count = 8) -> Draft:
    """Majority vote over ``n`` samples (Wang et al. 2022). The answerless do not vote; first seen wins ties."""
    return majority(await ctx.gather(ctx.sample() for _ in range(n)))


def majority(drafts: Sequence[Draft]) -> Draft:
    """The first draft that gives the most frequent answer; the first of all where none has an answer."""
    votes = Counter(draft.answer for draft in drafts if draft.answer is not None)
    if not votes:
        return drafts[0]
    winner = max(votes, key=votes.__getitem__)  # insertion order: the first seen wins ties
    return next(draft for draft in drafts if draft.answer == winner)
