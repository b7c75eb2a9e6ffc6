"""lm-evaluation-harness: ``samples_<task>_<date>.jsonl``, as ``--log_samples`` writes them.

A row is a document under one filter; its ``resps`` are the completions. Log-likelihood requests have none. Sampling of
tokens is not logged, so signals are NaN.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from wrongturn.importers._fields import get, messages, need, shown, text_of
from wrongturn.importers._lines import json_lines
from wrongturn.importers.base import Format, Imported, Log, Row, Unusable
from wrongturn.trace import Problem

_NAME = re.compile(r"samples_(.+?)(_\d{4}-\d\d-\d\dT[^/]*)?\.jsonl$")


def entries(row: Row, log: Log) -> Iterator[Imported]:
    """One for each repetition. A metric grades the filtered answer, so it only counts where there is one repetition."""
    chosen = log.filter or log.notes.setdefault("filter", get(row, "filter", str))
    if get(row, "filter", str) != chosen:
        raise Unusable("another filter", f"filter {row['filter']!r}, not {chosen!r}")
    responses = [text for group in need(row, "resps", list) for text in (group if isinstance(group, list) else [group])]
    if not all(isinstance(text, str) for text in responses):
        raise Unusable("no text", "the responses are log-likelihoods, not text")
    filtered = get(row, "filtered_resps", list) or []
    named = [name for name in get(row, "metrics", list) or [] if isinstance(name, str)]
    correct, metric = log.grade({name: row.get(name) for name in named})
    whole = len(set(responses)) == 1  # then whatever the filter took is what it graded
    task, model = _task(log), _model(log)
    prompt, options = _asked(row)
    turns = _turns(prompt)
    problem = Problem(
        f"{task}/{text_of(row.get('doc_id'))}",
        log.task,
        shown(turns) if turns else prompt,
        reference=text_of(row.get("target")),
        group=task,
        messages=turns,
    )
    for text in responses:
        answer = text_of(filtered[0]) if whole and filtered and filtered[0] != "[invalid]" else None
        sampling = {"model": model, "sampling": options, "filter": chosen} | (metric if whole else {})
        yield Imported(problem, text, answer=answer, correct=correct if whole else None, provenance=sampling)


def _asked(row: Row) -> tuple[str, Any]:
    """The prompt and the generation settings, in the layout of today's files and in that of older ones."""
    arguments = row.get("arguments")
    first = next(iter(arguments.values()), None) if isinstance(arguments, dict) else arguments
    if isinstance(first, dict):
        prompt, options = first.get("arg_0"), first.get("arg_1")
    else:
        pair = first[0] if isinstance(first, list) and first and isinstance(first[0], list) else first
        prompt, options = (*pair, None, None)[:2] if isinstance(pair, list) else (None, None)
    if not isinstance(prompt, str):
        raise Unusable("malformed row", "field 'arguments' holds no prompt")
    return prompt, options


def _turns(prompt: str) -> tuple:
    """The messages of a prompt that is a chat, as the harness logs those: JSON in a string."""
    if not prompt.startswith("[{"):
        return ()
    try:
        return messages(json.loads(prompt))
    except (ValueError, RecursionError, Unusable, AttributeError):
        return ()


def _task(log: Log) -> str:
    found = _NAME.search(log.path.name)
    return found[1] if found else log.path.stem


def _model(log: Log) -> str | None:
    """The model, from the file of results that stands beside the samples."""
    if "model" not in log.notes:
        found = _NAME.search(log.path.name)
        beside = log.path.with_name(f"results{found[2]}.json") if found and found[2] else None
        try:
            told = json.loads(beside.read_bytes()) if beside else {}
        except (OSError, ValueError, RecursionError):
            told = {}
        name = told.get("model_name") if isinstance(told, dict) else None
        log.notes["model"] = name if isinstance(name, str) else None
    return log.notes["model"]


LM_EVAL = Format("lm-eval", ("samples_*.jsonl",), json_lines, entries, lambda row: "resps" in row and "doc_id" in row)
