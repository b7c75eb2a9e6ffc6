from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from prose import CUE, EOS, NO, WAIT, WORDS, YES, A, B, context

import wrongturn as wt
from made_traces import made
from wrongturn.divergence import from_logits
from wrongturn.engines.pair import divergences
from wrongturn.errors import EngineError
from wrongturn.routing import Policy, follow
from wrongturn.routing.rules import Fixed, Reference
from wrongturn.strategies import parse
from wrongturn.strategies.base import blank_chunk
from wrongturn.strategies.conditions import Exceeds
from wrongturn.strategies.operators import CUES, always_the_same, needs_ancestor

PROBLEMS = wt.tasks.graph_search(nodes=15, hops=(2, 4), n=8, seed=5)
COLD = wt.Sampling(0.6)


@pytest.fixture(scope="module")
def pair() -> wt.engines.Engine:
    return wt.open("embedded:sft", ancestor="ancestor")


def traces(engine: wt.engines.Engine, strategy: str, problems: Sequence[wt.Problem] = PROBLEMS) -> list[wt.Trace]:
    return wt.solve(engine, problems, strategy=strategy, sampling=COLD, max_tokens=192, seed=1)


def same(a: Sequence[wt.Trace], b: Sequence[wt.Trace]) -> bool:
    return all(np.array_equal(x.ids, y.ids) for x, y in zip(a, b, strict=True))


def test_a_mix_of_weight_one_is_the_specialist_and_of_weight_zero_the_ancestor(pair: wt.engines.Engine) -> None:
    assert same(traces(pair, "greedy"), traces(pair, "dense:weight=1,temperature=0"))
    assert same(traces(pair.ancestor, "greedy"), traces(pair, "dense:weight=0,temperature=0"))
    assert same(traces(pair, "retry"), traces(pair, "sample"))


def test_a_sparse_steer_acts_once_where_the_two_models_part(pair: wt.engines.Engine) -> None:
    first = {t.problem: t for t in traces(pair, "sample")}
    steered = traces(pair, "steer:q=0.9")
    scored = wt.pipeline.wait(divergences(pair, pair.ancestor, steered, temperature=COLD.temperature))
    acted = [t for t in steered if t.events]
    assert len(acted) > len(steered) / 2
    for trace in acted:
        (event,) = trace.events
        at, pressure = event["at"], scored[trace.id].pressure
        assert at >= 20
        assert trace.usage.decoded == len(trace) + trace.usage.dropped
        assert pressure[at] > pressure[20:at].max(initial=-1.0)  # nothing before it reached the threshold
        assert trace.problem in first


@pytest.mark.parametrize("temperature", [0.6, 0.0])
def test_the_models_are_compared_where_they_decode(pair: wt.engines.Engine, temperature: float) -> None:
    """Along a finished draft and in the step loop alike; else a quantile of the one is no threshold for the other."""
    task = wt.tasks.get("graph_search").on(pair.vocabulary)
    whole, watched = (
        wt.strategies.Context(pair, task, PROBLEMS[0].prompt_ids, sampling=wt.Sampling(temperature), max_tokens=192)
        for _ in range(2)
    )

    async def reached() -> None:
        draft = await whole.sample()
        told = await whole.score(draft)
        (exact,) = (await divergences(pair, pair.ancestor, [as_trace(draft)], temperature=temperature or 1.0)).values()
        np.testing.assert_array_equal(told.demotion, exact.demotion)
        assert await whole.score(draft) is told
        other = await whole.score(draft, 2.0)
        assert np.abs(other.pressure - told.pressure).max() > 0.01
        assert await whole.score(draft) is told
        top = int(told.pressure.argmax())
        again = watched.start()
        assert await watched.decode(again, until=Exceeds("pressure", float(told.pressure[top]) - 1e-5))
        assert len(again) == top

    def as_trace(draft: wt.strategies.Draft) -> wt.Trace:
        return made(1, id="t", prompt_ids=whole.prompt_ids, ids=draft.ids)

    wt.pipeline.wait(reached())


def test_a_steer_elsewhere_moves_by_its_offset(pair: wt.engines.Engine) -> None:
    at = {t.problem: t.events[0]["at"] for t in traces(pair, "steer:q=0.9") if t.events}
    back = {t.problem: t.events[0]["at"] for t in traces(pair, "steer:q=0.9,offset=-5") if t.events}
    assert {problem: place - 5 for problem, place in at.items()} == back


def test_a_lift_and_a_random_place(pair: wt.engines.Engine) -> None:
    for name in ("lift:where=entropy,temperature=2", "lift:where=random", "steer:where=random"):
        found = traces(pair, name)
        assert any(t.events for t in found)
        assert all(20 <= t.events[0]["at"] <= 96 for t in found if t.events and "random" in name)


@pytest.mark.parametrize("where", ["entropy", "junction", "random"])
def test_a_rewind_keeps_what_was_before_and_a_ban_writes_another_token(pair: wt.engines.Engine, where: str) -> None:
    async def solve(strategy: str) -> list[wt.Trace]:
        from wrongturn.jobs import Settings, carry_out, jobs

        todo = jobs(PROBLEMS, strategy)
        made = {m[0].id: m async for m in carry_out(pair, todo, Settings(COLD, 192, seed=1))}
        return [trace for job in todo for trace in made[job.id]]

    for name in (f"rewind:where={where}", f"ban:where={where}"):
        found = wt.pipeline.wait(solve(name))
        by_id = {t.id: t for t in found}
        forks = [t for t in found if t.lineage is not None and "+" in t.lineage.parent]
        assert len(forks) == len(PROBLEMS)
        for fork in forks:
            assert fork.lineage is not None
            parent, at = by_id[fork.lineage.parent], fork.lineage.at
            assert np.array_equal(fork.ids[:at], parent.ids[:at])
            if name.startswith("ban"):
                assert fork.ids[at] != parent.ids[at]
            assert fork.usage.decoded == len(fork) - at + len(parent)  # it had to write the earlier one itself


def test_what_an_engine_cannot_do_is_one_line() -> None:
    alone = wt.open("embedded:sft")
    for name in ("dense", "steer:where=random", "lift", "rewind:where=junction"):
        with pytest.raises(EngineError, match="ancestor") as refused:
            traces(alone, name, PROBLEMS[:1])
        assert "\n" not in str(refused.value)
    with pytest.raises(EngineError, match="no tokens for"):
        traces(alone, "switch", PROBLEMS[:1])


@pytest.mark.parametrize(("cue", "said"), [("strategy", WAIT), ("hint", CUE)])
def test_a_switch_begins_with_its_words(monkeypatch: pytest.MonkeyPatch, cue: str, said: int) -> None:
    monkeypatch.setitem(CUES, "strategy", WORDS[WAIT])
    monkeypatch.setitem(CUES, "hint", WORDS[CUE])
    ctx, engine = context({(): A, (WAIT,): YES, (CUE,): NO, (YES,): EOS, (NO,): EOS})
    draft = wt.pipeline.wait(parse(f"switch:cue={cue}")(ctx))
    assert draft.ids.tolist() == [said, YES if said == WAIT else NO, EOS]
    assert ctx.settle(draft).injected == 1
    assert len(engine.requests) == 1


def test_which_operators_need_an_ancestor_and_which_never_vary() -> None:
    need = {"steer", "steer:where=random", "dense:weight=1.5", "lift", "rewind:where=junction"}
    free = {"retry", "rewind", "ban", "lift:where=entropy", "greedy", "sample"}
    assert {name for name in need | free if needs_ancestor(parse(name))} == need
    vary = {"retry", "dense", "rewind:temperature=0", "ban"}
    once = {"greedy", "retry:temperature=0", "dense:temperature=0"}
    assert {name for name in vary | once if always_the_same(parse(name))} == once


def test_a_condition_on_what_is_known_before_the_draw() -> None:
    rng = np.random.default_rng(0)
    divergence = from_logits(rng.normal(size=(3, 8)), rng.normal(size=(3, 8)))
    watch = Exceeds("pressure", float(np.sort(divergence.pressure)[1]), after=1).watch(3)
    rows, last = np.arange(3), np.zeros(3, np.int32)
    for row in rows.tolist():
        watch.admit(row, [], wt.signals.Signals.empty(0))
    signals = wt.signals.Signals.empty(3)
    assert not watch.step(rows, last, signals, divergence).any()  # before ``after``
    assert (
        watch.step(rows, last, signals, divergence).tolist() == (np.arange(3) == divergence.pressure.argmax()).tolist()
    )
    for name in ("nll", "delta", "speed"):
        with pytest.raises(ValueError, match="not known before"):
            Exceeds(name, 1.0)


@pytest.mark.parametrize("name", ["rewind", "rewind:where=random", "ban", "lift:where=entropy", "lift:where=random"])
def test_a_model_that_says_nothing_leaves_an_operator_its_empty_sample(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, engine = context({(): A})
    monkeypatch.setattr(engine, "generate", says_nothing)
    draft = wt.pipeline.wait(parse(name)(ctx))
    assert (len(draft), draft.finish) == (0, "stop")
    assert draft in ctx.drafts


def test_a_policy_does_not_ask_for_ever_a_model_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ctx, engine = context({(): A})
    monkeypatch.setattr(engine, "generate", says_nothing)
    Policy(Fixed(Reference(), ("retry",)), 20.0).save(tmp_path / "policy.json")
    wt.pipeline.wait(follow.policy(ctx, file=str(tmp_path / "policy.json")))
    assert len(ctx.drafts) == 21  # a sample, and what is begun of a budget of 20 at a token each


async def says_nothing(request: wt.engines.Request) -> wt.engines.Chunk:
    said = wt.engines.Chunk(*(array[:0] for array in (np.zeros(1, np.int32), wt.signals.Signals.empty(1))), *nothing(3))
    said.finish = "stop"
    return said


def nothing(k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)


@pytest.mark.parametrize("name", ["rewind", "ban", "lift:where=entropy", "steer:where=entropy"])
def test_an_operator_that_looks_at_uncertainty_refuses_an_engine_that_tells_none(name: str) -> None:
    ctx, engine = context({(): A}, logprobs="none")
    with pytest.raises(EngineError, match="scripted:script tells no logprobs") as refused:
        wt.pipeline.wait(parse(name)(ctx))
    assert refused.value.fatal
    assert not engine.requests
    ctx, _ = context({(): A, (A, A): EOS}, logprobs="none")
    assert wt.pipeline.wait(parse("rewind:where=random")(ctx)).ids.tolist() == [A, A, EOS]


def test_a_stored_trace_without_probabilities_is_one_failure() -> None:
    ctx, _ = context({(): A})
    ctx.recall(blank_chunk([A, B], 3), "other/sample/0")
    with pytest.raises(EngineError, match="where=entropy goes by probabilities: no token") as refused:
        wt.pipeline.wait(parse("rewind")(ctx))
    assert not refused.value.fatal
