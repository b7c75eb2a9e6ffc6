"""OpenAI batch output (also of Together, vLLM's ``run_batch`` and others), and bare completions, one JSON a line.

The output does not repeat what was asked: give the batch's input as ``requests`` to have the prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from wrongturn.errors import WrongturnError
from wrongturn.importers._fields import finish, get, messages, need, objects, reply, shown, text_of
from wrongturn.importers._lines import json_lines
from wrongturn.importers._tokens import chat_tokens, completion_tokens
from wrongturn.importers.base import Format, Imported, Log, Row, Tokens, Unusable
from wrongturn.trace import Problem


def entries(row: Row, log: Log) -> Iterator[Imported]:
    """One for each choice."""
    body = _body(row)
    name = get(row, "custom_id", str) or get(body, "id", str)
    if name is None:
        raise Unusable("malformed row", "field 'custom_id' is missing, expected text")
    asked = log.requests.get(name, {})
    prompt = asked.get("prompt")
    turns = messages(get(asked, "messages", list) or [])
    problem = Problem(
        name, log.task, shown(turns) if turns else prompt if isinstance(prompt, str) else "", messages=turns
    )
    choices = objects(need(body, "choices", list), "choices")
    if not choices:
        raise Unusable("no answer", "field 'choices' is empty")
    kept = _tokens_told(body) if len(choices) == 1 else None
    sampling = {key: asked[key] for key in ("temperature", "top_p", "seed", "max_tokens") if key in asked}
    for choice in choices:
        message = get(choice, "message", dict)
        text = need(choice, "text", str) if message is None else reply(message)
        tokens = _tokens(choice)
        if not text and message is not None and message.get("tool_calls"):
            raise Unusable("no answer", "only tool calls, no text")
        told = choice.get("finish_reason")
        provenance = {"model": get(body, "model", str), "sampling": sampling, "finish": text_of(told)}
        yield Imported(problem, text, tokens, finish(told), kept=kept, provenance=provenance)


def requests(path: Path) -> Mapping[str, Row]:
    """The bodies of a batch's input by their ``custom_id``. Raises ``WrongturnError`` where it is none."""
    found = {}
    for where, row in json_lines(Log(path)):
        name, body = (row.get("custom_id"), row.get("body")) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(body, dict):
            raise WrongturnError(f"{path}: {where} is no request of a batch: it needs 'custom_id' and 'body'")
        found[name] = body
    return found


def _body(row: Row) -> Row:
    if "choices" in row:
        return row
    failed = row.get("error")
    response = get(row, "response", dict)
    status = get(response, "status_code", int) if response else None
    if failed or response is None or (status is not None and status >= 400):
        told: Row = failed if isinstance(failed, dict) else {}
        told = told["error"] if isinstance(told.get("error"), dict) else told  # vLLM wraps it twice
        raise Unusable("request failed", str(told.get("message") or f"status {status}")[:200].replace("\n", " "))
    return need(response, "body", dict)


def _tokens(choice: Row) -> Tokens | None:
    told = get(choice, "logprobs", dict)
    if told is None:
        return None
    if told.get("content") is not None or "tokens" not in told:
        return chat_tokens([*(get(told, "reasoning", list) or []), *(get(told, "content", list) or [])])
    return completion_tokens(told)


def _tokens_told(body: Row) -> int | None:
    usage: Row = get(body, "usage", dict) or {}
    count = get(usage, "completion_tokens", int)
    return count if count is not None and 0 <= count < 2**31 else None


OPENAI_BATCH = Format(
    "openai-batch",
    ("*.jsonl",),
    json_lines,
    entries,
    lambda row: ("custom_id" in row and "response" in row) or "choices" in row,
    graded=False,
)
