from __future__ import annotations

import asyncio

from prose import EOS, NO, YES, A, B, context

from wrongturn.strategies.votes import greedy, majority, sample, self_consistency


def test_sample_and_greedy() -> None:
    script = {(): {YES: 0.6, NO: 0.4}, (YES,): EOS, (NO,): EOS}
    answers = set()
    for seed in range(20):
        ctx, _ = context(script, seed=seed)
        answers.add(asyncio.run(sample(ctx)).answer)
        ctx, _ = context(script, seed=seed)
        assert asyncio.run(greedy(ctx)).answer == "yes"
    assert answers == {"yes", "no"}


def test_self_consistency_returns_the_majority_and_pays_for_all() -> None:
    script = {(): {YES: 0.7, NO: 0.3}, (YES,): EOS, (NO,): EOS}
    for seed in range(10):
        ctx, engine = context(script, seed=seed)
        chosen = asyncio.run(self_consistency(ctx, n=9))
        votes = [d.answer for d in ctx.drafts]
        assert chosen.answer == max(("yes", "no"), key=votes.count)
        assert ctx.settle(chosen).decoded == 18
        assert len(engine.requests) == 9


def test_ties_go_to_the_first_seen_and_the_answerless_do_not_vote() -> None:
    script = {(): {YES: 0.3, NO: 0.3, A: 0.4}, (YES,): EOS, (NO,): EOS, (A,): B, (B,): EOS}
    for seed in range(40):
        ctx, _ = context(script, seed=seed)

        async def work(ctx=ctx):
            return await ctx.gather(ctx.sample() for _ in range(4))

        drafts = asyncio.run(work())
        answers = [d.answer for d in drafts]
        voting = [a for a in answers if a is not None]
        if not voting:
            assert majority(drafts) is drafts[0]
        else:
            best = max(voting.count(a) for a in voting)
            first = next(a for a in voting if voting.count(a) == best)
            assert majority(drafts) is drafts[answers.index(first)]
