"""Conversations as JSON lines: ``messages`` of role and content, and ShareGPT's ``conversations`` of from and value.

What stands before the last message of the assistant is the problem, that message the completion.
"""

from __future__ import annotations

from collections.abc import Iterator

from wrongturn.importers._fields import content, digest, finish, get, need, objects, reply, shown, split, text_of
from wrongturn.importers._lines import json_lines
from wrongturn.importers._tokens import chat_tokens
from wrongturn.importers.base import Format, Imported, Log, Row
from wrongturn.trace import Problem

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}
_REFERENCES = ("reference", "target", "ground_truth", "gold")


def chat(row: Row, log: Log) -> Iterator[Imported]:
    """One completion. ``problem`` (or ``group`` and the messages) names what was asked.

    Known further fields: ``logprobs`` (as in a chat completion), ``reference``, ``answer``, ``correct``, ``metrics``,
    ``finish_reason``, ``model``, ``group``, ``usage``.
    """
    before, last = split(need(row, "messages", list))
    logprobs = get(row, "logprobs", dict) or get(last, "logprobs", dict) or {}
    metrics = (get(row, "metrics", dict) or {}) | {k: row[k] for k in ("correct", "score", "reward") if k in row}
    correct, metric = log.grade(metrics)
    group = next((found for name in ("group", "subset", "task") if (found := get(row, name, str))), "")
    problem = Problem(
        get(row, "problem", str) or f"{group or 'chat'}/{digest(before)}",
        log.task,
        shown(before),
        reference=next((text_of(row[name]) for name in _REFERENCES if row.get(name) is not None), None),
        group=group,
        messages=before,
    )
    told = row.get("finish_reason")
    yield Imported(
        problem,
        reply(last),
        chat_tokens(get(logprobs, "content", list) or []),
        finish(told),
        text_of(row.get("answer")),
        correct,
        provenance={"model": get(row, "model", str), "finish": text_of(told)} | metric,
    )


def sharegpt(row: Row, log: Log) -> Iterator[Imported]:
    """One completion."""
    turns = [
        {
            "role": _ROLES.get(need(turn, "from", str), turn["from"]),
            "content": content(turn.get("value"), "value"),
        }
        for turn in objects(need(row, "conversations", list), "conversations")
    ]
    if system := get(row, "system", str):
        turns.insert(0, {"role": "system", "content": system})
    before, last = split(turns)
    problem = Problem(f"sharegpt/{digest(before)}", log.task, shown(before), messages=before)
    yield Imported(problem, last["content"], provenance={"model": get(row, "model", str)})


CHAT = Format("chat", ("*.jsonl", "*.json"), json_lines, chat, lambda row: "messages" in row)
SHAREGPT = Format(
    "sharegpt", ("*.jsonl", "*.json"), json_lines, sharegpt, lambda row: "conversations" in row, graded=False
)
