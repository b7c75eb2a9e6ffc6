"""What servers send, as tokens: server-sent events, completions and chat choices, logprobs in all their shapes.

Nothing here raises over what is merely missing: an absent, null, NaN or short logprob is NaN. ``Trouble`` is raised
over an answer that cannot be the whole one.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, TypeGuard

import httpx
import orjson

from wrongturn.engines._completion import NAN, Key, Token
from wrongturn.engines._http import Trouble

_MARK = "token_id:"  # vLLM's return_tokens_as_token_ids writes tokens so
_NEVER = -9000.0  # servers write -9999 for what they have no probability of

_LOGPROB = itemgetter(1)


async def events(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of server-sent events, one line each, as bytes arrive."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    if rest.startswith(b"data:"):
        yield rest[5:].strip()


def streamed(response: httpx.Response) -> bool:
    """Whether a response comes in events, rather than whole."""
    return "event-stream" in response.headers.get("content-type", "")


class Reader:
    """One completion as it comes in. ``k`` alternatives were asked for; more than ``vocab`` there cannot be.

    A chunk sent twice is recognised where the stream tells where it stands (a running token count, or text offsets);
    where it only looks the same as the one before, its tokens are ``doubtful``, and the final count decides.
    """

    def __init__(self, k: int, vocab: int | None = None) -> None:
        self.finish: str | None = None
        self.usage: dict[str, Any] = {}
        self.count = 0
        self.doubtful: list[int] = []
        self.prompt_ids: list[int] | None = None
        self._k, self._vocab = k, vocab
        self._last: bytes | None = None
        self._over = False
        self._thinking = False
        self._carry = ""  # the first half of a character that JSON writes as two
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def feed(self, data: bytes) -> list[Token]:
        """The tokens in one event. Raises ``Trouble`` for one that is cut or reports an error."""
        if data == b"[DONE]":
            self._over = True
            return []
        try:
            event = _parsed(data)
        except ValueError:
            raise Trouble("bad response", "the server sent JSON that is cut or broken") from None
        if not isinstance(event, dict):
            raise Trouble("bad response", "the server sent JSON that is no object")
        if event.get("error"):
            raise Trouble("server error", f"the server broke off: {_said(event['error'])}")
        same, self._last = data == self._last, data
        usage, choice = event.get("usage"), _first(event.get("choices"))
        if isinstance(usage, dict):
            self.usage = usage
        if choice is None or self.finish is not None or (same and _says_where(usage, choice)):
            return []
        tokens = self._tokens(choice)
        if same:
            self.doubtful += range(self.count, self.count + len(tokens))
        self.count += len(tokens)
        finish = choice.get("finish_reason")
        if finish in ("abort", "error", "cancelled"):
            raise Trouble("server error", f"the server gave up ({finish})")
        if finish is not None:
            self.finish = "length" if finish in ("length", "max_tokens", "max_length") else "stop"
        return tokens

    @property
    def told(self) -> int:
        """How many tokens the server says it has decoded, also those that it does not show; 0: it does not say."""
        told = self.usage.get("completion_tokens")
        return told if type(told) is int and told > 0 else 0

    def check(self) -> list[int]:
        """The stream has ended: which tokens were sent twice. Raises ``Trouble`` where it ended too early."""
        if self.finish is None and not self._over:
            raise Trouble("connection", "the stream was cut")
        told = self.told
        excess = self.count - told if told else 0
        if 0 < excess <= len(self.doubtful):
            return self.doubtful[:excess]
        if excess > 1:  # one more is an end token that some servers list and do not count
            raise Trouble("bad response", f"{self.count} tokens came of which the server counts {told}")
        return []

    # -- a choice ------------------------------------------------------------------------------------------------------

    def _tokens(self, choice: Mapping[str, Any]) -> list[Token]:
        if self.prompt_ids is None and isinstance(choice.get("prompt_token_ids"), list):
            self.prompt_ids = choice["prompt_token_ids"]
        before, thought, text = self._text(choice)
        text = thought + text
        ids = choice.get("token_ids")
        ids = ids if isinstance(ids, list) and all(map(_is_id, ids)) else []
        entries = _entries(choice.get("logprobs"))
        if not entries and not ids:
            return [Token(before + text, None, NAN, [])] if text else []
        if ids:
            entries = entries[: len(ids)] + [_NOTHING] * (len(ids) - len(entries))
            entries = [e if e.id == id else e._replace(id=id) for e, id in zip(entries, ids, strict=True)]
        if len(entries) == 1 and entries[0].id is not None:  # the usual event
            return [self._token(before + text, entries[0])]
        if all(entry.id is not None for entry in entries):  # the text is only looked at to learn what an id says
            pieces = [("", i) for i in range(len(entries))]
        else:
            pieces = align([self._written(entry) for entry in entries], text)
        if before:
            pieces[0] = before + pieces[0][0], pieces[0][1]
        return [self._token(piece, entries[i] if i >= 0 else _NOTHING) for piece, i in pieces]

    def _text(self, choice: Mapping[str, Any]) -> tuple[str, str, str]:
        """What goes in front, the thoughts and the text of a choice: thinking a server has split off is put back."""
        said = choice.get("delta") or choice.get("message")
        if not isinstance(said, dict):
            return "", "", self._clean(choice.get("text"))
        thought = said.get("reasoning_content") or said.get("reasoning")
        thought, text = self._clean(thought), self._clean(said.get("content"))
        before = ""
        if thought and not self._thinking:
            self._thinking, before = True, "<think>"
        if text and self._thinking:
            self._thinking = False
            if not thought:
                return "</think>", "", text
            text = "</think>" + text
        return before, thought, text

    def _clean(self, text: Any) -> str:
        """Text without half characters: a high surrogate at the end waits for its other half."""
        if not isinstance(text, str):
            return ""
        if not self._carry and (text.isascii() or text.isprintable()):
            return text
        text, self._carry = self._carry + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._carry = text[:-1], text[-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _written(self, entry: _Entry) -> str:
        """The text of a token; from its bytes where they are told, which half characters need."""
        return self._decode(entry.bytes) if entry.bytes is not None else entry.text

    def _token(self, piece: str, entry: _Entry) -> Token:
        own = entry.id, entry.text  # an alternative is told by either
        top = sorted(entry.top, key=_LOGPROB, reverse=True)[: self._k]
        logprob = entry.logprob
        if logprob != logprob:
            logprob = next((value for name, value in top if name in own), NAN)
        short = len(top) < self._k and len(top) != self._vocab
        if short and len(top) > 1 and top[-1][0] in own:  # perhaps there only because it was drawn
            top.pop()
        return Token(piece, entry.id, logprob, top)


def _parsed(data: bytes) -> Any:
    """JSON as a fast parser reads it; what is none to it (NaN, half characters) as the standard library does."""
    try:
        return orjson.loads(data)
    except ValueError:
        return json.loads(data.decode())


def _first(choices: Any) -> dict[str, Any] | None:
    """The one choice that was asked for; None in an event that has none."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return None


def _says_where(usage: Any, choice: Mapping[str, Any]) -> bool:
    """Whether a chunk tells where in the completion it stands: the same bytes again can then only be a repetition."""
    logprobs = choice.get("logprobs")
    return isinstance(usage, dict) or (
        isinstance(logprobs, dict) and bool(logprobs.get("text_offset")) and bool(choice.get("text"))
    )


class _Entry(NamedTuple):
    """What a server says about one token."""

    text: str
    id: int | None
    bytes: bytes | None
    logprob: float
    top: list[tuple[Key, float]]


_NOTHING = _Entry("", None, None, NAN, [])


def _entries(logprobs: Any) -> list[_Entry]:
    if not isinstance(logprobs, dict):
        return []
    content = logprobs.get("content")
    if isinstance(content, list):
        return [_entry(item) for item in content if isinstance(item, dict)]
    tokens = logprobs.get("tokens")
    if not isinstance(tokens, list):
        return []
    chosen, tops = _padded(logprobs.get("token_logprobs"), tokens), _padded(logprobs.get("top_logprobs"), tokens)
    entries = []
    for token, logprob, top in zip(tokens, chosen, tops, strict=True):
        text = token if isinstance(token, str) else ""
        listed = top.items() if isinstance(top, dict) else ()
        known: list[tuple[Key, float]] = [pair for pair in listed if type(pair[1]) is float and pair[1] <= 0.0]
        if len(known) < len(listed):  # something is odd
            known = [(name, value) for name, told in listed if (value := number(told)) == value]
        id = key(text)
        entries.append(_Entry(text, id if isinstance(id, int) else None, None, _drawn(logprob), known))
    return entries


def _entry(item: Mapping[str, Any]) -> _Entry:
    """One entry of a chat choice's logprobs."""
    listed = item.get("top_logprobs")
    top = [
        (_name(other), value)
        for other in (listed if isinstance(listed, list) else ())
        if isinstance(other, dict) and (value := number(other.get("logprob"))) == value
    ]
    name, text, raw = _name(item), item.get("token"), item.get("bytes")
    try:
        raw = bytes(raw) if isinstance(raw, list) else None
    except (TypeError, ValueError):
        raw = None
    id = name if isinstance(name, int) else None
    return _Entry(text if isinstance(text, str) else "", id, raw, _drawn(item.get("logprob")), top)


def _name(item: Mapping[str, Any]) -> Key:
    id, text = item.get("id"), item.get("token")
    return id if _is_id(id) else key(text if isinstance(text, str) else "")


def _padded(values: Any, tokens: list[Any]) -> list[Any]:
    values = values if isinstance(values, list) else []
    if len(values) == len(tokens):
        return values
    return values[: len(tokens)] + [None] * (len(tokens) - len(values))


@lru_cache(1 << 18)  # asked for every alternative of every token
def key(text: str) -> Key:
    """The id that ``token_id:17`` stands for; any other text as it is."""
    if text.startswith(_MARK) and text[len(_MARK) :].isdecimal():
        id = int(text[len(_MARK) :][:12])
        return id if _is_id(id) else text
    return text


def _is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 31


def number(value: Any) -> float:
    """A log-probability; NaN where ``value`` is none. Rounding may put it a little above 0."""
    if type(value) not in (float, int) or not value <= 1e-3:
        return NAN
    return min(float(value), 0.0)


def _drawn(value: Any) -> float:
    """The log-probability of a token that was drawn: it cannot be impossible."""
    logprob = number(value)
    return logprob if logprob > _NEVER and not math.isinf(logprob) else NAN


def _said(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)


def align(tokens: list[str], text: str) -> list[tuple[str, int]]:
    """``text`` cut into pieces, each with the index of its token, or -1 for text in front or behind that has none.

    Joined, the pieces are the text, and every token has one: tokens that the text does not show (end tokens, the first
    bytes of a character) have "".
    """
    if len(tokens) == 1 and not (tokens[0] and tokens[0] in text):
        return [(tokens[0] if "\ufffd" in text and "\ufffd" not in tokens[0] else text, 0)]
    joined = "".join(tokens)
    if joined in text:
        at = 0 if text.startswith(joined) else text.rindex(joined)
        own = [(text[:at], -1), *((token, i) for i, token in enumerate(tokens)), (text[at + len(joined) :], -1)]
        return [(piece, i) for piece, i in own if piece or i >= 0]
    pieces, at, unclear = [""] * len(tokens), 0, -1
    for i, token in enumerate(tokens):
        found = text.find(token, at, at + len(token) + 16) if token and "\ufffd" not in token else -1
        if found < 0:
            unclear = i
            continue
        pieces[i] = token
        pieces[unclear if unclear >= 0 else i] = text[at:found] + (token if unclear < 0 else "")
        at, unclear = found + len(token), -1
    if at < len(text) and unclear >= 0:
        pieces[unclear], at = text[at:], len(text)
    return [(piece, i) for i, piece in enumerate(pieces)] + ([(text[at:], -1)] if at < len(text) else [])
