"""What all importers share: an entry of a log, reading fields without trusting them, and tokens as arrays."""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wrongturn.errors import WrongturnError
from wrongturn.signals import from_topk
from wrongturn.trace import Problem, Trace, Usage
from wrongturn.vocabulary import Interned, Message

Row = dict[str, Any]

_WORD = re.compile(r"[^\S\n]*\S+(?:\s*\n)?|\s+")
_FINISH = {
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_output_tokens", "context_length"), "length"),
    **dict.fromkeys(("cancelled", "canceled", "aborted", "abort"), "cancelled"),
}
_RIGHT = {"C": True, "I": False, "true": True, "false": False, "correct": True, "incorrect": False}
_PREFERRED = ("exact_match", "acc", "accuracy", "correct", "score", "reward", "pass@1")


class Unusable(Exception):
    """A row of which no trace can be made. ``reason`` is a few words, to count; the message says what is wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row left out: where it stands, why in a few words, and in a line."""

    where: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a log tells of each token: its name, its text, its log-probability and the best alternatives.

    ``ids`` are the model's own where the log has them (then ``pieces`` may be unknown). ``names`` tell tokens apart
    where texts do not (half a character). All of one length.
    """

    logprobs: list[float]
    names: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    tops: list[list[tuple[str, float]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Imported:
    """One completion, as its log tells it. Without ``tokens`` the words of ``text`` stand in for them."""

    problem: Problem
    text: str
    tokens: Tokens | None = None
    finish: str = "stop"
    answer: str | None = None
    correct: bool | None = None
    kept: int | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Log:
    """The file being read, and how: ``metric`` and ``filter`` by name, ``requests`` by their id (OpenAI batches)."""

    path: Path
    task: str = "exact"
    metric: str | None = None
    filter: str | None = None
    requests: Mapping[str, Row] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)  # what a format remembers between rows

    def grade(self, metrics: Mapping[str, Any]) -> tuple[bool | None, dict[str, Any]]:
        """Whether a metric says right or wrong, and which one: the given one, else the first that is binary.

        Raises ``WrongturnError`` where the given one is not there.
        """
        if self.metric is not None and self.metric not in metrics:
            there = ", ".join(sorted(metrics)) or "none"
            raise WrongturnError(f"{self.path}: there is no metric {self.metric!r} (there are: {there})")
        names = [self.metric] if self.metric else sorted(metrics, key=lambda name: name not in _PREFERRED)
        for name in names:
            verdict = binary(metrics[name])
            if verdict is not None:
                return verdict, {"metric": name}
        return None, {}


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of log: the names of its files, how its rows are read, and what completions a row holds.

    ``rows`` yields (where, row) and raises :class:`WrongturnError` for a file it cannot read; a row may be
    :class:`Unusable` itself. ``entries`` raises :class:`Unusable`.
    """

    name: str
    files: tuple[str, ...]
    rows: Callable[[Log], Iterator[tuple[str, Row | Unusable]]]
    entries: Callable[[Row, Log], Iterable[Imported]]
    looks: Callable[[Row], bool]  # whether a row is one of this format


def read(kind: Format, log: Log) -> Iterator[Imported | Skipped]:
    """The completions of a log, and what was left out. Raises ``WrongturnError`` for a file that cannot be read."""
    for where, row in kind.rows(log):
        try:
            if isinstance(row, Unusable):
                raise row
            for entry in kind.entries(row, log):
                yield Imported(**{**_fields(entry), "provenance": {"row": where} | entry.provenance})
        except Unusable as problem:
            yield Skipped(where, problem.reason, str(problem))


def _fields(entry: Imported) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Imported.__dataclass_fields__}


# -- fields ------------------------------------------------------------------------------------------------------------

_KINDS = {
    str: "text",
    dict: "an object",
    list: "a list",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def get(row: Mapping[str, Any], name: str, kind: type) -> Any:
    """A field of a row, None where it is absent or null. Raises :class:`Unusable` where it is something else."""
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Unusable("malformed row", f"field {name!r} is {_short(value)}, expected {_KINDS[kind]}")
    return value


def need(row: Mapping[str, Any], name: str, kind: type) -> Any:
    """The same for a field that has to be there."""
    value = get(row, name, kind)
    if value is None:
        raise Unusable("malformed row", f"field {name!r} is missing, expected {_KINDS[kind]}")
    return value


def objects(values: Sequence[Any], name: str) -> list[Row]:
    """The items of a list, each an object."""
    for i, value in enumerate(values):
        if not isinstance(value, dict):
            raise Unusable("malformed row", f"item {i} of {name!r} is {_short(value)}, expected an object")
    return list(values)


def number(value: Any, name: str) -> float:
    """A number, NaN for null. Raises :class:`Unusable` for anything else."""
    if value is None:
        return math.nan
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float)):
            return float(value)
    except OverflowError:
        pass
    raise Unusable("malformed row", f"field {name!r} is {_short(value)}, expected a number")


def text_of(value: Any) -> str | None:
    """A reference or an answer as text: as it is, or as JSON; None where there is none."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def binary(value: Any) -> bool | None:
    """A score as right or wrong; None where it is neither."""
    if isinstance(value, str):
        return _RIGHT.get(value, _RIGHT.get(value.lower()))
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def finish(told: Any) -> str:
    """The finish reason: "length" and "cancelled" in any spelling, else "stop"."""
    return _FINISH.get(told, "stop") if isinstance(told, str) else "stop"


def content(value: Any, name: str = "content") -> str:
    """The text of a chat message's content: a string, or a list of parts of which all are text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Unusable("malformed row", f"field {name!r} is {_short(value)}, expected text")
    parts = [part if isinstance(part, dict) else {} for part in value]
    texts = [part.get("text") for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise Unusable("not only text", f"field {name!r} has parts that are no text")
    return "".join(texts)  # type: ignore[arg-type]  (all are strings)


def messages(turns: Sequence[Any], role: str = "role", text: str = "content") -> tuple[Message, ...]:
    """A conversation as our messages."""
    return tuple(
        {"role": need(turn, role, str), "content": content(turn.get(text), text)} for turn in objects(turns, "messages")
    )


def reply(turn: Mapping[str, Any]) -> str:
    """What an assistant's message says, its reasoning first where that stands apart."""
    thought = "reasoning_content" if turn.get("reasoning_content") is not None else "reasoning"
    return "".join(content(turn.get(name), name) for name in (thought, "content"))


def split(turns: Sequence[Any]) -> tuple[tuple[Message, ...], Row]:
    """The messages before the last assistant's one, and that. Raises :class:`Unusable` where there is none."""
    turns = objects(turns, "messages")
    last = max((i for i, turn in enumerate(turns) if turn.get("role") == "assistant"), default=-1)
    if last < 0:
        raise Unusable("no answer", "no message of role 'assistant'")
    return messages(turns[:last]), turns[last]


def digest(*parts: Any) -> str:
    """Eight hexadecimal digits that stand for some JSON."""
    told = json.dumps(parts, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(told, digest_size=4).hexdigest()


def shown(turns: Sequence[Message]) -> str:
    """A conversation as a prompt for people: the last turn of the user."""
    return next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), "")


def _short(value: Any) -> str:
    try:
        told = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # numbers with more digits than Python likes to print
        told = type(value).__name__
    return told if len(told) <= 40 else f"{told[:39]}…"


# -- files -------------------------------------------------------------------------------------------------------------


def json_lines(log: Log) -> Iterator[tuple[str, Row | Unusable]]:
    """The rows of a file of JSON lines, or of one JSON list of objects.

    Raises ``WrongturnError`` where the file cannot be read or not one line of it is a JSON object.
    """
    usable = False
    try:
        with open(log.path, "rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
            file.seek(0)
            lines = enumerate(file, 1) if not start.startswith(b"[") else _items(log, file.read())
            for i, line in lines:
                if isinstance(line, bytes) and not line.strip():
                    continue
                row = _row(line.removeprefix(b"\xef\xbb\xbf")) if isinstance(line, bytes) else line
                usable |= isinstance(row, dict)
                yield f"row {i}", row if isinstance(row, (dict, Unusable)) else _no_object(row)
    except OSError as problem:
        raise WrongturnError(f"{log.path}: {problem.strerror or problem}") from None
    if not usable:
        raise WrongturnError(f"{log.path}: not one line is a JSON object")


def _items(log: Log, data: bytes) -> Iterator[tuple[int, Any]]:
    found = _row(data.removeprefix(b"\xef\xbb\xbf"))
    if isinstance(found, Unusable) or not isinstance(found, list):
        raise WrongturnError(f"{log.path}: {found if isinstance(found, Unusable) else 'no list of objects'}")
    return enumerate(found, 1)


def _row(line: bytes) -> Any:
    try:
        row = json.loads(line)
        return _whole(row) if b"\\u" in line else row
    except UnicodeDecodeError as problem:
        return Unusable("not JSON", f"not UTF-8 ({problem.reason} at byte {problem.start})")
    except (ValueError, RecursionError) as problem:
        return Unusable("not JSON", f"not JSON ({str(problem)[:80]})")


def _no_object(row: Any) -> Unusable:
    return Unusable("malformed row", f"the row is {_short(row)}, expected an object")


def _whole(value: Any) -> Any:
    """The same with half surrogate pairs, which servers cut and UTF-8 cannot hold, as U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {_whole(k): _whole(v) for k, v in value.items()} if isinstance(value, dict) else value


# -- tokens ------------------------------------------------------------------------------------------------------------


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
    if len(chances) != len(names) or len(listed) not in (0, len(names)):
        raise Unusable("malformed row", f"{len(names)} tokens, but {len(chances)} token_logprobs")
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
    except ValueError as problem_found:
        raise Unusable("malformed row", str(problem_found)) from None
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
