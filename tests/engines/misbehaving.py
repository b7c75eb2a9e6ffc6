"""An OpenAI-compatible server on loopback, with a toy model behind it, that misbehaves on purpose.

It is a real server: sockets, HTTP/1.1 with chunked bodies, a thread and an event loop of its own. What it would answer
without faults is a pure function (:meth:`Toy.complete`), so a test can say what must come of a request.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import random
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakSet

MODEL, KEY = "toy", "sk-secret-1234567890"
EOS, SIZE = 0, 40
WORDS = ["", "\n", " é", " 漢", *(f" w{i}" for i in range(4, SIZE))]
_PIECE = re.compile(r" w\d+| é| 漢|\n|\S| ")

FAULTS = (
    "429", "429 date", "500", "503", "cut", "half", "json", "choices", "absent", "null", "nan", "short", "twice",
    "hang", "error",
)  # fmt: skip


class Toy:
    """The next token depends on the last two. Text is cut into words; what is no word is some token all the same."""

    def encode(self, text: str) -> list[int]:
        return [WORDS.index(p) if p in WORDS else 4 + sum(p.encode()) % 36 for p in _PIECE.findall(text)]

    @staticmethod
    @cache
    def logprobs(state: tuple[int, ...]) -> tuple[float, ...]:
        rng = random.Random(str(state))
        logits = [rng.gauss(0.0, 2.0) for _ in range(SIZE)]
        total = math.log(sum(map(math.exp, logits)))
        return tuple(logit - total for logit in logits)

    @staticmethod
    @cache
    def best(state: tuple[int, ...]) -> tuple[int, ...]:
        logprobs = Toy.logprobs(state)
        return tuple(sorted(range(SIZE), key=lambda i: -logprobs[i]))

    def complete(self, prompt: list[int], n: int, temperature: float, seed: int | None) -> list[int]:
        ids, rng = list(prompt), random.Random(seed)
        for _ in range(n):
            logprobs = self.logprobs(tuple(ids[-2:]))
            if temperature == 0:
                token = max(range(SIZE), key=logprobs.__getitem__)
            else:
                token = rng.choices(range(SIZE), [math.exp(lp / temperature) for lp in logprobs])[0]
            ids.append(token)
            if token == EOS:
                break
        return ids[len(prompt) :]


@dataclass
class Manners:
    """What the server can do, and what it does to whom: ``fault(number of the request, its body)``."""

    ids: bool = True  # token ids, in and out
    completions: bool = True
    chat: bool = True
    prefill: bool = True
    tokenize: bool = True
    logprobs: bool = True
    raw: bool = True
    most: int = 20
    streams: bool = True  # logprobs while streaming
    usage: bool = True
    seeds: bool = True
    cached: bool | None = None
    thinks: bool = False  # the first three words of an answer are split off as reasoning
    token_time: float = 0.0
    expired: bool = False  # the key is good no more
    fault: Callable[[int, Mapping[str, Any]], str | None] = lambda number, body: None


class Listening(asyncio.StreamReader):
    """A stream that tells when the other side has gone, without anything being read."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        self.gone.set()
        super().feed_eof()

    def set_exception(self, exc: BaseException) -> None:
        self.gone.set()
        super().set_exception(exc)  # type: ignore[arg-type]


@dataclass
class Server:
    """Use as a context manager; ``url`` is its base URL. ``restart()`` drops all connections and is away a while."""

    manners: Manners = field(default_factory=Manners)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    closed: list[int] = field(default_factory=list)  # requests whose connection the client closed before the end
    times: list[float] = field(default_factory=list)  # of the requests' arrival
    busiest: int = 0
    port: int = 0

    def __enter__(self) -> Server:
        self.toy, self._busy = Toy(), 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._transports: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def restart(self, away: float = 0.1) -> None:
        self._call(self._shut())
        time.sleep(away)
        self._call(self._open())

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.StreamReaderProtocol:
            made = asyncio.StreamReaderProtocol(Listening(loop=loop), self._connection)
            begin = made.connection_made
            made.connection_made = lambda transport: (self._transports.add(transport), begin(transport))[1]
            return made

        self._server = await loop.create_server(protocol, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        self._server.close()
        await asyncio.sleep(0.002)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # also of connections just coming in
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(others, timeout=0.05)
        for transport in self._transports:
            transport.abort()
        while any(transport.get_extra_info("socket").fileno() >= 0 for transport in self._transports):
            await asyncio.sleep(0.002)
        self._transports.clear()

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert isinstance(reader, Listening)
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *lines = head.split("\r\n")
                headers = {k.lower(): v for k, _, v in (h.partition(": ") for h in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._request(line.split()[1], headers, json.loads(body) if body else {}, reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _request(
        self,
        path: str,
        headers: Mapping[str, str],
        body: dict[str, Any],
        reader: Listening,
        writer: asyncio.StreamWriter,
    ) -> None:
        manners = self.manners
        if manners.expired or headers.get("authorization") != f"Bearer {KEY}":
            said = f"Incorrect API key provided: {headers.get('authorization')}"
            return self._plain(writer, 401, {"error": {"message": said}})
        if path == "/v1/models":
            return self._plain(writer, 200, {"data": [{"id": MODEL, "max_model_len": 4096}]})
        if path == "/version":
            return self._plain(writer, 200, {"version": "0.1-toy"})
        if path in ("/tokenize", "/detokenize") and manners.tokenize:
            return self._plain(writer, 200, self._tokenize(path, body))
        chat = path == "/v1/chat/completions"
        if not (manners.chat if chat else path == "/v1/completions" and manners.completions):
            return self._plain(writer, 404, {"detail": "Not Found"})
        if body["model"] != MODEL:
            return self._plain(writer, 404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        number = len(self.bodies)
        self.bodies.append(body)
        self.times.append(time.monotonic())
        refusal = self._refusal(body, chat)
        if refusal:
            return self._plain(writer, 400, {"error": {"message": refusal}})
        fault = manners.fault(number, body)
        if fault:
            self.faults[fault] += 1
        if fault in ("429", "429 date", "429 wait"):
            passed = email.utils.formatdate(time.time() - 1, usegmt=True)
            after = {"429": "0", "429 date": passed, "429 wait": "0.3"}[fault]
            return self._plain(writer, 429, {"error": {"message": "slow down"}}, f"Retry-After: {after}\r\n")
        if fault in ("500", "503"):
            return self._plain(writer, int(fault), {"error": {"message": "out of order"}})
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        gone = asyncio.ensure_future(reader.gone.wait())
        answer = asyncio.ensure_future(self._answer(body, chat, fault, writer))
        try:
            await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() or isinstance(answer.exception(), ConnectionError):
                self.closed.append(number)
                raise ConnectionResetError
            answer.result()
        finally:
            self._busy -= 1
            answer.cancel()
            gone.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)

    @staticmethod
    def _plain(writer: asyncio.StreamWriter, status: int, body: Any, headers: str = "") -> None:
        content = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
        )
        writer.write(head.encode() + content)

    async def _answer(self, body: dict[str, Any], chat: bool, fault: str | None, writer: asyncio.StreamWriter) -> None:
        if not body.get("stream"):
            content = json.dumps(self._whole(body, chat), ensure_ascii=False).encode()
            if fault == "json":
                content = content[: len(content) // 2]
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            writer.write(head.encode() + content)
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        async for data in self._spoilt(list(self._events(body, chat, fault)), fault, writer):
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
            if self.manners.token_time:
                await asyncio.sleep(self.manners.token_time)
        writer.write(b"0\r\n\r\n")

    async def _spoilt(
        self, events: list[dict[str, Any]], fault: str | None, writer: asyncio.StreamWriter
    ) -> AsyncIterator[bytes]:
        """The events of a stream as bytes, or what becomes of them."""
        middle = len(events) // 2
        for i, event in enumerate(events):
            data = f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
            if i == middle and fault == "cut":
                writer.transport.abort()
                await asyncio.sleep(0)
                return
            if i == middle and fault == "hang":
                await asyncio.sleep(60)
            if i == middle and fault == "error":
                yield b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
                return
            if i == middle and fault == "json":
                yield data[: len(data) // 2]
                return
            if i == middle and fault == "half":
                yield b'data: {"choices": [{"index": 0, "text": "\xc3"}]}\n\n'
            if i == middle and fault == "choices":
                yield b': a comment\n\ndata: {"choices": []}\n\n'
            yield data
            if fault == "twice" and i == middle:
                yield data
        yield b"data: [DONE]\n\n"

    # -- the API -------------------------------------------------------------------------------------------------------

    def _refusal(self, body: Mapping[str, Any], chat: bool) -> str | None:
        manners = self.manners
        wanted = body.get("top_logprobs", 0) if chat else body.get("logprobs") or 0
        if not manners.logprobs and body.get("logprobs") is not None:
            return "logprobs are not supported"
        if wanted > manners.most:
            return f"Requested sample logprobs of {wanted}, which is greater than max allowed: {manners.most}"
        if not manners.ids and not chat and not isinstance(body["prompt"], str):
            return "prompt must be a string"
        return "n must be 1" if body.get("n", 1) != 1 and not manners.ids else None

    def _tokenize(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if path == "/detokenize":
            return {"prompt": "".join(WORDS[token] for token in body["tokens"])}
        if "messages" in body:
            return {"tokens": self._chat(body)}
        return {"tokens": self.toy.encode(body["prompt"])}

    def _chat(self, body: Mapping[str, Any]) -> list[int]:
        """The chat template: contents in turn, a line end after each unless it is to be continued."""
        text = ""
        for i, message in enumerate(body["messages"]):
            last = i == len(body["messages"]) - 1
            open_end = last and message["role"] == "assistant" and self.manners.prefill
            text += message["content"] + ("" if open_end else "\n")
        return self.toy.encode(text)

    def drawn(self, body: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Prompt and completion of a request, as ids."""
        if "messages" in body:
            prompt = self._chat(body)
        else:
            prompt = self.toy.encode(body["prompt"]) if isinstance(body["prompt"], str) else body["prompt"]
        seed = body.get("seed") if self.manners.seeds else None
        return prompt, self.toy.complete(prompt, body["max_tokens"], body["temperature"], seed)

    def _events(self, body: Mapping[str, Any], chat: bool, fault: str | None) -> Iterator[dict[str, Any]]:
        prompt, ids = self.drawn(body)
        options = body.get("stream_options") or {}
        at, offset = list(prompt), 0
        for i, token in enumerate(ids):
            choice: dict[str, Any] = {"index": 0, "finish_reason": None}
            if i == len(ids) - 1:
                choice["finish_reason"] = "stop" if token == EOS else "length"
            thinks = self.manners.thinks and i < 3
            if chat:
                choice["delta"] = {"reasoning_content" if thinks else "content": WORDS[token]}
            else:
                choice["text"] = WORDS[token]
            if self.manners.streams:
                choice |= self._logprobs(body, chat, at, [token], offset, fault)
            event: dict[str, Any] = {"id": "x", "choices": [choice]}
            if options.get("continuous_usage_stats") and self.manners.ids:
                event["usage"] = self._usage(prompt, i + 1)
            yield event
            at.append(token)
            offset += len(WORDS[token])
        if options.get("include_usage") and self.manners.usage:
            yield {"id": "x", "choices": [], "usage": self._usage(prompt, len(ids))}

    def _whole(self, body: Mapping[str, Any], chat: bool) -> dict[str, Any]:
        prompt, ids = self.drawn(body)
        text = "".join(WORDS[token] for token in ids)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if ids[-1] == EOS else "length"}
        if chat:
            cut = sum(len(WORDS[token]) for token in ids[:3]) if self.manners.thinks else 0
            choice["message"] = {"reasoning_content": text[:cut] or None, "content": text[cut:]}
        else:
            choice["text"] = text
        shown, before = (prompt + ids, 1) if body.get("echo") and self.manners.ids else (ids, len(prompt))
        shown = shown[1:] if before == 1 else shown
        choice |= self._logprobs(body, chat, prompt[:before], shown, 0, None)
        return {"choices": [choice] * body.get("n", 1), "usage": self._usage(prompt, len(ids))}

    def _usage(self, prompt: list[int], n: int) -> dict[str, Any]:
        usage: dict[str, Any] = {"prompt_tokens": len(prompt), "completion_tokens": n}
        if self.manners.cached is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": len(prompt) // 2 if self.manners.cached else 0}
        return usage

    def _logprobs(
        self,
        body: Mapping[str, Any],
        chat: bool,
        prompt: list[int],
        ids: list[int],
        offset: int,
        fault: str | None,
    ) -> dict[str, Any]:
        """What is told about ``ids`` after ``prompt``: ids and logprobs, as the endpoint writes them."""
        told: dict[str, Any] = {}
        if body.get("return_token_ids") and self.manners.ids and not chat:
            told = {"token_ids": ids, "prompt_token_ids": prompt}
        if body.get("logprobs") is None or fault == "absent":
            return told
        if fault == "null":
            return told | {"logprobs": None}
        k = body.get("top_logprobs", 0) if chat else body["logprobs"]
        marked = body.get("return_tokens_as_token_ids") and self.manners.ids
        at, tokens, chosen, tops = list(prompt), [], [], []
        for token in ids:
            logprobs = self.toy.logprobs(tuple(at[-2:]))
            if not self.manners.raw and body["temperature"] > 0:
                scaled = [lp / body["temperature"] for lp in logprobs]
                total = math.log(sum(map(math.exp, scaled)))
                logprobs = tuple(lp - total for lp in scaled)
            best = sorted(range(SIZE), key=lambda i: -logprobs[i])[:k]
            listed = [*best] if token in best else [*best, token]
            name = (lambda i: f"token_id:{i}") if marked else WORDS.__getitem__
            tokens.append(name(token))
            chosen.append(math.nan if fault == "nan" else logprobs[token])
            tops.append({name(i): math.nan if fault == "nan" else logprobs[i] for i in listed})
            at.append(token)
        if fault == "short":
            chosen, tops = [], tops[:0]
        if not chat:
            return told | {
                "logprobs": {
                    "tokens": tokens if fault != "short" or told else [],
                    "token_logprobs": chosen,
                    "top_logprobs": tops,
                    "text_offset": [offset + i for i in range(len(tokens))],
                }
            }
        content = [
            {
                "token": token,
                "logprob": lp,
                "bytes": list(token.encode()),
                "top_logprobs": [
                    {"token": t, "logprob": v, "bytes": list(t.encode())} for t, v in list(top.items())[:k]
                ],
            }
            for token, lp, top in zip(tokens, chosen, tops, strict=False)
        ]
        return told | {"logprobs": {"content": content}}
