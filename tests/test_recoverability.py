"""A run's failures from its traces to the command line, on scripted models whose every distribution is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import wrongturn as wt
from made_traces import made
from wrongturn.cli_recoverability import recoverability as command
from wrongturn.diagnose.recoverability import regimes
from wrongturn.diagnose.recoverability.features import of_trace
from wrongturn.divergence import from_logits
from wrongturn.engines.scripted import Scripted
from wrongturn.errors import WrongturnError
from wrongturn.pipeline import wait
from wrongturn.recoverability import Source, recoverability
from wrongturn.trace import Lineage, Trace

V, TOKENS = 25, 16
OURS, THEIRS = np.random.default_rng(0).normal(size=(2, V, V)) * 2
SETTINGS: dict[str, Any] = {"engine": "scripted", "model": "script"}


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, n in (("_BOOTSTRAPS", 5), ("_HALVES", 2), ("_CLOUDS", 5), ("_PERMUTATIONS", 19)):
        monkeypatch.setattr(regimes, name, n)


def engine() -> Scripted:
    """Both models look at the last token alone."""
    return Scripted(lambda ids: OURS[ids[-1]], V, ancestor=lambda ids: THEIRS[ids[-1]])


def trace(i: int, *, stored: int = V, **changed: Any) -> Trace:
    """Failed sample ``i``, two of each problem."""
    rng = np.random.default_rng(i)
    ids = rng.integers(0, V, TOKENS, dtype=np.int32)
    logits = OURS[np.append(1, ids[:-1])]
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    top = np.argsort(-logs, axis=1)[:, :stored].astype(np.int32)
    found = made(
        0, TOKENS, id=f"p{i // 2}/sample/{i % 2}", problem=f"p{i // 2}", task="", sample=i % 2,
        prompt_ids=np.array([1], np.int32), ids=ids, answer=str(i % 3), correct=False,
        top_ids=top, top_logprobs=np.take_along_axis(logs, top, axis=1).astype(np.float32),
    )  # fmt: skip
    found.signals.entropy[:] = rng.random(TOKENS)
    found.signals.nll[:] = -logs[np.arange(TOKENS), ids]
    for name, value in changed.items():
        setattr(found, name, value)
    found.group = f"G{int(found.problem[1:]) % 2}"
    return found


def run(folder: Path, traces: list[Trace], **changed: Any) -> wt.Run:
    with wt.Run.create(folder, SETTINGS | changed) as made_run:
        made_run.add_problems(wt.Problem(t.problem, "", "", group=t.group) for t in traces[::2])
        made_run.append(traces)
    return wt.Run.open(folder)


def told(*sources: Source) -> dict[str, Any]:
    return wait(recoverability(sources)).dict()


def scored(folder: Path, traces: list[Trace], **changed: Any) -> dict[str, Any]:
    pair = engine()
    return told(Source(run(folder, traces, **changed), pair, pair.ancestor))


def test_features_are_those_of_the_two_distributions(tmp_path: Path) -> None:
    traces = [trace(i) for i in range(20)]
    found = scored(tmp_path / "run", [*traces, trace(90, correct=True)])
    assert [row["id"] for row in found["problems"]] == [f"p{i}" for i in range(10)]
    exact = []
    for t in traces[:2]:
        before = np.append(1, t.ids[:-1])
        exact.append(of_trace(from_logits(OURS[before], THEIRS[before], t.ids)))
    first = found["problems"][0]
    assert first["failed"] == 2
    for name in ("spread", "concentration", "dispersion", "junction"):
        assert first["features"][name] == pytest.approx(np.mean([e[name] for e in exact]), rel=1e-4), name
    assert found["regimes"]["k"] is not None
    assert found["regimes"]["split_problems"] == 10
    assert {row["regime"] for row in found["problems"]} == set(range(found["regimes"]["k"]))
    assert found["runs"][0]["told_from"] == "whole distributions"
    assert found["labels"] == []
    assert "wrongturn rescue" in found["untold"]


def test_stored_alternatives_do_without_the_model(tmp_path: Path) -> None:
    exact = scored(tmp_path / "run", [trace(i) for i in range(8)])
    again = told(Source(wt.Run.open(tmp_path / "run"), None, engine().ancestor))
    for mine, theirs in zip(again["problems"], exact["problems"], strict=True):
        for name, value in theirs["features"].items():
            assert mine["features"][name] == (None if value is None else pytest.approx(value, rel=1e-3)), name
    assert again["runs"][0]["told_from"] == f"the {V} alternatives stored with each token"
    few = run(tmp_path / "few", [trace(i, stored=5) for i in range(4)])
    with pytest.raises(WrongturnError, match="5 alternatives a token, and 20 are needed: give --model"):
        told(Source(few, None, engine().ancestor))


def test_without_an_ancestor_there_are_the_other_features(tmp_path: Path) -> None:
    found = told(Source(run(tmp_path / "run", [trace(i) for i in range(20)])))
    assert found["reasons"]["spread"] == "no ancestor was given"
    known = found["problems"][0]["features"]
    assert known["spread"] is None
    assert known["entropy_spread"] is not None
    assert known["answer_entropy"] is not None
    assert found["regimes"]["names"] == ["entropy_spread", "entropy_concentration", "entropy"]
    assert found["regimes"]["k"] is not None


def test_one_failed_problem(tmp_path: Path) -> None:
    found = scored(tmp_path / "run", [trace(0)])
    assert found["regimes"]["k"] is None
    assert "1 problems" in found["regimes"]["reason"]
    assert found["problems"][0]["features"]["answer_entropy"] is None
    assert "two failed traces" in found["reasons"]["answer_entropy"]
    assert found["correlation_with_length"]["spread"]["value"] is None


def test_continuations_tell_where_a_trace_was_lost(tmp_path: Path) -> None:
    parent = trace(0, text="a" * TOKENS)
    continued = [
        trace(50 + 10 * at + k, id=f"c{at}/{k}", problem="p0", sample=k, strategy="resample:locate", correct=at < 8,
              lineage=Lineage(parent.id, at, "locate"))
        for at in (0, 4, 8) for k in range(4)
    ]  # fmt: skip
    found = told(Source(run(tmp_path / "run", [parent, trace(1), *continued])))
    assert "spread_bb" in found["problems"][0]["features"]
    assert found["problems"][0]["failed"] == 2


def test_labels_come_from_tries(tmp_path: Path) -> None:
    source = run(tmp_path / "run", [trace(i) for i in range(4)])
    tries = [
        trace(100 + k, id=f"{problem}/rescue:{name}/{k}", problem=problem, strategy=f"rescue:{name}", sample=k,
              correct=name == "dense" and problem == "p0")
        for problem in ("p0", "p1") for name in ("retry", "dense") for k in range(24)
    ]  # fmt: skip
    run(tmp_path / "run" / "rescue", tries)
    found = told(Source(source))
    assert {row["problem"]: (row["label"], row["operator"]) for row in found["labels"]} == {
        "p0": ("steerable", "dense"),
        "p1": ("beyond reach", None),
    }
    assert found["labels"][0]["cells"][0]["operator"] == "retry"
    assert found["called"]["split"]["value"] == 0.5
    assert set(found["null_rates"]) == {"split", "naive"}


def test_greedy_tries_do_not_spoil_the_labels(tmp_path: Path) -> None:
    source = run(tmp_path / "run", [trace(i) for i in range(4)])
    often = {"retry": 12, "ban": 12, "greedy": 1, "dense:temperature=0": 1}
    tries = [
        trace(100 + k, id=f"{problem}/rescue:{name}/{k}", problem=problem, strategy=f"rescue:{name}", sample=k,
              correct=name == "greedy" and problem == "p0")
        for problem in ("p0", "p1") for name, n in often.items() for k in range(n)
    ]  # fmt: skip
    run(tmp_path / "run" / "rescue", tries)
    found = {row["problem"]: row for row in told(Source(source))["labels"]}
    assert found["p1"]["label"] == "beyond reach"
    assert (found["p0"]["label"], found["p0"]["reason"][:16]) == ("cannot be told", "greedy succeeded")


def test_a_problem_that_two_models_failed_counts_once_in_intervals(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, [trace(i) for i in range(16)])
        tries = [
            trace(100 + k, id=f"p{i}/rescue:{operator}/{k}", problem=f"p{i}", strategy=f"rescue:{operator}", sample=k,
                  correct=operator == "dense" and i < 4)
            for i in range(8) for operator in ("retry", "dense") for k in range(24)
        ]  # fmt: skip
        run(tmp_path / name / "rescue", tries)
    one, both = (told(*(Source(wt.Run.open(tmp_path / name)) for name in names))["called"] for names in ("a", "ab"))
    assert both["split"] == one["split"]
    assert (both["split"]["value"], both["split"]["n"]) == (0.5, 8)


def test_models_are_compared_where_they_decode(tmp_path: Path) -> None:
    traces = [trace(i) for i in range(4)]
    facts = {}
    for at in (0.6, 0.0):
        facts[at] = scored(tmp_path / f"{at}", traces, sampling={"temperature": at, "top_p": 1.0})
    assert [facts[at]["runs"][0]["temperature"] for at in facts] == [0.6, 1.0]
    before = [np.append(1, t.ids[:-1]) for t in traces[:2]]
    for at, temperature in ((0.6, 0.6), (0.0, 1.0)):
        exact = [
            of_trace(from_logits(OURS[b], THEIRS[b], t.ids, temperature=temperature))
            for b, t in zip(before, traces, strict=False)
        ]
        for name in ("spread", "concentration", "dispersion"):
            mine = facts[at]["problems"][0]["features"][name]
            assert mine == pytest.approx(np.mean([e[name] for e in exact]), rel=1e-4), (at, name)
    pair = engine()
    asked = Source(wt.Run.open(tmp_path / "0.6"), pair, pair.ancestor)
    again = wait(recoverability([asked], temperature=1.0)).dict()["problems"]
    assert [row["features"] for row in again] == [row["features"] for row in facts[0.0]["problems"]]


def test_several_runs_tell_their_methods(tmp_path: Path) -> None:
    pair = engine()
    runs = [run(tmp_path / name, [trace(i) for i in range(n)]) for name, n in (("a", 20), ("b", 12))]
    found = told(*(Source(r, pair, pair.ancestor) for r in runs))
    assert [row["run"] for row in found["problems"]] == ["a"] * 10 + ["b"] * 6
    assert "all runs are of one method, script" in found["topography"]["reason"]


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongturnError, match="none of 1 plain samples failed"):
        scored(tmp_path / "right", [trace(0, correct=True)])
    with pytest.raises(WrongturnError, match="only the model that wrote them can be compared"):
        scored(tmp_path / "other", [trace(0)], model="another")


def test_command(tmp_path: Path) -> None:
    """On the packaged models."""
    app = typer.Typer()
    app.command()(command)
    folder = tmp_path / "run"
    problems = wt.tasks.graph_search(nodes=20, hops=(5, 6), n=4, seed=1)
    wt.collect(wt.open("embedded:sft"), problems, out=folder, samples=2, top_k=2)
    picture = tmp_path / "a.svg"
    shown = CliRunner().invoke(app, [str(folder), "--ancestor", "ancestor", "--json", "--plot", str(picture)])
    assert shown.exit_code == 0, shown.output
    facts = json.loads(shown.stdout)
    assert facts["runs"][0]["ancestor"]["model"] == "ancestor"
    assert all(0 < row["features"]["spread"] <= 1 for row in facts["problems"])
    assert picture.read_text().count("<circle") == len(facts["problems"])
    plain = CliRunner().invoke(app, [str(folder)])
    assert plain.exit_code == 0, plain.output
    assert "Features of failed problems" in plain.stdout
    for options in (["--plot", "a.png"], ["--temperature", "0"], ["--model", "embedded"]):
        refused = CliRunner().invoke(app, [str(folder), *options])
        assert isinstance(refused.exception, WrongturnError), options
