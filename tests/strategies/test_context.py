"""What every strategy relies on: the ledger, the budget, seeds, forks, and that no reference answer is in reach."""

from __future__ import annotations

import asyncio
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prose import BOS, EOS, YES, A, B, C, Prose, context, spread

from wrongturn.engines.scripted import Scripted
from wrongturn.errors import EngineError
from wrongturn.strategies import Context, parse
from wrongturn.strategies.base import mix_seed
from wrongturn.trace import Problem

COIN = {(): {A: 0.5, B: 0.4, EOS: 0.1}}


def test_a_context_has_no_place_for_the_reference() -> None:
    ctx, _ = context(COIN)
    held = vars(ctx)
    assert not any(isinstance(value, Problem) for value in held.values())
    assert "reference" in {f.name for f in fields(Problem)}
    assert not [name for name in dir(ctx) if "reference" in name or "problem" in name]


def test_decode_to_the_end() -> None:
    ctx, _ = context({(BOS,): A, (A,): YES, (YES,): EOS})
    draft = ctx.start()
    assert asyncio.run(ctx.decode(draft)) is False
    assert draft.ids.tolist() == [A, YES, EOS]
    assert (draft.finish, draft.answer) == ("stop", "yes")
    usage = ctx.settle(draft)
    assert (usage.kept, usage.dropped, usage.decoded, usage.prompt, usage.ideal) == (3, 0, 3, 1, 1)


def test_max_tokens_pauses_a_draft_and_the_cap_ends_it() -> None:
    ctx, _ = context({(): A}, max_tokens=5)
    draft = ctx.start()
    asyncio.run(ctx.decode(draft, max_tokens=2))
    assert (len(draft), draft.finish, draft.ended) == (2, None, False)
    asyncio.run(ctx.decode(draft))
    assert (len(draft), draft.finish) == (5, "length")
    assert asyncio.run(ctx.decode(draft)) is False
    assert len(draft) == 5


def test_forks_share_the_prefix_and_losers_are_charged() -> None:
    ctx, engine = context({(): spread(4)}, max_tokens=10)

    async def work():
        trunk = ctx.start()
        await ctx.decode(trunk, max_tokens=4)
        return trunk, await ctx.gather(ctx.fork(trunk, at=3, max_tokens=2, reason=r) for r in ("x", "y", "z"))

    trunk, branches = asyncio.run(work())
    assert [b.reason for b in branches] == ["x", "y", "z"]
    assert all(b.ids[:3].tolist() == trunk.ids[:3].tolist() and len(b) == 5 and b.parent is trunk for b in branches)
    assert len({b.seed for b in branches} | {trunk.seed}) == 4
    usage = ctx.settle(branches[0])
    assert (usage.kept, usage.decoded) == (5, 4 + 3 * 2)
    assert usage.dropped == 5
    assert usage.ideal == 1  # a perfect prefix cache computes the prompt once
    assert len(engine.requests) == 4


def test_injected_tokens_are_nan_and_cost_nothing_decoded() -> None:
    ctx, _ = context({(A,): B, (B,): EOS, (C,): EOS})
    draft = ctx.start()
    ctx.write(draft, [C, A])
    asyncio.run(ctx.decode(draft))
    assert draft.ids.tolist() == [C, A, B, EOS]
    assert np.isnan(draft.signals.nll[:2]).all()
    assert not np.isnan(draft.signals.nll[2:]).any()
    assert (draft.chunk.top_ids[:2] == -1).all()
    usage = ctx.settle(draft)
    assert (usage.injected, usage.kept, usage.decoded) == (2, 2, 2)


def test_resuming_an_earlier_trace_costs_only_what_is_new() -> None:
    first, _ = context({(): A, (A, A, A): EOS})
    draft = first.start()
    asyncio.run(first.decode(draft))
    again, _ = context({(): A, (A, A, A): EOS})
    resumed = again.start(draft.chunk[:2])
    asyncio.run(again.decode(resumed))
    assert resumed.ids.tolist() == draft.ids.tolist()
    assert again.settle(resumed).decoded == 2


def test_cut_drops_a_tail() -> None:
    ctx, _ = context({(): A}, max_tokens=6)
    draft = ctx.start()
    asyncio.run(ctx.decode(draft))
    ctx.cut(draft, 2)
    assert (len(draft), len(draft.signals), draft.finish) == (2, 2, None)


def test_a_draft_ends_where_the_models_context_does() -> None:
    ctx, engine = context({(): A}, holds=10, max_tokens=500)
    assert ctx.max_tokens == 9  # of the ten, the prompt has one

    async def work():
        trunk = ctx.start()
        await ctx.decode(trunk, max_tokens=6)
        paused = trunk.finish
        branches = await ctx.gather(ctx.fork(trunk, inject=[B] * n) for n in (0, 2, 3, 4))
        await ctx.decode(trunk)
        return paused, trunk, branches

    paused, trunk, branches = asyncio.run(work())
    assert (paused, trunk.finish, len(trunk)) == (None, "length", 9)
    assert [(b.finish, len(b)) for b in branches] == [("length", 9)] * 3 + [("length", 6)]
    assert branches[2].ids.tolist() == [A] * 6 + [B] * 3  # fits, but nothing after it
    assert ctx.usage.injected == 2 + 3  # what does not fit whole is not written
    assert all(len(request.prefix) < 10 for request in engine.requests)


def test_what_does_not_fit_leaves_an_ended_draft_as_it_was() -> None:
    ctx, _ = context({(): A, (A, A): EOS}, max_tokens=4)
    draft = ctx.start()
    asyncio.run(ctx.decode(draft))
    ctx.write(draft, [B, C])
    assert (draft.ids.tolist(), draft.finish) == ([A, A, EOS], "stop")


def test_a_prompt_that_fills_the_context_is_its_own_problems_failure() -> None:
    Context(Scripted({(): A}, 19, context=10), Prose(), [BOS] * 9)
    with pytest.raises(EngineError, match="the prompt has 10 tokens; the context of script holds 10") as full:
        Context(Scripted({(): A}, 19, context=10), Prose(), [BOS] * 10)
    assert (full.value.reason, full.value.fatal) == ("context", False)


class Tight(Scripted):
    """A server that does not say how much its context holds, until it is full."""

    async def stream(self, request):
        if len(request.prefix) >= 6:
            raise EngineError("6 tokens do not fit", "context")
        async for chunk in super().stream(request):
            yield chunk


def test_an_engine_that_says_its_context_is_full_ends_the_draft() -> None:
    ctx = Context(Tight({(): A}, 19), Prose(), [BOS], max_tokens=40)
    draft = ctx.start()
    asyncio.run(ctx.decode(draft, max_tokens=5))
    assert asyncio.run(ctx.decode(draft)) is False
    assert (len(draft), draft.finish) == (5, "length")
    ctx = Context(Tight({(): A}, 19), Prose(), [BOS] * 6, max_tokens=40)
    with pytest.raises(EngineError, match="do not fit"):  # not a token: nothing to keep
        asyncio.run(ctx.sample())


@given(budget=st.integers(1, 60), n=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_budget_is_never_overspent(budget: int, n: int, seed: int) -> None:
    ctx, _ = context(COIN, max_tokens=20, budget=budget, seed=seed)

    async def work():
        drafts = await ctx.gather(ctx.sample() for _ in range(n))
        return drafts, await ctx.gather(ctx.fork(d, at=1) for d in drafts)

    drafts, forks = asyncio.run(work())
    usage = ctx.settle(drafts[0])
    assert usage.decoded <= budget
    # what was spent is exactly what was written: nothing is counted twice, nothing for free
    assert usage.decoded == sum(len(d) for d in drafts) + sum(
        len(f) - min(1, len(d)) for f, d in zip(forks, drafts, strict=True)
    )
    if usage.decoded < budget:
        assert all(d.finish in ("stop", "length") for d in drafts)


def test_out_of_budget_keeps_what_there_is() -> None:
    ctx, _ = context({(): A}, budget=3)
    draft = ctx.start()
    assert asyncio.run(ctx.decode(draft)) is False
    assert (len(draft), draft.finish) == (3, "budget")
    late = ctx.start()
    assert asyncio.run(ctx.decode(late)) is False
    assert (len(late), late.finish) == (0, "budget")


def test_same_seed_same_drafts() -> None:
    def draw(seed: int) -> list[list[int]]:
        ctx, _ = context({(): spread(5)}, max_tokens=8, seed=seed)

        async def work():
            return await ctx.gather(ctx.sample() for _ in range(3))

        return [d.ids.tolist() for d in asyncio.run(work())]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len({tuple(ids) for ids in draw(1)}) == 3


def test_seeds_are_the_same_everywhere() -> None:
    assert mix_seed(0, "a") == 70371372590122459
    assert mix_seed(0, 1) != mix_seed(0, 2)
    assert 0 <= mix_seed("x") < 2**63


def test_options_are_parsed_by_type() -> None:
    named = parse("guard:q=0.8,width=2,compat=repo")
    assert named.options == {"q": 0.8, "width": 2, "compat": "repo"}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("magic", "unknown strategy 'magic' .*guard"),
        ("guard:q", "has no option 'q'"),
        ("guard:depth=3", "has no option 'depth=3'"),
        ("guard:width=wide", "'wide' is no int"),
    ],
)
def test_bad_specs(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(spec)


def test_context_is_exported() -> None:
    assert Context.__module__ == "wrongturn.strategies.base"
