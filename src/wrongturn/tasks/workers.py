"""Grading in worker processes: an answer that hangs or eats the memory costs its worker, and nothing else.

One helper process runs the pool: so the caller's own ``__main__`` is never imported again, Ctrl-C does not reach the
graders, and workers are forked from a small process that has the libraries loaded. Jobs and verdicts go through its
pipes as JSON lines; it ends when the caller does.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import wrongturn
from wrongturn.errors import WrongturnError

JOBS = {
    "math": ("wrongturn.tasks.maths", "equivalent"),
    "gym": ("wrongturn.tasks.gym", "score"),
    "gym problems": ("wrongturn.tasks.gym", "make"),
}
"""What workers do: a module and the function in it, from plain values to a plain value."""

LIMIT = 5.0
"""Seconds for one answer."""

MEMORY = 4 << 30
"""Bytes of address space of one worker."""


def call(job: str, *values: Any, limit: float = LIMIT) -> Any:
    """What a job gives, None where it took longer than ``limit`` seconds or its worker died. Safe in threads."""
    return _pool().submit(job, values, limit).result()


class Pool:
    """The caller's end: jobs in, verdicts out, in whatever order they are ready."""

    def __init__(self) -> None:
        root, given = str(Path(wrongturn.__file__).parent.parent), os.environ.get("PYTHONPATH")
        path = os.pathsep.join((root, given)) if given else root
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the pool)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="ascii",
            bufsize=1,
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        self._numbers = count()
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._useful = False  # has given a verdict
        threading.Thread(target=self._listen, name="wrongturn-graders", daemon=True).start()
        atexit.register(self.close)

    def submit(self, job: str, values: Sequence[Any], limit: float) -> Future[Any]:
        """One job; its future holds None where no verdict can be had."""
        future: Future[Any] = Future()
        assert self._process.stdin is not None
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            try:
                self._process.stdin.write(json.dumps([number, job, list(values), limit]) + "\n")
            except (OSError, ValueError):  # the helper is gone, or closed
                self._waiting.pop(number, future).set_exception(self._gone())
        return future

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the helper and its workers."""
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as verdicts:
            for line in verdicts:
                number, verdict, error = json.loads(line)
                self._useful = True
                future = self._waiting.pop(number)
                if error is None:
                    future.set_result(verdict)
                else:
                    future.set_exception(WrongturnError(error))
        self._process.wait()
        with self._lock:
            left, self._waiting = self._waiting, {}
        for future in left.values():  # killed from outside: no verdict, and the next job starts another helper
            if self._useful:
                future.set_result(None)
            else:
                future.set_exception(self._gone())

    def _gone(self) -> WrongturnError:
        self._errors.seek(0)
        last = self._errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        return WrongturnError(f"the process that grades answers ended (status {self._process.poll()}): {last}")


_shared: dict[int, Pool] = {}  # by process id: a forked child starts its own
_starting = threading.Lock()


def _pool() -> Pool:
    """The pool of this process, started when first needed, and again should the helper die."""
    with _starting:
        pool = _shared.get(os.getpid())
        if pool is None or not pool.alive:
            pool = _shared[os.getpid()] = Pool()
        return pool


# -- the helper --------------------------------------------------------------------------------------------------------


@functools.cache
def _job(name: str) -> Any:
    module, function = JOBS[name]
    return getattr(importlib.import_module(module), function)


def work(name: str, values: Sequence[Any]) -> tuple[Any, str | None]:
    """One job, in a worker: verdict and error. What a grader raises is no verdict; a broken library is an error."""
    try:
        return _job(name)(*values), None
    except ImportError as problem:
        return None, f"{name}: a library cannot be loaded: {problem}"
    except Exception:
        return None, None


def contain() -> None:
    """Cap the worker's memory, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows; a lower limit stands already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def serve() -> None:
    """The helper: take jobs until the caller closes the pipe."""
    from pebble import ProcessPool

    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["wrongturn.tasks.maths", "math_verify"])  # one that is missing is passed over
    lock = threading.Lock()
    verdicts = os.fdopen(os.dup(1), "w", encoding="ascii")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # what a library prints is no verdict

    def answer(number: int, future: Any) -> None:
        failed = future.cancelled() or future.exception() is not None  # out of time, or the worker died
        verdict, error = (None, None) if failed else future.result()
        with lock:
            verdicts.write(json.dumps([number, verdict, error]) + "\n")
            verdicts.flush()

    with ProcessPool(os.cpu_count() or 1, initializer=contain, context=context) as pool:
        for line in sys.stdin:
            number, name, values, limit = json.loads(line)
            future = pool.schedule(work, (name, values), timeout=limit)
            future.add_done_callback(functools.partial(answer, number))
        pool.stop()
