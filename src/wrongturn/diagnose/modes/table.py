"""Window-feature tables as they are published: one row per completion, read from .csv, .xlsx or .parquet.

Nothing is guessed: a cell that is not what its column holds is named by file, row and column. Rows are numbered as a
spreadsheet shows them, the header being row 1.
"""

from __future__ import annotations

import csv
import importlib
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from wrongturn.errors import WrongturnError

_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "<na>", "#n/a"})  # what tables write for "not known"
_LONGEST = 1 << 28  # characters in a cell: whole completions stand in some


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """``columns``: name -> the cells, top down, as the format gives them (str, number, bool, None)."""

    path: str
    columns: dict[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def column(self, name: str) -> Sequence[Any]:
        if name not in self.columns:
            raise WrongturnError(f"{self.path}: there is no column {name!r}")
        return self.columns[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as float64 ``[n]``, missing cells NaN. WrongturnError names a cell that is no finite number."""
        cells = self.column(name)
        values = np.full(len(cells), np.nan)
        for i, cell in enumerate(cells):
            if is_missing(cell):
                continue
            try:
                values[i] = float(cell)
            except (TypeError, ValueError):
                raise self.wrong(i, name, cell, "a number") from None
            if np.isinf(values[i]):
                raise self.wrong(i, name, cell, "a finite number")
        return values

    def wrong(self, row: int, name: str, cell: Any, expected: str) -> WrongturnError:
        """The error for one cell; ``row`` counts from 0."""
        return WrongturnError(f"{self.path}: row {row + 2}, column {name!r}: {str(cell)[:40]!r} is not {expected}")

    def repeated(self) -> list[tuple[int, int]]:
        """Pairs of row numbers (as a spreadsheet shows them) that are the same in every cell, the first one first."""
        first: dict[tuple[str, ...], int] = {}
        pairs = []
        for i, row in enumerate(zip(*self.columns.values(), strict=True)):
            seen = first.setdefault(tuple(map(str, row)), i)
            if seen != i:
                pairs.append((seen + 2, i + 2))
        return pairs


def is_missing(cell: Any) -> bool:
    """Whether a cell says "not known"."""
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return cell is None or cell != cell


def read_table(path: Path) -> Table:
    """The table in a file.

    Raises:
        WrongturnError: the file is not there, is a lock file, is of no known format or damaged, or has no rows.
    """
    if path.name.startswith("~$"):
        raise WrongturnError(f"{path} is the lock file of an open workbook: give {path.name[2:]} itself")
    readers: dict[str, Callable[[Path], Table]] = {".csv": _csv, ".xlsx": _xlsx, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise WrongturnError(f"{path} is no run folder and no table (known: {', '.join(readers)})")
    try:
        table = readers[path.suffix.lower()](path)
    except OSError as problem:
        raise WrongturnError(f"{path}: {problem.strerror or problem}") from None
    if not len(table):
        raise WrongturnError(f"{path}: the table has no rows")
    return table


def _csv(path: Path) -> Table:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    limit = csv.field_size_limit(_LONGEST)
    try:
        return _from_rows(path, csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as problem:
        raise WrongturnError(f"{path}: not a table of comma-separated values: {problem}") from None
    finally:
        csv.field_size_limit(limit)


def _xlsx(path: Path) -> Table:
    openpyxl = needs("openpyxl")
    data = io.BytesIO(path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validations, which say nothing about the cells
        try:
            book = openpyxl.load_workbook(data, read_only=True, data_only=True)
            return _from_rows(path, book.worksheets[0].iter_rows(values_only=True))
        except WrongturnError:
            raise
        except Exception as problem:  # a damaged workbook raises whatever its zip and XML readers raise
            raise WrongturnError(f"{path}: not a readable workbook: {problem or type(problem).__name__}") from None


def _parquet(path: Path) -> Table:
    try:
        table = parquet.read_table(pa.BufferReader(path.read_bytes()), use_threads=False)
    except pa.ArrowException as problem:
        raise WrongturnError(f"{path}: not a readable Parquet file: {str(problem).splitlines()[0]}") from None
    _distinct(path, table.column_names)
    return Table(str(path), {name: table[name].to_pylist() for name in table.column_names})


def _from_rows(path: Path, rows: Iterable[Sequence[Any]]) -> Table:
    """The table of a header and its rows. Empty rows at the end, as spreadsheets leave them, do not count."""
    reading = iter(rows)
    header = ["" if name is None else str(name).strip() for name in next(reading, ())]
    _distinct(path, [name for name in header if name])
    body = list(reading)
    while body and all(cell is None or cell == "" for cell in body[-1]):
        body.pop()
    for i, row in enumerate(body):
        if len(row) != len(header):
            raise WrongturnError(f"{path}: row {i + 2} has {len(row)} cells, the header {len(header)}")
    cells = list(zip(*body, strict=True)) if body else [()] * len(header)
    return Table(str(path), {name: column for name, column in zip(header, cells, strict=True) if name})


def _distinct(path: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WrongturnError(f"{path}: column {twice[0]!r} is there more than once")


def needs(module: str) -> Any:
    """A module of the extra ``modes``, imported where it is used so that the base install does without."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise WrongturnError(f"this needs {missing.name}: pip install 'wrongturn[modes]'") from None
