"""Programs a model wrote, judged by tests: standard input to standard output, or calls of a function.

Each test runs in a process of its own: capped CPU seconds, memory, file size and processes, an empty folder, an
environment without secrets, no network. What it may not do is refused *inside the interpreter*, so this stops accidents
and clumsy mischief; it is no sandbox against an attacker. For hostile code run everything in a container or a virtual
machine. Off unless allowed: :func:`allow`, ``WRONGTURN_ALLOW_CODE=1``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from wrongturn.errors import WrongturnError

PERMISSION = "WRONGTURN_ALLOW_CODE"

_RUNNER = str(Path(__file__).with_name("code_child.py"))
_ROOM = threading.BoundedSemaphore(max(1, (os.cpu_count() or 2) - 1))  # programs at once: each is to have a core


@dataclass(frozen=True, slots=True)
class Limits:
    """What one test may use."""

    seconds: float = 10.0  # of CPU, and twice as much on the clock; all calls of a function together ten times that
    memory: int = 1 << 30  # bytes of address space
    output: int = 1 << 24  # bytes, printed or written to a file


LIMITS = Limits()


def allow(yes: bool = True) -> None:
    """Permit (or forbid) running programs that a model wrote, in this process and those it starts."""
    os.environ[PERMISSION] = "1" if yes else "0"


def needs() -> None:
    """Raises ``WrongturnError`` where running programs was not allowed, or cannot be limited on this system."""
    if os.environ.get(PERMISSION) != "1":
        raise WrongturnError(f"grading code runs programs a model wrote: allow it with --allow-code or {PERMISSION}=1")
    if os.name != "posix":
        raise WrongturnError("grading code needs a POSIX system, whose resource limits it uses")


def grade(reference: str, program: str) -> bool:
    """Whether the program passes every test of the reference (:func:`wrongturn.tasks.rows.reference`)."""
    needs()
    asked = json.loads(reference)
    function, tests = asked["function"], asked["tests"]
    if function:  # one process answers the calls of all tests, in order
        printed = run(program, json.dumps([test["input"] for test in tests]), function, limits=LIMITS)
        results = printed.split("\n") if printed is not None else []
        return len(results) == len(tests) + 1 and all(
            same_value(test["output"], got) for test, got in zip(tests, results, strict=False)
        )
    return all(same_output(test["output"], run(program, test["input"], limits=LIMITS)) for test in tests)


def run(program: str, text: str, function: str | None = None, *, limits: Limits = LIMITS) -> str | None:
    """What a program prints on ``text``, or with ``function`` one line of JSON per argument list in it.

    None where it failed, or was stopped at a limit.
    """
    with _ROOM, tempfile.TemporaryDirectory(prefix="wrongturn-code-") as folder, tempfile.TemporaryFile() as printed:
        seconds = limits.seconds * (10 if function else 1)
        settings = json.dumps([function, 2 * limits.seconds, seconds, limits.memory, limits.output])
        Path(folder, "program.py").write_text(program, "utf-8", "replace")
        Path(folder, "input.txt").write_text(text, "utf-8", "replace")
        with open(Path(folder, "input.txt"), "rb") as stdin:
            child = subprocess.Popen(
                [sys.executable, "-I", "-B", "-X", "utf8", _RUNNER, settings],
                cwd=folder,
                stdin=stdin,
                stdout=printed,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        try:
            status = child.wait(2 * seconds + 2)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if status != 0:
            return None
        printed.seek(0)
        return printed.read(limits.output).decode("utf-8", "replace")


def same_output(expected: str, got: str | None) -> bool:
    """The same lines of the same words; numbers are compared as decimals, exactly (``1.0`` is ``1``)."""
    if got is None:
        return False
    wanted, given = _lines(expected), _lines(got)
    return len(wanted) == len(given) and all(map(_same_words, wanted, given))


def _lines(text: str) -> list[list[str]]:
    lines = [line.split() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_words(wanted: Sequence[str], given: Sequence[str]) -> bool:
    return len(wanted) == len(given) and all(w == g or _same_number(w, g) for w, g in zip(wanted, given, strict=True))


def _same_number(wanted: str, given: str) -> bool:
    try:
        return Decimal(wanted) == Decimal(given)
    except InvalidOperation:
        return False


def same_value(expected: Any, got: str) -> bool:
    """The same JSON value; integers and floats of the same value are the same, true and 1 are not."""
    try:
        value = json.loads(got)
    except (ValueError, RecursionError):
        return False
    return _same(expected, value)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def isolation() -> dict[str, bool]:
    """What this system grants a program's process: ``network_namespace``, one without any interface."""
    probe = "import os\nprint(os.readlink('/proc/self/ns/net'))"
    here = Path("/proc/self/ns/net")
    printed = run(probe, "")
    return {"network_namespace": bool(here.exists() and printed and printed.strip() != os.readlink(here))}
