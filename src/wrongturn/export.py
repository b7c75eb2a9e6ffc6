"""Runs as other tools read them: a Parquet file, an Inspect log, chat JSON lines.

All three hold the text of tokens and alternatives, not ids: a reader needs no vocabulary. What is unknown is null.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wrongturn import tasks
from wrongturn.errors import WrongturnError
from wrongturn.folder import disk
from wrongturn.importers.inspect import library
from wrongturn.signals import FIELDS
from wrongturn.store import Run
from wrongturn.trace import Problem, Trace

_TEXT, _INT, _FLOATS, _TEXTS = pa.string(), pa.int64(), pa.list_(pa.float32()), pa.list_(pa.string())
_GROUP = 256  # rows held in memory

SCHEMA = pa.schema(
    [(name, _TEXT) for name in ("id", "problem", "task", "group", "strategy")]
    + [("sample", _INT), ("prompt", _TEXT)]
    + [("messages", pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)])))]
    + [(name, _TEXT) for name in ("reference", "completion", "answer", "finish", "outcome")]
    + [("correct", pa.bool_()), ("onset", _INT), ("parent", _TEXT), ("forked_at", _INT)]
    + [("tokens", _TEXTS), ("logprobs", _FLOATS)]
    + [("top_tokens", pa.list_(_TEXTS)), ("top_logprobs", pa.list_(_FLOATS))]
    + [(name, _FLOATS) for name in FIELDS if name != "nll"]
    + [("tokens_decoded", _INT), ("provenance", _TEXT)]
)
"""The flat table: one row a trace, one list entry a token; ``logprobs`` is minus the signal nll."""


class Texts:
    """What token ids of a run mean, by the run's own record or else by the trace's task."""

    def __init__(self, run: Run) -> None:
        self._known = run.vocabulary()

    def pieces(self, trace: Trace) -> list[str] | None:
        """The text of each token of a trace, None where nobody knows it."""
        return trace.pieces or self._named(trace, trace.ids)

    def alternatives(self, trace: Trace) -> list[list[tuple[str, float]]] | None:
        """The (text, log-probability) of each token's alternatives; None where there are none or no texts."""
        if not trace.top_ids.size:
            return None
        distinct, inverse = np.unique(trace.top_ids, return_inverse=True)
        named = self._named(trace, distinct[distinct >= 0])
        if named is None:
            return None
        table = [""] * int((distinct < 0).sum()) + named
        rows = zip(trace.top_ids, np.reshape(inverse, trace.top_ids.shape), trace.top_logprobs.tolist(), strict=True)
        return [
            [(table[i], chance) for i, chance, id in zip(names, chances, ids, strict=True) if id >= 0]
            for ids, names, chances in rows
        ]

    def _named(self, trace: Trace, ids: np.ndarray) -> list[str] | None:
        found = [self._known.get(token) for token in ids.tolist()]
        if None not in found:
            return found  # type: ignore[return-value]  (there is no None)
        try:
            return tasks.get(trace.task).pieces(ids.tolist())
        except (ValueError, WrongturnError):
            return None


def write(run: Run, format: str, target: Path) -> int:
    """Write all traces of a run to one file; how many there were. The file is there as a whole or not at all.

    Raises:
        WrongturnError: no such format, the run cannot be read or the file not written, or a library is missing.
    """
    if format not in FORMATS:
        raise WrongturnError(f"{format!r} is no format to export to (there are: {', '.join(FORMATS)})")
    target = Path(target)
    if target.is_dir():
        raise WrongturnError(f"{target} is a folder: name a file")
    with _aside(target) as aside:
        return FORMATS[format](run, aside)


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    aside = target.with_name(f".{uuid4().hex}{target.suffix}")
    try:
        with disk(target):
            yield aside
            os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _pairs(run: Run) -> Iterator[tuple[Trace, Problem]]:
    problems = run.problems()
    return ((trace, problems.get(trace.problem) or Problem(trace.problem, trace.task, "")) for trace in run.traces())


def _parquet(run: Run, path: Path) -> int:
    texts, count = Texts(run), 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for count, (trace, problem) in enumerate(_pairs(run), 1):  # noqa: B007 (the last one counts them)
            rows.append(_row(trace, problem, texts))
            if len(rows) == _GROUP:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return count


def _row(trace: Trace, problem: Problem, texts: Texts) -> dict[str, Any]:
    signals = {name: _nullable(values) for name, values in trace.signals.dict().items() if name != "nll"}
    listed = texts.alternatives(trace)
    lineage = trace.lineage
    return signals | {
        **{name: getattr(trace, name) for name in ("id", "problem", "task", "group", "strategy", "sample")},
        **{name: getattr(trace, name) for name in ("answer", "finish", "outcome", "correct", "onset")},
        "prompt": problem.prompt,
        "messages": [dict(message) for message in problem.messages],
        "reference": problem.reference,
        "completion": trace.text,
        "parent": lineage.parent if lineage else None,
        "forked_at": lineage.at if lineage else None,
        "tokens": texts.pieces(trace),
        "logprobs": _nullable(-trace.signals.nll),
        "top_tokens": listed and [[name for name, _ in row] for row in listed],
        "top_logprobs": listed and [[chance for _, chance in row] for row in listed],
        "tokens_decoded": trace.usage.decoded,
        "provenance": json.dumps(trace.provenance),
    }


def _nullable(values: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


# -- chat JSON lines ---------------------------------------------------------------------------------------------------


def _jsonl(run: Run, path: Path) -> int:
    texts, count = Texts(run), 0
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        for count, (trace, problem) in enumerate(_pairs(run), 1):  # noqa: B007
            file.write(json.dumps(_line(trace, problem, texts), ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return count


def _line(trace: Trace, problem: Problem, texts: Texts) -> dict[str, Any]:
    content = logprobs(trace, texts)
    asked = [dict(turn) for turn in problem.messages] or [{"role": "user", "content": problem.prompt}]
    line = {
        "id": trace.id,
        "problem": problem.id,
        "group": problem.group,
        "messages": [*asked, {"role": "assistant", "content": trace.text}],
        "logprobs": {"content": content} if content else None,
        "reference": problem.reference,
        "answer": trace.answer,
        "correct": trace.correct,
        "finish_reason": trace.finish,
        "model": _model(trace),
    }
    return {name: value for name, value in line.items() if value is not None}


def logprobs(trace: Trace, texts: Texts) -> list[dict[str, Any]] | None:
    """The tokens as a chat completion's ``logprobs.content``; None where there are no tokens with known texts.

    A log-probability that is unknown is null; one of minus infinity is -9999, as servers write it.
    """
    pieces = texts.pieces(trace)
    if not pieces or np.isnan(trace.signals.nll).all():
        return None
    listed = texts.alternatives(trace) or [[]] * len(pieces)
    return [
        _entry(piece, chance) | {"top_logprobs": [_entry(*pair) for pair in row]}
        for piece, chance, row in zip(pieces, (-trace.signals.nll).tolist(), listed, strict=True)
    ]


def _entry(token: str, chance: float) -> dict[str, Any]:
    return {"token": token, "logprob": _finite(chance), "bytes": list(token.encode("utf-8", "replace"))}


def _finite(value: float) -> float | None:
    return None if value != value else max(value, -9999.0)


def _model(trace: Trace) -> str:
    return str(trace.provenance.get("model") or trace.provenance.get("engine") or "unknown")


# -- Inspect -----------------------------------------------------------------------------------------------------------


def _inspect(run: Run, path: Path) -> int:
    log = library()
    texts, samples, epochs = Texts(run), [], Counter()
    for trace, problem in _pairs(run):
        epochs[problem.id] += 1
        samples.append(_sample(trace, problem, epochs[problem.id], texts))
    models = sorted({sample.output.model for sample in samples})
    name = run.path.resolve().name
    head = log.EvalSpec(
        created=run.manifest["created"],
        task=name,
        dataset=log.EvalDataset(name=name, samples=len(epochs), sample_ids=list(epochs)),
        model=models[0] if len(models) == 1 else "several",
        config=log.EvalConfig(epochs=max(epochs.values(), default=1)),
    )
    whole = log.EvalLog(status="success", eval=head, samples=samples)
    log.write_eval_log(whole, str(path), format="json" if path.suffix == ".json" else "eval")
    return len(samples)


def _sample(trace: Trace, problem: Problem, epoch: int, texts: Texts) -> Any:
    log, model, scorer = (importlib.import_module(f"inspect_ai.{name}") for name in ("log", "model", "scorer"))
    content = logprobs(trace, texts)
    told = model.Logprobs(content=_reals(content)) if content else None
    message = model.ChatMessageAssistant(content=trace.text, model=_model(trace), source="generate")
    choice = model.ChatCompletionChoice(
        message=message, stop_reason="max_tokens" if trace.finish in ("length", "budget") else "stop", logprobs=told
    )
    kinds: Mapping[str, Callable[..., Any]] = {
        "system": model.ChatMessageSystem,
        "assistant": model.ChatMessageAssistant,
    }
    asked: Sequence[Any] = [
        kinds.get(turn["role"], model.ChatMessageUser)(content=turn["content"]) for turn in problem.messages
    ]
    graded = {"correct": scorer.Score(value="C" if trace.correct else "I", answer=trace.answer)}
    usage = model.ModelUsage(
        input_tokens=trace.usage.prompt, output_tokens=trace.usage.decoded, total_tokens=trace.usage.decoded
    )
    return log.EvalSample(
        id=problem.id,
        epoch=epoch,
        input=list(asked) or problem.prompt,
        target=problem.reference or "",
        messages=[*(asked or [model.ChatMessageUser(content=problem.prompt)]), message],
        output=model.ModelOutput(model=_model(trace), choices=[choice], usage=usage),
        scores=graded if trace.correct is not None else None,
        metadata={"trace": trace.id, "group": trace.group, "strategy": trace.strategy, "onset": trace.onset},
    )


def _reals(content: Any) -> Any:
    """The same with NaN for null, which Inspect's log-probabilities cannot be."""
    if isinstance(content, list):
        return [_reals(item) for item in content]
    return {k: _reals(v) if k == "top_logprobs" else math.nan if v is None else v for k, v in content.items()}


FORMATS: dict[str, Callable[[Run, Path], int]] = {"parquet": _parquet, "inspect": _inspect, "jsonl": _jsonl}
