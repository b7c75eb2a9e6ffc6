"""One collection on many machines: Ray workers that write their own parts into a run folder they all see.

A worker takes some jobs at a time, leaves out what the run holds already, and writes what it made as its own parts. One
that dies loses only what it had not written; its jobs go to a fresh one, which again leaves out what was written.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wrongturn import engines
from wrongturn.errors import WrongturnError, extra
from wrongturn.jobs import Job, Limits, Progress, Settings, fill
from wrongturn.store import Run

SHARD = 256
"""Jobs a worker is given at once: enough to fill an engine's batch for a while."""

DEATHS = 3
"""Workers that may die over the same jobs before the collection gives up."""


class Worker:
    """An engine of its own, and a hand in the run."""

    def __init__(self, opening: tuple[str, dict[str, Any]], path: Path) -> None:
        spec, options = opening
        self.engine, self.path = engines.open(spec, **options), path

    def work(self, jobs: list[Job], settings: Settings, what: str) -> None:
        """Carry out what the run does not hold of these jobs."""
        asyncio.run(fill(self.engine, Run.join(self.path), jobs, settings, lambda *_: None, what))


def fill_on_ray(
    opening: tuple[str, dict[str, Any]],
    run: Run,
    todo: Sequence[Job],
    settings: Settings,
    progress: Progress,
    what: str,
    limits: Limits,
    *,
    workers: int | None = None,
    address: str | None = None,
    shard: int = SHARD,
) -> None:
    """As :func:`wrongturn.jobs.fill`, by ``workers`` Ray actors (default: one for each CPU of the cluster).

    ``address`` is that of a running cluster whose machines see the run folder under the same path (None: the one of
    ``RAY_ADDRESS``, else a cluster on this machine, for this call).

    Raises:
        WrongturnError: Ray is missing, or workers keep dying over the same jobs.
        EngineError: a fatal one, as the first worker met it.
    """
    with extra("ray", "collecting on Ray"):
        import ray
        from ray.exceptions import RayActorError, RayTaskError

    wanted, stored = {job.id for job in todo}, run.done()
    left = [job for job in todo if job.id not in stored]
    waiting = deque(left[i : i + shard] for i in range(0, len(left), shard))
    busy: dict[Any, tuple[Any, list[Job]]] = {}
    deaths: Counter[str] = Counter()
    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get("RAY_ADDRESS")
        ray.init(address, include_dashboard=False if address is None else None, log_to_driver=False)
    make = ray.remote(num_cpus=1, max_restarts=0)(Worker).remote

    def give_work(actor: Any) -> None:
        if waiting and limits.allow(run.usage()):
            jobs = waiting.popleft()
            busy[actor.work.remote(jobs, settings, what)] = actor, jobs

    try:
        places = workers or int(ray.cluster_resources().get("CPU", 1))
        for _ in range(min(places, len(waiting))):
            give_work(make(opening, run.path.absolute()))
        while busy:
            ended, _ = ray.wait(list(busy), timeout=1.0)
            for reference in ended:
                actor, jobs = busy.pop(reference)
                try:
                    ray.get(reference)
                except RayActorError as death:
                    deaths[jobs[0].id] += 1
                    if deaths[jobs[0].id] > DEATHS:
                        raise WrongturnError(
                            f"{DEATHS + 1} workers died over the same jobs, from {jobs[0].id!r} on: {death}"
                        ) from None
                    waiting.append(jobs)
                    actor = make(opening, run.path.absolute())
                except RayTaskError as failed:
                    raise (failed.cause if isinstance(failed.cause, (WrongturnError, ValueError)) else failed) from None
                give_work(actor)
            progress(what, len(wanted & run.done()), len(todo))
    finally:
        if ours:
            ray.shutdown()
