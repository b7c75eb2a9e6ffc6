"""An OpenAI-compatible server over any engine, for trying a client without a GPU.

Completions and chat, whole or streamed, with log-probabilities up to what the engine knows, token ids in and out in
vLLM's fields, echo, stop strings, prefix reuse in ``usage``. A client that hangs up ends its decoding at once. What
would change an answer and is not served is refused by name, never ignored.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as Http
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive

from wrongturn.engines.base import Engine, Request, Sampling
from wrongturn.errors import EngineError, WrongturnError
from wrongturn.server import asked as ask
from wrongturn.server.answered import Piece, Shape, Spelling, Stops, error, tops
from wrongturn.server.asked import Asked, Fields, Limits, Refused
from wrongturn.server.events import Events, Gone, events

Handler = Callable[[Fields, Http], Awaitable[Response]]


def app(engine: Engine, key: str | None = None, limits: Limits | None = None) -> Starlette:
    """The server as an ASGI application. With ``key``, requests must carry it as their bearer token."""
    return Server(engine, key, limits or Limits()).app


def serve(engine: Engine, host: str, port: int, key: str | None, started: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; ``started`` is told the address (port 0 takes a free one).

    Raises ``WrongturnError`` where the address is not to be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as problem:
        raise WrongturnError(f"cannot listen on {host} port {port}: {problem.strerror or problem}") from None
    config = uvicorn.Config(
        app(engine, key), log_level="warning", lifespan="on", ws="none", timeout_graceful_shutdown=2
    )
    started(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1")
    with listening, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


class Server:
    """The routes and what they have in common: the key, the limits, errors in OpenAI's shape."""

    def __init__(self, engine: Engine, key: str | None, limits: Limits) -> None:
        self._engine, self._key, self._limits = engine, key, limits
        self._born = int(time.time())
        routes = [
            Route("/health", self._health),
            Route("/v1/models", self._route(self._models)),
            Route("/v1/completions", self._route(self._completions), methods=["POST"]),
            Route("/v1/chat/completions", self._route(self._chat), methods=["POST"]),
            Route("/tokenize", self._route(self._tokenize), methods=["POST"]),
            Route("/detokenize", self._route(self._detokenize), methods=["POST"]),
        ]
        handlers = {404: self._unknown, 405: self._unknown, Exception: self._broken}
        self.app = Starlette(routes=routes, lifespan=self._life, exception_handlers=handlers)

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncGenerator[None, None]:
        await self._engine.ready()
        yield
        await self._engine.close()

    def _route(self, handler: Handler) -> Callable[[Http], Awaitable[Response]]:
        async def answer(http: Http) -> Response:
            try:
                self._admit(http)
                body = Fields({}) if http.method == "GET" else ask.parse(await self._read(http))
                if "model" in body and body.get("model") != self._engine.model:
                    message = f"there is no model {body.get('model')!r} here, only {self._engine.model!r}"
                    raise Refused(message, "model", status=404, code="model_not_found")
                return await handler(body, http)
            except Refused as no:
                return JSONResponse(error(str(no), "invalid_request_error", no.field, no.code), no.status)
            except Gone:
                return Response(status_code=499)  # nobody reads it
            except TimeoutError as late:
                return JSONResponse(error(str(late), "timeout_error"), 504)
            except EngineError as failed:
                return JSONResponse(error(str(failed), "engine_error", code=failed.reason), 502)

        return answer

    def _admit(self, http: Http) -> None:
        given = http.headers.get("authorization", "").removeprefix("Bearer ")
        if self._key is not None and not hmac.compare_digest(given.encode(), self._key.encode()):
            raise Refused("wrong or missing API key", status=401, code="invalid_api_key")

    async def _read(self, http: Http) -> bytes:
        # Only JSON: a web page elsewhere cannot send that here without being asked for permission first
        if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused("the content type must be application/json", status=415)
        data = bytearray()
        async for part in http.stream():
            data += part
            if len(data) > self._limits.body:
                raise Refused(f"the body is larger than {self._limits.body} bytes", status=413)
        return bytes(data)

    async def _unknown(self, http: Http, problem: Exception) -> Response:
        status = getattr(problem, "status_code", 404)
        return JSONResponse(error(f"there is no {http.method} {http.url.path}", "invalid_request_error"), status)

    async def _broken(self, http: Http, problem: Exception) -> Response:
        return JSONResponse(error("the server failed; its log says how", "server_error"), 500)

    # -- routes --------------------------------------------------------------------------------------------------------

    async def _health(self, _: Http) -> Response:
        return Response()

    async def _models(self, body: Fields, http: Http) -> Response:
        model = {"id": self._engine.model, "object": "model", "created": self._born, "owned_by": "wrongturn"}
        model |= {"root": self._engine.model, "parent": None, "max_model_len": self._engine.capabilities.context}
        return JSONResponse({"object": "list", "data": [model]})

    async def _completions(self, body: Fields, http: Http) -> Response:
        return await self._answer(await ask.completions(body, self._engine, self._limits), http, chat=False)

    async def _chat(self, body: Fields, http: Http) -> Response:
        return await self._answer(await ask.chat(body, self._engine, self._limits), http, chat=True)

    async def _tokenize(self, body: Fields, http: Http) -> Response:
        vocabulary = self._engine.vocabulary
        if "messages" in body:
            ids = await ask.conversation(body, self._engine)
        elif isinstance(text := body.get("prompt"), str):
            ids = ask.encode(vocabulary, text, body.flag("add_special_tokens", True))
        else:
            raise body.bad("prompt", "text")
        context = self._engine.capabilities.context
        answer: dict[str, Any] = {"count": len(ids), "max_model_len": context, "tokens": ids}
        texts = ask.known(vocabulary).pieces(ids) if body.flag("return_token_strs") else None
        return JSONResponse(answer | {"token_strs": texts})

    async def _detokenize(self, body: Fields, http: Http) -> Response:
        ids, size = body.ids("tokens"), self._engine.capabilities.vocab_size
        if size is not None and any(i >= size for i in ids):
            raise body.bad("tokens", f"a list of token ids below {size}")
        return JSONResponse({"prompt": "".join(ask.known(self._engine.vocabulary).pieces(ids))})

    # -- completions ---------------------------------------------------------------------------------------------------

    async def _answer(self, asked: Asked, http: Http, chat: bool) -> Response:
        requests = [request(asked, i, j) for i in range(len(asked.prompts)) for j in range(asked.n)]
        self._check(asked, requests, "messages" if chat else "prompt")
        shape = Shape(asked, self._engine.model, chat, self._engine.vocabulary)
        pieces = self._pieces(asked, requests, http.receive)
        if asked.stream:
            return Events(events(shape, pieces))
        choices = [Piece() for _ in requests]
        async with aclosing(pieces):
            async for index, piece in pieces:
                choices[index] += piece
        return JSONResponse(shape.whole(choices))

    def _check(self, asked: Asked, requests: list[Request], field: str) -> None:
        known = self._engine.capabilities
        if asked.echo and asked.top is not None and (known.vocab_size is None or known.top_k < known.vocab_size):
            raise Refused("echo with logprobs needs an engine that tells whole distributions", "echo")
        try:
            for one in requests:
                self._engine.check(one)
        except ValueError as problem:
            raise Refused(str(problem), field) from None

    async def _pieces(
        self, asked: Asked, requests: list[Request], receive: Receive
    ) -> AsyncGenerator[tuple[int, Piece], None]:
        """The pieces of all choices, as they come. Raises ``Gone`` and ``TimeoutError``; closing it ends all."""
        queue: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()

        async def decode(index: int) -> None:
            try:
                async with aclosing(choice(self._engine, asked, requests[index])) as pieces:
                    async for piece in pieces:
                        queue.put_nowait((index, piece))
                queue.put_nowait((index, None))
            except Exception as problem:
                queue.put_nowait((index, problem))

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            queue.put_nowait((0, Gone()))

        late = TimeoutError(f"the request took longer than {self._limits.seconds:g} s")
        alarm = asyncio.get_running_loop().call_later(self._limits.seconds, queue.put_nowait, (0, late))
        tasks = [asyncio.create_task(decode(i)) for i in range(len(requests))] + [asyncio.create_task(watch())]
        left = len(requests)
        try:
            while left:
                index, item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    left -= 1
                else:
                    yield index, item
        finally:
            alarm.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def request(asked: Asked, prompt: int, sample: int) -> Request:
    """The engine's request for one choice; samples of a prompt take consecutive seeds."""
    return Request(
        prefix=np.asarray(asked.prompts[prompt], np.int32),
        max_tokens=max(asked.max_tokens, 1),
        sampling=asked.sampling,
        seed=asked.seed + sample,
        stop_ids=asked.stop_ids,
        top_k=asked.top or 0,
        chunk=1 if asked.stream or asked.stop else None,
    )


async def choice(engine: Engine, asked: Asked, request: Request) -> AsyncGenerator[Piece, None]:
    """The pieces of one choice."""
    if asked.echo:
        yield await echo(engine, asked, request)
        if not asked.max_tokens:
            yield Piece(finish="length")
            return
    stops, spelling = Stops(asked.stop), Spelling(engine.vocabulary, int(request.prefix[-1]))
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            ids = chunk.ids.tolist()
            texts = spelling.add(ids, last=chunk.finish is not None)
            piece = Piece(ids, texts, (-chunk.signals.nll).tolist(), tops(chunk))
            spoken = piece.texts[:-1] if chunk.finish == "stop" else piece.texts  # what ends an answer is not said
            piece.text, piece.reason = stops.add("".join(spoken), last=chunk.finish is not None)
            piece.finish, piece.prompt, piece.reused = chunk.finish, chunk.prompt, chunk.reused
            if chunk.finish == "stop" and ids[-1] not in (engine.vocabulary.stop_ids if engine.vocabulary else ()):
                piece.reason = piece.reason or ids[-1]
            if isinstance(piece.reason, str):
                piece.finish = "stop"
            yield piece
            if piece.finish is not None:
                return


async def echo(engine: Engine, asked: Asked, request: Request) -> Piece:
    """The prompt as a piece, scored token by token: each is looked up in the distribution before it."""
    prompt = request.prefix.tolist()
    texts = engine.vocabulary.pieces(prompt) if engine.vocabulary else [""] * len(prompt)
    piece = Piece(prompt, texts, [float("nan")] * len(prompt), [None] * len(prompt), "".join(texts), echoed=len(prompt))
    for i in range(1, len(prompt) if asked.top is not None else 1):
        whole = engine.capabilities.vocab_size or 0
        chunk = await engine.generate(Request(request.prefix[:i], 1, Sampling(0.0), top_k=whole))
        listed = tops(chunk)[0] or []
        piece.logprobs[i] = dict(listed).get(prompt[i], float("-inf"))
        piece.tops[i] = listed[: asked.top]
    return piece
