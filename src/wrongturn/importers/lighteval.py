"""lighteval: ``details_<task>_<date>.parquet`` with the columns ``doc``, ``model_response`` and ``metric``.

Some versions write ``__doc__``, ``__model_response__`` and ``__metric__``.

The ids of sampled tokens are logged, their texts and log-probabilities are not: words of the text stand in for them,
and the number of ids is the number of tokens decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from wrongturn.errors import WrongturnError
from wrongturn.importers._fields import get, need, text_of
from wrongturn.importers.base import Format, Imported, Log, Row, Unusable
from wrongturn.trace import Problem

_NAME = re.compile(r"^details_(.+?)(_\d{4}-\d\d-\d\dT.*)?$")
_COLUMNS = ("doc", "model_response", "metric")


def rows(log: Log) -> Iterator[tuple[str, Row]]:
    """The rows of a file of details, a few at a time."""
    try:
        with pq.ParquetFile(log.path) as file:
            columns = {name.strip("_"): name for name in file.schema_arrow.names}
            missing = [name for name in _COLUMNS if name not in columns]
            if missing:
                raise WrongturnError(f"{log.path}: no details of lighteval: column {missing[0]!r} is missing")
            count = 0
            for batch in file.iter_batches(64, columns=[columns[name] for name in _COLUMNS], use_threads=False):
                for row in batch.to_pylist():
                    count += 1
                    yield f"row {count}", {name.strip("_"): value for name, value in row.items()}
    except (OSError, pa.ArrowException) as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        raise WrongturnError(f"{log.path}: not a readable Parquet file: {reason.partition(chr(10))[0]}") from None


def entries(row: Row, log: Log) -> Iterator[Imported]:
    """One for each generation. A metric grades them together, so it only counts where there is one."""
    doc, response = need(row, "doc", dict), need(row, "model_response", dict)
    metrics = {name: value for name, value in (get(row, "metric", dict) or {}).items() if value is not None}
    correct, metric = log.grade(metrics)
    texts = get(response, "text", list) or []
    if not texts:
        raise Unusable("no text", "the responses are log-likelihoods, not text")
    counts = [len(ids) for ids in get(response, "output_tokens", list) or [] if isinstance(ids, list)]
    processed = get(response, "text_post_processed", list) or []
    found = _NAME.match(log.path.stem)
    task = get(doc, "task_name", str) or (found[1] if found else log.path.stem)
    query = need(doc, "query", str)
    number = log.notes["doc"] = log.notes.get("doc", -1) + 1
    problem = Problem(f"{task}/{text_of(doc.get('id')) or number}", log.task, query, reference=_gold(doc), group=task)
    one = len(texts) == 1
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise Unusable("malformed row", "field 'text' holds something else than text")
        yield Imported(
            problem,
            text,
            answer=processed[i] if len(processed) == len(texts) and isinstance(processed[i], str) else None,
            correct=correct if one else None,
            kept=counts[i] if len(counts) == len(texts) else None,
            provenance=metric if one else {},
        )


def _gold(doc: Row) -> str | None:
    """The (first) right choice."""
    choices, gold = get(doc, "choices", list) or [], doc.get("gold_index")
    index = gold[0] if isinstance(gold, list) and gold else gold
    return text_of(choices[index]) if isinstance(index, int) and 0 <= index < len(choices) else None


LIGHTEVAL = Format("lighteval", ("details_*.parquet",), rows, entries, lambda row: "model_response" in row)
