"""Programs judged by tests: what passes, what is stopped, and what a program may not do."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from wrongturn.errors import WrongturnError
from wrongturn.tasks import code

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
TIGHT = code.Limits(seconds=1.0, memory=512 << 20, output=1 << 20)


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code.PERMISSION, "1")


def reference(tests: list[tuple[Any, Any]], function: str | None = None) -> str:
    return json.dumps({"function": function, "tests": [{"input": i, "output": o} for i, o in tests]})


def test_off_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(code.PERMISSION)
    with pytest.raises(WrongturnError, match="allow it with --allow-code or WRONGTURN_ALLOW_CODE=1"):
        code.grade(reference([("1", "1")]), "print(input())")


def test_standard_input_problems() -> None:
    doubled = reference([("1\n", "2\n"), ("4", "8")])
    assert code.grade(doubled, "print(2 * int(input()))") is True
    assert code.grade(doubled, "print(2)") is False


def test_function_problems() -> None:
    asked = reference([([[3, 1], 1], [1, 3]), ([[], 0], [])], "order")
    method = "class Solution:\n    def order(self, xs: List[int], k): print('hm'); return {}"
    assert code.grade(asked, method.format("tuple(sorted(xs))")) is True
    assert code.grade(asked, method.format("xs")) is False
    assert code.grade(asked, "from __future__ import annotations\ndef order(xs, k): return sorted(xs)") is True


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("1 2\n3\n", "1  2 \n3", True),
        ("1.50", "1.5", True),
        ("1", "1.0", True),
        ("0.1", "0.10000001", False),
        ("a\nb", "a b", False),
        ("Yes", "yes", False),
        ("a", None, False),
        ("", "\n\n", True),
    ],
)
def test_outputs_are_compared(expected: str, printed: str | None, same: bool) -> None:
    assert code.same_output(expected, printed) is same


@pytest.mark.parametrize(
    ("expected", "given", "same"),
    [
        ([1, 2], "[1, 2.0]", True),
        ({"a": [1]}, '{"a": [1]}', True),
        (True, "1", False),
        (1, "true", False),
        (None, "null", True),
        (1, "not JSON", False),
        ([1], "[1, 2]", False),
    ],
)
def test_values_are_compared(expected: Any, given: str, same: bool) -> None:
    assert code.same_value(expected, given) is same


@pytest.mark.parametrize("program", ["import socket; socket.socket(); print(1)", "open('/etc/passwd'); print(1)"])
def test_refused(program: str) -> None:
    assert code.run(program, "", limits=TIGHT) is None


REFUSED = {
    "http": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:1')",
    "write": "open({outside!r}, 'w').write('x')",
    "rename": "import os; os.rename('program.py', {outside!r})",
    "remove": "import os; os.remove({outside!r} + '.kept')",
    "fork": "import os; os.fork()",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "system": "import os; os.system('true')",
    "library": "import ctypes; ctypes.CDLL(None).getpid()",
    "kill": "import os; os.kill(os.getppid(), 0)",
    "memory": "x = 'a' * (3 << 30)",
    "printing": "print('x' * (1 << 24))",
    "file": "open('a', 'w').write('x' * (1 << 24))",
    "loop": "while True: pass",
    "sleep": "import time; time.sleep(60)",
    "failure": "import sys; print(1); sys.exit(1)",
    "syntax": "print(",
}


@pytest.mark.extras
@pytest.mark.parametrize("name", REFUSED)
def test_all_that_is_stopped(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (tmp_path / "outside.kept").touch()
    began = time.monotonic()
    assert code.run(REFUSED[name].format(outside=str(outside)) + "\nprint(1)", "", limits=TIGHT) is None
    assert time.monotonic() - began < 15
    assert not outside.exists()
    assert (tmp_path / "outside.kept").exists()


ALLOWED = {
    "main guard": ("if __name__ == '__main__': print(input())", "in\n"),
    "bytes": ("import sys; print(sys.stdin.buffer.read().decode())", "in\n"),
    "descriptor": ("print(open(0).read())", "in\n"),
    "own file": ("open('a', 'w').write('x'); print(open('a').read())", "x\n"),
    "thread": ("import threading; t = threading.Thread(target=lambda: print(1)); t.start(); t.join()", "1\n"),
    "deep": ("def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(50_000))", "50000\n"),
    "exit": ("import sys; print(1); sys.exit(0)", "1\n"),
    "numpy": ("import numpy as np; print(np.arange(3).sum())", "3\n"),
    "no secrets": ("import os; print(os.environ.get('OPENAI_API_KEY'))", "None\n"),
}


@pytest.mark.extras
@pytest.mark.parametrize("name", ALLOWED)
def test_what_programs_need_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    program, printed = ALLOWED[name]
    assert code.run(program, "in") == printed


@pytest.mark.extras
@pytest.mark.parametrize(
    "call", ["while True: pass", "import time; time.sleep(60)", "exit()", "return object()", "1 / 0"]
)
def test_a_function_that_fails(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "LIMITS", TIGHT)
    began = time.monotonic()
    assert code.grade(reference([([1], 1)] * 3, "f"), f"def f(x):\n    {call}") is False
    assert time.monotonic() - began < 25


def test_isolation_is_told() -> None:
    assert set(code.isolation()) == {"network_namespace"}
