"""verifiers: ``traces.jsonl`` (an episode a line, its traces being graphs of messages) and the older ``results.jsonl``.

Token ids are the model's own. Their texts are not logged, so the words of the message stand in for them where the log
has no ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wrongturn.importers._fields import (
    digest,
    finish,
    get,
    messages,
    need,
    number,
    objects,
    reply,
    shown,
    split,
    text_of,
)
from wrongturn.importers._lines import json_lines
from wrongturn.importers.base import Format, Imported, Log, Row, Tokens, Unusable
from wrongturn.trace import Problem
from wrongturn.vocabulary import Message

_VERSION = 1
_UNEVEN = "completions whose 'token_ids', 'mask' and 'logprobs' do not fit each other: words stand in for their tokens"


def entries(row: Row, log: Log) -> Iterator[Imported]:
    """One for each trace of an episode that has a sampled message (the last one counts)."""
    if "completion" in row:
        yield _result(row, log)
    elif "nodes" in row:
        yield _trace(row, log)
    else:
        found = objects(need(row, "traces", list), "traces")
        if not found:
            raise Unusable("no answer", "the episode has no traces")
        for trace in found:
            yield _trace(trace, log)


def _trace(row: Row, log: Log) -> Imported:
    version = get(row, "version", int)
    if version is not None and version > _VERSION:
        raise Unusable("newer version", f"trace version {version}, known up to {_VERSION}")
    nodes = objects(need(row, "nodes", list), "nodes")
    leaf = max((i for i, node in enumerate(nodes) if node.get("sampled") is True), default=-1)
    if leaf < 0:
        raise Unusable("no answer", "no message was sampled")
    before = [need(nodes[i], "message", dict) for i in _ancestors(nodes, leaf)]
    call = next((call for call in objects(get(row, "calls", list) or [], "calls") if call.get("node") == leaf), {})
    task: Row = get(row, "task", dict) or {}
    data: Row = get(task, "data", dict) or {}
    rewards: Row = get(row, "rewards", dict) or {}
    metrics: Row = get(row, "metrics", dict) or {}
    scores = {name: reward.get("score") for name, reward in rewards.items() if isinstance(reward, dict)}
    correct, metric = log.grade(scores | metrics | scores)  # in this order; a reward has the name where both do
    group = get(task, "type", str) or ""
    turns = messages(before)
    name = next((told for told in (data.get("id"), data.get("idx"), task.get("key")) if told is not None), None)
    problem = _problem(log, name, turns, group, data.get("answer"))
    sampling = {"model": get(call, "model", str), "sampling": call.get("sampling")}
    return Imported(
        problem,
        reply(need(nodes[leaf], "message", dict)),
        _tokens(nodes[leaf], log),
        finish(call.get("finish_reason")),
        correct=correct,
        provenance=sampling | metric,
    )


def _ancestors(nodes: list[Row], leaf: int) -> list[int]:
    path: list[int] = []
    at = get(nodes[leaf], "parent", int)
    while at is not None:
        if not 0 <= at < len(nodes) or at in path or at == leaf:
            raise Unusable("malformed row", f"node {leaf} has no path to a root")
        path.insert(0, at)
        at = get(nodes[at], "parent", int)
    return path


def _tokens(node: Row, log: Log) -> Tokens | None:
    """The sampled tokens of a message, None where their log-probabilities are not there or belong to others."""
    ids, mask = get(node, "token_ids", list) or [], get(node, "mask", list) or []
    chances = get(node, "logprobs", list) or []
    if not chances:
        return None
    sampled = [token for token, ours in zip(ids, mask, strict=False) if ours]
    if len(mask) != len(ids) or len(chances) != len(sampled):
        log.notice(_UNEVEN)
        return None
    return Tokens([number(value, "logprobs") for value in chances], ids=sampled)


def _result(row: Row, log: Log) -> Imported:
    """A row of the older layout: the prompt's and the completion's messages, or their texts."""
    prompt, said = row.get("prompt"), row.get("completion")
    asked = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    told = said if isinstance(said, list) else [{"role": "assistant", "content": said}]
    before, last = split([*asked, *told])
    correct, metric = log.grade({name: row[name] for name in ("reward", "correct_answer") if name in row})
    group = get(row, "task", str) or ""
    problem = _problem(log, row.get("example_id", row.get("id")), before, group, row.get("answer"))
    return Imported(problem, reply(last), correct=correct, provenance={"model": get(row, "model", str)} | metric)


def _problem(log: Log, name: Any, turns: tuple[Message, ...], group: str, answer: Any) -> Problem:
    """What was asked, by the log's own name for it or else by its messages."""
    return Problem(
        f"{group or 'verifiers'}/{digest(turns) if name is None else text_of(name)}",
        log.task,
        shown(turns),
        reference=text_of(answer),
        group=group,
        messages=turns,
    )


VERIFIERS = Format(
    "verifiers",
    ("traces.jsonl", "results.jsonl", "*.jsonl"),
    json_lines,
    entries,
    lambda row: "nodes" in row or ("traces" in row and "task" in row) or ("prompt" in row and "completion" in row),
)
