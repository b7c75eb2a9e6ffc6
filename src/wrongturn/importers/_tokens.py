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
_SPECIAL = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")  # tokens that servers leave out of the text
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_PARTIAL = "bytes:"  # how completion endpoints name tokens with half a character


def chat_tokens(entries: Sequence[Any]) -> Tokens | None:
    """The tokens of a chat completion's ``logprobs.content``; None where it is empty."""
    logprobs, names, tops, raw = [], [], [], []
    for entry in objects(entries, "logprobs"):
        names.append(need(entry, "token", str))
        logprobs.append(number(entry.get("logprob"), "logprob"))
        listed = objects(get(entry, "top_logprobs", list) or [], "top_logprobs")
        tops.append([(need(top, "token", str), number(top.get("logprob"), "logprob")) for top in listed])
        raw.append(_bytes(entry.get("bytes"), names[-1]))
    if not names:
        return None
    return Tokens(logprobs, names, _decoded(raw), tops=tops)


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
    pieces = _decoded([_bytes(None, name) for name in names])
    return Tokens([number(value, "token_logprobs") for value in chances], names, pieces, tops=tops)


def _bytes(value: Any, name: str) -> bytes:
    """What a token wrote: the bytes told of it, else those that its name is or stands for."""
    try:
        if isinstance(value, list):
            return bytes(value)
    except (TypeError, ValueError):
        pass
    data = name.encode("utf-8", "surrogatepass")
    if name.startswith(_PARTIAL) and _ESCAPE.search(data):
        return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), data[len(_PARTIAL) :])
    return data


def _decoded(raw: list[bytes]) -> list[str]:
    """Texts that join to what the bytes say: a character cut in two stands with its last token."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [decoder.decode(data) for data in raw]
    pieces[-1] += decoder.decode(b"", final=True)
    return pieces


def ends(pieces: Sequence[str], text: str) -> list[int]:
    """Where each token's text ends in ``text``; empty where the tokens did not write it.

    What a server leaves out is no difference: special tokens, space that it trims, and what a stop condition cut off.
    """
    found, at = [], 0
    for piece in pieces:
        trimmed = piece if text.startswith(piece, at) else piece.lstrip()
        if text.startswith(trimmed, at):
            at += len(trimmed)
        elif text and len(text) - at <= len(piece) and piece.startswith(text[at:]):
            at = len(text)
        elif not _SPECIAL.fullmatch(piece):
            return []
        found.append(at)
    return found if at == len(text) else []


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
    n = len(tokens.logprobs)
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
        text=entry.text,
        offsets=np.array(ends(tokens.pieces, entry.text) or ends(tokens.names, entry.text), np.int32),
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
