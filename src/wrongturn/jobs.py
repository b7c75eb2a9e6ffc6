"""From problems to traces: what is to be decoded, decoding it concurrently, grading it, writing it down."""

from __future__ import annotations

import asyncio
import itertools
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from wrongturn import tasks
from wrongturn.diagnose import Cut
from wrongturn.engines.base import Chunk, Engine, Sampling
from wrongturn.errors import EngineError, WrongturnError
from wrongturn.signals import SignalConfig
from wrongturn.store import Failure, Run
from wrongturn.strategies import Context, Draft, parse
from wrongturn.strategies.base import mix_seed
from wrongturn.tasks import Task
from wrongturn.trace import Ids, Lineage, Problem, Trace, Usage
from wrongturn.vocabulary import Meeting, Message, Vocabulary

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, traces done, traces in all)."""

Solver = Callable[[Context], Coroutine[Any, Any, Draft]]

Made = list[Trace] | Failure
"""What becomes of a job: its traces, or why there are none."""

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
class Limits:
    """What a collection may come to: no problem is begun once ``tokens`` have been decoded.

    ``price`` is in dollars for a million tokens of (prompt, completion), to show what has been spent.
    """

    tokens: int | None = None
    price: tuple[float, float] | None = None

    def allow(self, spent: Usage) -> bool:
        """Whether another problem may begin."""
        return self.tokens is None or spent.decoded < self.tokens

    def cost(self, spent: Usage) -> float:
        """Dollars; NaN without a price. Tokens from a prefix cache count as prompt tokens: discounts differ."""
        prompt, completion = self.price or (float("nan"), float("nan"))
        return ((spent.prompt + spent.reused) * prompt + spent.decoded * completion) / 1e6


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Job:
    """One trace to be made: who asks what, under which name. ``earlier`` are stored traces whose tokens it takes up."""

    id: str
    problem: Problem
    strategy: str
    sample: int
    solver: Solver
    lineage: Lineage | None = None
    earlier: tuple[Trace, ...] = ()


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
        reason, solver = cut.condition.partition("@")[0], _resume(prefix)
        lineage = Lineage(cut.parent, cut.at, reason)
        for k in range(cut.first, cut.first + cut.samples):
            id = f"{cut.parent}~{cut.condition}/{k}"
            made.append(Job(id, problems[parent.problem], f"resample:{reason}", k, solver, lineage, (parent,)))
    return made


def _resume(prefix: Chunk) -> Solver:
    async def resume(ctx: Context) -> Draft:
        draft = ctx.start(prefix)
        await ctx.decode(draft)
        return draft

    return resume


def settings_of(run: Run) -> Settings:
    """How a run's traces were decoded."""
    told = run.settings
    plain = {name: told[name] for name in ("max_tokens", "budget", "seed", "top_k")}
    return Settings(Sampling(**told["sampling"]), signals=SignalConfig(**told["signals"]), **plain)


def same_model(engine: Engine, run: Run, why: str) -> None:
    """Raise ``WrongturnError`` where the engine's model is not the one that wrote the run, which alone can ``why``."""
    for name, value in engine.identity().items():
        if run.settings.get(name) != value:
            raise WrongturnError(
                f"{run.path}: its traces are of {name} {run.settings.get(name)!r}, not {value!r}: only the model that "
                f"wrote them can {why}"
            )


# -- from jobs to traces -----------------------------------------------------------------------------------------------


async def carry_out(engine: Engine, todo: Iterable[Job], settings: Settings) -> AsyncGenerator[Made, None]:
    """What becomes of each job as it ends: its traces (the one its strategy stands by first), or why there are none.

    As many jobs are under way as the engine wants at once; the rest of ``todo`` is not looked at before its turn, and
    nothing new begins while nobody takes what is ready. Raises the first ``EngineError`` that is fatal.
    """
    await engine.ready()
    waiting, bound = iter(todo), {}

    def task_of(problem: Problem) -> Task:
        if problem.task not in bound:
            task = tasks.get(problem.task)
            task.needs()
            bound[problem.task] = task.on(engine.vocabulary)
        return bound[problem.task]

    ready: asyncio.Queue[Made | Exception | None] = asyncio.Queue(engine.concurrency)

    async def work() -> None:
        try:
            for job in waiting:
                await ready.put(await attempt(engine, job, task_of(job.problem), settings))
            await ready.put(None)
        except Exception as error:
            await ready.put(error)

    workers = [asyncio.create_task(work()) for _ in range(engine.concurrency)]
    try:
        for _ in workers:
            while (item := await ready.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def attempt(engine: Engine, job: Job, task: Task, settings: Settings) -> Made:
    """The traces of one job; a :class:`Failure` where the engine gave up on it. Raises a fatal ``EngineError``."""
    ctx = None
    try:
        ctx = await _context(engine, job, task, settings)
        chosen = await _choose(job, ctx)
        return await _graded(engine, job, task, settings, ctx, chosen)
    except EngineError as error:
        if error.fatal:
            raise
        return Failure(job.id, job.problem.id, error.reason, str(error), ctx.meter.spent if ctx else 0)


async def _context(engine: Engine, job: Job, task: Task, settings: Settings) -> Context:
    """The problem as the strategy sees it."""
    problem = job.problem
    await _meet(engine.vocabulary, job.earlier)
    try:
        prompt_ids = problem.prompt_ids or await _put(engine, task.messages(problem))
        return Context(
            engine,
            task,
            prompt_ids,
            name=job.strategy,
            sampling=settings.sampling,
            max_tokens=settings.max_tokens,
            budget=settings.budget,
            seed=mix_seed(settings.seed, job.id),
            top_k=settings.top_k,
            signals=settings.signals,
        )
    except ValueError as unfit:
        raise ValueError(f"problem {problem.id!r}: {unfit}") from None


async def _meet(vocabulary: Vocabulary | None, earlier: Sequence[Trace]) -> None:
    """Make the tokens of traces that another process may have written known to a vocabulary that must meet them."""
    if isinstance(vocabulary, Meeting):
        for trace in earlier:
            try:
                await asyncio.to_thread(vocabulary.meet, trace.ids.tolist(), trace.pieces or [])
            except ValueError as clash:
                raise EngineError(f"trace {trace.id!r} cannot be continued: {clash}", "vocabulary") from None


async def _graded(engine: Engine, job: Job, task: Task, settings: Settings, ctx: Context, chosen: Draft) -> list[Trace]:
    """What the strategy wrote as traces, with the ledger in the first."""
    usage = ctx.settle(chosen)
    if task.slow:
        traces = await asyncio.to_thread(_traces, job, task, ctx, chosen)
    else:
        traces = _traces(job, task, ctx, chosen)
    traces[0].usage, traces[0].events = usage, ctx.events + traces[0].events
    provenance = engine.provenance() | {"settings": settings.dict()}
    for trace in traces:
        trace.provenance = provenance
    return traces


async def _choose(job: Job, ctx: Context) -> Draft:
    """The draft that the job's strategy stands by. What it raises by mistake is told in one line, as what it is."""
    try:
        chosen = await job.solver(ctx)
        if not isinstance(chosen, Draft):
            raise TypeError(f"it returned a {type(chosen).__name__}, not a draft")
        return ctx.adopt(chosen)
    except WrongturnError:
        raise
    except Exception as bug:
        said = " ".join(f"{type(bug).__name__}: {bug}".split())
        raise WrongturnError(f"strategy {job.strategy!r} on problem {job.problem.id!r}: {said}") from bug


async def _put(engine: Engine, messages: Sequence[Message]) -> Sequence[int]:
    try:
        return await engine.prompt(messages)
    except ValueError as unfit:
        raise ValueError(f"{engine.name}:{engine.model} has no words for it ({unfit})") from None


def _traces(job: Job, task: Task, ctx: Context, chosen: Draft) -> list[Trace]:
    """All drafts as traces, the chosen one first and under the job's own id."""
    names = {draft.number: f"{job.id}+{draft.number}" for draft in ctx.drafts} | {chosen.number: job.id}
    names |= {draft.number: draft.source for draft in ctx.earlier if draft.source}
    traces = [
        _trace(job, task, draft, names, ctx.prompt_ids) for draft in sorted(ctx.drafts, key=lambda d: d is not chosen)
    ]
    traces[0].lineage = traces[0].lineage or job.lineage
    return traces


def _trace(job: Job, task: Task, draft: Draft, names: dict[int, str], prompt_ids: Ids) -> Trace:
    """A draft as a trace, graded and checked. Only here does the reference answer come into sight."""
    problem, answer, pieces = job.problem, draft.answer, task.pieces(draft.ids)
    checked = task.check(problem, draft.ids)
    lineage = None
    if draft.parent is not None:
        lineage = Lineage(names[draft.parent.number], draft.at, draft.reason)
    correct, events = None, []
    try:
        correct = task.grade(problem, answer)
    except WrongturnError as failed:  # the trace is worth keeping all the same
        events.append({"event": "ungraded", "why": str(failed)})
    return Trace(
        id=names[draft.number],
        problem=problem.id,
        task=problem.task,
        prompt_ids=prompt_ids,
        ids=draft.ids,
        signals=draft.signals,
        finish=draft.finish or "until",
        group=problem.group,
        sample=job.sample,
        draft=draft.number,
        strategy=job.strategy,
        text="".join(pieces),
        offsets=np.cumsum([len(piece) for piece in pieces], dtype=np.int32),
        answer=answer,
        correct=correct,
        events=events,
        onset=checked.index if checked else None,
        error=checked.error if checked else None,
        lineage=lineage,
        top_ids=draft.chunk.top_ids,
        top_logprobs=draft.chunk.top_logprobs,
    )


async def fill(
    engine: Engine,
    run: Run,
    todo: Sequence[Job],
    settings: Settings,
    progress: Progress,
    what: str,
    limits: Limits = NO_LIMITS,
    seen: Callable[[Made], None] = lambda made: None,
) -> None:
    """Carry out what the run does not hold yet, writing as it goes; an interruption loses nothing that had ended.

    What failed is recorded in the run. ``limits`` count what the run holds already. ``seen`` is shown what becomes of
    each job.
    """
    stored = run.done()
    left = [job for job in todo if job.id not in stored]
    spent = Usage() if limits == NO_LIMITS else run.usage()
    began, done, failed, before = time.monotonic(), len(todo) - len(left), 0, spent.decoded
    progress(what, done, len(todo))
    writer = _Writer(engine, run)
    stream = carry_out(engine, itertools.takewhile(lambda _: limits.allow(spent), left), settings)
    try:
        async for made in stream:
            done += 1
            if isinstance(made, Failure):
                failed += 1
                spent += Usage(dropped=made.decoded)
            else:
                spent += made[0].usage
            await writer.add(made)
            seen(made)
            facts = [f"{(spent.decoded - before) / max(time.monotonic() - began, 1e-3):,.0f} tokens/s"]
            facts += [f"${limits.cost(spent):.2f}"] * (limits.price is not None) + [f"{failed} failed"] * bool(failed)
            progress(f"{what} {', '.join(facts)}", done, len(todo))
    finally:
        await stream.aclose()
        await writer.flush(last=True)


class _Writer:
    """Puts what has ended on disk, some of it at a time, and what the alternatives in it say.

    A server that does not tell what they say is asked once more at the end.
    """

    def __init__(self, engine: Engine, run: Run) -> None:
        self.engine, self.run = engine, run
        self.unnamed: set[int] = set()  # tokens that were alternatives, and whose texts are not in the run yet
        self.told = True
        self.traces: list[Trace] = []
        self.failures: list[Failure] = []
        self.written = time.monotonic()

    async def add(self, made: Made) -> None:
        if isinstance(made, Failure):
            self.failures.append(made)
        else:
            self.traces += made
        if len(self.traces) >= BATCH or time.monotonic() - self.written > 2:
            await self.flush()

    async def flush(self, last: bool = False) -> None:
        traces, self.traces, failures, self.failures = self.traces, [], self.failures, []
        self.written = time.monotonic()
        if failures:
            self.run.add_failures(failures)
        self.run.append(traces)
        for trace in traces:
            self.unnamed.update(np.unique(trace.top_ids[trace.top_ids >= 0]).tolist())
        if self.engine.vocabulary is not None and self.unnamed and (self.told or last):
            await self._name(self.engine.vocabulary, last)

    async def _name(self, vocabulary: Vocabulary, last: bool) -> None:
        """Record the text of every token that is an alternative in a trace: those of its own are in its text."""
        ids = sorted(self.unnamed)
        try:
            texts = await asyncio.to_thread(vocabulary.pieces, ids)
        except EngineError as error:
            self.told = False
            if last:
                said = f"what {len(ids)} alternatives of its traces say is not recorded: {error}"
                warnings.warn(f"{self.run.path}: {said}", RuntimeWarning, stacklevel=2)
            return
        self.run.add_vocabulary(dict(zip(ids, texts, strict=True)))
        self.unnamed.clear()
