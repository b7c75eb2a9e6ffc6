"""Strategies as a collection runs them: those that fail, those that choose what was there before, prompts too long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import wrongturn as wt
from wrongturn.engines.scripted import Scripted
from wrongturn.errors import EngineError, WrongturnError
from wrongturn.jobs import Job, Settings, fill, jobs
from wrongturn.strategies import Context, Draft, named, parse, strategy

PROBLEMS = wt.tasks.graph_search(nodes=15, hops=(2, 4), n=4, seed=0)
TASK = wt.tasks.get(PROBLEMS[0].task)
BREAK = TASK.boundary_ids[0]


@pytest.fixture
def mine() -> Iterator[None]:
    """Strategies that a test registers are forgotten after it."""
    known = dict(named._STRATEGIES)
    yield
    named._STRATEGIES.clear()
    named._STRATEGIES.update(known)


def wandering(prefix: np.ndarray) -> dict[int, float]:
    """Steps that begin more or less uncertain, and never an end."""
    k = 1 + len(prefix) % 9
    return {8 + i: 1 / k for i in range(k)} if prefix[-1] == BREAK else {BREAK: 0.5, 9: 0.25, 10: 0.25}


def test_every_strategy_ends_where_the_context_does(tmp_path: Path) -> None:
    engine = Scripted(wandering, 31, context=200)
    for name in ("sample", "guard:horizon=20", "rewind", "ban", "lift:where=entropy,q=0.5", "self_consistency:n=2"):
        run = wt.collect(engine, PROBLEMS, out=tmp_path / name.partition(":")[0], strategy=name, max_tokens=500)
        assert run.failures() == []
        chosen = [trace for trace in run.traces() if "+" not in trace.id]
        assert len(chosen) == len(PROBLEMS)
        for trace in chosen:
            assert (trace.finish, len(trace.prompt_ids) + len(trace)) == ("length", 200)


@pytest.mark.parametrize("name", ["sample", "guard"])
def test_a_prompt_that_is_too_long_concerns_its_own_problem(tmp_path: Path, name: str) -> None:
    fits = [p for p in PROBLEMS if len(p.prompt_ids or ()) < 112]
    assert 0 < len(fits) < len(PROBLEMS)
    engine = Scripted(wandering, 31, context=112)
    run = wt.collect(engine, PROBLEMS, out=tmp_path / "run", strategy=name)
    assert {trace.problem for trace in run.traces()} == {p.id for p in fits}
    failed = run.failures()
    assert {f.problem for f in failed} == {p.id for p in PROBLEMS} - {p.id for p in fits}
    assert {(f.reason, f.message) for f in failed} == {
        ("context", "the prompt has 112 tokens; the context of script holds 112")
    }


@pytest.mark.parametrize(
    ("bug", "says"),
    [
        (lambda ctx: [][0], "IndexError: list index out of range"),
        (lambda ctx: max([]), "ValueError: max.. .*empty.*"),
        (lambda ctx: ctx.drafts, "TypeError: it returned a list, not a draft"),
    ],
)
def test_a_bug_in_a_strategy_names_it_and_keeps_what_was_collected(tmp_path: Path, mine: None, bug, says: str) -> None:
    begun = 0

    @strategy
    async def buggy(ctx: Context) -> Draft:
        nonlocal begun
        begun += 1
        await ctx.decode(ctx.start(), max_tokens=1)
        return bug(ctx) if begun == 3 else ctx.drafts[0]

    engine = Scripted(wandering, 31)
    engine.concurrency = 1
    with pytest.raises(WrongturnError, match=rf"^strategy 'buggy' on problem '{PROBLEMS[2].id}': {says}$") as told:
        wt.collect(engine, PROBLEMS, out=tmp_path / "run", strategy="buggy")
    assert not isinstance(told.value, EngineError)
    assert "\n" not in str(told.value)
    assert len(wt.Run.open(tmp_path / "run")) == 2
    wt.collect(engine, PROBLEMS, out=tmp_path / "run", strategy="buggy")  # mended, it goes on where it stopped
    assert begun == 3 + 2


def test_a_strategy_may_stand_by_a_trace_that_was_there_before(tmp_path: Path, mine: None) -> None:
    @strategy
    async def stay(ctx: Context, try_first: bool = False) -> Draft:
        if try_first:
            await ctx.sample()
        return ctx.earlier[0]

    engine = Scripted(wandering, 31)
    before = {trace.problem: trace for trace in wt.solve(engine, PROBLEMS, max_tokens=20)}
    asked = len(engine.requests)

    def todo(name: str) -> list[Job]:
        def told(problem: wt.Problem):
            async def solve(ctx: Context) -> Draft:
                trace = before[problem.id]
                chunk = wt.engines.Chunk(trace.ids, trace.signals, trace.top_ids, trace.top_logprobs, trace.finish)
                ctx.recall(chunk, trace.id)
                return await parse(name)(ctx)

            return solve

        return [Job(job.id, job.problem, name, 0, told(job.problem)) for job in jobs(PROBLEMS, name)]

    settings = Settings(max_tokens=20)
    for name, tries in (("stay", 0), ("stay:try_first=true", 1)):
        with wt.Run.create(tmp_path / str(tries), {"of": "this test"}) as run:
            run.add_problems(PROBLEMS)
            for _ in range(2):  # the second time, there is nothing left to do
                wt.pipeline.wait(fill(engine, run, todo(name), settings, wt.pipeline.silent, name))
            traces = {trace.id: trace for trace in run.traces()}
        assert len(traces) == len(PROBLEMS) * (1 + tries)
        asked += tries * len(PROBLEMS)
        assert len(engine.requests) == asked
        for problem in PROBLEMS:
            trace, source = traces[f"{problem.id}/{name}/0"], before[problem.id]
            assert np.array_equal(trace.ids, source.ids)
            assert (trace.finish, trace.correct, trace.answer) == ("length", source.correct, source.answer)
            assert trace.lineage == wt.trace.Lineage(source.id, len(source), "recall")
            assert (trace.usage.kept, trace.usage.dropped) == (0, 20 * tries)
