"""Mathematics graded by Math-Verify in worker processes, and the workers' own conduct."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wrongturn import tasks
from wrongturn.errors import WrongturnError
from wrongturn.tasks import maths, workers
from wrongturn.trace import Problem

PATHOLOGICAL = "9^{9^{9^{9}}}"


@pytest.mark.parametrize(
    ("reference", "answer", "right"), [("42", "42", True), ("1,000", "1000", True), ("7", "8", False)]
)
def test_integers_need_no_worker(reference: str, answer: str, right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maths, "_missing", lambda: None)
    monkeypatch.setattr(workers, "call", lambda *args: pytest.fail("asked a worker"))
    assert maths.grade(reference, answer) is right


@pytest.mark.extras
@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("\\frac{1}{2}", "0.5", True),
        ("\\frac{1}{2}", "\\dfrac12", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("\\{1,2\\}", "\\{2,1\\}", True),
        ("(1,2)", "(2,1)", False),
        ("5", "x=5", True),
        ("\\sqrt{2}", "$\\sqrt{2}$", True),
        ("\\text{odd}", "odd", True),
        ("\\frac{3\\pi}{4}", "\\frac{\\pi}{4}", False),
        ("5", "no idea", False),
        ("3", "A", False),
        ("5", "__import__('os').system('exit')", False),
    ],
)
def test_the_same_mathematics(reference: str, answer: str, right: bool) -> None:
    assert maths.grade(reference, answer) is right


@pytest.mark.extras
def test_a_pathological_answer_costs_itself_alone() -> None:
    assert workers.call("math", "1/2", "0.5", limit=60) is True  # the pool is up
    answers = ["0.5", PATHOLOGICAL, "1/3", "\\frac{2}{4}", PATHOLOGICAL, "50\\%"]
    began = time.monotonic()
    with ThreadPoolExecutor(len(answers)) as threads:
        verdicts = list(threads.map(lambda answer: workers.call("math", "\\frac{1}{2}", answer, limit=3), answers))
    assert verdicts == [True, None, False, True, None, True]
    assert time.monotonic() - began < 30
    task = tasks.get("math")
    assert task.slow
    assert task.grade(Problem("p", "math", "?", reference="12"), PATHOLOGICAL) is None


@pytest.mark.extras
def test_what_a_grader_prints_or_raises_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workers.JOBS, "unknown", ("wrongturn", "x"))
    assert workers.call("unknown", limit=60) is None  # the workers know no such job
    assert workers.call("gym", "no generator", "{}", "x", limit=60) is None
    assert workers.call("math", "1/2", "2/4", limit=60) is True


@pytest.mark.extras
def test_a_killed_helper_is_replaced() -> None:
    assert workers.call("math", "1/2", "0.5", limit=60) is True
    pool = workers._pool()
    os.kill(pool._process.pid, signal.SIGKILL)
    pool._process.wait()
    assert workers.call("math", "1/2", "0.5", limit=60) is True
    assert workers._pool() is not pool


@pytest.mark.extras
def test_a_helper_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pebble.py").write_text("raise ImportError('pebble is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = workers.Pool()
    with pytest.raises(WrongturnError, match="ImportError: pebble is broken"):
        pool.submit("math", ("1", "2"), 60).result(60)
    pool.close()


@pytest.mark.extras
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_workers_end_with_a_script_that_has_no_guard_even_if_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from wrongturn.tasks import maths, workers\n"
        "print('once', maths.grade('1/2', '0.5'), workers._pool()._process.pid, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child, child.stdout as said:
        once, verdict, pid = said.readline().split()
        assert (once, verdict) == ("once", "True")
        members = session(int(pid))
        assert len(members) > 1
        child.kill()
        assert said.read() == ""  # the script was not run again by a worker
    for _ in range(100):
        if not session(int(pid)):
            return
        time.sleep(0.2)
    pytest.fail(f"still there: {session(int(pid))}")


def session(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(leader) and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found
