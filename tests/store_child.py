"""What the kill test kills: collects numbered traces into a run, saying "append n" before and "ack id" after each append.

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
        time.sleep(0.002)
        return super().write(data[: max(1000, len(data) // 4)])


def slow_fsync(handle, fsync=os.fsync):
    time.sleep(0.002)
    fsync(handle)


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
            if n % 4 == 3:
                say("compact")
                run.compact()
        say("end")


def hold(path: str) -> None:
    """Keep the run locked until killed."""
    run = Run.create(path, {})
    say("held")
    time.sleep(60)
    run.close()


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(sys.argv[2])
    else:
        folder.open = SlowFile  # type: ignore[attr-defined]
        os.fsync = slow_fsync
        collect(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
