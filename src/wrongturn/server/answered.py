"""Pieces of completions, and how they look on the wire: as OpenAI writes them, with vLLM's fields for token ids."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wrongturn.engines.base import Chunk
from wrongturn.server.asked import Asked
from wrongturn.vocabulary import Vocabulary

HALF = "\ufffd"  # what stands for bytes that are no character (yet)

Tops = list[tuple[int, float]]
"""The alternatives of one token, best first, with their log-probabilities."""


@dataclass(slots=True)
class Piece:
    """Some tokens of a choice, and the text that is certain by now (a stop string may still be in the making)."""

    ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[Tops | None] = field(default_factory=list)  # None: nothing is known about this token
    text: str = ""
    finish: str | None = None
    reason: int | str | None = None  # the stop string or the asked-for stop token
    echoed: int = 0  # tokens that are the prompt's
    prompt: int = 0
    reused: int = 0

    def __add__(self, other: Piece) -> Piece:
        return Piece(
            self.ids + other.ids,
            self.texts + other.texts,
            self.logprobs + other.logprobs,
            self.tops + other.tops,
            self.text + other.text,
            other.finish,
            other.reason,
            self.echoed + other.echoed,
            other.prompt,
            other.reused,
        )


def tops(chunk: Chunk) -> list[Tops | None]:
    """The alternatives of a chunk's tokens."""
    rows = zip(chunk.top_ids.tolist(), chunk.top_logprobs.tolist(), strict=True)
    return [[(i, p) for i, p in zip(ids, logprobs, strict=True) if i >= 0] for ids, logprobs in rows]


class Spelling:
    """The texts of a choice's tokens as they come: a character made of several tokens is in the last of them."""

    def __init__(self, vocabulary: Vocabulary | None, before: int) -> None:
        self._vocabulary = vocabulary
        self._before = before  # a token in front: a text's first token may be spelled in another way
        self._open: list[int] = []  # those of a character that is not whole yet

    def add(self, ids: list[int], last: bool) -> list[str]:
        """The texts of the next tokens; ``last`` gives up on a character that is still not whole."""
        if self._vocabulary is None or not ids:
            return [""] * len(ids)
        held, tokens = len(self._open), self._open + ids
        texts = self._vocabulary.pieces([self._before, *tokens])[1:]
        whole = len(tokens)
        while whole and not last and (not texts[whole - 1] or texts[whole - 1].endswith(HALF)):
            whole -= 1
        if HALF not in "".join(texts[whole:]):
            whole = len(tokens)
        if whole:
            self._before = tokens[whole - 1]
        self._open = tokens[whole:]
        spelled = [text if i < whole else "" for i, text in enumerate(texts)]
        return ["".join(spelled[: held + 1]), *spelled[held + 1 :]]


class Shape:
    """The answer to one request as JSON. Events of a stream and whole answers differ in little."""

    def __init__(self, asked: Asked, model: str, chat: bool, vocabulary: Vocabulary | None) -> None:
        self.asked, self.chat = asked, chat
        self._vocabulary = vocabulary
        self._alone: dict[int, str] = {}  # texts of single tokens
        kind = "chatcmpl" if chat else "cmpl"
        self._head = {"id": f"{kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._written = [0] * (len(asked.prompts) * asked.n)  # characters of each choice's tokens so far
        self._decoded = self._written.copy()  # and tokens

    def whole(self, choices: Sequence[Piece]) -> dict[str, Any]:
        """An answer in one."""
        answer = self._head | {"object": "chat.completion" if self.chat else "text_completion"}
        answer["choices"] = [self._choice(i, piece, "message", first=True) for i, piece in enumerate(choices)]
        if self.chat and self.asked.token_ids:
            answer["prompt_token_ids"] = self.asked.prompts[0]
        return answer | {"usage": self.counts(choices)}

    def event(self, index: int, piece: Piece, first: bool) -> dict[str, Any]:
        """One piece of a stream."""
        event = self._head | {"object": "chat.completion.chunk" if self.chat else "text_completion"}
        event["choices"] = [self._choice(index, piece, "delta", first)]
        if self.chat and self.asked.token_ids and first:
            event["prompt_token_ids"] = self.asked.prompts[0]
        self._decoded[index] += len(piece.ids) - piece.echoed
        if self.asked.running:
            prompt = len(self.asked.prompts[index // self.asked.n])
            return event | {"usage": _counts(prompt, self._decoded[index])}
        return event | ({"usage": None} if self.asked.usage else {})

    def last(self, choices: Sequence[Piece]) -> dict[str, Any]:
        """The event with the token counts."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return self._head | {"object": kind, "choices": [], "usage": self.counts(choices)}

    def counts(self, choices: Sequence[Piece]) -> dict[str, Any]:
        """``usage``: each prompt counts once, and as cached what its first choice found there."""
        prompts, n = self.asked.prompts, self.asked.n
        cached = sum(min(c.reused for c in choices[i * n : (i + 1) * n]) for i in range(len(prompts)))
        given, written = sum(map(len, prompts)), sum(len(c.ids) - c.echoed for c in choices)
        return _counts(given, written) | {"prompt_tokens_details": {"cached_tokens": cached}}

    def _choice(self, index: int, piece: Piece, kind: str, first: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index}
        if self.chat:
            role = {"role": "assistant"} if first else {}
            choice[kind] = role | {"content": piece.text}
        else:
            choice["text"] = piece.text
        choice["logprobs"] = self._logprobs(index, piece)
        choice |= {"finish_reason": piece.finish, "stop_reason": piece.reason}
        if self.asked.token_ids:
            choice["token_ids"] = piece.ids[piece.echoed :]
            if not self.chat and first:
                choice["prompt_token_ids"] = self.asked.prompts[index // self.asked.n]
        return choice

    def _logprobs(self, index: int, piece: Piece) -> dict[str, Any] | None:
        if self.asked.top is None:
            return None
        if self.chat:
            return {"content": [self._entry(*token) for token in self._tokens(piece)]}
        offsets = []
        for text in piece.texts:
            offsets.append(self._written[index])
            self._written[index] += len(text)
        listed = [self._alternatives(*token) for token in self._tokens(piece)]
        return {
            "tokens": [self._name(i, text) for i, text in zip(piece.ids, piece.texts, strict=True)],
            "token_logprobs": [
                None if top is None else number(p) for p, top in zip(piece.logprobs, piece.tops, strict=True)
            ],
            "top_logprobs": listed,
            "text_offset": offsets,
        }

    def _tokens(self, piece: Piece) -> Iterable[tuple[int, str, float, Tops | None]]:
        return zip(piece.ids, piece.texts, piece.logprobs, piece.tops, strict=True)

    def _alternatives(self, token: int, text: str, logprob: float, listed: Tops | None) -> dict[str, Any] | None:
        """Alternatives by name; the token itself is always there, last where it is not among the best."""
        if listed is None:
            return None
        named = {self._name(i, self._text(i)): number(p) for i, p in listed}
        if all(i != token for i, _ in listed):
            named.setdefault(self._name(token, text), number(logprob))
        return named

    def _entry(self, token: int, text: str, logprob: float, listed: Tops | None) -> dict[str, Any]:
        top = [self._plain(i, self._text(i), p) for i, p in listed or ()]
        return self._plain(token, text, logprob) | {"top_logprobs": top}

    def _plain(self, token: int, text: str, logprob: float) -> dict[str, Any]:
        bytes_ = list(text.encode("utf-8", "replace"))
        return {"token": self._name(token, text), "logprob": number(logprob), "bytes": bytes_}

    def _text(self, token: int) -> str:
        """A token's text in the middle of others."""
        if token not in self._alone:
            self._alone[token] = Spelling(self._vocabulary, self.asked.prompts[0][-1]).add([token], last=True)[0]
        return self._alone[token]

    def _name(self, token: int, text: str) -> str:
        """A token's text, or its id where that was asked for or it has none (keys must not collide)."""
        return f"token_id:{token}" if self.asked.as_ids or not text else text


def number(value: float) -> float | None:
    """A log-probability as JSON can say it: -9999 for "never", null for "not known"."""
    return None if math.isnan(value) else max(float(value), -9999.0) + 0.0  # no "-0.0"


def _counts(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class Stops:
    """Holds back text that may turn out to be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = stops, ""

    def add(self, text: str, last: bool) -> tuple[str, str | None]:
        """The text that is certain by now, and the stop string found."""
        held = self._held + text
        found = [(held.find(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in held]
        if found:  # the one that was complete first
            end, _, stop = min(found)
            self._held = ""
            return held[: end - len(stop)], stop
        keep = 0 if last else max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], None


def _overlap(text: str, stop: str) -> int:
    """Length of the longest beginning of ``stop`` that ``text`` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def error(message: str, kind: str, field: str | None = None, code: str | None = None) -> Mapping[str, Any]:
    """OpenAI's shape of an error."""
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}
