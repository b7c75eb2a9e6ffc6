"""Any server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, hosted models.

Where a server takes and returns token ids, a trace is the ids it sent, and a prefix is continued exactly. Where it
only knows text, a token is its text, and a prefix is continued as text; in a chat, where the server continues the
assistant's turn. Which of these it is, the probe finds out (:mod:`wrongturn.engines.probe`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx
import numpy as np

from wrongturn.engines._completion import Completion, Key, Token, after, seed_after
from wrongturn.engines._dialect import Dialect, Prompt, public
from wrongturn.engines._http import Patience, Server, Trouble
from wrongturn.engines._tokenizer import HFVocabulary
from wrongturn.engines._wire import Reader, events, key, streamed
from wrongturn.engines._words import Mapped, Served, chat
from wrongturn.engines.base import Capabilities, Chunk, Engine, Request, Sampling
from wrongturn.engines.probe import MODES, ProbeReport, probe
from wrongturn.errors import EngineError
from wrongturn.vocabulary import Interned, Message, Vocabulary

URL = "http://localhost:8000/v1"


class OpenAI(Engine):
    """Continues what a server's ``model`` is given.

    Args:
        base_url: up to and with ``/v1``; by default ``OPENAI_BASE_URL``, or vLLM's on this machine.
        api_key: by default ``OPENAI_API_KEY``. It is in no trace and no message.
        tokenizer: a folder or name of the model's Hugging Face tokenizer: exact texts of tokens, no questions to the
            server, and a chat template of your own for servers that know only text.
        concurrency: most requests at once.
        timeout: longest silence of the server, in seconds.
        retries: how often a request is repeated that failed in a way that may pass.
        mode: "completions" or "chat" instead of what the probe would choose.
        logprobs: alternatives asked for per token, where the server grants as many: what entropies are computed from.
        extra: more fields for every request's body, as the server documents them.
        vocab_size: tokens there are, where no tokenizer says it: without, entropies have no upper bound.
        capabilities: what the server can do, instead of a probe.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        tokenizer: str | None = None,
        *,
        concurrency: int = 64,
        timeout: float = 120.0,
        retries: int | Patience = 6,
        mode: str = "auto",
        logprobs: int = 20,
        extra: Mapping[str, Any] | None = None,
        vocab_size: int | None = None,
        capabilities: Capabilities | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        for name, value, least in (("concurrency", concurrency, 1), ("logprobs", logprobs, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}")
        self.model, self.mode, self.logprobs, self.extra = model, mode, logprobs, dict(extra or {})
        self.concurrency = concurrency + concurrency // 2  # so that the connections never wait for a problem
        self.tokenizer = None if tokenizer is None else HFVocabulary.load(tokenizer)
        self.vocab_size = len(self.tokenizer) if vocab_size is None and self.tokenizer else vocab_size
        self.capabilities = capabilities or Capabilities(logprobs="none")
        self.report: ProbeReport | None = None
        self.server = Server(
            base_url or os.environ.get("OPENAI_BASE_URL") or URL,
            api_key or os.environ.get("OPENAI_API_KEY") or "EMPTY",
            timeout=timeout,
            concurrency=concurrency,
        )
        self._tokenizer_name = tokenizer
        self.patience = retries if isinstance(retries, Patience) else Patience(retries)
        self._dialect: Dialect | None = None
        if capabilities is not None:
            ids = bool(capabilities.token_ids) and mode != "chat"
            speaks = capabilities.streaming is not False, capabilities.logprobs != "none"
            prefill = {} if capabilities.prefix else None
            self._speak(Dialect(mode == "chat", ids, prefill, speaks[0], logprobs=speaks[1]))

    # -- what it is ----------------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Probe the server, once. Raises a fatal ``EngineError`` where it is not there or has no such model."""
        if self._dialect is None:
            async with self.server.session().lock:
                if self._dialect is None:
                    self.adopt(await probe(self))

    def adopt(self, report: ProbeReport) -> None:
        """Believe a probe."""
        self.report, self.capabilities = report, report.capabilities
        self._speak(report.dialect, report.tokenizes)

    def _speak(self, dialect: Dialect, tokenizes: bool = False) -> None:
        vocabulary: Vocabulary | None
        if dialect.chat:
            vocabulary = Interned()
        elif dialect.ids:
            vocabulary = self.tokenizer or (Served(self.server, self.model, self.patience) if tokenizes else None)
        else:
            vocabulary = Mapped(self.tokenizer) if self.tokenizer else Interned()
        self.vocabulary, self._dialect = vocabulary, dialect

    def identity(self) -> dict[str, Any]:
        """Also the tokenizer and the extra fields of requests, where given: those may change what is drawn."""
        more = {"tokenizer": self._tokenizer_name, "extra": public(self.extra)}
        return super().identity() | {name: value for name, value in more.items() if value}

    def provenance(self) -> dict[str, Any]:
        """Also where the server is, which one it is, and how many alternatives it is asked for."""
        facts = {"base_url": self.server.url, "logprobs": min(self.logprobs, self.capabilities.top_k)}
        if self._dialect is not None:
            facts["endpoint"] = self._dialect.path
        if self.report is not None and self.report.version:
            facts["server"] = self.report.version
        return super().provenance() | facts

    async def prompt(self, messages: Sequence[Message]) -> Sequence[int]:
        """Token ids of a conversation: from the server's or the given chat template, or one token for all of it."""
        await self.ready()
        vocabulary = self.vocabulary
        if isinstance(vocabulary, Served):
            return (await self._patiently("/tokenize", {"model": self.model} | chat(messages)))["tokens"]
        if isinstance(vocabulary, Interned) and self._dialect is not None and not self._dialect.chat:
            return [vocabulary.intern("\n\n".join(message["content"] for message in messages))]  # a plain text model
        if vocabulary is None:
            raise EngineError(
                f"{self.server.url} does not tokenize for others: give the tokenizer of {self.model}", fatal=True
            )
        return vocabulary.prompt(messages)

    def check(self, request: Request) -> None:
        """See :meth:`Engine.check`; a prompt too long for the model concerns only its own problem.

        Another temperature than the only one a model has is a fatal ``EngineError``.
        """
        context = self.capabilities.context
        if context is not None and len(request.prefix) >= context:
            raise EngineError(f"{len(request.prefix)} tokens do not fit the context of {context}", "context")
        if self._dialect is not None and not self._dialect.sampling and request.sampling != Sampling():
            sampling = request.sampling
            raise EngineError(
                f"{self.model} at {self.server.url} takes no temperature and no top_p: it draws with 1 and 1, not"
                f" {sampling.temperature:g} and {sampling.top_p:g}",
                fatal=True,
            )
        super().check(request)

    async def close(self) -> None:
        """Close the connections of the running loop."""
        await self.server.close()

    # -- continuing ----------------------------------------------------------------------------------------------------

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Chunks of the continuation, at least one; see :meth:`Engine.stream`.

        A request that fails in a way that may pass is repeated from where it was handed out, with the same seed: from
        its beginning, unless chunks were asked for. Raises ``EngineError`` where that does not help.
        """
        await self.ready()
        self.check(request)
        request = left = replace(request, prefix=np.asarray(request.prefix, np.int32))
        tries = 0
        while True:
            try:
                async with aclosing(self._attempt(left)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                        if chunk.finish is not None:
                            return
                        left = after(left, chunk)
            except Trouble as trouble:
                if left.prefix.size > request.prefix.size and not self.capabilities.prefix:
                    raise self.server.failed(trouble, "; what was handed out cannot be continued") from None
                tries += 1
                await self._wait(trouble, tries)

    async def _attempt(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """The chunks of one request to the server. Raises ``Trouble`` where another may go better."""
        dialect, limit = self._dialect, self._limit(request)
        assert dialect is not None
        completion = Completion(request, limit, self.vocab_size, self._id)
        k = min(self.capabilities.top_k, max(self.logprobs, request.top_k))
        reader = Reader(k, self.vocab_size)
        if limit < 1:
            yield self._last(completion, reader, "budget")
            return
        why, token = None, None
        async with self.server.post(dialect.path, self._body(dialect, request, limit, k)) as response:
            async with aclosing(_data(response)) as stream:
                async for data in stream:
                    for token in reader.feed(data):
                        why = completion.add(token, len(reader.doubtful))
                        if why is not None:
                            break
                    if why is not None:
                        break
                    if completion.due:
                        yield completion.take()
            if why is None:
                completion.drop(reader.check(), reader.doubtful)
                completion.unlisted = completion.charge(reader.told, ended=True)
                if token is not None and reader.finish == "stop" and isinstance(self.vocabulary, Served):
                    self.vocabulary.learn_end(token)
            else:  # what came with the token it ends before, or with the whole answer, was decoded too
                completion.charge(max(reader.count, reader.told), ended=not streamed(response))
        yield self._last(completion, reader, why or completion.finish(reader.finish))

    def _limit(self, request: Request) -> int:
        """How many tokens to ask for: no more than are left, and fit."""
        most = request.max_tokens
        if request.meter is not None:
            most = int(min(most, request.meter.left))
        context = self.capabilities.context
        return most if context is None or not self._exact else min(most, context - len(request.prefix))

    def _body(self, dialect: Dialect, request: Request, limit: int, k: int) -> dict[str, Any]:
        begun = len(request.prefix) if request.start is None else request.start
        prompt, written = self._prompt(request)
        body = dialect.body(
            self.model,
            prompt,
            limit,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            seed=seed_after(request.seed, len(request.prefix) - begun),
            k=k,
            stop_ids=request.stop_ids,
            written=written,
            stream=True,
        )
        return body | self.extra

    def _prompt(self, request: Request) -> tuple[Prompt, str]:
        """What the server is sent for a prefix, and what a chat's answer begins with."""
        vocabulary = self.vocabulary
        if self._exact or vocabulary is None:
            return request.prefix.tolist(), ""
        pieces = vocabulary.pieces(request.prefix)
        if not isinstance(vocabulary, Interned) or not (self._dialect and self._dialect.chat):
            return "".join(pieces), ""
        written = "".join(pieces[1:])
        if written and not self.capabilities.prefix:
            raise EngineError(
                f"{self.server.url} does not continue an answer that has begun (neither token ids nor text prompts nor"
                " an assistant's turn at the end)",
                fatal=True,
            )
        try:
            return vocabulary.messages(int(request.prefix[0])), written
        except ValueError:  # a plain text
            return pieces[0], written

    @property
    def _exact(self) -> bool:
        """Whether token ids are those of the server."""
        return self._dialect is not None and self._dialect.ids

    def _id(self, token: Token | Key) -> int:
        """The id of a token or of an alternative."""
        vocabulary = self.vocabulary
        if isinstance(token, Token):
            if self._exact and isinstance(vocabulary, Served) and token.id is not None:
                vocabulary.learn(token.id, token.text)
            token = token.text if token.id is None or not self._exact else token.id
        elif isinstance(token, str):
            token = key(token)
        if isinstance(token, int):
            return token
        return vocabulary.intern(token) if isinstance(vocabulary, Interned | Mapped) else -1

    def _last(self, completion: Completion, reader: Reader, finish: str) -> Chunk:
        chunk = completion.take()
        chunk.finish, chunk.pending, chunk.unlisted = finish, completion.pending, completion.unlisted
        prompt, cached = reader.usage.get("prompt_tokens"), reader.usage.get("prompt_tokens_details")
        cached = cached.get("cached_tokens") if isinstance(cached, dict) else None
        chunk.reused = cached if isinstance(cached, int) else 0
        if isinstance(prompt, int):
            chunk.prompt = prompt - chunk.reused
        elif self._exact and len(completion):  # it told no count, but there is one
            chunk.prompt = len(completion.request.prefix)
        return chunk

    # -- trying again --------------------------------------------------------------------------------------------------

    async def _wait(self, trouble: Trouble, tries: int) -> None:
        if tries > self.patience.times:
            raise self.server.failed(trouble, f" ({tries} tries)") from None
        await asyncio.sleep(self.patience.wait(tries, trouble.after))

    async def _patiently(self, path: str, body: dict[str, Any]) -> Any:
        """A small question, repeated like a request."""
        tries = 0
        while True:
            try:
                return await self.server.ask(path, body)
            except Trouble as trouble:
                tries += 1
                await self._wait(trouble, tries)


async def _data(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The events of a response; one that is not a stream is one event."""
    if not streamed(response):
        yield await response.aread()
        yield b"[DONE]"
        return
    plain = "content-encoding" not in response.headers  # then nothing need look at the bytes before us
    pieces: AsyncIterator[bytes] = response.aiter_raw() if plain else response.aiter_bytes()
    async for data in events(pieces):
        yield data
