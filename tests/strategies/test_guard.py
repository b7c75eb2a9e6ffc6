"""GUARD on scripts whose entropies are known, so that every trigger and every choice is."""

from __future__ import annotations

import asyncio
import math

import pytest
from prose import (
    BREAK,
    CUE,
    END_THINK,
    EOS,
    RECONSIDER,
    WAIT,
    YES,
    A,
    B,
    C,
    Prose,
    context,
    spread,
)

from wrongturn.engines.scripted import Scripted
from wrongturn.errors import EngineError
from wrongturn.pipeline import compared
from wrongturn.strategies import Context
from wrongturn.strategies.conditions import Wrote
from wrongturn.strategies.guard import guard, mean_entropy


def steps(ranks: list[int]):
    """A script that writes one word a step, step i's word drawn from ``ranks[i]`` of them; it ends after the last."""

    def script(sequence):
        done = int((sequence == BREAK).sum())
        if sequence[-1] == BREAK or len(sequence) == 1:
            if done >= len(ranks):
                return EOS
            return spread(ranks[done])
        return BREAK

    return script


def run(ctx, **options):
    return asyncio.run(guard(ctx, **options))


def test_a_spike_forks_into_three_and_is_one_batch() -> None:
    ctx, engine = context(steps([1, 1, 1, 8, 1]), temperature=0.0)
    trace = run(ctx, horizon=3)
    assert [e["event"] for e in ctx.events] == ["spike"]
    assert ctx.events[0]["entropy"] == pytest.approx(math.log(8), abs=1e-4)
    assert ctx.events[0]["at"] == 6
    assert [d.reason for d in ctx.drafts] == ["", "momentum", "inhibitory", "counterfactual"]
    assert trace.finish == "stop"
    assert len(engine.requests) == 1 + 3 + 1


def test_cues_are_injected_where_the_vocabulary_has_them() -> None:
    ctx, _ = context(steps([1, 1, 8, 1]), temperature=0.0)
    run(ctx, horizon=3)
    momentum, inhibitory, counterfactual = ctx.drafts[1:4]
    at = ctx.events[0]["at"]
    assert momentum.ids[at] not in (CUE, RECONSIDER)
    assert inhibitory.ids[at] == CUE
    assert counterfactual.ids[at] == RECONSIDER
    assert ctx.usage.injected == 2


def test_the_calmest_branch_goes_on_and_the_others_are_charged() -> None:
    # After "Wait," the model is sure of itself; the other branches stay uncertain for two tokens.
    def script(sequence):
        if len(sequence) <= 4:
            return [A, BREAK, A, BREAK][len(sequence) - 1]
        tail = sequence[5:].tolist()
        if len(tail) >= 3:
            return EOS
        if CUE in tail:
            return YES
        return {B: 0.5, C: 0.5} if tail else spread(8)

    ctx, _ = context(script, temperature=0.0)
    trace = run(ctx, horizon=3)
    assert ctx.events[0]["chosen"] == "inhibitory"
    assert CUE in trace.ids
    usage = ctx.settle(trace)
    assert usage.kept == 4 + 3
    assert usage.dropped == 2 * 3
    assert mean_entropy(ctx.drafts[2]) == 0


def test_paper_rule_uses_the_strict_past() -> None:
    # Boundary entropies rise all the way: each exceeds its past, so the paper's rule fires after one value.
    ctx, _ = context(steps([1, 2, 3, 4, 5, 6, 7, 8]), temperature=0.0, max_tokens=100)
    run(ctx, horizon=2, max_triggers=99)
    assert len(ctx.events) >= 5


def test_repo_rule_is_blind_to_ten_rising_boundaries() -> None:
    ctx, _ = context(steps([1, 2, 3, 4, 5, 6, 7, 8]), temperature=0.0, max_tokens=1000)
    run(ctx, horizon=2, compat="repo")
    assert ctx.events == []


def test_repo_rule_needs_two_hundred_tokens_left() -> None:
    ranks = [1] * 12 + [8] + [1] * 4
    ctx, _ = context(steps(ranks), temperature=0.0, max_tokens=1000)
    run(ctx, horizon=2, compat="repo")
    assert len(ctx.events) == 1
    ctx, _ = context(steps(ranks), temperature=0.0, max_tokens=220)
    trace = run(ctx, horizon=2, compat="repo")
    assert ctx.events == []
    assert trace.finish == "stop"


def test_min_history_delays_the_first_trigger() -> None:
    ctx, _ = context(steps([1, 8, 1, 1, 8, 1]), temperature=0.0)
    run(ctx, horizon=2, min_history=3)
    assert [e["at"] for e in ctx.events] == [8]


def test_history_of_all_tokens() -> None:
    # Inside the steps the model is as uncertain as at the boundary: against all tokens it is no spike.
    def script(sequence):
        n = len(sequence)
        if n > 12:
            return EOS
        if n % 3 == 0:
            return BREAK
        return spread(4) if n % 3 == 2 else spread(1 if n < 6 else 4)

    ctx, _ = context(script, temperature=0.0)
    run(ctx, horizon=1, history="boundaries", q=0.5)
    assert ctx.events
    ctx, _ = context(script, temperature=0.0)
    run(ctx, horizon=1, history="tokens", q=0.9)
    assert not ctx.events


def test_late_hesitation_becomes_the_end_of_thinking() -> None:
    def script(sequence):
        if END_THINK in sequence:
            return EOS if sequence[-1] == YES else YES
        return WAIT if len(sequence) % 4 == 0 else A

    ctx, _ = context(script, max_tokens=20, temperature=0.0)
    trace = run(ctx, late=0.3)
    assert trace.finish == "stop"
    assert trace.answer == "yes"
    assert (trace.ids == WAIT).sum() == 3  # the early ones stand
    assert trace.ids.tolist().index(END_THINK) >= 0.7 * 20 - 2


def test_budget_ends_it_with_what_there_is() -> None:
    ctx, _ = context(steps([1, 8, 8, 8, 8, 8]), budget=7, temperature=0.0)
    trace = run(ctx, horizon=3, q=0.1)
    assert ctx.settle(trace).decoded <= 7
    assert trace.finish == "budget"


def test_max_triggers_bounds_the_work() -> None:
    ctx, _ = context(steps([1, 2, 3, 4, 5, 6, 7, 8]), temperature=0.0)
    trace = run(ctx, horizon=2, max_triggers=2)
    assert len(ctx.events) == 2
    assert trace.finish == "stop"


def pondering(sequence):
    """Steps of a word and a "Wait", ever less certain of the word; an answer once thinking has ended."""
    if END_THINK in sequence:
        return EOS if sequence[-1] == YES else YES
    if sequence[-1] == BREAK:
        return spread(1 + len(sequence) // 8)
    return BREAK if sequence[-1] == WAIT else WAIT


@pytest.mark.parametrize("compat", ["paper", "repo"])
def test_the_late_stage_outlasts_the_triggers(compat: str) -> None:
    ctx, _ = context(pondering, max_tokens=60, temperature=0.0)
    trace = run(ctx, horizon=3, max_triggers=1, q=0.5, compat=compat)
    assert len(ctx.events) == (compat == "paper")
    assert trace.answer == "yes"
    at = trace.ids.tolist().index(END_THINK)
    assert 0.8 * 60 - 2 <= at < 60
    assert WAIT in trace.ids[: int(0.7 * 60)]  # the early ones stand


def test_without_words_for_the_end_of_thinking_hesitation_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, engine = context({(): A, (A,): WAIT, (WAIT,): A}, max_tokens=20)
    monkeypatch.setattr(ctx, "encode", lambda text: [] if text == "</think>" else [WAIT] if text == "Wait" else [])
    trace = run(ctx)
    assert (trace.finish, len(trace), len(engine.requests)) == ("length", 20, 1)


def test_guard_ends_where_the_models_context_does() -> None:
    for seed in range(5):
        ctx, engine = context(steps([1, *range(1, 8)] * 9), holds=30, max_tokens=500, seed=seed)
        trace = run(ctx, horizon=4, q=0.5)
        assert ctx.events
        assert (trace.finish, len(trace)) == ("length", 29)
        assert max(len(request.prefix) for request in engine.requests) < 30


@pytest.mark.parametrize(("logprobs", "says"), [("processed", "raw_logprobs"), ("none", "tells no logprobs")])
def test_entropies_that_temperature_has_touched_are_refused(logprobs: str, says: str) -> None:
    ctx, engine = context(steps([1, 2, 3]), logprobs=logprobs)
    with pytest.raises(EngineError, match=says) as refused:
        run(ctx)
    assert refused.value.fatal
    assert not engine.requests
    assert "\n" not in str(refused.value)
    assert "guard" not in compared(engine)  # nor is it tried where nobody asked for it
    assert "guard" in compared(context({(): A})[1])


def test_a_marker_at_the_prompts_end_was_not_written() -> None:
    engine = Scripted({(): A, (A, A): WAIT}, 19)
    ctx = Context(engine, Prose(), [WAIT], max_tokens=9)
    trace = run(ctx)
    assert (trace.finish, len(trace)) == ("length", 9)
    draft = ctx.start()
    assert asyncio.run(ctx.decode(draft, until=Wrote((WAIT,))))
    assert draft.ids.tolist() == [A, A, WAIT]
