"""The rows of a file of JSON lines, however broken: a line that is no object is a row that is unusable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from wrongturn.errors import WrongturnError
from wrongturn.importers.base import Log, Row, Unusable, brief

_BOM = b"\xef\xbb\xbf"


def json_lines(log: Log) -> Iterator[tuple[str, Row | Unusable]]:
    """The rows of a file of JSON lines, or of one JSON list of objects.

    Raises ``WrongturnError`` where the file cannot be read or not one line of it is a JSON object.
    """
    usable = False
    try:
        with open(log.path, "rb") as file:
            start = file.read(64).removeprefix(_BOM).lstrip()
            file.seek(0)
            for i, row in _items(log, file.read()) if start.startswith(b"[") else _lines(file):
                usable |= isinstance(row, dict)
                if not isinstance(row, (dict, Unusable)):
                    row = Unusable("malformed row", f"the row is {brief(row)}, expected an object")
                yield f"row {i}", row
    except OSError as problem:
        raise WrongturnError(f"{log.path}: {problem.strerror or problem}") from None
    if not usable:
        raise WrongturnError(f"{log.path}: not one line is a JSON object")


def _lines(file: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    return ((i, _parsed(line)) for i, line in enumerate(file, 1) if line.strip())


def _items(log: Log, data: bytes) -> Iterator[tuple[int, Any]]:
    found = _parsed(data)
    if not isinstance(found, list):
        raise WrongturnError(f"{log.path}: {found if isinstance(found, Unusable) else 'no list of objects'}")
    return enumerate(found, 1)


def _parsed(data: bytes) -> Any:
    """What JSON says, or what is wrong with it."""
    try:
        value = json.loads(data.removeprefix(_BOM))
        return _whole(value) if b"\\u" in data else value
    except UnicodeDecodeError as problem:
        return Unusable("not JSON", f"not UTF-8 ({problem.reason} at byte {problem.start})")
    except (ValueError, RecursionError) as problem:
        return Unusable("not JSON", f"not JSON ({str(problem)[:80]})")


def _whole(value: Any) -> Any:
    """The same with half surrogate pairs, which servers cut and UTF-8 cannot hold, as U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {_whole(k): _whole(v) for k, v in value.items()} if isinstance(value, dict) else value
