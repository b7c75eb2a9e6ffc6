"""Continuous batching: requests join and leave the batch between steps, in whatever event loop their callers run."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wrongturn.engines._draw import no_alternatives
from wrongturn.engines._rows import BUDGET, FAILED, GOES_ON, REASON, Kept, Rows, Slots
from wrongturn.engines.base import Chunk, Engine, Request
from wrongturn.signals import Signals
from wrongturn.trace import Ids


class Job:
    """A request between its first and its last chunk. ``slot`` is -1 before it has a place in the batch and after."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.chunks: asyncio.Queue[Chunk | Exception] = asyncio.Queue()
        self.slot = -1
        self.reused = 0  # prefix tokens found in the cache; the rest of the prefix is computed
        self.behind: tuple[Job, int] | None = None  # a job that will soon have computed so much of this one's prefix


class BatchEngine(Engine):
    """An engine that owns its logits and advances many requests at once.

    A subclass says how a request is taken up, what the next-token distributions are, and what to do with the tokens;
    all else (:class:`~wrongturn.engines._rows.Rows`) is the same for every such engine. The batch is advanced by a
    task that lives while there is work, in the event loop of whoever asked; it yields to the loop after every step.
    """

    def __init__(self, slots: int, vocab: int, context: int, rows: Rows | None = None) -> None:
        self._rows = rows or Kept(slots, vocab, context)
        self._jobs: dict[int, Job] = {}  # by slot
        self._waiting: list[Job] = []
        self._task: asyncio.Task[None] | None = None

    # -- what a subclass is --------------------------------------------------------------------------------------------

    @abstractmethod
    def _begin(self, job: Job, slot: int) -> bool:
        """Take up ``job.request`` and set ``job.reused``; False: rather wait. What it raises, only the caller sees."""

    @abstractmethod
    def _forward(self) -> tuple[Slots, Any, Any]:
        """Advance all requests by one token: the slots [n] whose next token is to be drawn, their logits [n, V], and
        those of the ancestor (None: there is none).

        The logits are of the kind that the rows take: NumPy's, or a tensor on some device.
        """

    @abstractmethod
    def _append(self, slots: Slots, tokens: Ids) -> None:
        """The tokens drawn for the requests that go on."""

    @abstractmethod
    def _end(self, slot: int) -> None:
        """The request in ``slot`` has ended."""

    # -- the caller's side ---------------------------------------------------------------------------------------------

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Chunks of the continuation, at least one; see :meth:`Engine.stream`."""
        self.check(request)
        job = Job(replace(request, prefix=np.asarray(request.prefix, np.int32)))
        self._start_loop()
        self._waiting.append(job)
        try:
            while True:
                item = await job.chunks.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.finish is not None:
                    return
        finally:
            self._drop(job)

    def _drop(self, job: Job) -> None:
        """Free the place of a job: it has ended, or nobody waits for it any more."""
        if job.slot >= 0:
            del self._jobs[job.slot]
            self._end(job.slot)
            self._rows.release(job.slot)
            job.slot = -1
        elif job in self._waiting:
            self._waiting.remove(job)

    # -- the task ------------------------------------------------------------------------------------------------------

    def _start_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._task is not None and not self._task.done():
            owner = self._task.get_loop()
            if owner is loop:
                return
            if owner.is_running():
                raise RuntimeError(f"this {self.name} engine is in use by another event loop; open a second engine")
            self._fail(RuntimeError("the event loop of this request was stopped"), reachable=not owner.is_closed())
        self._task = loop.create_task(self._run(), name=f"{self.name} batch")

    async def _run(self) -> None:
        me = asyncio.current_task()
        try:
            while self._task is me and (self._waiting or self._jobs):
                self._step()
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._task is me:
                self._fail(RuntimeError(f"the batch of the {self.name} engine was cancelled"))
            raise
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception, reachable: bool = True) -> None:
        """End every request with ``error``; their callers hear of it unless their event loop is gone."""
        for job in [*self._jobs.values(), *self._waiting]:
            self._drop(job)
            if reachable:
                job.chunks.put_nowait(error)

    def _refuse(self, slot: int, error: Exception) -> None:
        """End one request with ``error``."""
        job = self._jobs[slot]
        self._drop(job)
        job.chunks.put_nowait(error)

    def _step(self) -> None:
        self._admit()
        if not self._jobs:
            return
        slots, logits, ancestor = self._forward()
        if not len(slots):
            return
        tokens, finish = self._rows.step(slots, logits, ancestor)
        going = finish == GOES_ON
        self._append(slots[going], tokens[going])
        for slot in self._rows.due(slots[going]).tolist():
            self._jobs[slot].chunks.put_nowait(self._rows.take(slot))
        ended = np.flatnonzero(~going)[::-1]  # from the back: an engine that keeps its rows together moves fewer
        self._deliver(slots[ended].tolist(), finish[ended])

    def _deliver(self, slots: Iterable[int], finish: npt.NDArray[np.int8]) -> None:
        """The last chunk of requests that have ended, or what went wrong with them."""
        for slot, reason in zip(slots, finish.tolist(), strict=True):
            if reason == FAILED:
                self._refuse(slot, self._rows.errors[slot])
                continue
            job, last = self._jobs[slot], self._rows.take(slot)
            last.finish, last.reused = REASON[reason], job.reused
            last.prompt = len(job.request.prefix) - job.reused
            last.pending = self._rows.pending.get(slot)
            self._drop(job)
            job.chunks.put_nowait(last)

    def _admit(self) -> None:
        """Give free slots to waiting requests, first come first served unless one would rather wait."""
        if self._rows.free and self._waiting:
            self._waiting = [job for job in self._waiting if not (self._rows.free and self._try(job))]

    def _try(self, job: Job) -> bool:
        """Begin (or refuse) a request; False where it goes on waiting."""
        request = job.request
        if request.meter is not None and request.meter.left < 1:
            chunk = Chunk(np.zeros(0, np.int32), Signals.empty(0), *no_alternatives(0, request.top_k))
            chunk.finish = REASON[BUDGET]
            job.chunks.put_nowait(chunk)
            return True
        slot = self._rows.free[-1]
        begun = False
        try:
            begun = self._begin(job, slot)
            if begun:
                self._rows.admit(request)
                job.slot = slot
                self._jobs[slot] = job
        except Exception as error:
            if begun:
                self._end(slot)
            job.chunks.put_nowait(error)
            return True
        return begun
