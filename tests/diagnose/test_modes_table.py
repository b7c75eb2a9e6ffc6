"""Tables are read as they are published; what is wrong with one is said by file, row and column."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from made_tables import made_columns, write_csv

from wrongturn.diagnose.modes.features import SUMMARIES, answered_features, table_features
from wrongturn.diagnose.modes.table import read_table
from wrongturn.errors import WrongturnError


def refusal(path: Path, columns: dict[str, list[object]]) -> str:
    with pytest.raises(WrongturnError) as found:
        table_features(read_table(write_csv(path, columns)))
    return str(found.value)


def test_the_three_formats_agree(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    columns = made_columns(30, 10)
    columns["nll_mean_prefinal"][3] = None
    plain = write_csv(tmp_path / "t.csv", columns)
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    book = openpyxl.Workbook()
    for row in [list(columns), *zip(*columns.values(), strict=True), [None] * len(columns)]:
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    found = [table_features(read_table(path)) for path in (plain, tmp_path / "t.parquet", tmp_path / "t.xlsx")]
    assert found[0].mode == "prefinal"
    assert found[0].full.shape == (30, len(SUMMARIES))
    assert found[0].early.shape == (2, 30, len(SUMMARIES))
    assert found[0].windows == (128, 512)
    assert np.isnan(found[0].full[3, SUMMARIES.index("nll_mean")])
    for other in found[1:]:
        np.testing.assert_allclose(other.full, found[0].full, rtol=1e-14)  # a workbook holds 16 digits
        np.testing.assert_allclose(other.early, found[0].early, rtol=1e-14)
        np.testing.assert_array_equal(other.failed, found[0].failed)


def test_latin_1_is_read_where_utf_8_fails(tmp_path: Path) -> None:
    columns = made_columns(20, 8)
    columns["text"][0] = "déjà vu"
    table = read_table(write_csv(tmp_path / "t.csv", columns, "latin-1"))
    assert table.column("text")[0] == "déjà vu"


def test_rows_without_a_prefinal_segment_are_left_out(tmp_path: Path) -> None:
    columns = made_columns(60, 30)
    columns["prefinal_len"][:7] = [0] * 7
    assert len(table_features(read_table(write_csv(tmp_path / "t.csv", columns)))) == 53


def test_too_few_prefinal_failures_fall_back_with_a_warning(tmp_path: Path) -> None:
    columns = made_columns(60, 30) | made_columns(60, 30, suffix="")
    columns["prefinal_len"] = [0] * 60
    found = table_features(read_table(write_csv(tmp_path / "t.csv", columns)))
    assert found.mode == "regular"
    assert len(found) == 60
    assert "whole traces are used" in found.warnings[0]
    del columns["prefinal_len"]
    assert table_features(read_table(write_csv(tmp_path / "t.csv", columns))).mode == "regular"


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("correct", 2, "row 6, column 'correct': '2' is not 0 or 1"),
        ("correct", "", "row 6, column 'correct': '' is not 0 or 1"),
        ("correct", "yes", "row 6, column 'correct': 'yes' is not a number"),
        ("nll_max_prefinal_w512", "high", "row 6, column 'nll_max_prefinal_w512': 'high' is not a number"),
        ("fork_rate_prefinal", "inf", "row 6, column 'fork_rate_prefinal': 'inf' is not a finite number"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, column: str, cell: object, expected: str) -> None:
    columns = made_columns()
    columns[column][4] = cell
    assert refusal(tmp_path / "t.csv", columns) == f"{tmp_path / 't.csv'}: {expected}"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    columns = made_columns()
    del columns["nll_mean_prefinal_w128"]
    assert "no column 'nll_mean_prefinal_w128'" in refusal(tmp_path / "t.csv", columns)
    assert "no column is named for a window" in refusal(tmp_path / "t.csv", {"correct": [0, 1]})


def test_repeated_rows_are_reported(tmp_path: Path) -> None:
    columns = made_columns()
    for cells in columns.values():
        cells[9] = cells[5]
    table = read_table(write_csv(tmp_path / "t.csv", columns))
    found = table_features(table)
    assert found.warnings == ("1 repeated rows, e.g. row 11 is row 7 again: kept, as published",)
    assert len(found) == 120
    ours = answered_features(table)
    assert ours.warnings == ("1 repeated rows, e.g. row 11 is row 7 again: left out",)
    assert len(ours) == 119


def test_files_that_are_no_table(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    cases = {
        "~$t.xlsx": (b"lock", "lock file"),
        "t.txt": (b"", "known: .csv, .xlsx, .parquet"),
        "t.xlsx": (b"PK no zip", "not a readable workbook"),
        "t.parquet": (b"PAR1", "not a readable Parquet file"),
        "empty.csv": (b"", "no rows"),
        "header.csv": (b"a,b\n", "no rows"),
        "twice.csv": (b"a,a\n1,2\n", "column 'a' is there more than once"),
        "ragged.csv": (b"a,b\n1,2\n3\n", "row 3 has 1 cells, the header 2"),
        "quote.csv": (b'a,b\n1,"2\n', "not a table of comma-separated values"),
    }
    for name, (content, expected) in cases.items():
        (tmp_path / name).write_bytes(content)
        with warnings.catch_warnings(), pytest.raises(WrongturnError, match=expected):
            read_table(tmp_path / name)


@pytest.mark.parametrize("blank", [None, " ", "NaN"])
def test_rows_without_a_group_are_no_group(tmp_path: Path, blank: object) -> None:
    columns = made_columns(30, 10)
    columns["question_id"][4] = blank
    path = write_csv(tmp_path / "t.csv", columns)
    for features in (table_features, answered_features):
        with pytest.raises(WrongturnError) as found:
            features(read_table(path), "question_id")
        cell = "" if blank is None else blank
        assert str(found.value) == f"{path}: row 6, column 'question_id': {cell!r} is not the name of a group"


def test_rows_that_take_no_part_need_no_group(tmp_path: Path) -> None:
    columns = made_columns(60, 30)
    columns["prefinal_len"][4], columns["question_id"][4] = 0, None
    found = table_features(read_table(write_csv(tmp_path / "t.csv", columns)), "question_id")
    assert found.groups is not None
    assert len(set(found.groups)) == len(found) == 59
