"""Countdown: generated searches are right, mutations are named, and the habits are counted by the grammar."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn import tasks
from wrongturn.tasks import countdown as cd

PUZZLE = cd.Puzzle((25, 3, 7, 4), 86)
TRACE = "25+3=28;28*4=112;112-7=105;105#86;^0;@79=86-7;25*3=75;@79;75+4=79;79!79;>25*3=75,75+4=79,79+7=86"


def ids(text: str) -> list[int]:
    return [*cd.encode(text), cd.EOS]


@settings(max_examples=40)
@given(st.integers(2, 5), st.integers(0, 10**6), st.floats(0, 0.6), st.floats(0, 1))
def test_what_is_written_is_right(numbers: int, seed: int, detours: float, backward: float) -> None:
    puzzle, steps = next(cd.Distribution(numbers).puzzles(seed))
    assert cd.grade(puzzle, ",".join(steps))
    trace = cd.write(puzzle, steps, random.Random(seed), detours=detours, backward=backward)
    checked = cd.check(puzzle, trace)
    assert checked.exact
    assert checked.segments[-1].stop == len(trace)
    assert cd.answer(trace) == ",".join(steps)


def test_habits_are_counted() -> None:
    assert cd.check(PUZZLE, ids(TRACE)).exact
    assert cd.habits(PUZZLE, ids(TRACE)) == {
        "verification": 2,
        "backtracking": 1,
        "subgoals": 2,
        "backward_chaining": 1,
    }


def test_a_habit_that_is_not_true_does_not_count() -> None:
    false = "@12;25+3=28;28#86;^4;@79=85-7"
    assert sum(cd.habits(PUZZLE, ids(false)).values()) == 1  # 12 = 3*4 can be made; the rest is wrong
    assert cd.habits(PUZZLE, ids("@13"))["subgoals"] == 0


# (text, index of the first wrong token, its class)
WRONG = [
    ("25+3=29;", 4, "arithmetic"),
    ("25/3=8;", 4, "arithmetic"),
    ("3-25=1;", 4, "arithmetic"),
    ("25+9=34;", 2, "not_there"),
    ("9+25=34;", 0, "not_there"),
    ("7+7=14;", 2, "not_there"),
    ("25+3=28;3+4=7;", 6, "not_there"),
    ("25+=3;", 2, "syntax"),
    (";", 0, "syntax"),
    ("25+3=28;25", 10 - 3, "truncated"),
    ("25!86;", 0, "verification"),
    ("25+3=28;28*4=112;112-7=105;105!86;", 19, "verification"),
    ("25+3=28;28*4=112;112-7=105;105#85;", 20, "verification"),
    ("25+3=28;^1;", 7, "backtrack"),
    ("^0;", 1, "backtrack"),
    ("@79=85-7;", 3, "goal"),
    ("@78=86-7;", 5, "goal"),
    ("@80=86-6;", 5, "not_there"),
    ("@13;", 1, "goal"),
    (">25*3=75", 0, "unverified"),
]


@pytest.mark.parametrize(("text", "index", "error"), WRONG)
def test_the_first_wrong_token_is_named(text: str, index: int, error: str) -> None:
    trace = cd.encode(text) if text[0] != ">" else ids(text)
    checked = cd.check(PUZZLE, trace)
    assert (checked.index, checked.error) == (index, error)
    assert checked.error in cd.ERRORS


@pytest.mark.parametrize("special", range(cd.EOS))
@pytest.mark.parametrize(
    ("before", "after"), [("@79=86", "7;"), ("25", "3=75;"), ("25+3=28;28*4=112;112-7=105;105", "86;")]
)
def test_a_special_token_in_a_line_is_wrong(before: str, special: int, after: str) -> None:
    trace = [*cd.encode(before), special, *cd.encode(after)]
    assert cd.check(PUZZLE, trace).segments[-1].error is not None
    assert cd.check(PUZZLE, trace).index <= len(cd.encode(before))


def test_the_answer_must_be_a_solution() -> None:
    other = TRACE.partition(">")[0] + ">25*3=75,75+7=82,82+4=87"
    assert cd.check(PUZZLE, ids(other)).error == "answer"
    for wrong in ("25*3=75,75+4=79", "25*3=75,75+4=79,79+7=87", "86", "", None, "25+25=50"):
        assert not cd.grade(PUZZLE, wrong)


@settings(max_examples=40)
@given(st.integers(0, 10**4), st.data())
def test_any_token_sequence_is_checked_without_failing(seed: int, data: st.DataObject) -> None:
    puzzle, steps = next(cd.Distribution(4).puzzles(seed))
    trace = cd.write(puzzle, steps, random.Random(seed))
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(trace) - 1))
        trace[i] = data.draw(st.integers(0, len(cd.VOCAB) - 1))
    checked = cd.check(puzzle, trace)
    assert -1 <= checked.index <= len(trace)
    assert sum(cd.habits(puzzle, trace).values()) >= 0
    cd.answer(trace)


def test_the_task_by_name() -> None:
    task = tasks.get("countdown_search")
    assert isinstance(task, cd.Countdown)
    first, second = task.problems("C3", 2, seed=1)
    assert task.problems("C3", 1, seed=1)[0] == first
    assert first != second
    assert task.grade(first, first.reference)
    assert task.encode(first.prompt) == list(first.prompt_ids[1:])
    with pytest.raises(ValueError, match="not a countdown distribution: 'D3'"):
        task.problems("D3", 1)
    with pytest.raises(ValueError, match="not countdown text: 'x' at character 2"):
        cd.encode("1+x")
