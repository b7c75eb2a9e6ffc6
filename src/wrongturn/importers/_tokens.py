"""Tokens as logs tell of them, and the trace that an entry and its tokens make."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from wrongturn.importers._fields import get, need, number, objects
from wrongturn.importers.base import Imported, Row, Tokens, Unusable
from wrongturn.signals import from_topk
from wrongturn.trace import Trace, Usage
from wrongturn.vocabulary import Interned

_WORD = re.compile(r"[^\S\n]*\S+(?:\s*\n)?|\s+")


def chat_tokens(entries: Sequence[Any]) -> Tokens | None:
    """The tokens of a chat completion's ``logprobs.content``; None where it is empty."""
    logprobs, names, tops, raw = [], [], [], []
    for entry in objects(entries, "logprobs"):
        names.append(need(entry, "token", str))
        logprobs.append(number(entry.get("logprob"), "logprob"))
        listed = objects(get(entry, "top_logprobs", list) or [], "top_logprobs")
        tops.append([(need(top, "token", str), number(top.get("logprob"), "logprob")) for top in listed])
        raw.append(_bytes(entry.get("bytes")))
    if not names:
        return None
    return Tokens(logprobs, names, _decoded(names, raw), tops=tops)


def completion_tokens(told: Row) -> Tokens | None:
    """The tokens of a text completion's ``logprobs``; None where there are none."""
    names, chances = get(told, "tokens", list) or [], get(told, "token_logprobs", list) or []
    listed = get(told, "top_logprobs", list) or []
    if not names:
        return None
    for field, values in (("token_logprobs", chances), ("top_logprobs", listed or names)):
        if len(values) != len(names):
            raise Unusable("malformed row", f"field {field!r} has {len(values)} items for {len(names)} tokens")
    if not all(isinstance(name, str) for name in names):
        raise Unusable("malformed row", "field 'tokens' holds something else than text")
    tops = [
        [(name, number(value, "top_logprobs")) for name, value in (top or {}).items()]
        for top in objects([top or {} for top in listed], "top_logprobs")
    ]
    return Tokens([number(value, "token_logprobs") for value in chances], names, list(names), tops=tops)


def _bytes(value: Any) -> bytes | None:
    try:
        return bytes(value) if isinstance(value, list) else None
    except (TypeError, ValueError):
        return None


def _decoded(names: list[str], raw: list[bytes | None]) -> list[str]:
    """Texts that join to what the bytes say: a character cut in two stands with its last token."""
    if any(data is None for data in raw):
        return names
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [decoder.decode(data or b"") for data in raw]
    pieces[-1] += decoder.decode(b"", final=True)
    return pieces


def words(text: str) -> list[str]:
    """Pieces of about a word that join to the text; line ends stay with the word before, as models' tokens do."""
    return _WORD.findall(text)


def to_trace(entry: Imported, id: str, sample: int, vocabulary: Interned) -> Trace:
    """The trace of an entry. Raises :class:`Unusable` for log-probabilities that are none."""
    problem, tokens = entry.problem, entry.tokens
    if tokens is None:
        pieces = words(entry.text)
        known = Interned()  # words are no tokens: their names are not worth keeping
        tokens = Tokens([math.nan] * len(pieces), pieces, pieces)
    else:
        known = vocabulary
    pieces, n = tokens.pieces, len(tokens.logprobs)
    if tokens.ids:
        _check_ids(tokens.ids)
    chosen = np.array(tokens.logprobs, np.float64)
    top_ids, top_logprobs = _alternatives(tokens, known)
    try:
        signals = from_topk(top_logprobs, chosen)
    except ValueError as refused:
        raise Unusable("malformed row", str(refused)) from None
    return Trace(
        id=id,
        problem=problem.id,
        task=problem.task,
        prompt_ids=np.zeros(0, np.int32),
        ids=np.array(tokens.ids or [known.intern(name) for name in tokens.names], np.int32),
        signals=signals,
        finish=entry.finish,
        group=problem.group,
        sample=sample,
        text="".join(pieces) if pieces else entry.text,
        offsets=np.cumsum([len(piece) for piece in pieces], dtype=np.int32) if pieces else np.zeros(0, np.int32),
        answer=entry.answer,
        correct=entry.correct,
        usage=Usage(kept=n if entry.kept is None else entry.kept),
        top_ids=top_ids,
        top_logprobs=top_logprobs.astype(np.float32),
        provenance=entry.provenance,
    )


def _check_ids(ids: Sequence[Any]) -> None:
    if not all(isinstance(token, int) and -1 <= token < 2**31 for token in ids):
        raise Unusable("malformed row", "token ids must be whole numbers below 2^31")


def _alternatives(tokens: Tokens, vocabulary: Interned) -> tuple[np.ndarray, np.ndarray]:
    """``[tokens, k]`` ids and log-probabilities, best first.

    Completion endpoints add the chosen token to the k best where it is none of them; it is taken out again, as bounds
    on the entropy hold for the best only.
    """
    ranked = [sorted((pair for pair in top if pair[1] == pair[1]), key=lambda pair: -pair[1]) for top in tokens.tops]
    k = min((len(top) for top in ranked if top), default=0)
    for i, top in enumerate(ranked):
        if len(top) > k and top[-1][0] == tokens.names[i]:
            top.pop()
    width = max((len(top) for top in ranked), default=0)
    ids = np.full((len(tokens.logprobs), width), -1, np.int32)
    logprobs = np.full(ids.shape, np.nan)
    for i, top in enumerate(ranked):
        ids[i, : len(top)] = [vocabulary.intern(name) for name, _ in top]
        logprobs[i, : len(top)] = [value for _, value in top]
    return ids, logprobs
