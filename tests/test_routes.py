from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import wrongturn as wt
from wrongturn import rescuing, routes
from wrongturn.cli import app
from wrongturn.diagnose.recoverability.outcomes import read_outcomes
from wrongturn.engines.scripted import Scripted
from wrongturn.errors import WrongturnError
from wrongturn.recoverability import Source, recoverability
from wrongturn.routing import Policy, follow
from wrongturn.routing.policy import Trigger
from wrongturn.routing.rules import Fixed, Reference, Threshold
from wrongturn.signals import Signals
from wrongturn.strategies.base import Context
from wrongturn.strategies.named import parse
from wrongturn.strategies.operators import needs_ancestor
from wrongturn.vocabulary import Interned

pytestmark = pytest.mark.extras  # they take their time

OPERATORS = ["retry", "ban", "dense", "greedy"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> wt.Run:
    """A run of the packaged specialist whose failures were rescued."""
    folder = tmp_path_factory.mktemp("rescue") / "run"
    problems = wt.tasks.graph_search(nodes=15, hops=(5, 6), n=40, seed=3)
    engine = wt.open("embedded:sft", ancestor="ancestor")
    kept = wt.collect(engine, problems, out=folder, samples=3, max_tokens=192, sampling=wt.Sampling(0.9), top_k=0)
    wt.pipeline.wait(routes.rescued(engine, kept, OPERATORS, tries=4, blind=True))
    return wt.Run.open(folder)


def test_every_failed_problem_was_tried_and_nothing_else(run: wt.Run) -> None:
    failed = rescuing.failures(run)
    tried = wt.Run.open(run.path / "rescue")
    outcomes = read_outcomes(tried)
    assert set(outcomes.problems) == set(failed) == {t.problem for t in run.traces() if not t.correct}
    assert set(outcomes.operators) == set(OPERATORS)
    tries = dict(zip(outcomes.operators, outcomes.made.sum(axis=2).T.tolist(), strict=True))
    assert set(tries["greedy"]) == {1}
    assert set(tries["retry"]) == {6}  # as often as it takes to spend the budget, two retries, three times
    assert set(tries["ban"]) == {20}  # five times as often as asked, being cheap
    assert [t for t in run.traces() if t.strategy != "sample"] == []
    for trace in tried.traces(strategy="rescue:ban"):
        assert trace.lineage is not None
        assert trace.lineage.parent in {t.id for t in failed[trace.problem]}
        assert trace.usage.decoded == len(trace) - trace.lineage.at  # what is reused of the failed trace is free


def test_the_same_call_makes_nothing_new_and_more_tries_go_on(run: wt.Run) -> None:
    engine = wt.open("embedded:sft", ancestor="ancestor")
    before = len(wt.Run.open(run.path / "rescue"))
    again = wt.pipeline.wait(routes.rescued(engine, run, OPERATORS, tries=4))
    assert len(wt.Run.open(run.path / "rescue")) == before
    assert again.dict() == routes.compared(run).dict()
    with pytest.raises(WrongturnError, match="ancestor"):
        wt.pipeline.wait(routes.rescued(wt.open("embedded:sft"), run, OPERATORS, tries=4))
    with pytest.raises(WrongturnError, match="only the model that wrote them can be rescued"):
        wt.pipeline.wait(routes.rescued(wt.open("embedded:grpo"), run, OPERATORS, tries=4))


def test_without_a_grader_operators_are_shown_what_disagrees(run: wt.Run) -> None:
    samples: dict[str, list[wt.Trace]] = {}
    for trace in run.traces():
        samples.setdefault(trace.problem, []).append(trace)
    flagged = {name for name, traces in samples.items() if len({trace.answer for trace in traces}) > 1}
    tried = wt.Run.open(run.path / "blind")
    assert flagged == set(tried.problems()) == {trace.problem for trace in tried.traces()}
    parents = {t.lineage.parent for t in tried.traces(strategy="rescue:ban") if t.lineage is not None}
    graded = {trace.id: trace.correct for trace in run.traces()}
    assert {graded[parent] for parent in parents} == {True, False}  # nobody said which are wrong


def test_what_a_strategy_measures_is_what_the_policy_was_fitted_on(run: wt.Run) -> None:
    engine = wt.open("embedded:sft", ancestor="ancestor")
    known = wt.pipeline.wait(recoverability([Source(run, engine, engine.ancestor)])).features
    task, failed = wt.tasks.get("graph_search"), rescuing.failures(run)

    async def online(name: str) -> dict[str, float]:
        ctx = Context(engine, task.on(engine.vocabulary), failed[name][0].prompt_ids)
        for trace in failed[name]:
            ctx.recall(wt.engines.Chunk(trace.ids, trace.signals, trace.top_ids, trace.top_logprobs), trace.id)
        return await follow.measure(ctx, ctx.earlier, routes.TWO_MODEL, 0.9)  # where the run decoded, unlike here

    for row, name in enumerate(known.problems[:8]):
        found = wt.pipeline.wait(online(name))
        stored = {key: known.values[row, known.names.index(key)] for key in routes.TWO_MODEL}
        assert found == pytest.approx(stored, rel=1e-5, abs=1e-6, nan_ok=True)


def test_a_policy_treats_only_what_disagrees_within_its_budget(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    Policy(Fixed(Reference(), ("ban", "retry")), 120.0, trigger=Trigger(3, 0.99)).save(file)
    engine = wt.open("embedded:sft")
    problems = wt.tasks.graph_search(nodes=15, hops=(5, 6), n=12, seed=3)
    options = {"max_tokens": 192, "sampling": wt.Sampling(0.9)}
    followed = wt.solve(engine, problems, strategy=follow.spec(str(file)), **options)
    voted = wt.solve(engine, problems, strategy="self_consistency:n=3", **options)
    treated = [bool(t.events) for t in followed]
    assert any(treated)
    assert not all(treated)
    for was, one, other in zip(treated, followed, voted, strict=True):
        if was:
            assert one.events[0]["operators"] == ["ban", "retry"]
            assert one.events[0]["agreement"] < 0.99
            assert one.usage.decoded <= other.usage.decoded + 600  # three samples of other seeds, and 120
    with pytest.raises(WrongturnError, match="is not the policy 00000000"):
        wt.solve(engine, problems[:1], strategy=f"policy:file={file},id=00000000")
    with pytest.raises(WrongturnError, match="needs a file"):
        wt.solve(engine, problems[:1], strategy="policy")


def test_the_budget_of_a_policy_is_spent_in_the_mean(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    engine = wt.open("embedded:sft")
    problems = wt.tasks.graph_search(nodes=15, hops=(5, 6), n=40, seed=3)
    options = {"max_tokens": 192, "sampling": wt.Sampling(0.9)}
    once = np.mean([trace.usage.decoded for trace in wt.solve(engine, problems, strategy="sample", **options)])
    Policy(Fixed(Reference(), ("retry",)), 1.5 * once, costs={"retry": float(once)}).save(file)
    spent = [trace.usage.decoded for trace in wt.solve(engine, problems, strategy=follow.spec(str(file)), **options)]
    assert np.mean(spent) == pytest.approx(2.5 * once, rel=0.1)  # one sample, and its budget


def test_a_policy_goes_by_failures_that_are_known(run: wt.Run, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    Policy(Fixed(Reference(), ("ban",)), 60.0, trigger=Trigger(3, 0.99), costs={"ban": 20.0}).save(file)
    engine = wt.open("embedded:sft")
    with wt.Run.create(tmp_path / "rescue", rescuing.described(engine, run)) as out:
        wt.pipeline.wait(rescuing.rescue(engine, run, out, [follow.spec(str(file))], tries=1, most=6))
    made = list(out.traces())
    assert {t.problem for t in made} == set(list(rescuing.failures(run))[:6])
    assert all(t.lineage is not None and t.lineage.reason == "ban" for t in made)  # no sample was drawn first
    per_problem = [sum(t.usage.decoded for t in made if t.problem == name) for name in {t.problem for t in made}]
    assert 20 < np.mean(per_problem) < 120


def test_a_policy_for_signals_that_are_not_told_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    rule = Threshold(Reference(("entropy",), (0.1,), (0.1,)), 0.0, ("retry",), ("greedy",))
    Policy(rule, 100.0).save(file)
    task = wt.tasks.get("graph_search")
    ctx = Context(Untold(lambda prefix: np.zeros(31), 31), task, [1], max_tokens=3)
    with pytest.raises(WrongturnError, match="needs entropy, not known here"):
        wt.pipeline.wait(follow.policy(ctx, file=str(file)))


class Untold(Scripted):
    """It tells no probabilities."""

    async def stream(self, request: wt.engines.Request) -> AsyncGenerator[wt.engines.Chunk, None]:
        async for chunk in super().stream(request):
            chunk.signals = Signals.empty(len(chunk.ids))
            yield chunk


def test_what_is_tried_is_what_the_engine_can_do() -> None:
    pair, alone = wt.open("embedded:sft", ancestor="ancestor"), wt.open("embedded:sft")
    assert {"ban", "rewind", "steer"} <= set(rescuing.operators(pair))
    assert "switch" not in rescuing.operators(pair)  # it has no words
    assert not any(needs_ancestor(parse(name)) for name in rescuing.operators(alone))
    for change, gone in (
        ({"edits": False}, "ban"),
        ({"logprobs": "none"}, "rewind"),
        ({"prefix": False}, "rewind:where=random"),
    ):
        alone.capabilities = replace(alone.capabilities, **change)
        assert gone not in rescuing.operators(alone)
    assert rescuing.operators(alone) == ("retry", "greedy", "retry:temperature=1.5")
    alone.capabilities, alone.vocabulary = pair.capabilities, Interned()
    assert "switch" in rescuing.operators(alone)


def test_commands(run: wt.Run, tmp_path: Path) -> None:
    def call(*words: str) -> str:
        done = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    asked = [word for name in OPERATORS for word in ("--operator", name)]
    plot = tmp_path / "picture.svg"
    words = ["rescue", str(run.path), "--ancestor", "ancestor", *asked, "--tries", "4", "--json", "--plot", str(plot)]
    facts = json.loads(call(*words))
    rows = {row["router"]: row for row in facts["comparison"]}
    assert facts["failures"] == len(rescuing.failures(run))
    assert rows.keys() >= {"retry", "router", "best fixed", "random", "threshold", "logistic", "bandit", "oracle"}
    assert all(row["decoded_tokens"] <= facts["budget"] for row in rows.values())
    assert {"rescued", "low", "high", "minus_retry", "minus_best_fixed"} <= rows["router"].keys()
    assert [arm["arm"] for arm in facts["without_grader"]["arms"]][-1] == "failures known"
    assert plot.read_text().startswith("<svg")
    assert (tmp_path / "picture-matrix.svg").read_text().count("<rect") > 10
    file = tmp_path / "policy.json"
    told = json.loads(call("route", "fit", str(run.path), "-o", str(file), "--plain", "--json"))
    assert told["signals"] == "plain"
    assert not {"dense"} & set(told["operators"])
    assert Policy.load(file).to_json() == Policy.of(told).to_json()
    assert next(iter(told["operators"])) in call("route", "show", str(file))
    made = call("collect", "--model", "embedded:sft", "--graphs", "G15_5,6", "-n", "3", "--policy", str(file), "-o",
                str(tmp_path / "q"), "--json")  # fmt: skip
    assert json.loads(made)["traces"] >= 3


def test_bad_input_is_one_line(run: wt.Run, tmp_path: Path) -> None:
    easy = wt.tasks.graph_search(nodes=15, hops=(2, 2), n=2, seed=0)
    engine = wt.open("embedded")
    right = wt.collect(engine, easy, out=tmp_path / "right", max_tokens=192, sampling=wt.Sampling(0.0))
    with pytest.raises(WrongturnError, match="nothing to rescue"):
        wt.pipeline.wait(routes.rescued(engine, right))
    with pytest.raises(WrongturnError, match=r"no tries in blind/ yet \(wrongturn rescue .* --blind makes them\)"):
        routes.fit(right)
    with pytest.raises(WrongturnError, match="no tries in rescue/ yet"):
        routes.fit(right, graded=True)
    with pytest.raises(ValueError, match="unknown strategy 'prayer'"):
        wt.pipeline.wait(routes.rescued(wt.open("embedded:sft", ancestor="ancestor"), run, ["prayer"]))
    assert np.isfinite(routes.two_retries(read_outcomes(wt.Run.open(run.path / "rescue"))))
