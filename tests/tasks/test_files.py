"""Problems out of files: fields found and named, and every fault told by file, row and field."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from wrongturn.errors import WrongturnError
from wrongturn.tasks import allow_code, code, maths, read_problems
from wrongturn.tasks.records import FORMATS

ROWS = [
    {"id": "a", "question": "2 + 2?", "answer": 4, "level": 1},
    {"id": "b", "question": "2 + 3?", "answer": 5, "level": 2},
]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def as_kind(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format the file's name says."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"version": 1, "data": rows}))
    else:
        lines(path, rows)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same(tmp_path: Path, suffix: str) -> None:
    problems = read_problems(as_kind(tmp_path / f"p{suffix}", ROWS))
    assert [(p.id, p.task, p.prompt, p.reference, p.group) for p in problems] == [
        ("a", "numeric", "2 + 2?", "4", "1"),
        ("b", "numeric", "2 + 3?", "5", "2"),
    ]
    assert all(p.prompt_ids == () and p.messages == () for p in problems)


def test_fields_may_be_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", [{"ask": "q", "say": "yes", "key": 3, "kind": "k", "answer": "no"}])
    (problem,) = read_problems(path, "exact", prompt="ask", reference="say", id="key", group="kind")
    assert (problem.prompt, problem.reference, problem.id, problem.group) == ("q", "yes", "3", "k")


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", [{"Prompt": "q"}, {"Prompt": "r"}])
    problems = read_problems(path)
    assert [(p.id, p.reference, p.group, p.task) for p in problems] == [
        ("p/1", None, "", "exact"),
        ("p/2", None, "", "exact"),
    ]
    assert len(read_problems(path, limit=1)) == 1


def test_conversations(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    path = lines(tmp_path / "p.jsonl", [{"messages": turns}, {"messages": json.dumps(turns)}])
    for problem in read_problems(path):
        assert (problem.prompt, list(problem.messages)) == ("u", turns)


@pytest.mark.parametrize(
    ("references", "task"),
    [
        (["4", 5, "1/2"], "numeric"),
        (["A", "(b)"], "choice"),
        (["Y", "N"], "exact"),
        (["x", "y"], "exact"),
        (["\\frac{x}{2}", "5"], "math"),
        (["so 2\n#### 5", "7"], "math"),
        (["Paris", "5"], "exact"),
        ([None, None], "exact"),
    ],
)
def test_the_task_follows_from_the_references(
    tmp_path: Path, references: list[Any], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maths, "_missing", lambda: None)  # as if Math-Verify were there: nothing is graded here
    rows = [{"question": "q", "answer": reference} for reference in references]
    assert read_problems(lines(tmp_path / "p.jsonl", rows))[0].task == task


def test_worked_solutions_are_cut_to_their_answer(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "answer": "5 + 5 = <<5+5=10>>10\n#### 1,010"},
        {"problem": "q", "solution": "so \\boxed{7}"},
        {"question": "q", "answer": "8"},
    ]
    path = lines(tmp_path / "p.jsonl", [{"question": "", "answer": "", **row} for row in rows])
    found = [p.reference for p in read_problems(lines(path, rows[:1]), "gsm8k")]
    assert found == ["1,010"]
    assert read_problems(lines(path, rows[1:2]), "numeric")[0].reference == "7"
    assert read_problems(lines(path, rows[2:]), "gsm8k")[0].reference == "8"


GPQA = {
    "Question": "q",
    "Correct Answer": "right\n",
    "Incorrect Answer 1": "w1",
    "Incorrect Answer 2": "w2",
    "Incorrect Answer 3": "w3",
    "Record ID": "rec",
    "High-level domain": "Physics",
}


def test_choices_are_shuffled_by_the_seed(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", [GPQA | {"Record ID": str(i)} for i in range(40)])
    first, again, other = (read_problems(path, "gpqa", seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert {p.reference for p in first} == set("ABCD")
    for problem in first:
        assert f"{problem.reference}. right\n" in problem.prompt + "\n"
        assert problem.group == "Physics"


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"choices": ["x", "y"], "answer": "B"}, "B"),
        ({"choices": ["x", "y"], "answer": 1}, "B"),
        ({"choices": ["x", "y"], "answer": "y"}, "B"),
        ({"options": ["x", "y"], "label": [1]}, "B"),
        ({"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, "B"),
        ({"choices": {"A": "x", "B": "y"}, "answer": "B"}, "B"),
        ({"choices": ["x", "y"]}, None),
        ({"context": "c", "answers": ["x", "y"], "label": 1}, "B"),
    ],
)
def test_lists_of_choices(tmp_path: Path, row: dict[str, Any], reference: str | None) -> None:
    (problem,) = read_problems(lines(tmp_path / "p.jsonl", [{"question": "q", **row}]), "choice")
    assert problem.reference == reference
    assert problem.prompt.endswith("q\n\nA. x\nB. y")
    assert ("c\n\n" in problem.prompt) == ("context" in row)


def graded_by(problem: Any) -> Any:
    return json.loads(problem.reference)


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code.PERMISSION, "1")


@pytest.mark.usefixtures("allowed")
def test_live_code_bench_rows(tmp_path: Path) -> None:
    import base64
    import pickle
    import zlib

    hidden = json.dumps([{"input": "3\n[1]", "output": "true", "testtype": "functional"}])
    row = {
        "question_content": "Do it.",
        "question_id": "abc",
        "difficulty": "easy",
        "starter_code": "class Solution:\n    def f(self, n, xs):",
        "public_test_cases": json.dumps([{"input": "1\n[]", "output": "false", "testtype": "functional"}]),
        "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(hidden))).decode(),
        "metadata": json.dumps({"func_name": "f"}),
    }
    (problem,) = read_problems(lines(tmp_path / "p.jsonl", [row]), "livecodebench")
    assert graded_by(problem) == {
        "function": "f",
        "tests": [{"input": [1, []], "output": False}, {"input": [3, [1]], "output": True}],
    }
    assert (problem.id, problem.group) == ("abc", "easy")
    assert "def f(self" in problem.prompt
    row |= {"public_test_cases": json.dumps([{"input": "1", "output": "2", "testtype": "stdin"}])}
    row |= {"private_test_cases": "[]", "metadata": "{}", "starter_code": ""}
    (problem,) = read_problems(lines(tmp_path / "p.jsonl", [row]), "livecodebench")
    assert graded_by(problem) == {"function": None, "tests": [{"input": "1", "output": "2"}]}
    assert "standard input" in problem.prompt


@pytest.mark.usefixtures("allowed")
def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    import base64
    import pickle
    import zlib

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harm",)

    packed = base64.b64encode(zlib.compress(pickle.dumps(Harmful()))).decode()
    row = {"question_content": "q", "public_test_cases": "[]", "private_test_cases": packed}
    with pytest.raises(WrongturnError, match="row 1"):
        read_problems(lines(tmp_path / "p.jsonl", [row]), "livecodebench")
    assert not (tmp_path / "harm").exists()


@pytest.mark.usefixtures("allowed")
def test_rows_with_tests(tmp_path: Path) -> None:
    pairs = [{"input": "1", "output": "2"}]
    (problem,) = read_problems(lines(tmp_path / "p.jsonl", [{"prompt": "q", "tests": pairs}]))
    assert (problem.task, graded_by(problem)) == ("code", {"function": None, "tests": pairs})
    both = {"prompt": "q", "tests": {"inputs": [[1]], "outputs": [2], "fn_name": "f"}}
    (problem,) = read_problems(lines(tmp_path / "p.jsonl", [both]), "code")
    assert graded_by(problem) == {"function": "f", "tests": [{"input": [1], "output": 2}]}


def test_code_needs_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(code.PERMISSION, raising=False)
    path = lines(tmp_path / "p.jsonl", [{"prompt": "q", "tests": [{"input": "1", "output": "2"}]}])
    with pytest.raises(WrongturnError, match="--allow-code or WRONGTURN_ALLOW_CODE=1"):
        read_problems(path)
    monkeypatch.setenv(code.PERMISSION, "0")
    allow_code()
    assert read_problems(path)[0].task == "code"


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


GOOD = b'{"question": "q", "answer": "5", "id": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.jsonl", b"", "there are no problems in it"),
        ("p.jsonl", GOOD + b'{"question": "half', r"row 2: not JSON \(.*\): the file ends in the middle of it"),
        ("p.jsonl", b"{]\n" + GOOD, r"row 1: not JSON"),
        ("p.jsonl", GOOD + b"[1]\n", r"row 2: expected an object with named fields, not '\[1\]'"),
        ("p.jsonl", GOOD + GOOD, "row 2, field 'id': 'a' is row 1 already"),
        (
            "p.jsonl",
            GOOD + b'{"question": " ", "id": "b", "answer": "5"}',
            "row 2, field 'question': the prompt is empty",
        ),
        ("p.jsonl", GOOD + b'{"question": null, "id": "b", "answer": "5"}', "field 'question': the prompt is empty"),
        ("p.jsonl", GOOD + b'{"id": "b", "answer": "5"}', "row 2, field 'question': the field is missing"),
        (
            "p.jsonl",
            GOOD + b'{"question": "q", "id": "b"}',
            r"field 'answer': the field is missing \(the row has question",
        ),
        ("p.jsonl", b'{"text": "q"}', r"row 1: which field is the prompt\? \(it has text; expected question, problem"),
        ("p.jsonl", b'{"question": {"a": 1}}', "row 1, field 'question': expected a text or a number"),
        ("p.jsonl", b'{"question": "\\ud800"}', "field 'question': half a character"),
        ("p.jsonl", b'{"question": "\xe9"}', "row 1: byte 15 is not UTF-8"),
        ("p.jsonl", GOOD.decode().encode("utf-16"), "the file is UTF-16"),
        ("p.jsonl", b'{"messages": [{"role": "user"}]}', "expected messages with a 'role' and a 'content'"),
        (
            "p.jsonl",
            b'{"messages": [{"role": "assistant", "content": "x"}]}',
            "expected the last message to be the user's",
        ),
        ("p.jsonl", b"[" * 100_000, "row 1: not JSON"),
        ("p.jsonl", b'{"question": ' + b"9" * 5000 + b"}", "row 1"),
        ("p.json", b'{"a": [], "b": []}', "expected a list of objects"),
        ("p.json", b"[1]", "row 1: expected an object"),
        ("p.csv", b"question,question\nq,r\n", "row 1: two columns are named 'question'"),
        ("p.csv", b"question,answer\nq\n", "row 2 has 1 fields, the header 2"),
        ("p.csv", b'question\n"q', "not CSV"),
        ("p.parquet", b"PAR1 not really", "no Parquet"),
        ("p.txt", GOOD, r"ends in .jsonl, .ndjson, .json, .csv, .tsv or .parquet"),
    ],
)
def test_faults_are_told_in_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(WrongturnError, match=says) as raised:
        read_problems(path, "exact")
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_more_faults(tmp_path: Path) -> None:
    with pytest.raises(WrongturnError, match="there is no such file"):
        read_problems(tmp_path / "none.jsonl")
    path = lines(tmp_path / "p.jsonl", [{"question": "q", "answer": "five"}])
    with pytest.raises(WrongturnError, match="row 1, field 'answer': task 'numeric' cannot grade by 'five'"):
        read_problems(path, "numeric")
    with pytest.raises(WrongturnError, match="row 1, field 'gold': the field is missing"):
        read_problems(path, "exact", reference="gold")
    with pytest.raises(WrongturnError, match="graph_search' makes its own problems"):
        read_problems(path, "graph_search")
    with pytest.raises(WrongturnError, match="limit must be at least 1"):
        read_problems(path, limit=0)
    path = lines(tmp_path / "p.jsonl", [{"question": "q", "choices": ["x", "y"], "answer": "z"}])
    with pytest.raises(WrongturnError, match="row 1: field 'answer': 'z' is neither a letter"):
        read_problems(path, "choice")
    path = lines(tmp_path / "p.jsonl", [{k: v for k, v in GPQA.items() if k != "Incorrect Answer 2"}])
    with pytest.raises(WrongturnError, match="row 1, field 'Incorrect Answer 2': the field is missing"):
        read_problems(path, "gpqa")


def test_a_byte_order_mark_is_no_letter(tmp_path: Path) -> None:
    for name, content in (("p.jsonl", GOOD), ("p.json", b"[" + GOOD + b"]"), ("p.csv", b"question,answer\nq,5\n")):
        assert read_problems(put(tmp_path / name, b"\xef\xbb\xbf" + content))[0].prompt == "q"


def test_blank_lines_and_cells(tmp_path: Path) -> None:
    path = put(tmp_path / "p.jsonl", b"\n" + GOOD + b"\n\n")
    assert len(read_problems(path)) == 1
    path = put(tmp_path / "p.csv", b'question,answer\nq,\n\n"r\nr",5\n')
    assert [(p.prompt, p.reference) for p in read_problems(path)] == [("q", None), ("r\nr", "5")]


PIECES = [GOOD, b"{", b"}", b"[", b"]", b'"question": ', b'"messages": [', b'"choices": ["a", "b"],', b"null", b"1e400"]
PIECES += [
    b"\n",
    b",",
    b'"',
    b"\\ud800",
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
    b"question,answer\n",
    b"a,b\n",
    b"NaN",
    b"PAR1",
]


def told(path: Path, task: str | None = None) -> str:
    """What reading says: nothing, or its one line."""
    try:
        assert all(problem.prompt.strip() for problem in read_problems(path, task))
    except WrongturnError as problem:
        return str(problem)
    return ""


@settings(max_examples=60)
@given(
    st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)),
    st.sampled_from(FORMATS),
    st.sampled_from([None, "exact", "choice", "numeric", "gsm8k", "gpqa", "livecodebench"]),
)
def test_any_bytes_give_problems_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str, task: str | None
) -> None:
    path = put(tmp_path_factory.getbasetemp() / f"fuzz{suffix}", content)
    assert "\n" not in told(path, task)


@settings(max_examples=30)
@given(st.data())
def test_a_damaged_table_gives_problems_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    content = bytearray(as_kind(path, ROWS).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert "\n" not in told(put(path, bytes(content)))
