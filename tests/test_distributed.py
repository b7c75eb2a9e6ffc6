"""A collection on a real Ray cluster, one of whose workers is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import wrongturn as wt
from wrongturn.errors import WrongturnError

pytestmark = pytest.mark.ray

PROBLEMS = wt.tasks.graph_search(nodes=15, hops=(2, 4), n=400, seed=3)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def workers() -> list[int]:
    """Process ids of the actors that are alive."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(process.name))
    return found


def by_id(run: wt.Run) -> dict[str, list[int]]:
    return {trace.id: trace.ids.tolist() for trace in run.traces()}


def test_the_same_traces_as_on_one_machine(tmp_path: Path) -> None:
    engine = wt.open("embedded")
    there = wt.collect(engine, PROBLEMS[:40], samples=2, out=tmp_path / "there", on="ray", workers=2)
    here = wt.collect(engine, PROBLEMS[:40], samples=2, out=tmp_path / "here")
    assert by_id(there) == by_id(here)


def test_a_killed_worker_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    killed = []

    def kill() -> None:
        while not list((tmp_path / "run" / "traces").glob("part-*")):
            time.sleep(0.05)
        victim = workers()[0]
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    run = wt.collect(wt.open("embedded"), PROBLEMS, samples=4, out=tmp_path / "run", on="ray", workers=2)
    thread.join()
    assert killed
    ids = [trace.id for trace in run.traces()]
    assert len(ids) == len(set(ids)) == 1600
    assert run.failures() == []


def test_a_worker_says_what_is_wrong_with_the_engine(tmp_path: Path) -> None:
    asked = [wt.Problem("q", "numeric", "2+2?", reference="4", prompt_ids=(77,))]
    with pytest.raises(WrongturnError, match=r"strategy 'sample' on problem 'q': .*token id 77 at position 0"):
        wt.collect(wt.open("embedded"), asked, out=tmp_path / "run", on="ray", workers=1)
