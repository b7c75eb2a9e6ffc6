"""Putting a question to a server: one request, patience with one that stumbles, and None where a refusal will do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from wrongturn.engines._dialect import Dialect, Prompt
from wrongturn.engines._http import Trouble
from wrongturn.engines._wire import Key, Reader, Token, events, streamed
from wrongturn.errors import EngineError

if TYPE_CHECKING:
    from wrongturn.engines.openai import OpenAI

T = TypeVar("T")

TEXT = "1,2,3,4,5,6,7,8"
"""Every tokenizer has digits, also one made for a single task."""

TRIES = 4
"""How often a question is put to a server that stumbles."""

ROOM = 2048
"""Least limit of tokens for a model that thinks unseen: one that cannot finish its thoughts is an error there."""


@dataclass(slots=True)
class Answer:
    """What came back: its tokens, what was told about them, and the raw first choice."""

    tokens: list[Token]
    reader: Reader
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> list[Key]:
        """Ids where told, else texts."""
        return [token.text if token.id is None else token.id for token in self.tokens]

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


class Asking:
    """Questions to an engine's server about its model, in the ``dialect`` found so far, with ``prompt`` unless told."""

    def __init__(self, engine: OpenAI) -> None:
        self.engine, self.server, self.model = engine, engine.server, engine.model
        self.dialect = Dialect(engine.mode == "chat")
        self.prompt: Prompt = TEXT
        self.requests = 0

    async def ask(
        self, max_tokens: int = 1, *, prompt: Prompt | None = None, dialect: Dialect | None = None,
        more: dict[str, Any] | None = None, k: int = 1, **options: Any,
    ) -> Answer:  # fmt: skip
        """One request. Raises ``EngineError`` where it is refused."""
        dialect = dialect or self.dialect
        max_tokens = max_tokens if dialect.sampling else max(max_tokens, ROOM)
        body = dialect.body(self.model, self.prompt if prompt is None else prompt, max_tokens, k=k, **options)
        body |= self.engine.extra | (more or {})

        async def once() -> Answer:
            reader = Reader(max(k, 1))
            tokens: list[Token] = []
            async with self.server.post(dialect.path, body) as response:
                if streamed(response):
                    async for data in events(response.aiter_bytes()):
                        tokens += reader.feed(data)
                    reader.check()
                    return Answer(tokens, reader)
                data = await response.aread()
                tokens += reader.feed(data)
                choices = json.loads(data).get("choices") or [{}]
                return Answer(tokens, reader, {"choices": len(choices)} | choices[0])

        return await self.patiently(once)

    async def patiently(self, question: Callable[[], Awaitable[T]]) -> T:
        """What a request brings, put again to a server that stumbles. Raises ``EngineError``."""
        tries = 0
        while True:
            tries += 1
            self.requests += 1
            try:
                return await question()
            except Trouble as trouble:
                if tries == TRIES:
                    raise self.server.failed(trouble) from None
                await asyncio.sleep(self.engine.patience.wait(tries, trouble.after))

    async def attempt(self, *args: Any, **options: Any) -> Answer | None:
        """:meth:`ask`; None where it is refused."""
        try:
            return await self.ask(*args, **options)
        except EngineError as error:
            if error.fatal:
                raise
            return None

    async def fetch(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """JSON from anywhere on the server; None where there is none."""
        try:
            return await self.patiently(lambda: self.server.ask(path, body))
        except EngineError as error:
            if error.fatal:
                raise
            return None

    async def tokenize(self, *, special: bool) -> list[int] | None:
        """The ids of ``TEXT`` by the server, with the tokens that begin a sequence or without; None without such."""
        told = await self.fetch("/tokenize", {"model": self.model, "prompt": TEXT, "add_special_tokens": special})
        tokens = told.get("tokens") if isinstance(told, dict) else None
        return tokens if isinstance(tokens, list) else None
