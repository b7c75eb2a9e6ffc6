"""What the kill test kills: collects numbered traces into a run, saying so before and after each append.

Its disk is slow and takes a quarter of what it is given: that makes room for a kill inside a write.
"""

import io
import os
import sys
import time

from made_traces import made
from wrongturn import folder
from wrongturn.store import Run


class SlowFile(io.FileIO):
    def write(self, data):
        time.sleep(0.001)
        return super().write(data[: max(1000, len(data) // 4)])


def slow(function):
    def delayed(*args):
        time.sleep(0.002)
        return function(*args)

    return delayed


def say(line: str) -> None:
    """One write to the pipe: a kill leaves whole lines."""
    os.write(1, f"{line}\n".encode())


def collect(path: str, total: int, batch: int) -> None:
    with Run.create(path, {"total": total}) as run:
        done = run.done()
        left = [trace for trace in map(made, range(total)) if trace.id not in done]
        for n, start in enumerate(range(0, len(left), batch)):
            traces = left[start : start + batch]
            say(f"append {n}")
            run.append(traces)
            say("\n".join(f"ack {trace.id}" for trace in traces))
            if n % 3 == 1:
                say("compact")
                run.compact()
        say("end")


def hold(path: str) -> None:
    """Keep the run locked until killed."""
    with Run.create(path, {}):
        say("held")
        time.sleep(60)


def serve(path: str, total: int, batch: int) -> None:
    """For each line of input, collect in a new process that has done nothing but import, which saves its start."""
    folder.open = lambda path, mode, buffering: SlowFile(path, mode)  # type: ignore[attr-defined]
    os.fsync, os.unlink = slow(os.fsync), slow(os.unlink)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            say(f"pid {os.getpid()}")
            collect(path, total, batch)
            return
        _, status = os.waitpid(pid, 0)
        say(f"over {status}")


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(sys.argv[2])
    else:
        serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
