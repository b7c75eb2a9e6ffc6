"""What is printed for people: terminals are given text, never commands, and a comparison says what it leaves out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from made_traces import made
from wrongturn import cli, cli_common, cli_show, cli_triage
from wrongturn.errors import WrongturnError
from wrongturn.stats import Estimate
from wrongturn.store import Run
from wrongturn.trace import Problem

OWNED = "\x1b]0;owned\x07\x9b2J\r\x7f"
SEEN = "␛]0;owned␇␛[2J␍␡"


def harmless(printed: str) -> bool:
    return not [c for c in printed if c not in "\n\t" and (c < " " or "\x7f" <= c < "\xa0")]


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "base_rate": None, "n": 9}


def summary(rows: list[dict[str, Any]], group: str = "g") -> dict[str, Any]:
    onset = dict.fromkeys(("median", "share_30", "null_30"))
    found = {"accuracy": {group: estimate(0.5)}, "outcomes": {group: {"truncated": 2}}, "claims": [], "onset": onset}
    return found | {"comparison": rows, "traces": 3, "problems": 2, "report": f"{group}/report.html", "failed": {}}


def row(strategy: str, **more: Any) -> dict[str, Any]:
    known = {"strategy": strategy, "accuracy": estimate(0.5), "decoded_tokens": 10.0, "ungraded": 0}
    return known | {"difference": None, "equal_tokens": None, "beyond_votes": None} | more


def test_strings_and_cells_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    listed = cli_common.table(OWNED, "trace", OWNED)
    listed.add_row("1", OWNED)
    cli_common.out.print(listed)
    cli_common.out.print(f"a\tb {OWNED}")
    cli_common.warn(OWNED)
    cli_show.print_summary(summary([row(OWNED)], OWNED))
    printed = capsys.readouterr()
    assert harmless(printed.out)
    assert harmless(printed.err)
    assert printed.out.count("owned␇") >= 6
    assert SEEN in printed.err


def test_commands_show_what_a_trace_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.create(tmp_path / "run", {}) as run:
        run.append([made(1, 2, text=OWNED * 2, offsets=np.array([1, 2]) * len(OWNED), answer=OWNED, error=OWNED)])
        run.add_problems([Problem("p0", "graph", OWNED)])
    cli_show.show(run.path, limit=1)
    cli_show.show(run.path, "p0/sample/1")
    printed = capsys.readouterr().out
    assert harmless(printed)
    assert printed.count("owned␇") == 6  # of the list answer and error, then the prompt, the error and two tokens


def test_an_error_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise WrongturnError(f"the server says {OWNED}")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert f"the server says {SEEN}" in capsys.readouterr().err


def test_every_command_prints_through_the_same_console() -> None:
    modules = [module for name, module in sys.modules.items() if name.startswith("wrongturn.cli")]
    assert len(modules) > 10
    assert not [m.__name__ for m in modules if any(type(value) is Console for value in vars(m).values())]


def test_intervals_have_plain_brackets() -> None:
    assert cli_triage.number(Estimate(0.5, 0.4, 0.6, 9)) == "0.500 [0.400, 0.600]"


def test_a_comparison_says_what_it_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    cli_show.print_summary(summary([row("sample", ungraded=30), row("guard", beyond_votes=200.0, ungraded=30)]))
    printed = " ".join(capsys.readouterr().out.split())
    assert "problems left out, as not every answer to them is graded: 30" in printed
    assert "beyond: more than the 200 tokens of the largest vote" in printed
    cli_show.print_summary(summary([row("sample"), row("guard", equal_tokens=estimate(0.1))]))
    printed = capsys.readouterr().out
    assert "left out" not in printed
    assert "beyond" not in printed
    cli_show.print_summary(summary([]))
    assert "Strategies are not compared: they share no graded problem" in capsys.readouterr().out
