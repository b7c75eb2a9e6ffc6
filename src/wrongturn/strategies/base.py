"""What a strategy is given.

A strategy is an ``async`` function over a :class:`Context`; it returns the draft it stands by. Budget, batching, seeds
and token counting happen here, once for all. A context has no field for the reference answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wrongturn.divergence import Divergence
from wrongturn.engines.base import Chunk, Engine, Meter, Request, Sampling, Until
from wrongturn.engines.edits import Edit
from wrongturn.engines.pair import diverge
from wrongturn.errors import EngineError
from wrongturn.signals import SignalConfig, Signals
from wrongturn.tasks.base import Task
from wrongturn.trace import Ids, Usage


@dataclass(slots=True, eq=False)
class Draft:
    """A trace being written: the completion so far (one :class:`Chunk`), and how it came about.

    ``given`` is True at tokens that were not decoded here (injected, or resumed from); ``seed`` draws what is.
    ``source`` is the trace that a recalled draft is, ``divergence`` what :meth:`Context.score` made of it.
    """

    number: int
    seed: int
    read: Callable[[Ids], str | None] = field(repr=False)
    chunk: Chunk = field(repr=False)
    given: np.ndarray = field(default_factory=lambda: np.zeros(0, bool), repr=False)
    finish: str | None = None
    parent: Draft | None = field(default=None, repr=False)
    at: int = 0
    reason: str = ""
    pending: Signals | None = field(default=None, repr=False)
    source: str = ""
    divergence: Divergence | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.chunk.ids)

    @property
    def ids(self) -> Ids:
        """Completion token ids."""
        return self.chunk.ids

    @property
    def signals(self) -> Signals:
        """One entry per completion token; NaN where injected."""
        return self.chunk.signals

    @property
    def answer(self) -> str | None:
        """The final answer, None where the draft has none (yet)."""
        return self.read(self.ids)

    @property
    def ended(self) -> bool:
        """True where nothing more can be decoded."""
        return self.finish in ("stop", "length", "budget")

    @property
    def branch(self) -> Signals:
        """Signals of what was written since the fork."""
        return self.signals[self.at :]


class Context:
    """One problem as a strategy sees it: a prompt to continue, a budget, and the primitives."""

    def __init__(
        self,
        engine: Engine,
        task: Task,
        prompt_ids: Iterable[int],
        *,
        name: str = "this strategy",
        sampling: Sampling | None = None,
        max_tokens: int = 256,
        budget: int | None = None,
        seed: int = 0,
        top_k: int = 0,
        signals: SignalConfig | None = None,
    ) -> None:
        self.prompt_ids = np.asarray(tuple(prompt_ids), np.int32)
        self.sampling = sampling or Sampling()
        self.max_tokens = max_tokens
        self.boundaries = task.boundary_ids
        self.drafts: list[Draft] = []
        self.earlier: list[Draft] = []  # of this problem, to be learned from: recalled, or the caller's own
        self.events: list[dict[str, Any]] = []
        self.meter = Meter(budget)
        self.usage = Usage()
        self._engine, self._task, self._name, self._seed, self._top_k = engine, task, name, seed, top_k
        self._signals = signals or SignalConfig()
        self._known: list[Ids] = []  # every sequence computed so far: what a perfect prefix cache would hold
        self._began = time.monotonic()

    def start(self, prefix: Chunk | None = None) -> Draft:
        """An empty draft, or one that resumes from ``prefix`` (tokens of an earlier trace, which cost nothing here)."""
        draft = self._draft()
        if prefix is not None:
            self._extend(draft, prefix, given=True)
        return draft

    async def decode(
        self,
        draft: Draft,
        *,
        until: Until | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        edit: Edit | None = None,
    ) -> bool:
        """Continue ``draft`` in place. True: stopped by ``until``; False: it ended, or wrote ``max_tokens`` more.

        With ``edit`` the tokens are drawn from an edited distribution; the signals stay those of the model.
        """
        if draft.ended:
            return False
        room = self.max_tokens - len(draft)
        if room <= 0 or self.meter.left <= 0:
            draft.finish = "length" if room <= 0 else "budget"
            return False
        self._refuse_what_cannot_be_done(draft, until)
        most = room if max_tokens is None else min(room, max_tokens)
        if until is not None and draft.pending is not None:
            until = until.again()
        sampling = self.sampling if temperature is None else Sampling(temperature, self.sampling.top_p)
        prefix = np.concatenate((self.prompt_ids, draft.ids))
        chunk = await self._engine.generate(
            Request(
                prefix,
                most,
                sampling,
                draft.seed,
                self._task.stop_ids,
                start=len(self.prompt_ids),
                history=draft.signals,
                until=until,
                meter=self.meter,
                top_k=self._top_k,
                signals=self._signals,
                edit=edit,
            )
        )
        self._charge(prefix, chunk)
        self._extend(draft, chunk, given=False)
        draft.pending = chunk.pending
        draft.finish = None if chunk.finish == "length" and most < room else chunk.finish
        return chunk.finish == "until"

    async def sample(self, *, temperature: float | None = None, edit: Edit | None = None) -> Draft:
        """A fresh draft, decoded to its end."""
        draft = self.start()
        await self.decode(draft, temperature=temperature, edit=edit)
        return draft

    async def score(self, draft: Draft) -> Divergence:
        """How the model and its ancestor differ along a draft: one prefill by each, once a draft.

        Raises ``EngineError`` where the engine has no ancestor.
        """
        if draft.divergence is None or len(draft.divergence) != len(draft):
            model, ancestor = self._engine, self._engine.ancestor
            if ancestor is None:
                raise EngineError(f"{self._name} compares the model with its ancestor: give --ancestor", fatal=True)
            ids = np.concatenate((self.prompt_ids, draft.ids))
            draft.divergence = await diverge(model, ancestor, ids, len(self.prompt_ids))
            self.usage.prompt += 2 * len(ids)
        return draft.divergence

    def recall(self, prefix: Chunk, source: str, divergence: Divergence | None = None) -> None:
        """Add a stored trace of this problem to ``earlier``; it can be forked, and what is reused of it is free."""
        ids, given = prefix.ids, np.ones(len(prefix.ids), bool)
        draft = Draft(-1 - len(self.earlier), self._seed, self._task.answer, prefix, given, "stop")
        draft.source, draft.divergence = source, divergence
        self.earlier.append(draft)
        self._known.append(np.concatenate((self.prompt_ids, ids)))

    async def fork(
        self,
        draft: Draft,
        *,
        at: int | None = None,
        inject: Iterable[int] = (),
        max_tokens: int | None = None,
        temperature: float | None = None,
        edit: Edit | None = None,
        reason: str = "fork",
    ) -> Draft:
        """A new draft that shares ``draft``'s first ``at`` tokens (default: all), then ``inject``, then decodes."""
        child = self._draft(draft, len(draft) if at is None else at, reason)
        self.write(child, inject)
        await self.decode(child, max_tokens=max_tokens, temperature=temperature, edit=edit)
        return child

    async def gather(self, branches: Iterable[Awaitable[Draft]]) -> list[Draft]:
        """Run branches at once: one batch."""
        return list(await asyncio.gather(*branches))

    def write(self, draft: Draft, ids: Iterable[int]) -> None:
        """Append tokens the model did not choose; they have no signals and count as injected."""
        tokens = np.asarray(tuple(ids), np.int32)
        if len(tokens):
            self._extend(draft, blank_chunk(tokens, self._top_k), given=True)
            self.usage.injected += len(tokens)
            draft.finish = draft.pending = None

    def cut(self, draft: Draft, at: int) -> None:
        """Drop everything from completion token ``at`` on."""
        draft.chunk, draft.given = draft.chunk[:at], draft.given[:at]
        draft.finish = draft.pending = None

    def encode(self, text: str) -> list[int]:
        """Token ids of a cue; [] where the model's vocabulary cannot say it (a graph-search model has no words)."""
        try:
            return self._task.encode(text)
        except ValueError:
            return []

    def rng(self, purpose: str) -> random.Random:
        """A source of randomness of this run of the strategy, the same at every call."""
        return random.Random(mix_seed(self._seed, purpose))

    def log(self, event: str, **facts: Any) -> None:
        """Record what the strategy did, for the viewer: kept with the trace."""
        self.events.append({"event": event, **facts})

    def settle(self, chosen: Draft) -> Usage:
        """The ledger, once the strategy has chosen: decoded tokens of the chosen draft are kept, all others dropped."""
        self.usage.kept = int(np.count_nonzero(~chosen.given))
        self.usage.dropped = self.meter.spent - self.usage.kept
        self.usage.seconds = time.monotonic() - self._began
        return self.usage

    def _draft(self, parent: Draft | None = None, at: int = 0, reason: str = "") -> Draft:
        number = len(self.drafts)
        draft = Draft(number, mix_seed(self._seed, number), self._task.answer, blank_chunk((), self._top_k))
        if parent is not None:
            draft.chunk, draft.given = parent.chunk[:at], parent.given[:at]
            draft.parent, draft.at, draft.reason = parent, at, reason
        self.drafts.append(draft)
        return draft

    def _refuse_what_cannot_be_done(self, draft: Draft, until: Until | None) -> None:
        """A fatal ``EngineError`` rather than an intervention that silently never happens."""
        engine = self._engine
        if len(draft) and not engine.capabilities.prefix:
            raise EngineError(
                f"{self._name} continues a prefix of its own choice, which {engine.name}:{engine.model} does not offer",
                fatal=True,
            )
        if until is not None and until.needs_logprobs and engine.capabilities.logprobs == "none":
            raise EngineError(
                f"{self._name} watches the uncertainty of tokens, but {engine.name}:{engine.model} tells no logprobs",
                fatal=True,
            )

    def _charge(self, prefix: Ids, chunk: Chunk) -> None:
        self.usage.prompt += chunk.prompt
        self.usage.reused += chunk.reused
        shared = max((_shared(prefix, known) for known in self._known), default=0)
        self.usage.ideal += len(prefix) - shared
        self._known.append(np.concatenate((prefix, chunk.ids)))

    @staticmethod
    def _extend(draft: Draft, chunk: Chunk, given: bool) -> None:
        draft.chunk = Chunk.concat([draft.chunk, chunk])
        draft.given = np.concatenate((draft.given, np.full(len(chunk.ids), given)))


def blank_chunk(ids: Iterable[int], top_k: int) -> Chunk:
    """Tokens without signals: what a strategy writes itself."""
    tokens = np.asarray(tuple(ids), np.int32)
    shape = (len(tokens), top_k)
    return Chunk(tokens, Signals.empty(len(tokens)), np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32))


def _shared(a: Ids, b: Ids) -> int:
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def mix_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable, the same on every machine and in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
