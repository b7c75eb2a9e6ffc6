"""What a strategy is given.

A strategy is an ``async`` function over a :class:`Context`; it returns the draft it stands by. Budget, batching, seeds
and token counting happen here, once for all. A context has no field for the reference answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Iterable
from typing import Any

import numpy as np

from wrongturn.divergence import Divergence
from wrongturn.engines.base import Chunk, Engine, Meter, Request, Sampling, Until
from wrongturn.engines.edits import Edit
from wrongturn.engines.pair import diverge
from wrongturn.errors import EngineError
from wrongturn.signals import SignalConfig
from wrongturn.strategies.drafts import Draft, blank_chunk, in_common, mix_seed
from wrongturn.tasks.base import Task
from wrongturn.trace import Ids, Usage


class Context:
    """One problem as a strategy sees it: a prompt to continue, a budget, and the primitives.

    ``max_tokens`` is what a draft may have: as much as was allowed, and the model's context holds behind the prompt.
    Raises ``EngineError`` where the prompt alone fills the context.
    """

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
        self.max_tokens = self._room(engine, max_tokens)
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

        A draft that holds as much as it may (``ctx.max_tokens``) ends with "length", one without a budget "budget".

        With ``edit`` the tokens are drawn from an edited distribution; the signals stay those of the model.
        """
        if draft.ended:
            return False
        room = self.max_tokens - len(draft) - draft.chunk.unlisted
        if room <= 0 or self.meter.left <= 0:
            draft.finish = "length" if room <= 0 else "budget"
            return False
        self._refuse_what_cannot_be_done(draft, until)
        most = room if max_tokens is None else min(room, max_tokens)
        if until is not None and draft.pending is not None:
            until = until.again()
        sampling = self.sampling if temperature is None else Sampling(temperature, self.sampling.top_p)
        prefix = np.concatenate((self.prompt_ids, draft.ids))
        request = Request(
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
        try:
            chunk = await self._engine.generate(request)
        except EngineError as full:
            if full.reason != "context" or not len(draft):
                raise
            draft.finish = "length"  # of a context whose size only the server knew
            return False
        self._charge(prefix, chunk)
        self._extend(draft, chunk, given=False)
        draft.pending = chunk.pending
        paused = chunk.finish == "length" and most < room and len(chunk.ids) > 0
        draft.finish = None if paused else chunk.finish
        return chunk.finish == "until"

    async def sample(self, *, temperature: float | None = None, edit: Edit | None = None) -> Draft:
        """A fresh draft, decoded to its end."""
        draft = self.start()
        await self.decode(draft, temperature=temperature, edit=edit)
        return draft

    async def score(self, draft: Draft, temperature: float | None = None) -> Divergence:
        """How the model and its ancestor differ along a draft where it decodes (1 where that is greedy): one prefill by
        each, once a draft. At another ``temperature`` it is not kept.

        Raises ``EngineError`` where the engine has no ancestor.
        """
        usual = self.sampling.temperature or 1.0
        temperature = usual if temperature is None else temperature
        if temperature == usual and draft.divergence is not None and len(draft.divergence) == len(draft):
            return draft.divergence
        model, ancestor = self._engine, self._engine.ancestor
        if ancestor is None:
            raise EngineError(f"{self._name} compares the model with its ancestor: give --ancestor", fatal=True)
        ids = np.concatenate((self.prompt_ids, draft.ids))
        found = await diverge(model, ancestor, ids, len(self.prompt_ids), temperature)
        self.usage.prompt += 2 * len(ids)
        if temperature == usual:
            draft.divergence = found
        return found

    def recall(self, prefix: Chunk, source: str, divergence: Divergence | None = None) -> None:
        """Add a stored trace of this problem to ``earlier``; it can be forked, and what is reused of it is free."""
        ids, given, finish = prefix.ids, np.ones(len(prefix.ids), bool), prefix.finish or "stop"
        draft = Draft(-1 - len(self.earlier), self._seed, self._task.answer, prefix, given, finish)
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
        """Append tokens the model did not choose; they have no signals and count as injected.

        Where they do not fit whole, none is written, and the draft has ended ("length").
        """
        tokens = np.asarray(tuple(ids), np.int32)
        if len(draft) + len(tokens) > self.max_tokens:
            draft.finish = draft.finish if draft.ended else "length"
        elif len(tokens):
            self._extend(draft, blank_chunk(tokens, self._top_k), given=True)
            self.usage.injected += len(tokens)
            draft.finish = draft.pending = None

    def cut(self, draft: Draft, at: int) -> None:
        """Drop everything from completion token ``at`` on."""
        draft.chunk, draft.given = draft.chunk[:at], draft.given[:at]
        draft.finish = draft.pending = None

    def require_logprobs(self, raw: bool = False) -> None:
        """Raise a fatal ``EngineError`` where the engine tells none, or not ``raw`` ones.

        Entropies compare across temperatures only where they are raw: processed ones have the temperature in them.
        """
        known, model = self._engine.capabilities.logprobs, f"{self._engine.name}:{self._engine.model}"
        if known == "none":
            raise EngineError(
                f"{self._name} watches the uncertainty of tokens, but {model} tells no logprobs", fatal=True
            )
        if raw and known != "raw":
            raise EngineError(
                f"{self._name} compares entropies of several temperatures, but {model} tells logprobs that change with "
                "the temperature: start the server so that it tells raw ones (vLLM: --logprobs-mode raw_logprobs)",
                fatal=True,
            )

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

    def adopt(self, chosen: Draft) -> Draft:
        """``chosen``; where that was there before, a draft of this run of the strategy that says the same."""
        if chosen in self.drafts:
            return chosen
        draft = self._draft(chosen, int(np.argmin(np.append(chosen.given, False))), "recall")
        draft.chunk, draft.given, draft.finish = chosen.chunk, chosen.given, chosen.finish
        return draft

    def settle(self, chosen: Draft) -> Usage:
        """The ledger, once the strategy has chosen: decoded tokens of the chosen draft are kept, all others dropped."""
        self.usage.kept = int(np.count_nonzero(~chosen.given)) + chosen.chunk.unlisted
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
        if until is not None and until.needs_logprobs:
            self.require_logprobs()

    def _room(self, engine: Engine, max_tokens: int) -> int:
        context, prompt = engine.capabilities.context, len(self.prompt_ids)
        if context is None:
            return max_tokens
        if prompt >= context:
            raise EngineError(
                f"the prompt has {prompt} tokens; the context of {engine.model} holds {context}", "context"
            )
        return min(max_tokens, context - prompt)

    def _charge(self, prefix: Ids, chunk: Chunk) -> None:
        self.usage.prompt += chunk.prompt
        self.usage.reused += chunk.reused
        shared = max((in_common(prefix, known) for known in self._known), default=0)
        self.usage.ideal += len(prefix) - shared
        self._known.append(np.concatenate((prefix, chunk.ids)))

    @staticmethod
    def _extend(draft: Draft, chunk: Chunk, given: bool) -> None:
        draft.chunk = Chunk.concat([draft.chunk, chunk])
        draft.given = np.concatenate((draft.given, np.full(len(chunk.ids), given)))
