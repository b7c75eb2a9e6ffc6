"""Several servers of one model as one engine: work goes where the prompt is cached, or to whoever has least to do."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np

from wrongturn.engines._completion import after
from wrongturn.engines._words import Served
from wrongturn.engines.base import Chunk, Engine, Request
from wrongturn.engines.openai import OpenAI
from wrongturn.errors import EngineError
from wrongturn.vocabulary import Message

PASSING = ("connection", "timeout", "server error", "rate limited", "bad response")
"""What one server's trouble may be while the others have none."""

AHEAD = 8  # requests a server may have more than the idlest before it is no longer asked for the sake of its cache
REST = 60.0  # seconds a server is left alone after it gave up on a request


class Pool(Engine):
    """Spreads requests over ``engines``, which must be the same model and be able to do the same.

    A server that fails is left alone for a while and its requests go to the others; one that does not answer at the
    start is left out, as long as another does.
    """

    def __init__(self, engines: Sequence[OpenAI]) -> None:
        if not engines:
            raise ValueError("a pool needs at least one engine")
        if any(engine.identity() != engines[0].identity() for engine in engines):
            raise ValueError("the engines of a pool must be the same model with the same tokenizer")
        self.engines = list(engines)
        self.name, self.model = engines[0].name, engines[0].model
        self.capabilities = engines[0].capabilities
        self.concurrency = sum(engine.concurrency for engine in engines)
        self._busy = [0] * len(engines)
        self._rests = [0.0] * len(engines)  # until when, by the monotonic clock
        self._ready = False

    def identity(self) -> dict[str, Any]:
        """That of each of its engines."""
        return self.engines[0].identity()

    def provenance(self) -> dict[str, Any]:
        """Also where all the servers are."""
        urls = [engine.server.url for engine in self.engines]
        return self.engines[0].provenance() | {"base_url": urls, "capabilities": self.capabilities.dict()}

    async def ready(self) -> None:
        """Probe all servers. Raises a fatal ``EngineError`` where none answers, or they differ in what they do."""
        if self._ready:
            return
        found = await asyncio.gather(*(engine.ready() for engine in self.engines), return_exceptions=True)
        for error in found:
            away = isinstance(error, EngineError) and error.reason == "connection"
            if error is not None and (not away or None not in found):
                raise error
        alive = [engine for engine, error in zip(self.engines, found, strict=True) if error is None]
        known = [engine.capabilities for engine in alive]
        for name in ("logprobs", "token_ids", "prefix"):
            values = {str(getattr(c, name)) for c in known}
            if len(values) > 1:
                raise EngineError(
                    f"the servers of {self.model} differ in {name}: {', '.join(sorted(values))}", fatal=True
                )
        shared = {
            name: value if all(getattr(c, name) == value for c in known) else None
            for name, value in known[0].dict().items()
        }
        contexts = [c.context for c in known if c.context is not None]
        least = {"top_k": min(c.top_k for c in known), "context": min(contexts) if contexts else None}
        self.capabilities = replace(known[0], **(shared | least))
        self.vocabulary = alive[0].vocabulary
        if isinstance(self.vocabulary, Served):
            self.vocabulary.servers = [engine.server for engine in alive]
        for engine in alive:
            engine.capabilities, engine.vocabulary = self.capabilities, self.vocabulary
        self._busy, self._rests = [0] * len(alive), [0.0] * len(alive)
        self.engines, self._ready = alive, True

    async def prompt(self, messages: Sequence[Message]) -> Sequence[int]:
        """See :meth:`Engine.prompt`; by any of the servers. Raises ``EngineError`` once all have given up."""
        await self.ready()
        content, failed = repr(messages).encode(), set[int]()
        while True:
            at = self._choose(content, failed)
            try:
                return await self.engines[at].prompt(messages)
            except EngineError as error:
                self._leave(at, failed, error)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """See :meth:`Engine.stream`. Raises ``EngineError`` once every server has given up on the request."""
        await self.ready()
        left, failed = request, set[int]()
        while True:
            begun = len(request.prefix) if request.start is None else request.start
            at = self._choose(np.asarray(request.prefix[:begun], np.int32).tobytes(), failed)
            self._busy[at] += 1
            try:
                async with aclosing(self.engines[at].stream(left)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                        if chunk.finish is not None:
                            return
                        left = after(left, chunk)
            except EngineError as error:
                if left is not request and not self.capabilities.prefix:
                    raise
                self._leave(at, failed, error)
            finally:
                self._busy[at] -= 1

    async def close(self) -> None:
        """Close the connections of the running loop."""
        for engine in self.engines:
            await engine.close()

    def _leave(self, at: int, failed: set[int], error: EngineError) -> None:
        """Give up on a server for a while; raise the error where the others would do no better, or there is none."""
        failed.add(at)
        if error.reason not in PASSING or len(failed) == len(self.engines):
            raise error
        self._rests[at] = time.monotonic() + REST

    def _choose(self, prompt: bytes, failed: set[int]) -> int:
        """The server for a prompt: the same one as before, unless it rests, has failed or has too much to do."""
        now = time.monotonic()
        able = [i for i in range(len(self.engines)) if i not in failed]
        able = [i for i in able if self._rests[i] <= now] or able
        idlest = min(self._busy[i] for i in able)
        near = [i for i in able if self._busy[i] <= idlest + AHEAD]
        return max(near, key=lambda i: zlib.crc32(prompt, i * 0x9E3779B1 & 0xFFFFFFFF))
