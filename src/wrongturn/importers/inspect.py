"""Inspect: ``.eval`` and ``.json`` logs, read with its own library (extra ``inspect``).

A problem is what the dataset's sample asks (``sample.input``); a completion is each choice of the sample's output, with
its log-probabilities where the model gave them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from wrongturn.errors import WrongturnError
from wrongturn.importers._fields import finish, shown, text_of
from wrongturn.importers._tokens import chat_tokens
from wrongturn.importers.base import Format, Imported, Log, Row, Unusable
from wrongturn.trace import Problem


def library() -> Any:
    """``inspect_ai.log``. Raises ``WrongturnError`` where it is not installed."""
    try:
        return importlib.import_module("inspect_ai.log")
    except ModuleNotFoundError as missing:
        raise WrongturnError(f"Inspect logs need {missing.name}: pip install 'wrongturn[inspect]'") from None


def rows(log: Log) -> Iterator[tuple[str, Row | Unusable]]:
    """(where, {"sample": its EvalSample, "eval": the log's header}); one sample in memory where the file is a zip."""
    reader = library()
    if not log.path.is_file():
        raise WrongturnError(f"{log.path}: there is no such file")
    path = str(log.path)
    zipped = log.path.suffix == ".eval"
    try:
        header = reader.read_eval_log(path, header_only=zipped)
        if zipped:
            names = [(summary.id, summary.epoch) for summary in reader.read_eval_log_sample_summaries(path)]
        else:
            names = [(sample.id, sample.epoch) for sample in header.samples or []]
    except Exception as problem:  # zip, JSON and validation errors of all kinds
        raise WrongturnError(f"{log.path}: not a readable Inspect log ({_line(problem)})") from None
    for i, (id, epoch) in enumerate(names):
        where = f"sample {id!r}, epoch {epoch}"
        try:
            sample = reader.read_eval_log_sample(path, id, epoch) if zipped else (header.samples or [])[i]
        except Exception as problem:
            yield where, Unusable("malformed row", _line(problem))
            continue
        yield where, {"sample": sample, "eval": header.eval}


def entries(row: Row, log: Log) -> Iterator[Imported]:
    """One for each choice of the sample's output."""
    sample, head = row["sample"], row["eval"]
    if sample.error is not None:
        raise Unusable("sample failed", _line(sample.error.message))
    if not sample.output.choices:
        raise Unusable("no answer", "the sample has no output")
    turns = () if isinstance(sample.input, str) else tuple(_turn(message) for message in sample.input)
    scores = sample.scores or {}
    correct, metric = log.grade({name: score.value for name, score in scores.items()})
    answers = [scores[metric["metric"]]] if metric else scores.values()
    task = head.task.rpartition("/")[2]
    problem = Problem(
        f"{task}/{sample.id}",
        log.task,
        shown(turns) if turns else str(sample.input),
        reference=text_of(sample.target),
        group=task,
        messages=turns,
    )
    one, usage = len(sample.output.choices) == 1, sample.output.usage
    config = {k: v for k, v in head.model_generate_config.model_dump(exclude_none=True).items() if _is_plain(v)}
    for choice in sample.output.choices:
        content = [entry.model_dump() for entry in choice.logprobs.content] if choice.logprobs else []
        yield Imported(
            problem,
            _said(choice.message),
            chat_tokens(content),
            finish(choice.stop_reason),
            next((score.answer for score in answers if score.answer is not None), None) if one else None,
            correct if one else None,
            usage.output_tokens if one and usage else None,
            {"model": head.model, "sampling": config, "finish": choice.stop_reason, "epoch": sample.epoch} | metric,
        )


def _turn(message: Any) -> dict[str, str]:
    if not isinstance(message.content, str) and any(part.type != "text" for part in message.content):
        raise Unusable("not only text", "the input has parts that are no text")
    return {"role": message.role, "content": message.text}


def _said(message: Any) -> str:
    """What an assistant's message says, its reasoning first, as in :func:`wrongturn.importers._fields.reply`."""
    parts = [] if isinstance(message.content, str) else message.content
    thoughts = [part.reasoning for part in parts if part.type == "reasoning" and not part.redacted]
    return "".join([*thoughts, message.text])


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))


def _line(problem: object) -> str:
    return (str(problem) or type(problem).__name__).partition("\n")[0][:200]


INSPECT = Format("inspect", ("*.eval", "*.json"), rows, entries, lambda row: "eval" in row and "version" in row)
