"""From problems to traces: what is to be decoded, decoding it concurrently, grading it, writing it down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from wrongturn import tasks
from wrongturn.diagnose import Cut
from wrongturn.engines.base import Chunk, Engine, Sampling
from wrongturn.signals import SignalConfig
from wrongturn.store import Run
from wrongturn.strategies import Context, Draft, parse
from wrongturn.strategies.base import mix_seed
from wrongturn.trace import Lineage, Problem, Trace

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, traces done, traces in all)."""

Solver = Callable[[Context], Coroutine[Any, Any, Draft]]

CONCURRENCY = 96
"""Problems in flight at once: somewhat more than an engine's batch, so that it never waits for one."""

BATCH = 64
"""Traces written to disk together."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How traces are decoded: ``budget`` caps a problem's tokens over all branches, ``max_tokens`` one trace's."""

    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 192
    budget: int | None = None
    seed: int = 0
    top_k: int = 5
    signals: SignalConfig = field(default_factory=SignalConfig)

    def __post_init__(self) -> None:
        for name in ("max_tokens", "budget"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, not {self.top_k}")

    def dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Job:
    """One trace to be made: who asks what, under which name. ``parent`` is what it is resampled from."""

    id: str
    problem: Problem
    strategy: str
    sample: int
    solver: Solver
    lineage: Lineage | None = None


def jobs(problems: Iterable[Problem], strategy: str, samples: int = 1) -> list[Job]:
    """``samples`` independent runs of a strategy on each problem. Raises ``ValueError`` for an unknown strategy."""
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    solver = parse(strategy)
    return [Job(f"{p.id}/{strategy}/{k}", p, strategy, k, solver) for p in problems for k in range(samples)]


def resample_jobs(cuts: Iterable[Cut], parents: Mapping[str, Trace], problems: Mapping[str, Problem]) -> list[Job]:
    """Plain continuations of each cut: the parent's first ``cut.at`` tokens, then the model's own."""
    made = []
    for cut in cuts:
        parent = parents[cut.parent]
        prefix = Chunk(parent.ids, parent.signals, parent.top_ids, parent.top_logprobs)[: cut.at]
        lineage = Lineage(cut.parent, cut.at, cut.condition)
        solver = _resume(prefix)
        for k in range(cut.samples):
            id = f"{cut.parent}~{cut.condition}/{k}"
            made.append(Job(id, problems[parent.problem], f"resample:{cut.condition}", k, solver, lineage))
    return made


def _resume(prefix: Chunk) -> Solver:
    async def resume(ctx: Context) -> Draft:
        draft = ctx.start(prefix)
        await ctx.decode(draft)
        return draft

    return resume


# -- from jobs to traces -----------------------------------------------------------------------------------------------


async def carry_out(engine: Engine, todo: Sequence[Job], settings: Settings) -> AsyncGenerator[list[Trace], None]:
    """The traces of each job as it ends (the one its strategy stands by first, then its other branches)."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(job: Job) -> list[Trace]:
        async with gate:
            return await _solve(engine, job, settings)

    running = [asyncio.ensure_future(one(job)) for job in todo]
    try:
        for next_done in asyncio.as_completed(running):
            yield await next_done
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _solve(engine: Engine, job: Job, settings: Settings) -> list[Trace]:
    ctx = Context(
        engine,
        tasks.get(job.problem.task),
        job.problem.prompt_ids,
        sampling=settings.sampling,
        max_tokens=settings.max_tokens,
        budget=settings.budget,
        seed=mix_seed(settings.seed, job.id),
        top_k=settings.top_k,
        signals=settings.signals,
    )
    try:
        chosen = await job.solver(ctx)
    except ValueError as problem:
        raise ValueError(f"problem {job.problem.id!r}: {problem}") from None
    usage = ctx.settle(chosen)
    provenance = engine.provenance() | {"settings": settings.dict()}
    names = {draft.number: f"{job.id}+{draft.number}" for draft in ctx.drafts} | {chosen.number: job.id}
    traces = []
    for draft in sorted(ctx.drafts, key=lambda d: d is not chosen):
        trace = _trace(job, draft, names, provenance)
        if draft is chosen:
            trace.usage, trace.events = usage, ctx.events
            trace.lineage = trace.lineage or job.lineage
        traces.append(trace)
    return traces


def _trace(job: Job, draft: Draft, names: dict[int, str], provenance: dict[str, Any]) -> Trace:
    """A draft as a trace, graded and checked. Only here does the reference answer come into sight."""
    problem, task = job.problem, tasks.get(job.problem.task)
    answer = draft.answer
    checked = task.check(problem, draft.ids)
    lineage = None
    if draft.parent is not None:
        lineage = Lineage(names[draft.parent.number], draft.at, draft.reason)
    return Trace(
        id=names[draft.number],
        problem=problem.id,
        task=problem.task,
        prompt_ids=np.asarray(problem.prompt_ids, np.int32),
        ids=draft.ids,
        signals=draft.signals,
        finish=draft.finish or "until",
        group=problem.group,
        sample=job.sample,
        draft=draft.number,
        strategy=job.strategy,
        text="".join(task.pieces(draft.ids)),
        answer=answer,
        correct=task.grade(problem, answer),
        onset=checked.index if checked else None,
        error=checked.error if checked else None,
        lineage=lineage,
        top_ids=draft.chunk.top_ids,
        top_logprobs=draft.chunk.top_logprobs,
        provenance=provenance,
    )


async def fill(
    engine: Engine, run: Run, todo: Sequence[Job], settings: Settings, progress: Progress, what: str
) -> None:
    """Carry out what the run does not hold yet, writing as it goes; an interruption loses nothing that had ended."""
    stored = run.done()
    left = [job for job in todo if job.id not in stored]
    done, pending, written = len(todo) - len(left), [], time.monotonic()
    progress(what, done, len(todo))
    stream = carry_out(engine, left, settings)
    try:
        async for traces in stream:
            pending += traces
            done += 1
            progress(what, done, len(todo))
            if len(pending) >= BATCH or time.monotonic() - written > 2:
                batch, pending, written = pending, [], time.monotonic()
                run.append(batch)
    finally:
        await stream.aclose()
        if pending:
            run.append(pending)
