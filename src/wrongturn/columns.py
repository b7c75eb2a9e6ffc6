"""Rows as Parquet columns: the stored schema, and the way there and back without a Python object per token."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wrongturn.errors import WrongturnError
from wrongturn.signals import FIELDS
from wrongturn.trace import TRACE_VERSION, Usage, migrate

_INT, _TEXT, _BOOL, _REAL = pa.int64(), pa.string(), pa.bool_(), pa.float64()
_INTS, _FLOATS = pa.list_(pa.int32()), pa.list_(pa.float32())
_VERSION, _SUPERSEDES = b"wrongturn.trace_version", b"wrongturn.supersedes"
_COUNTED = "offsets"
_EXACT = "signal.entropy"
_BOUNDS = ("signal.entropy_low", "signal.entropy_high")
_JSON = ("events", "provenance", "messages")

TRACES = pa.schema(
    [
        ("id", _TEXT),
        ("problem", _TEXT),
        ("task", _TEXT),
        ("group", _TEXT),
        ("sample", _INT),
        ("draft", _INT),
        ("strategy", _TEXT),
    ]
    + [("prompt_ids", _INTS), ("ids", _INTS), ("text", _TEXT), ("offsets", _INTS)]
    + [("finish", _TEXT), ("answer", _TEXT)]
    + [("correct", _BOOL), ("onset", _INT), ("error", _TEXT)]
    + [(f"signal.{name}", _FLOATS) for name in FIELDS]
    + [("top_k", _INT), ("top_ids", _INTS), ("top_logprobs", _FLOATS)]
    + [("lineage.parent", _TEXT), ("lineage.at", _INT), ("lineage.reason", _TEXT)]
    + [(f"usage.{f.name}", _REAL if f.name == "seconds" else _INT) for f in fields(Usage)]
    + [("events", _TEXT), ("provenance", _TEXT)]
    + [("version", _INT)],
    metadata={_VERSION: str(TRACE_VERSION).encode()},
)
"""One column for each key of ``Trace.to_record``; ``id`` and ``version`` are in every version there will ever be."""

PROBLEMS = pa.schema(
    [
        ("id", _TEXT),
        ("task", _TEXT),
        ("prompt", _TEXT),
        ("prompt_ids", _INTS),
        ("reference", _TEXT),
        ("group", _TEXT),
        ("messages", _TEXT),
    ]
)


@dataclass(frozen=True, slots=True)
class Part:
    """What a file of traces says of itself: the ids in it, its size, and the names of the files merged into it."""

    ids: tuple[str, ...]
    size: int  # bytes, uncompressed
    supersedes: tuple[str, ...] = ()


def to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows as a table; list columns take 1-D arrays, ``events`` and the like whatever JSON can hold.

    Raises ``ValueError`` for a value its column cannot hold.
    """
    arrays = []
    for name in schema.names:
        try:
            arrays.append(_to_array([row[name] for row in rows], name, schema.field(name).type))
        except (pa.ArrowException, ValueError, TypeError) as problem:
            raise ValueError(f"field {name!r} cannot be stored: {problem}") from None
    return pa.Table.from_arrays(arrays, schema=schema)


def _to_array(values: list[Any], name: str, kind: pa.DataType) -> pa.Array:
    if name in _JSON:
        values = [json.dumps(value, default=plain) for value in values]
    if isinstance(kind, pa.ListType):
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        offsets = np.zeros(len(values) + 1, np.int32)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        flat = np.concatenate([np.zeros(0, dtype), *(value for value in values if len(value))])
        return pa.ListArray.from_arrays(offsets, pa.array(flat, kind.value_type), type=kind)
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # servers cut text inside a surrogate pair
        return pa.array([None if value is None else _whole(value) for value in values], kind)


def _whole(text: str) -> str:
    """The text with surrogate pairs joined and half ones replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def to_records(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The inverse of :func:`to_table`. List columns give slices of one writable array per column.

    Raises ``ValueError``, which names the row, for a text that is not the JSON it should be.
    """
    columns = [_from_array(table[name].combine_chunks(), name) for name in table.column_names]
    return (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))


def _from_array(array: pa.Array, name: str) -> Sequence[Any]:
    if isinstance(array, pa.ListArray):
        flat = np.array(array.values.to_numpy(zero_copy_only=False))
        return [flat[start:stop] for start, stop in pairwise(array.offsets.to_pylist())]
    values = array.to_pylist()
    if name not in _JSON:
        return values
    row = 0
    try:
        for row, text in enumerate(values):
            values[row] = json.loads(text)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"row {row}: column {name!r} is not JSON ({problem})") from None
    return values


def plain(value: Any) -> Any:
    """What JSON makes of things that are no JSON: arrays and their scalars, dataclasses, paths (for ``default=``)."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def encode(table: pa.Table, supersedes: Sequence[str] = ()) -> bytes:
    """The table as a Parquet file, marked as replacing the files named in ``supersedes``.

    Where a bound on the entropy equals it all along a row (the whole distribution was known), null is written for it:
    it would be a quarter of the file.
    """
    marks = dict(table.schema.metadata or {})
    if _EXACT in table.column_names:
        for name in _BOUNDS:
            bound = _without_copies(table[name], table[_EXACT])
            table = table.set_column(table.column_names.index(name), table.schema.field(name), bound)
    if supersedes:
        marks[_SUPERSEDES] = json.dumps(list(supersedes)).encode()
    # Signals hardly repeat, so a dictionary of them only costs time; their exponents do, once split off.
    paths = {field.name: field.name + ".list.element" * isinstance(field.type, pa.ListType) for field in table.schema}
    signals = [path for name, path in paths.items() if table.schema.field(name).type == _FLOATS]
    encoded = dict.fromkeys(signals, "BYTE_STREAM_SPLIT")
    if _COUNTED in paths:
        encoded[paths[_COUNTED]] = "DELTA_BINARY_PACKED"  # it only ever rises, by a few characters
    options: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": [path for path in paths.values() if path not in encoded],
        "column_encoding": encoded,
    }
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(marks), buffer, **options)
    return buffer.getvalue().to_pybytes()


def _without_copies(bounds: pa.ChunkedArray, exact: pa.ChunkedArray) -> pa.Array:
    """``bounds`` with null for each row that is bit for bit (NaN is not NaN) the one of ``exact``."""
    rows, others = (column.combine_chunks() for column in (bounds, exact))
    values, copied = (array.flatten().to_numpy(zero_copy_only=False).view(np.int32) for array in (rows, others))
    lengths = np.diff(rows.offsets.to_numpy())
    if len(values) != len(copied) or rows.null_count:
        return rows
    differing = np.concatenate(([0], np.cumsum(values != copied)))
    stops = np.cumsum(lengths)
    same = differing[stops] == differing[stops - lengths]
    return (
        pa.nulls(len(rows), rows.type)
        if same.all()
        else pc.call_function("if_else", [pa.array(same), pa.scalar(None, rows.type), rows])
    )


def scan(path: Path) -> Part:
    """What a file of traces says of itself, without reading its tokens.

    Raises ``WrongturnError`` for a file that is damaged, foreign or of a newer version, ``FileNotFoundError``.
    """
    with _opened(path) as file, naming(path):
        _check(path, file.schema_arrow, pa.schema([TRACES.field("id"), TRACES.field("version")]))
        table = file.read(["id", "version"], use_threads=False)
        for row, version in enumerate(table["version"].to_pylist()):
            if version is None or version > TRACE_VERSION:
                raise WrongturnError(
                    f"{path}, row {row}: field 'version' is {version}; this wrongturn reads up to {TRACE_VERSION}: "
                    "upgrade it"
                )
        if _is_current(file):
            _check(path, file.schema_arrow, TRACES)
        marks = file.schema_arrow.metadata or {}
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        return Part(tuple(table["id"].to_pylist()), size, tuple(json.loads(marks.get(_SUPERSEDES, b"[]"))))


def read_traces(path: Path, columns: Sequence[str] = TRACES.names) -> pa.Table:
    """Columns of a file of traces, migrated where an older version wrote it. Errors as in :func:`scan`."""
    with _opened(path) as file:
        if _is_current(file):
            wanted = [*columns, _EXACT] if set(columns) & set(_BOUNDS) else list(columns)
            table = file.read(wanted, use_threads=False)
            for name in set(columns) & set(_BOUNDS):
                if table[name].null_count:
                    full = pc.call_function("coalesce", [table[name], table[_EXACT]])
                    table = table.set_column(table.column_names.index(name), table.schema.field(name), full)
            return table.select(list(columns))
        with naming(path):
            rows = [migrate(record) for record in to_records(file.read(use_threads=False))]
            return to_table(rows, TRACES).select(list(columns))


def read_problems(path: Path) -> pa.Table:
    """The whole file of problems. Errors as in :func:`scan`."""
    with _opened(path) as file:
        early = pa.schema([field for field in PROBLEMS if field.name != "messages"])  # that came with trace version 2
        known = PROBLEMS if "messages" in file.schema_arrow.names else early
        _check(path, file.schema_arrow, known)
        table = file.read(known.names, use_threads=False)
    return table if known is PROBLEMS else table.append_column("messages", pa.array(["[]"] * len(table), _TEXT))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say which file a ``ValueError`` is about."""
    try:
        yield
    except ValueError as problem:
        raise WrongturnError(f"{path}: {problem}") from None


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno:
            raise WrongturnError(f"{path} cannot be read: {os.strerror(problem.errno)}") from None
        raise WrongturnError(f"{path} is truncated or no Parquet file ({str(problem).partition(chr(10))[0]})") from None


def _is_current(file: pq.ParquetFile) -> bool:
    """Whether this version wrote the file. One without the mark is taken for current: its columns then tell."""
    marks = file.schema_arrow.metadata or {}
    return int(marks.get(_VERSION, TRACE_VERSION)) == TRACE_VERSION


def _check(path: Path, found: pa.Schema, expected: pa.Schema) -> None:
    for field in expected:
        if field.name not in found.names:
            raise WrongturnError(f"{path} is not from wrongturn: column {field.name!r} is missing")
        kind = found.field(field.name).type
        if kind != field.type:
            raise WrongturnError(f"{path}: column {field.name!r} holds {kind}, expected {field.type}")
