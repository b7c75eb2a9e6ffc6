"""The process one program runs in (see :mod:`wrongturn.tasks.code`). Needs the standard library alone.

Its argument is the JSON of [function or null, seconds a call may take, CPU seconds, bytes of memory, bytes of output].
The folder it starts in holds ``program.py``; standard input is the program's, or the JSON list of a function's argument
lists.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import resource
import signal
import sys
from typing import Any

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_REFUSED = ("socket.", "subprocess.", "ctypes.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system")
_REFUSED += ("os.kill", "os.chmod", "os.chown", "os.link", "os.symlink", "pty.")
_PATHS = {"open": 1, "os.listdir": 1, "os.scandir": 1, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1}
_PATHS |= {"os.rename": 2}  # how many paths an event begins with
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random", "/proc/self/ns/net", "/etc/localtime")


def confine(seconds: float, memory: int, output: int) -> None:
    """Limits of the kernel, a network namespace without interfaces where the system allows one, then refusals."""
    limits = {"CPU": int(seconds) + 1, "AS": memory, "FSIZE": output, "NOFILE": 64, "CORE": 0}
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NET) == 0:
            limits["NPROC"] = 64  # counted in the new namespace alone; elsewhere it would count all of the user's
    for name, limit in limits.items():
        with contextlib.suppress(OSError, ValueError, AttributeError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    sys.addaudithook(_refusals())


def _refusals() -> Any:
    folder = os.path.realpath(".") + os.sep
    libraries = tuple({os.path.realpath(path) + os.sep for path in (sys.prefix, sys.base_prefix, "/usr", "/lib")})

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(_REFUSED):
            raise PermissionError(f"{event} is not allowed here")
        for path in args[: _PATHS.get(event, 0)]:
            if isinstance(path, int):  # a file that is open already
                continue
            path = os.path.realpath(os.fsdecode("." if path is None else path))
            if (path + os.sep).startswith(folder) or path in _HARMLESS:
                continue
            reading = event in ("os.listdir", "os.scandir") or (event == "open" and not (args[2] or 0) & _WRITING)
            if not reading or not path.startswith(libraries):
                raise PermissionError(f"{path} is out of bounds")

    return refuse


def call(function: str, program: str, wall: float) -> None:
    """Answer each argument list by what the function returns, one JSON value a line; its own printing goes nowhere."""
    cases = json.load(sys.stdin)
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = io.StringIO()
    space: dict[str, Any] = {"__name__": "solution"}
    exec(_HEADER, space)
    exec(compile(program, "program.py", "exec"), space)
    if "Solution" in space:
        found = getattr(space["Solution"](), function)
    else:
        found = space[function]
    for arguments in cases:
        signal.setitimer(signal.ITIMER_REAL, wall)  # its signal ends the process
        results.write(json.dumps(found(*arguments), default=list) + "\n")
    results.flush()


_HEADER = "from typing import *; from collections import *; from functools import *; from itertools import *; "
_HEADER += "from math import *; from heapq import *; from bisect import *; import collections, functools, heapq, "
_HEADER += "itertools, math, random, re, string, sys\n"  # what judges of function problems have in place


def main() -> None:
    function, wall, *limits = json.loads(sys.argv[1])
    with open("program.py", encoding="utf-8") as file:
        program = file.read()
    sys.setrecursionlimit(100_000)
    sys.argv = ["program.py"]
    confine(*limits)
    if function:
        call(function, program, wall)
    else:
        exec(compile(program, "program.py", "exec"), {"__name__": "__main__", "__file__": "program.py"})
    sys.stdout.flush()


if __name__ == "__main__":
    main()
