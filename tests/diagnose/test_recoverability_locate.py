"""Searches on an engine: rollouts are kept, found again, and belong to their parents."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

import wrongturn as wt
from wrongturn.cli import app
from wrongturn.locating import Onsets, locate, planner
from wrongturn.pipeline import wait


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("locate") / "run"
    problems = wt.tasks.graph_search(nodes=20, hops=(5, 6), n=8, seed=5)
    wt.collect(wt.open("embedded"), problems, out=folder, samples=2, top_k=2)
    return folder


def searched(folder: Path, method: str = "bisection", rollouts: int = 12, most: int | None = 2) -> Onsets:
    with wt.Run.create(folder, wt.Run.open(folder).settings) as run:
        return wait(locate(wt.open("embedded"), run, planner(method, rollouts), method=method, most=most))


def test_rollouts_join_the_run_with_their_lineage(folder: Path) -> None:
    found = searched(folder)
    run = wt.Run.open(folder)
    parents = {t.id: t for t in run.traces(strategy="sample")}
    children = list(run.traces(strategy="resample:locate"))
    spent = Counter(child.lineage.parent for child in children if child.lineage)
    assert {row.trace: row.onset.rollouts for row in found.found} == spent
    assert all(1 <= n <= 12 for n in spent.values())
    for child in children:
        assert child.lineage is not None
        parent, at = parents[child.lineage.parent], child.lineage.at
        assert parent.correct is False
        assert child.lineage.reason == "locate"
        assert child.ids[:at].tolist() == parent.ids[:at].tolist()
        assert child.usage.decoded == len(child) - at
    assert sum(child.usage.decoded for child in children) == found.dict()["decoded_tokens"]
    assert len({row.problem for row in found.found}) == 2


def test_what_is_stored_is_not_paid_for_again(folder: Path) -> None:
    first = searched(folder)
    stored = wt.Run.open(folder).done()
    assert searched(folder) == first
    assert wt.Run.open(folder).done() == stored
    searched(folder, "omegaprm")
    assert wt.Run.open(folder).done() >= stored


def test_the_study_of_the_run_does_not_change(folder: Path) -> None:
    before = wt.diagnose(wt.Run.open(folder)).dict()
    searched(folder, rollouts=4, most=3)
    after = wt.diagnose(wt.Run.open(folder)).dict()
    assert after.pop("recovery") in (None, before.pop("recovery"))
    assert json.dumps(after) == json.dumps(before)


def test_the_command_tells_the_same(folder: Path) -> None:
    told = CliRunner().invoke(app, ["locate", str(folder), "--traces", "2", "--rollouts", "12", "--json"])
    facts = json.loads(told.stdout)
    assert facts == json.loads(json.dumps(searched(folder).dict()))
    assert facts["searched"] == 2
    assert facts["failed"] >= 2
    assert sum(facts["status"].values()) == 2
    row = facts["traces"][0]
    assert 0 <= row["true_step"] < row["steps"]
    assert 0 < facts["near"]["base_rate"] < 1
    shown = CliRunner().invoke(app, ["locate", str(folder), "--traces", "2", "--rollouts", "12"])
    assert "2 of" in shown.stdout
    assert "within one step of the true onset" in shown.stdout


def test_another_model_cannot_say_what_a_prefix_is_worth(folder: Path) -> None:
    engine = wt.open("embedded")
    engine.model = "another"
    run = wt.Run.open(folder)
    with pytest.raises(wt.WrongturnError, match="traces are of model 'graph_search', not 'another'"):
        wait(locate(engine, run, planner("bisection")))


def test_nothing_failed(tmp_path: Path) -> None:
    problems = wt.tasks.graph_search(nodes=8, hops=(2, 2), n=1, seed=1)
    wt.collect(wt.open("embedded"), problems, out=tmp_path / "run", strategy="greedy")
    with pytest.raises(wt.WrongturnError, match="none of 0 plain samples failed"):
        searched(tmp_path / "run")


def test_unknown_methods_and_prices() -> None:
    with pytest.raises(ValueError, match="unknown method 'guess'"):
        planner("guess")
    with pytest.raises(ValueError, match="at least 1"):
        planner("curve", 0)
