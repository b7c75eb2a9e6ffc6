"""Reading the fields of a row without trusting them: each is what it is expected to be, or the row is unusable.

Where it is not, :class:`Unusable` names the field, what it holds and what was expected.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from wrongturn.importers.base import Row, Unusable, brief
from wrongturn.vocabulary import Message

_FINISH = {
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_output_tokens", "context_length"), "length"),
    **dict.fromkeys(("cancelled", "canceled", "aborted", "abort"), "cancelled"),
}
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
        raise Unusable("malformed row", f"field {name!r} is {brief(value)}, expected {_KINDS[kind]}")
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
            raise Unusable("malformed row", f"item {i} of {name!r} is {brief(value)}, expected an object")
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
    raise Unusable("malformed row", f"field {name!r} is {brief(value)}, expected a number")


def text_of(value: Any) -> str | None:
    """A reference or an answer as text: as it is, or as JSON; None where there is none."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def finish(told: Any) -> str:
    """The finish reason: "length" and "cancelled" in any spelling, else "stop"."""
    return _FINISH.get(told, "stop") if isinstance(told, str) else "stop"


def digest(*parts: Any) -> str:
    """Eight hexadecimal digits that stand for some JSON."""
    told = json.dumps(parts, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(told, digest_size=4).hexdigest()


# -- conversations -----------------------------------------------------------------------------------------------------


def content(value: Any, name: str = "content") -> str:
    """The text of a chat message's content: a string, or a list of parts of which all are text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Unusable("malformed row", f"field {name!r} is {brief(value)}, expected text")
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


def shown(turns: Sequence[Message]) -> str:
    """A conversation as a prompt for people: the last turn of the user."""
    return next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), "")
