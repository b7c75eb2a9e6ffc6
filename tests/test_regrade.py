"""Regrading: which labels change, what is kept apart, and what is written down."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import pytest

from made_traces import made
from wrongturn.cli_regrade import regrade as command
from wrongturn.diagnose.modes.table import read_table
from wrongturn.errors import WrongturnError
from wrongturn.regrade import KINDS, regrade, relabelled
from wrongturn.store import Run
from wrongturn.trace import Problem

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "two_modes"

COLUMNS = {
    "predicted_answer": ["(b)", "C", "", "A", "", "B", "D", "A"],
    "correct_letter": ["B", "B", "A", "A", "C", "", "D", "?"],
    "correct": ["0", "1", "0", "1", "1", "1", "", "0"],
    "response_text": ["Answer: (B)", "Answer: B", "", "Answer: A", "Answer: C", "", "", ""],
}
KINDS_THERE = ["to right", "to wrong", "no answer", "kept", "to wrong", "no reference", "new", "undecided"]


def write(path: Path, columns: dict[str, list[str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "t.csv", COLUMNS)


def test_every_kind_of_change(table: Path) -> None:
    found = regrade(table, "choice")
    assert [label.kind for label in found.labels] == KINDS_THERE
    assert sum(found.counts.values()) == len(found.labels) == 8
    assert tuple(found.counts) == KINDS
    assert [label.where for label in found.of("to right", "to wrong")] == ["row 2", "row 3", "row 6"]
    assert (found.mistaken.value, found.mistaken.n) == (1.0, 1)
    facts = json.loads(json.dumps(found.dict(), allow_nan=False))
    assert [change["kind"] for change in facts["changes"]] == ["to right", "to wrong", "to wrong", "new"]
    assert facts["undecided"][0]["where"] == "row 9"


def test_answers_taken_from_the_text_again(table: Path) -> None:
    found = regrade(table, "choice", extract=True)
    assert [label.answer for label in found.labels[:4]] == ["B", "B", None, "A"]
    assert found.labels[1].kind == "kept"


def test_the_table_with_new_labels_can_be_read(table: Path, tmp_path: Path) -> None:
    again = tmp_path / "new.csv"
    again.write_text(relabelled(regrade(table, "choice")), newline="")
    found = read_table(again)
    assert found.columns["correct"] == ("1", "0", "0", "1", "0", "", "1", "")
    assert list(found.columns["correct_before"]) == COLUMNS["correct"]
    assert list(found.columns["response_text"]) == COLUMNS["response_text"]
    assert regrade(again, "choice").counts["to right"] == 0


def test_numbers_of_a_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["true_answer", "boxed_answer", "correct"], [18, 18.0, 0], [2.5, "5/2", 0], ["x", None, None]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    found = regrade(tmp_path / "t.xlsx", "numeric")
    assert [(label.answer, label.new) for label in found.labels] == [("18", True), ("5/2", True), (None, False)]


def test_a_run(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {}) as run:
        run.add_problems([Problem("p0", "exact", "?", (), "Yes"), Problem("p1", "exact", "?", ())])
        run.append(
            [
                made(0, answer="yes", correct=False, text="so: yes"),
                made(1, answer="no", correct=False, text="no"),
                made(4, answer="no", correct=None, text="no"),
            ]
        )
    found = regrade(tmp_path / "run", "exact")
    assert [label.kind for label in found.labels] == ["to right", "kept", "no reference"]
    assert relabelled(found).splitlines()[1] == "p0/sample/0,yes,Yes,1,0"
    with pytest.raises(WrongturnError, match="are for tables"):
        regrade(tmp_path / "run", "exact", answer="x")
    with Run.create(tmp_path / "empty", {}):
        pass
    with pytest.raises(WrongturnError, match="no traces"):
        regrade(tmp_path / "empty", "exact")


def test_samples_of_one_problem_are_not_independent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.create(tmp_path / "run", {}) as run:
        run.add_problems([Problem(f"p{i}", "exact", "?", (), "yes" if i % 2 else "no") for i in range(20)])
        traces = [made(8 * i + k, answer="yes", correct=False) for i in range(20) for k in range(8)]
        for j, trace in enumerate(traces):
            trace.problem = f"p{j // 8}"
        run.append(traces)
    found = regrade(tmp_path / "run", "exact").mistaken
    assert (found.value, found.n) == (0.5, 20)
    assert found.high - found.low > 0.4  # 160 answers would have 0.15
    command(tmp_path / "run", task="exact")
    assert "Of 160 failures with an answer and a verdict, right after all: 50.0 [" in capsys.readouterr().out


def test_what_is_refused(table: Path, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.csv", COLUMNS | {"correct": ["2", *COLUMNS["correct"][1:]]})
    for path, task, options, expected in [
        (table, "maths", {}, "--task: unknown task 'maths'"),
        (tmp_path / "none.csv", "choice", {}, "no such file"),
        (table, "choice", {"answer": "who"}, "no column 'who'"),
        (bad, "choice", {}, "row 2, column 'correct': '2' is not 0 or 1"),
        (write(tmp_path / "a.csv", {"correct": ["1"], "true_answer": ["1"]}), "choice", {}, "holds the answer"),
        (
            write(tmp_path / "b.csv", {"correct": ["1"]}),
            "choice",
            {},
            "holds the reference .*name one with --reference",
        ),
        (write(tmp_path / "c.csv", {"correct": ["1"], "true_answer": ["1"]}), "choice", {"extract": True}, "the text"),
    ]:
        with pytest.raises(WrongturnError, match=expected):
            regrade(path, task, **options)


def test_the_command(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(table, task="choice", to=tmp_path / "new.csv", as_json=True)
    assert json.loads(capsys.readouterr().out)["counts"]["to right"] == 1
    assert "correct_before" in (tmp_path / "new.csv").read_text()
    command(table, task="choice")
    shown = capsys.readouterr().out
    assert "8 answers: 1 kept, 1 to right, 2 to wrong, 1 new, 1 no answer, 1 undecided, 1 no reference" in shown
    assert "row 3" in shown
    for to, expected in [(tmp_path / "new.xlsx", "name it .csv"), (tmp_path / "no" / "new.csv", "No such file")]:
        with pytest.raises(WrongturnError, match=expected):
            command(table, task="choice", to=to)


@pytest.mark.extras
@pytest.mark.parametrize(
    ("name", "prefinal_failures", "at_least"),
    [("math500_qwen3.5-122b.final.xlsx", 75, 61), ("math500_gemini2.5.final.csv", 33, 25)],
)
def test_most_mathematics_failures_are_notation(name: str, prefinal_failures: int, at_least: int) -> None:
    """A conservative normaliser of text, measured by others, turned so many; algebra turns at least those."""
    path = PUBLISHED / name
    if not path.exists() or importlib.util.find_spec("math_verify") is None:
        pytest.skip("needs the published table beside this repository, and Math-Verify")
    if path.suffix == ".xlsx":
        pytest.importorskip("openpyxl")
    table = read_table(path)
    length = next(table.numbers(name) for name in ("prefinal_len", "preboxed_generated_len") if name in table)
    found = regrade(path, "math")
    failures = [label for label, tokens in zip(found.labels, length, strict=True) if tokens > 0 and not label.old]
    assert len(failures) == prefinal_failures
    assert sum(label.kind == "to right" for label in failures) >= at_least
    assert not found.of("to wrong")
    assert found.counts["undecided"] <= 2
