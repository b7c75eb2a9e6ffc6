"""What ``run``, ``collect`` and ``show`` say when requests fail, in this process, on a scripted engine."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import wrongturn
from wrongturn.cli import app
from wrongturn.engines.scripted import Scripted
from wrongturn.errors import EngineError

SAID = "<m>: this model's maximum context length is 4096 tokens"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The engine that every command opens refuses requests, as long as there is anything in this list."""
    why: list[int] = [1]

    def script(ids: np.ndarray) -> dict[int, float]:
        if why and ids[3] % why[0] == 0:
            raise EngineError(SAID)
        return {5: 0.5, 6: 0.5}

    monkeypatch.setattr(wrongturn, "open", lambda *args, **options: Scripted(script, 31, context=200))
    return why


def call(*args: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, args), "--graphs", "G15_2,4", "-n", "6", "--max-tokens", "5"])


def test_what_fails_is_told(refused: list[int], tmp_path: Path) -> None:
    command = "collect", "--samples", 3, "--out", tmp_path / "run"
    nothing = call(*command)
    assert nothing.exit_code == 2
    assert f"18 failed: refused ({SAID})" in nothing.stdout
    assert "command that made the run tries them again" in nothing.stdout
    nothing = call(*command, "--json")
    facts = json.loads(nothing.stdout)
    assert (nothing.exit_code, facts["traces"]) == (2, 0)
    assert (facts["failed"], facts["why"]) == ({"refused": 18}, {"refused": SAID})

    refused[0] = 2
    some = call(*command, "--json")
    left = json.loads(some.stdout)["failed"]["refused"]
    assert (some.exit_code, 0 < left < 18) == (0, True)
    assert f"{left} failed: refused ({SAID})" in call(*command).stdout

    refused.clear()
    everything = call(*command, "--json")
    assert everything.exit_code == 0
    assert json.loads(everything.stdout).items() >= {"traces": 18, "failed": {}, "why": {}}.items()


def test_a_run_of_failures_is_no_success(refused: list[int], tmp_path: Path) -> None:
    command = "run", "--samples", 2, "--strategy", "greedy", "--out", tmp_path / "run"
    nothing = call(*command)
    assert nothing.exit_code == 2
    assert f"18 failed: refused ({SAID})" in nothing.stdout
    assert "Accuracy" not in nothing.stdout  # no tables of nothing
    refused[0] = 2
    some = call(*command)
    assert some.exit_code == 0
    assert "Accuracy" in some.stdout
    assert f"failed: refused ({SAID})" in some.stdout
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"traces could not be made (refused: {escape(SAID)}). The command that made the run" in page


def test_show_reads_no_more_than_it_lists(refused: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused.clear()
    out = tmp_path / "run"
    call("collect", "--samples", "3", "--out", out)
    read: list[str] = []
    made = wrongturn.Trace.from_record

    def from_record(record: dict[str, Any]) -> wrongturn.Trace:
        read.append(record["id"])
        assert len(record["top_ids"]) == 0
        return made(record)

    monkeypatch.setattr(wrongturn.Trace, "from_record", from_record)
    listed = json.loads(CliRunner().invoke(app, ["show", str(out), "--limit", "4", "--json"]).stdout)
    assert (listed["traces"], len(read)) == (18, 4)
    assert [trace["id"] for trace in listed["shown"]] == read
    everything = json.loads(CliRunner().invoke(app, ["show", str(out), "--json"]).stdout)
    wrong = [trace["id"] for trace in everything["shown"] if trace["correct"] is False]
    failed = json.loads(CliRunner().invoke(app, ["show", str(out), "--failed", "--limit", "2", "--json"]).stdout)
    assert (failed["traces"], [trace["id"] for trace in failed["shown"]]) == (len(wrong), wrong[:2])
    read.clear()
    one = json.loads(CliRunner().invoke(app, ["show", str(out), wrong[-1], "--json"]).stdout)
    assert (one["id"], len(one["ids"]), read) == (wrong[-1], 5, [wrong[-1]])
