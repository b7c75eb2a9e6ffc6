"""Routers and policies from tries that are on disk: no model is asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from made_traces import made
from wrongturn import cli_rescue, routes
from wrongturn.cli import app
from wrongturn.divergence import Divergence
from wrongturn.engines.scripted import Scripted
from wrongturn.pipeline import wait
from wrongturn.routing import Policy, follow
from wrongturn.routing.rules import Reference, Threshold
from wrongturn.store import Run
from wrongturn.strategies.base import Context, Draft
from wrongturn.tasks import get
from wrongturn.trace import Usage

PROBLEMS, TRIES = 24, 4


def tries(folder: Path, strategies: list[str], problems: int, **settings: object) -> Run:
    rng = np.random.default_rng(0)
    with Run.create(folder, {"engine": "scripted", "model": "script", "ancestor": None, **settings}) as run:
        run.append([
            made(1, 2, id=f"p{i:02}/{name}/{k}", problem=f"p{i:02}", group="G", strategy=name, sample=k,
                 answer=str(k % 2), correct=bool(rng.random() < 0.5), usage=Usage(kept=10), lineage=None)
            for i in range(problems) for name in strategies for k in range(TRIES)
        ])  # fmt: skip
    return run


def told(folder: Path, problems: int, **more: float) -> None:
    rows = np.random.default_rng(1).random((problems, 2)).tolist()
    names = [f"p{i:02}" for i in range(problems)]
    facts = {"problems": names, "names": ["entropy", "spread"], "values": rows} | more
    (folder / "features.json").write_text(json.dumps(facts))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Failures that were tried, enough of them; and three that were tried blind, too few for anything."""
    made_run = tries(tmp_path / "run", ["sample"], PROBLEMS)
    for name, n in (("rescue", PROBLEMS), ("blind", 3)):
        tries(tmp_path / "run" / name, ["rescue:retry", "rescue:ban"], n)
        told(tmp_path / "run" / name, n)
    return made_run


def test_too_few_blind_tries_leave_the_comparison(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = routes.compared(run, seed=1)
    assert found.comparison is not None
    assert found.deployment is None
    assert found.reason.startswith(f"{run.path / 'blind'}: 3 of 3 problems have two tries or more")
    facts = found.dict()
    assert facts["without_grader"] is None
    cli_rescue.print_rescue(facts)
    shown = capsys.readouterr()
    assert "Routers, rescued %" in shown.out
    assert "nobody grades" in shown.out + shown.err
    assert "no routers" not in shown.out + shown.err


def test_a_policy_says_at_which_temperature_its_features_are_taken(run: Run, tmp_path: Path) -> None:
    assert routes.fit(run, graded=True).temperature == 1.0  # as it once was, and was not told
    told(run.path / "rescue", PROBLEMS, temperature=0.6)
    file = tmp_path / "policy.json"
    fitted = routes.fit(run, graded=True)
    fitted.save(file)
    assert json.loads(file.read_text())["temperature"] == 0.6
    assert Policy.load(file) == fitted
    shown = CliRunner().invoke(app, ["route", "show", str(file)], catch_exceptions=False).stdout
    assert ("at temperature 0.6" in shown) == (fitted.signals == "two-model")


def test_a_policy_is_played_at_its_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    async def score(ctx: Context, draft: Draft, temperature: float | None = None) -> Divergence:
        asked.append(temperature)
        return Divergence(*np.ones((5, len(draft)), np.float32))

    monkeypatch.setattr(Context, "score", score)
    file = tmp_path / "policy.json"
    rule = Threshold(Reference(("spread",), (0.5,), (0.1,)), 0.0, ("retry",), ("greedy",))
    Policy(rule, 10.0, "two-model", temperature=0.7, costs={"greedy": 20.0}).save(file)
    ctx = Context(Scripted(lambda ids: np.zeros(31), 31), get("graph_search"), [1], max_tokens=3)
    wait(follow.policy(ctx, file=str(file)))
    assert asked == [0.7]
