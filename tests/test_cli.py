"""The command line as a user meets it: real processes, real engine, exit codes, one line for bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SMALL = ["--graphs", "G15_2,4", "--graphs", "G20_2,4", "-n", "6", "--samples", "2"]


def wrongturn(*args: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        [sys.executable, "-m", "wrongturn", *map(str, args)], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == code, found.stderr
    return found


def refused(*args: str | Path) -> str:
    """The one line a bad call prints; exit code 2, no traceback, nothing on stdout."""
    found = wrongturn(*args, code=2)
    assert found.stdout == ""
    assert "Traceback" not in found.stderr
    return found.stderr.strip()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run") / "first"
    summary = json.loads(wrongturn("run", "--json", "--out", folder, *SMALL).stdout)
    return folder, summary


def test_run_prints_one_object(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    keys = {"traces", "problems", "accuracy", "outcomes", "onset", "claims", "comparison", "seconds", "report"}
    assert set(summary) == keys | {"failed", "why"}
    assert summary["problems"] == 12
    assert summary["accuracy"]["G15_2,4"]["n"] == 6
    assert {row["strategy"] for row in summary["comparison"]} >= {"sample", "guard", "self_consistency:n=8"}
    assert {"name", "verdict", "estimate", "n"} <= set(summary["claims"][0])
    assert Path(summary["report"]).is_file()
    assert (folder / "run.json").is_file()


def test_same_command_again_adds_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    parts = sorted((folder / "traces").iterdir())
    again = json.loads(wrongturn("run", "--json", "--out", folder, *SMALL).stdout)
    assert sorted((folder / "traces").iterdir()) == parts
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in summary.items() if k != "seconds"}


def test_same_seed_same_result(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, summary = finished
    other = json.loads(wrongturn("run", "--json", "--out", tmp_path / "second", *SMALL).stdout)
    for key in ("traces", "accuracy", "onset", "claims", "comparison"):
        assert other[key] == summary[key], key


@pytest.mark.extras
def test_killed_run_ends_as_if_nothing_had_happened(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, summary = finished
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "wrongturn", "run", "--json", "--out", str(folder), *SMALL]
    for pause in (0.0, 0.3, 0.8):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, deadline = len(list(folder.glob("traces/part-*"))), time.monotonic() + 60
        while len(list(folder.glob("traces/part-*"))) == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(pause)
        process.kill()
        process.wait()
    resumed = json.loads(wrongturn("run", "--json", "--out", folder, *SMALL).stdout)
    for key in ("traces", "accuracy", "onset", "claims", "comparison"):
        assert resumed[key] == summary[key], key


def test_changed_setting_is_refused_by_name(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    line = refused("run", "--out", folder, *SMALL, "--temperature", "0.5")
    assert "temperature" in line
    assert "--out" in line


def test_people_get_tables(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    assert "guard" in wrongturn("report", folder).stdout
    assert "G15_2,4" in wrongturn("diagnose", folder).stdout


def test_diagnose_as_json(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    study = json.loads(wrongturn("diagnose", folder, "--json").stdout)
    assert study["accuracy"] == summary["accuracy"]


def test_show(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    listed = json.loads(wrongturn("show", folder, "--json", "--limit", "3").stdout)
    assert len(listed["shown"]) == 3
    name = listed["shown"][0]["id"]
    one = json.loads(wrongturn("show", folder, name, "--json").stdout)
    assert len(one["entropy"]) == one["tokens"]
    assert one["text"].startswith("<")
    assert wrongturn("show", folder, name).stdout
    assert "no trace 'nonsense'" in refused("show", folder, "nonsense")


def test_collect(tmp_path: Path) -> None:
    out = tmp_path / "c"
    facts = json.loads(
        wrongturn("collect", "--json", "--out", out, "--graphs", "G15_2,4", "-n", "4", "--samples", "2").stdout
    )
    assert facts.pop("seconds") > 0
    assert facts.pop("tokens") > 8 * 20
    assert facts == {"run": str(out), "traces": 8, "problems": 4, "failed": {}, "why": {}}


def test_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "wrongturn", "run", "--json", "--out", str(folder), "-n", "200", "--samples", "8"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob("traces/part-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "wrongturn run" in err
    assert "Traceback" not in err
    import wrongturn as wt

    assert wt.Run.open(folder).done()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "--graphs", "G15"], "not a graph distribution: 'G15'"),
        (["run", "--graphs", "G30_2,4"], "nodes must be between 2 and 20"),
        (["run", "--strategy", "magic"], "unknown strategy 'magic'"),
        (["run", "--strategy", "guard:z=1"], "has no option 'z=1'"),
        (["run", "--strategy", "guard:compat=mine"], "mine is not one of paper, repo"),
        (["run", "--strategy", "self_consistency:n=0"], "0 is not at least 1"),
        (["run", "--strategy", "guard:q=high"], "'high' is no float"),
        (["run", "--strategy", "guard:q=7"], "7 is not between 0 and 1"),
        (["run", "--model", "magic"], "unknown engine 'magic'"),
        (["run", "--model", "embedded:nowhere"], "nowhere"),
        (["run", "--temperature", "-1"], "temperature"),
        (["run", "-n", "0"], "--problems"),
        (["run", "--budget", "0"], "--budget"),
        (["run", "--max-tokens", "0"], "--max-tokens"),
        (["report", "nowhere"], "nowhere"),
        (["diagnose", "nowhere"], "nowhere"),
        (["show", "nowhere"], "nowhere"),
        (["lab", "train", "chess", "--out", "x"], "unknown task 'chess'"),
        (["lab", "train", "graph_search", "--out", "x", "--width", "100"], "multiple of 16"),
        (["lab", "train", "graph_search", "--out", "x", "--tokens", "many"], "'many' is no number"),
    ],
)
def test_bad_input(args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if args[0] == "run":
        args = [*args, "--out", "out"]
    assert says in refused(*args)
    assert not list(tmp_path.glob("out/traces/*"))


def test_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert str(tmp_path) in refused("run", "--out", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_version_and_help() -> None:
    import wrongturn as wt

    assert wrongturn("--version").stdout.strip() == wt.__version__
    shown = wrongturn("--help").stdout
    assert all(name in shown for name in ("run", "collect", "diagnose", "report", "show", "lab"))
    assert "--install-completion" in shown


def test_a_seed_is_no_negative_number() -> None:
    assert "Invalid value for '--seed'" in wrongturn("run", "--seed", "-1", code=2).stderr
