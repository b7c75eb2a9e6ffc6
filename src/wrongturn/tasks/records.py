"""Rows of a file or a Hugging Face dataset, one dictionary each, with the number a user finds them by."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wrongturn.errors import WrongturnError, extra

Numbered = tuple[int, Mapping[str, Any]]
"""Row as a spreadsheet or editor counts them (the header of a CSV is row 1), and its fields."""

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_LONGEST = 1 << 28  # characters in a CSV cell


def rows(source: str | Path) -> Iterator[Numbered]:
    """The rows of ``.jsonl``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``, a folder or ``hf:NAME[/CONFIG][@SPLIT]``.

    Raises ``WrongturnError``, one line, for what cannot be read.
    """
    if str(source).startswith("hf:"):
        return _hub(str(source))
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise WrongturnError(f"{path}: there is no such file")
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise WrongturnError(f"{path}: a file of problems ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    read = {".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}.get(kind, _jsonl)
    return _readable(path, read(path))


def _readable(path: Path, found: Iterator[Numbered]) -> Iterator[Numbered]:
    try:
        yield from found
    except OSError as problem:
        raise WrongturnError(f"{path} cannot be read: {problem.strerror or first_line(problem)}") from None


def first_line(problem: BaseException) -> str:
    """What an exception says, in one line."""
    return (str(problem).strip() or type(problem).__name__).partition("\n")[0][:300]


# -- text --------------------------------------------------------------------------------------------------------------


def _jsonl(path: Path) -> Iterator[Numbered]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = _text(path, number, line)
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as problem:
                cut = "" if line.endswith(b"\n") else ": the file ends in the middle of it"
                raise WrongturnError(f"{path}: row {number}: not JSON ({first_line(problem)}){cut}") from None
            yield number, _object(path, number, row)


def _text(path: Path, number: int, line: bytes) -> str:
    if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise WrongturnError(f"{path}: the file is UTF-16 (expected UTF-8)")
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as problem:
        raise WrongturnError(f"{path}: row {number}: byte {problem.start + 1} is not UTF-8") from None


def _object(path: Path, number: int, row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise WrongturnError(f"{path}: row {number}: expected an object with named fields, not {str(row)[:40]!r}")
    return row


def _json(path: Path) -> Iterator[Numbered]:
    data = path.read_bytes()
    try:
        found = json.loads(_text(path, 1, data))
    except (ValueError, RecursionError) as problem:
        raise WrongturnError(f"{path}: not JSON ({first_line(problem)})") from None
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else None
    if not isinstance(found, list):
        raise WrongturnError(f"{path}: expected a list of objects, or an object with one such list")
    for number, row in enumerate(found, 1):
        yield number, _object(path, number, row)


def _csv(path: Path) -> Iterator[Numbered]:
    with path.open("rb") as file:
        text = "".join(_text(path, number, line) for number, line in enumerate(file, 1))
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    limit = csv.field_size_limit(_LONGEST)
    try:
        header = next(reader, [])
        doubled = {name for name in header if header.count(name) > 1}
        if doubled:
            raise WrongturnError(f"{path}: row 1: two columns are named {min(doubled)!r}")
        for number, cells in enumerate(reader, 2):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise WrongturnError(f"{path}: row {number} has {len(cells)} fields, the header {len(header)}")
            yield number, dict(zip(header, cells, strict=True))
    except csv.Error as problem:
        raise WrongturnError(f"{path}: line {reader.line_num}: not CSV ({first_line(problem)})") from None
    finally:
        csv.field_size_limit(limit)


# -- tables ------------------------------------------------------------------------------------------------------------


def _parquet(path: Path) -> Iterator[Numbered]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, ValueError, OverflowError) as problem:  # a cell that is no UTF-8 is a ValueError
        raise WrongturnError(f"{path}: no Parquet, or damaged after row {number} ({first_line(problem)})") from None


def _folder(path: Path) -> Iterator[Numbered]:
    """A dataset saved by ``datasets``, or a folder of data files."""
    with extra("datasets", f"{path}: reading a folder"):
        import datasets
    saved = any((path / name).exists() for name in ("dataset_info.json", "state.json", "dataset_dict.json"))
    load = datasets.load_from_disk if saved else datasets.load_dataset
    return _split(str(path), lambda: load(str(path)), None)


def _hub(spec: str) -> Iterator[Numbered]:
    """``hf:NAME[/CONFIG][@SPLIT]``, from the hub or its cache; ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_TOKEN`` count."""
    with extra("datasets", spec):
        import datasets
    name, _, split = spec.removeprefix("hf:").partition("@")
    owner, *rest = name.split("/", 2)
    if not owner or not all(rest):
        raise WrongturnError(f"{spec!r} names no dataset (expected hf:NAME[/CONFIG][@SPLIT])")
    name, config = "/".join((owner, *rest[:1])), (rest[1] if len(rest) > 1 else None)
    return _split(spec, lambda: datasets.load_dataset(name, config, split=split or None), split)


def _split(spec: str, load: Any, split: str | None) -> Iterator[Numbered]:
    try:
        found = load()
    except Exception as problem:  # the library raises whatever its loaders and the network do
        raise WrongturnError(f"{spec}: {first_line(problem)}") from None
    if isinstance(found, dict):
        names = list(found)
        chosen = "test" if "test" in names else names[0] if len(names) == 1 else None
        if chosen is None:
            raise WrongturnError(f"{spec}: which split? (it has {', '.join(map(str, names))}: add @SPLIT)")
        found = found[chosen]
    return ((number, row) for number, row in enumerate(found, 1))
