"""The calls behind the command line, on the packaged engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wrongturn as wt
from wrongturn import pipeline
from wrongturn.engines.base import Engine
from wrongturn.engines.scripted import Scripted
from wrongturn.errors import EngineError, WrongturnError
from wrongturn.jobs import Settings, carry_out, jobs
from wrongturn.pipeline import command, wait


@pytest.fixture(scope="module")
def engine() -> Engine:
    return wt.open("embedded")


@pytest.fixture(scope="module")
def problems() -> list[wt.Problem]:
    return wt.tasks.graph_search(nodes=20, hops=(2, 4), n=6, seed=5)


def test_solve_answers_in_order(engine: Engine, problems: list[wt.Problem]) -> None:
    traces = wt.solve(engine, problems, strategy="greedy")
    assert [t.problem for t in traces] == [p.id for p in problems]
    for trace, problem in zip(traces, problems, strict=True):
        assert trace.prompt_ids.tolist() == list(problem.prompt_ids)
        assert trace.correct is wt.tasks.get(trace.task).grade(problem, trace.answer)
        assert len(trace.signals) == len(trace) == trace.usage.kept == trace.usage.decoded
        assert np.all(np.isfinite(trace.signals.entropy))
        assert np.array_equal(trace.signals.entropy, trace.signals.entropy_low)
        assert trace.top_ids.shape == (len(trace), 5)


def test_traces_do_not_depend_on_the_company(engine: Engine, problems: list[wt.Problem]) -> None:
    together = wt.solve(engine, problems, strategy="guard", seed=3)
    for i in (0, 3):
        alone = wt.solve(wt.open("embedded"), [problems[i]], strategy="guard", seed=3)[0]
        assert alone.ids.tolist() == together[i].ids.tolist()
        assert np.array_equal(alone.signals.entropy, together[i].signals.entropy)


def test_budget_caps_all_branches(engine: Engine, problems: list[wt.Problem]) -> None:
    for trace in wt.solve(engine, problems, strategy="self_consistency:n=4", budget=60):
        assert trace.usage.decoded <= 60


def test_every_draft_is_stored_once_and_paid_for_once(engine: Engine, problems: list[wt.Problem]) -> None:
    async def work() -> list[list[wt.Trace]]:
        todo = jobs(problems, "guard:q=0.5,horizon=10")
        return [traces async for traces in carry_out(engine, todo, Settings())]

    for traces in asyncio.run(work()):
        chosen, *others = traces
        assert chosen.usage.decoded > 0
        assert all(t.usage.decoded == 0 for t in others)
        assert len({t.id for t in traces}) == len(traces)
        assert sorted(t.draft for t in traces) == list(range(len(traces)))
        own = {t.id: len(t) - (t.lineage.at if t.lineage else 0) for t in traces}
        assert sum(own.values()) == chosen.usage.decoded + chosen.usage.injected
        by_id = {t.id: t for t in traces}
        for trace in traces:
            if trace.lineage:
                parent = by_id[trace.lineage.parent]
                assert parent.ids[: trace.lineage.at].tolist() == trace.ids[: trace.lineage.at].tolist()


def test_collect_diagnose_and_study(engine: Engine, problems: list[wt.Problem], tmp_path: Path) -> None:
    run = wt.collect(engine, problems, samples=3, out=tmp_path / "run")
    again = wt.collect(engine, problems, samples=3, out=tmp_path / "run")
    assert run.done() == again.done()
    assert len(run.done()) == 18
    study = wt.diagnose(run)
    assert study.problems == 6
    assert 0 <= study.accuracy["G20_2,4"].value <= 1


def test_recover_forks_from_failed_traces(engine: Engine, tmp_path: Path) -> None:
    hard = wt.tasks.graph_search(nodes=20, hops=(5, 6), n=6, seed=5)
    summary = wt.run(engine, hard, out=tmp_path / "run", samples=2, strategies=["greedy"])
    run = wt.Run.open(tmp_path / "run")
    children = [t for t in run.traces() if t.strategy.startswith("resample:")]
    assert children
    parents = {t.id: t for t in run.traces(strategy="sample")}
    for child in children:
        assert child.lineage is not None
        parent, at = parents[child.lineage.parent], child.lineage.at
        assert parent.correct is False
        assert child.ids[:at].tolist() == parent.ids[:at].tolist()
        assert child.usage.decoded == len(child) - at
    assert {c["name"] for c in summary["claims"]} >= {"early_onset", "onset_matters", "recoverable_20"}


def test_command_says_how_to_make_the_run_again(engine: Engine, problems: list[wt.Problem], tmp_path: Path) -> None:
    wt.run(engine, problems, out=tmp_path / "run", samples=1, strategies=["greedy"], seed=7)
    written = command(wt.Run.open(tmp_path / "run").settings)
    assert written is not None
    assert written.startswith("wrongturn run --model embedded:graph_search --problems 6 --temperature 1.0")
    assert written.endswith("--graphs G20_2,4 --strategy greedy")
    assert "--seed 7" in written


def test_works_inside_a_running_event_loop(problems: list[wt.Problem]) -> None:
    async def notebook() -> list[wt.Trace]:
        return wt.solve(wt.open("embedded"), problems[:1], strategy="greedy")

    assert asyncio.run(notebook())[0].finish in ("stop", "length")


def test_wait_returns_what_the_coroutine_does() -> None:
    async def answer() -> int:
        return 42

    assert wait(answer()) == 42


def test_a_foreign_token_names_the_problem(engine: Engine) -> None:
    odd = wt.Problem("odd", "graph_search", "", (1, 2, 99), None)
    with pytest.raises(WrongturnError, match=r"problem 'odd': .*token id 99 at position 2 is outside the vocabulary"):
        wt.solve(engine, [odd])


def test_a_prompt_longer_than_the_context_names_the_problem(engine: Engine) -> None:
    long = wt.Problem("long", "graph_search", "", (1,) * 400, None)
    with pytest.raises(EngineError, match=r"problem 'long': the prompt has 400 tokens; the context of .* holds 384"):
        wt.solve(engine, [long])


@pytest.mark.parametrize("options", [{"budget": 0}, {"max_tokens": 0}, {"top_k": -1}])
def test_bad_settings(engine: Engine, problems: list[wt.Problem], options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        wt.solve(engine, problems, **options)


def test_grading_happens_after_the_strategy(
    engine: Engine, problems: list[wt.Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the grader is called before a strategy has returned: no oracle can leak into it."""
    asked: list[str] = []
    settled: list[str] = []
    from wrongturn.strategies import Context
    from wrongturn.tasks.graphs import GraphSearch

    real_grade, real_settle = GraphSearch.grade, Context.settle

    def grade(self, problem, answer):
        asked.append(problem.id)
        assert len(settled) >= len(set(asked))
        return real_grade(self, problem, answer)

    def settle(self, chosen):
        settled.append("")
        return real_settle(self, chosen)

    monkeypatch.setattr(GraphSearch, "grade", grade)
    monkeypatch.setattr(Context, "settle", settle)
    wt.solve(engine, problems, strategy="self_consistency:n=3")
    assert len(settled) == len(problems)
    assert pipeline.silent("", 0, 0) is None


# -- going on with a run -----------------------------------------------------------------------------------------------

COIN = {(): {5: 0.5, 6: 0.5}}


@pytest.mark.parametrize("call", [partial(wt.collect, samples=2), partial(wt.run, samples=2, strategies=["greedy"])])
def test_other_problems_do_not_join_a_run(
    call: Callable[..., Any], problems: list[wt.Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "report", lambda *args, **options: {})  # it takes most of the time
    coin, out = Scripted(COIN, 31, context=200), tmp_path / "run"
    call(coin, problems[:3], out=out, max_tokens=5)
    stored = wt.Run.open(out).done()
    with pytest.raises(WrongturnError, match=rf"other problems \({problems[3].id!r} is not among its 3\).*--out"):
        call(coin, problems[3:], out=out, max_tokens=5)  # as many of the same group
    assert list(wt.Run.open(out).problems()) == [p.id for p in problems[:3]]
    assert wt.Run.open(out).done() == stored
    call(coin, problems[2::-1], out=out, max_tokens=5)  # the same in another order, and nobody holds the run
    with pytest.raises(WrongturnError, match="is not the stored one of that id"):
        call(coin, [*problems[:2], replace(problems[2], reference="0")], out=out, max_tokens=5)


def test_a_run_already_mixed_says_so(problems: list[wt.Problem], tmp_path: Path) -> None:
    coin, out = Scripted(COIN, 31, context=200), tmp_path / "run"
    run = wt.collect(coin, problems[:3], out=out, max_tokens=5)
    with wt.Run.create(out, run.settings) as mixed:
        mixed.add_problems(problems)
    with pytest.raises(WrongturnError, match=rf"more problems \({problems[3].id!r} is not among the 3 given\)"):
        wt.collect(coin, problems[:3], out=out, max_tokens=5)


def test_a_run_killed_before_it_had_problems_goes_on(problems: list[wt.Problem], tmp_path: Path) -> None:
    coin, out = Scripted(COIN, 31, context=200), tmp_path / "run"
    settings = pipeline.described(coin, problems, Settings(max_tokens=5), strategy="sample", samples=1)
    wt.Run.create(out, settings).close()
    assert len(wt.collect(coin, problems, out=out, max_tokens=5)) == len(problems)


def test_other_fields_of_requests_do_not_join_a_run(problems: list[wt.Problem], tmp_path: Path) -> None:
    def engine(**extra: Any) -> Engine:
        return wt.open("openai:m", base_url="http://127.0.0.1:1/v1", extra=extra)

    def settings(**extra: Any) -> dict[str, Any]:
        return pipeline.described(engine(**extra), problems, Settings())

    nested = {"chat_template_kwargs": {"enable_thinking": False}, "stop": ("a", "b")}
    for name, extra in (("plain", {}), ("nested", nested)):
        wt.Run.create(tmp_path / name, settings(**extra)).close()
        wt.Run.create(tmp_path / name, settings(**extra)).close()
    assert "extra" not in settings()  # so that runs made before it was recorded go on
    with pytest.raises(WrongturnError, match=r"extra = \(not set\), not .*min_p"):
        wt.Run.create(tmp_path / "plain", settings(min_p=0.3))
    nested["chat_template_kwargs"] = {"enable_thinking": True}
    with pytest.raises(WrongturnError, match=r"extra.chat_template_kwargs.enable_thinking = false, not true"):
        wt.Run.create(tmp_path / "nested", settings(**nested))
    with pytest.raises(WrongturnError, match="extra"):
        wt.Run.create(tmp_path / "nested", settings())
