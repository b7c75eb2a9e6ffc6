"""An answer as server-sent events."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wrongturn.errors import EngineError, WrongturnError
from wrongturn.server.answered import Piece, Shape, error

log = logging.getLogger("wrongturn.serve")


class Gone(Exception):
    """The client has hung up."""


async def events(
    shape: Shape, pieces: AsyncGenerator[tuple[int, Piece], None]
) -> AsyncGenerator[Mapping[str, Any], None]:
    """The events of a stream; what goes wrong on the way is the last one."""
    seen: dict[int, Piece] = {}
    async with aclosing(pieces):
        try:
            async for index, piece in pieces:
                yield shape.event(index, piece, first=index not in seen)
                seen[index] = seen.get(index, Piece()) + piece
            if shape.asked.usage:
                yield shape.last([seen[i] for i in range(len(seen))])
        except Gone:
            return
        except (TimeoutError, WrongturnError) as problem:
            yield error(str(problem), "engine_error" if isinstance(problem, EngineError) else "timeout_error")
        except Exception:
            log.exception("a stream failed")
            yield error("the server failed; its log says how", "server_error")


class Events(Response):
    """Server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Mapping[str, Any], None]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._events) as every:
            async for event in every:
                data = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
                await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
