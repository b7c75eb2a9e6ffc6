"""The command ``modes``, as the command line calls it."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from made_tables import made_columns, write_csv

from wrongturn.cli_modes import modes, prefixes, print_published
from wrongturn.diagnose.modes import published_modes
from wrongturn.errors import WrongturnError


@pytest.mark.extras
def test_report_json_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    table = write_csv(tmp_path / "t.csv", made_columns(early=1.0))
    modes(table, as_json=True, plot=tmp_path / "t.svg", compat="published")
    facts = json.loads(capsys.readouterr().out)
    assert facts["verdict_text"] == "TYPE 1 - COMMITTED FAILURE"
    drawn = ET.parse(tmp_path / "t.svg").getroot()
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert {"128", "512", "chance", "whole trace", "t.csv"} <= set(texts)
    print_published(published_modes(table, n_boot=100, curves=False))
    shown = capsys.readouterr().out
    assert f"TYPE 1 - COMMITTED FAILURE, T={facts['commitment_window']}" in shown
    assert "early better" in shown


def test_the_default_says_what_can_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_csv(tmp_path / "t.csv", made_columns(n=200, failures=60, full=1.0))
    modes(table, as_json=True, plot=tmp_path / "t.svg", group="question_id")
    facts = json.loads(capsys.readouterr().out)
    assert facts["verdict"] == "persistent"
    assert facts["outcomes"]["wrong"] == 60
    ET.parse(tmp_path / "t.svg")
    modes(table)
    assert "PERSISTENT: whole traces beat chance" in capsys.readouterr().out
    noise = write_csv(tmp_path / "n.csv", made_columns(failures=3))
    modes(noise)
    assert "UNDETERMINED: 3 wrong and 117 right answers" in capsys.readouterr().out
    with pytest.raises(WrongturnError, match="nothing to draw"):
        modes(noise, plot=tmp_path / "n.svg")


def test_warnings_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    columns = made_columns(failures=8)
    modes(write_csv(tmp_path / "t.csv", columns), as_json=True, compat="published")
    captured = capsys.readouterr()
    json.loads(captured.out)
    assert "fewer than 10" in captured.err


def test_what_is_refused(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", made_columns())
    for options, expected in [
        ({"compat": "exact"}, "--compat 'exact'"),
        ({"compat": "published", "group": "question_id"}, "--group"),
        ({"compat": "published", "plot": tmp_path / "t.pdf"}, "must end in .svg"),
        ({"compat": "published", "grid": "1,0.5"}, "--grid '1,0.5'"),
    ]:
        with pytest.raises(WrongturnError, match=expected):
            modes(table, **options)


def test_prefixes() -> None:
    assert prefixes(None) is None
    assert prefixes("32,64") == [32, 64]
    assert prefixes("0.1,1") == [0.1, 1]
    for text in ("", "a", "0,1", "4,2", "0.5,20"):
        with pytest.raises(WrongturnError, match="--grid"):
            prefixes(text)


@pytest.mark.extras
def test_the_base_install_does_without_the_extra() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = sys.modules['openpyxl'] = None\n"
        "import wrongturn.cli_modes\n"
        "from wrongturn.diagnose.modes.table import needs\n"
        "from wrongturn.errors import WrongturnError\n"
        "try: needs('openpyxl')\n"
        "except WrongturnError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "this needs openpyxl: pip install 'wrongturn[modes]'\n", done.stderr
