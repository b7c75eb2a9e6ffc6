"""One server over HTTP: connections, how many requests at once, what is worth repeating and when, and what is not.

What a server answers is reported with the key cut out, and a refusal that would meet every request is said once.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import itertools
import json
import random
import ssl
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from wrongturn.errors import EngineError

REPEATED = {408: "timeout", 409: "server error", 425: "server error", 429: "rate limited", 529: "rate limited"}
"""Statuses below 500 (and one above) that are worth another try, and what to call them. So are all from 500 on."""


class Trouble(Exception):
    """A request went wrong in a way that another try may mend; ``after`` is how long the server asks to wait (s)."""

    def __init__(self, reason: str, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.after = reason, after


class Refused(EngineError):
    """The server does not do what it was asked; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int, reason: str = "refused", *, fatal: bool = False) -> None:
        super().__init__(message, reason, fatal=fatal)
        self.status = status


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is repeated, and the waits in between: doubling from ``first`` to ``most`` seconds."""

    times: int = 6
    first: float = 0.5
    most: float = 30.0

    def wait(self, tries: int, after: float | None) -> float:
        """Seconds before try number ``tries`` + 1: half of it by lot, so that many do not come back at once."""
        most = min(self.most, self.first * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)
        return most if after is None else max(after, most)


@dataclass(slots=True)
class _Session:
    """What belongs to one event loop."""

    clients: list[httpx.AsyncClient]
    free: list[httpx.AsyncClient]  # those with no request under way
    gate: asyncio.Semaphore
    lock: asyncio.Lock
    keeper: asyncio.Task[None]
    until: float = 0.0  # nothing is asked before this time of the loop: the server said so
    fatal: EngineError | None = None


class Server:
    """An OpenAI-compatible server at ``base_url``; at most ``concurrency`` requests at once, ``timeout`` s of silence.

    A server may be used from several event loops, one after the other: each gets connections of its own, which are
    closed when the loop ends.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout: float, concurrency: int) -> None:
        try:
            address = httpx.URL(base_url.strip().rstrip("/"))
        except httpx.InvalidURL:
            address = httpx.URL("")
        if address.scheme not in ("http", "https") or not address.host or (address.port or 0) > 65535:
            shown = base_url.rpartition("@")[2]  # a password stands before
            raise ValueError(f"base URL {shown!r}: expected http(s)://HOST[:PORT]/v1")
        if address.path == "/":
            address = address.copy_with(path="/v1")
        self.url = str(address.copy_with(userinfo=b"", query=None)).rstrip("/")
        self.root = self.url.removesuffix("/v1")
        self._key = api_key.strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise EngineError("the API key holds characters that no HTTP header may", fatal=True)
        self._auth = (address.username, address.password) if address.username else None
        basic = base64.b64encode(":".join(self._auth).encode()).decode() if self._auth else ""  # as it is sent
        secrets = self._key, address.userinfo.decode(), address.password, basic
        self._secrets = [secret for secret in secrets if secret and secret != "EMPTY"]
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=None)
        self._tls: ssl.SSLContext | None = None
        self._concurrency = concurrency
        self._seen = False  # it has answered before
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Session] = WeakKeyDictionary()

    # -- the connections of a loop -------------------------------------------------------------------------------------

    def session(self) -> _Session:
        """The connections of the running loop."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            clients: list[httpx.AsyncClient] = []
            keeper = loop.create_task(_keep(clients), name=f"connections to {self.url}")
            _KEEPERS.add(keeper)  # a loop itself holds its tasks but weakly
            keeper.add_done_callback(_KEEPERS.discard)
            session = _Session(clients, [], asyncio.Semaphore(self._concurrency), asyncio.Lock(), keeper)
            self._sessions[loop] = session
        return session

    async def close(self) -> None:
        """Close the connections of the running loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            session.keeper.cancel()
            with suppress(asyncio.CancelledError):
                await session.keeper
            await _shut(session.clients)

    @contextmanager
    def _client(self, session: _Session) -> Iterator[httpx.AsyncClient]:
        """A client, and so a connection, for one request: a client's pool looks at all it has for every request."""
        if not session.free:
            session.clients.append(httpx.AsyncClient(**self._options()))
            session.free.append(session.clients[-1])
        client = session.free.pop()
        try:
            yield client
        finally:
            session.free.append(client)

    def _headers(self) -> dict[str, str]:
        return {} if self._auth else {"Authorization": f"Bearer {self._key}"}

    def _options(self) -> dict[str, Any]:
        """Options of a client. Redirects are not followed: the key is for this server alone."""
        if self._tls is None:  # reading all certificates takes longer than most requests
            self._tls = httpx.create_ssl_context(verify=self.url.startswith("https:"))
        return {"headers": self._headers(), "auth": self._auth, "timeout": self._timeout, "verify": self._tls}

    # -- asking --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[httpx.Response, None]:
        """The response to one request, its body not yet read; leaving early really closes the connection.

        Raises:
            Trouble: another try may go better.
            EngineError: none will; a fatal one is raised again for every later request of the loop.
        """
        session = self.session()
        async with session.gate:
            if (pause := session.until - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(pause)
            if session.fatal is not None:
                raise session.fatal
            try:
                with self._client(session) as client:
                    async with client.stream("POST", self._address(path), json=body) as response:
                        self._seen = True
                        if response.status_code != 200:
                            with suppress(httpx.TransportError):
                                await response.aread()
                            await self._complain(session, response, body)
                        yield response
            except httpx.TransportError as error:
                raise self._transport(session, error) from None
            except httpx.HTTPError as error:  # a body that cannot be decoded, endless redirects
                raise Trouble("bad response", self.redact(f"{self.url}: {error or type(error).__name__}")) from None

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that the server answers (``body`` None: GET). Raises as :meth:`post`."""
        if body is not None:
            async with self.post(path, body) as response:
                content = await response.aread()
        else:
            session = self.session()
            try:
                with self._client(session) as client:
                    response = await client.get(self._address(path))
            except httpx.HTTPError as error:
                raise self._transport(session, error) from None
            self._seen, content = True, response.content
            if response.status_code != 200:
                await self._complain(session, response, {})
        try:
            return json.loads(content)
        except ValueError:
            raise Trouble("bad response", f"{self.url}/{path.strip('/')}: no JSON came back") from None

    def ask_now(self, path: str, body: Mapping[str, Any], patience: Patience) -> Any:
        """As :meth:`ask`, for callers that cannot await; patiently. Raises ``EngineError``."""
        for tries in itertools.count(1):
            after, mends = None, True
            try:
                with httpx.Client(**self._options()) as client:
                    response = client.post(self._address(path), json=body)
                if response.is_success:
                    return response.json()
                after, mends = retry_after(response.headers), _passing(response.status_code)
                mends = mends and not _unpaid(response.status_code, response.content)
                said = f"answered {response.status_code}: {message(response.content)}"
            except (httpx.HTTPError, ValueError) as error:  # a ValueError: no JSON
                said = str(error) or type(error).__name__
            if not mends or tries > patience.times:
                raise EngineError(f"{self._address(path)}: {self.redact(said)}", "connection" if mends else "refused")
            time.sleep(patience.wait(tries, after))

    async def models(self) -> list[dict[str, Any]] | None:
        """What ``/models`` lists; None where it does not tell."""
        try:
            listed = await self.ask("models")
        except Trouble:
            return None
        except Refused as refused:
            if refused.fatal:
                raise
            return None
        data = listed.get("data") if isinstance(listed, dict) else None
        return [model for model in data or [] if isinstance(model, dict) and isinstance(model.get("id"), str)] or None

    def redact(self, text: str) -> str:
        """One short line of a server's text, without the key."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        line = " ".join(text.split())
        return line if len(line) <= 300 else line[:299] + "…"

    def failed(self, trouble: Trouble, then: str = "") -> EngineError:
        """What a trouble is once patience is over; it may be in the words of the server."""
        return EngineError(self.redact(str(trouble)) + then, trouble.reason)

    def _address(self, path: str) -> str:
        return f"{self.root}{path}" if path.startswith("/") else f"{self.url}/{path}"

    # -- what went wrong -----------------------------------------------------------------------------------------------

    def _transport(self, session: _Session, error: httpx.HTTPError) -> Exception:
        if isinstance(error, httpx.TimeoutException):
            return Trouble("timeout", f"{self.url} was silent for {self._timeout.read:g} s")
        if isinstance(error, httpx.ConnectError) and not self._seen:
            session.fatal = EngineError(
                f"no server answers at {self.url} ({self.redact(str(error))}); is it running?", "connection", fatal=True
            )
            return session.fatal
        return Trouble("connection", self.redact(f"{self.url}: {error or type(error).__name__}"))

    async def _complain(self, session: _Session, response: httpx.Response, body: Mapping[str, Any]) -> None:
        status, content = response.status_code, response.content if response.is_closed else b""
        said = self.redact(message(content))
        where = f"{self.url} answered {status}" + (f": {said}" if said else "")
        if _unpaid(status, content):
            session.fatal = Refused(f"{where} (is there credit left?)", status, fatal=True)
            raise session.fatal
        if _passing(status):
            after = retry_after(response.headers)
            if after:
                session.until = max(session.until, asyncio.get_running_loop().time() + after)
            raise Trouble(REPEATED.get(status, "server error"), where, after)
        if status == 403 and body.get("logprobs") is not None and "logprob" in said.lower():
            raise Refused(where, status)  # it is not about the key
        model = body.get("model")
        if status in (401, 403):
            session.fatal = Refused(f"{where} (is OPENAI_API_KEY right?)", status, fatal=True)
        elif model is not None and (b"model_not_found" in content or _names_model(status, said, str(model))):
            listed = await self.models()
            known = ", ".join(m["id"] for m in listed[:8]) + (", …" if len(listed) > 8 else "") if listed else None
            hint = f"it has {self.redact(known)}" if known else "it does not say which it has"
            session.fatal = Refused(f"{self.url} has no model {str(model)!r}; {hint}", status, fatal=True)
        if session.fatal is not None:
            raise session.fatal
        raise Refused(where, status, "context" if _full(status, content) else "refused")


def _passing(status: int) -> bool:
    """Whether another try may meet a better status."""
    return status in REPEATED or (status >= 500 and status != 501)


def _unpaid(status: int, content: bytes) -> bool:
    """Whether nothing will pass before somebody pays."""
    return status == 402 or (status == 429 and b"insufficient_quota" in content)


def _full(status: int, content: bytes) -> bool:
    """Whether prompt and limit are more than the model's context holds."""
    return status in (400, 413, 422) and (b"context_length_exceeded" in content or b"context length" in content)


_KEEPERS: set[asyncio.Task[None]] = set()


async def _keep(clients: list[httpx.AsyncClient]) -> None:
    """Close the clients when the loop ends: ``asyncio.run`` cancels every task, and waits for it, before that."""
    try:
        await asyncio.Event().wait()
    finally:
        await _shut(clients)


async def _shut(clients: list[httpx.AsyncClient]) -> None:
    for client in clients:
        await client.aclose()


def message(content: bytes) -> str:
    """What an error's body says, in any of the usual shapes."""
    try:
        body = json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")
    for key in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(key):
            body = body[key]
    return body if isinstance(body, str) else json.dumps(body)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, given as such or as a date; at most ten minutes. None: it asks for nothing."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), 600.0) if seconds == seconds else None


def _names_model(status: int, said: str, model: str) -> bool:
    """Whether a refusal is about the model's name rather than about the request or the address."""
    text = said.lower()
    unknown = any(
        word in text for word in ("not exist", "not found", "unknown model", "invalid model", "no such model")
    )
    return unknown and (model.lower() in text if status == 400 else status == 404 and "model" in text)
