"""The anatomy of Countdown traces: the habits and failed steps of what is written equal what was written."""

from __future__ import annotations

import json
import math
import random
import xml.dom.minidom
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from wrongturn import Run
from wrongturn.cli_common import search_problems
from wrongturn.cli_lab import lab
from wrongturn.errors import WrongturnError
from wrongturn.lab import habits, picture
from wrongturn.lab.anatomy import Anatomy, anatomy
from wrongturn.lab.dissection import class_of
from wrongturn.signals import Signals
from wrongturn.tasks import Problem
from wrongturn.tasks import countdown as cd
from wrongturn.trace import Trace

TASK = cd.Countdown()
PUZZLE = cd.Puzzle((25, 3, 7, 4), 86)
ANSWER = ">25*3=75,75+4=79,79+7=86"
TRACE = "25+3=28;28*4=112;112-7=105;105#86;^0;@79=86-7;25*3=75;@79;75+4=79;79!79;" + ANSWER
DIRECT = "25*3=75;75+4=79;79+7=86;86!86;" + ANSWER


def encoded(text: str) -> list[int]:
    return [*cd.encode(text), cd.EOS]


def trace(ids: Sequence[int], problem: Problem, sample: int = 0) -> Trace:
    answer = TASK.answer(ids)
    return Trace(
        f"{problem.id}/{sample}",
        problem.id,
        TASK.name,
        np.array(problem.prompt_ids, np.int32),
        np.array(ids, np.int32),
        Signals.empty(len(ids)),
        "stop",
        group=problem.group,
        sample=sample,
        answer=answer,
        correct=TASK.grade(problem, answer),
    )


def asked(n: int, group: str = "C4") -> list[Problem]:
    text = "25,3,7,4:86"
    return [Problem(f"{group}/{i}", TASK.name, text, (cd.BOS, *cd.encode(text)), None, group) for i in range(n)]


def dissect(traces: Sequence[Trace], problems: Sequence[Problem]) -> Anatomy:
    return anatomy(traces, {p.id: p for p in problems})


def test_every_error_has_a_class() -> None:
    assert sorted(class_of(habits.CLASSES)) == sorted(cd.ERRORS)


@settings(max_examples=30)
@given(st.integers(2, 5), st.integers(0, 10**6), st.floats(0, 0.6), st.floats(0, 1))
def test_what_is_written_is_what_is_counted(numbers: int, seed: int, detours: float, backward: float) -> None:
    """By the text: each line's habit, and the steps that each line of going back undoes."""
    (problem,) = TASK.problems(f"C{numbers}", 1, seed)
    puzzle = cd.parse_prompt(problem.prompt)
    steps = (problem.reference or "").split(",")
    ids = cd.write(puzzle, steps, random.Random(seed), detours=detours, backward=backward)
    found = habits.solution(trace(ids, problem), problem)
    lines = "".join(cd.pieces(ids)).partition(">")[0].rstrip(";").split(";")
    goals = [line for line in lines if line[0] == "@"]
    assert found.habits == {
        "verification": sum("!" in line or "#" in line for line in lines),
        "backtracking": sum(line[0] == "^" for line in lines),
        "subgoals": len(goals),
        "backward_chaining": sum("=" in line for line in goals),
    }
    made = sum("=" in line for line in lines)
    assert found.failed_steps == pytest.approx(1 - len(steps) / made)  # what is in force is the solution
    assert (found.error, found.correct, found.tokens) == (None, True, len(ids))
    assert found.failed_steps == habits.failed_step_fraction(puzzle, ids)
    if not detours:
        assert found.failed_steps == 0


def test_failed_steps() -> None:
    assert habits.failed_step_fraction(PUZZLE, encoded(TRACE)) == 3 / 6
    assert habits.failed_step_fraction(PUZZLE, encoded(DIRECT)) == 0
    # a step that is false is none, going back where there is no state goes nowhere
    false = "25+3=28;28+4=33;^7;^0;" + DIRECT
    assert habits.failed_step_fraction(PUZZLE, encoded(false)) == 1 / 4
    assert math.isnan(habits.failed_step_fraction(PUZZLE, encoded("25+3=28;^0")))  # no answer
    assert math.isnan(habits.failed_step_fraction(PUZZLE, encoded(ANSWER)))  # no step


@settings(max_examples=30)
@given(st.integers(0, 10**4), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, len(cd.VOCAB) - 1)), max_size=4))
def test_broken_traces_are_read_too(seed: int, changes: list[tuple[float, int]]) -> None:
    (problem,) = TASK.problems("C4", 1, seed)
    puzzle = cd.parse_prompt(problem.prompt)
    ids = cd.write(puzzle, (problem.reference or "").split(","), random.Random(seed))
    for place, token in changes:
        ids[int(place * len(ids))] = token
    found = habits.solution(trace(ids, problem), problem)
    assert found.habits == cd.habits(puzzle, ids)
    assert math.isnan(found.failed_steps) or 0 <= found.failed_steps <= 1
    assert found.error is None or found.error in class_of(habits.CLASSES)


def test_first_errors_and_habits_of_a_distribution() -> None:
    problems = asked(40)
    wrong = "25+3=28;28*4=112;112-7=105;105!86;>25+3=28,28*4=112,112-7=105"  # says it is the target
    made = [trace(encoded(text), p, k) for p in problems for k, text in enumerate((TRACE, DIRECT, wrong))]
    found = dissect(made, problems)
    (group,) = found.groups
    assert group.first_errors == {"verification": 40}
    assert group.shares["checks"].value == pytest.approx(1 / 3)
    assert sum(share.value for share in group.shares.values()) == pytest.approx(group.failed / group.traces)
    assert found.claims == []
    assert found.habits is not None
    (of,) = found.habits.groups
    assert of.traces == {"all": 120, "right": 80, "wrong": 40}
    back = of.habits["backtracking"]
    assert {kind: (s.share.value, s.count.value, s.share.n) for kind, s in back.items()} == {
        "all": (pytest.approx(1 / 3), pytest.approx(1 / 3), 40),
        "right": (0.5, 0.5, 40),
        "wrong": (0, 0, 40),
    }
    assert back["wrong"].share.high > 0
    assert math.isnan(back["wrong"].count.high)  # forty zeros do not say how rare it is
    # a wrong trace has no more, a right one has it in half of the pairs: (ties count half)
    assert found.habits.within["backtracking"].value == 0.25
    assert found.habits.within["verification"].n == 40
    assert found.habits.within["verification"].value == 0  # a verification that does not hold is none
    assert found.failed_steps.right.value == pytest.approx(0.25)


def broken(problems: Sequence[Problem]) -> list[Trace]:
    """Two traces of each problem, every other one with one wrong token."""
    rng, made = random.Random(0), []
    for p in problems:
        for k in range(2):
            ids = cd.write(cd.parse_prompt(p.prompt), (p.reference or "").split(","), rng)
            if k:
                ids[rng.randrange(len(ids))] = rng.randrange(len(cd.VOCAB))
            made.append(trace(ids, p, k))
    return made


def test_the_command_on_a_run(tmp_path: Path) -> None:
    problems = [*TASK.problems("C3", 12, seed=1), *TASK.problems("C4", 12, seed=1)]
    made = broken(problems)
    with Run.create(tmp_path / "run", {}) as run:
        run.add_problems(problems)
        run.append(made)
    command = ["anatomy", str(tmp_path / "run"), "--plot", str(tmp_path / "a.svg")]
    done = CliRunner().invoke(lab, [*command, "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["task"] == "countdown_search"
    assert [g["distribution"] for g in facts["groups"]] == ["C3", "C4"]
    errors: Counter[str] = Counter()
    for group in facts["groups"]:
        errors.update(group["first_errors"])
    checks = [TASK.check(p, t.ids) for t in made for p in problems if p.id == t.problem]
    assert errors == Counter(c.error for c in checks if c.error is not None)
    c3 = facts["habits"]["groups"][0]
    assert set(c3["habits"]) == set(cd.HABITS) == set(facts["habits"]["within"])
    shown = "".join(
        t.firstChild.data  # type: ignore[union-attr]
        for t in xml.dom.minidom.parse(str(tmp_path / "a.svg")).getElementsByTagName("text")
    )
    assert f"{c3['traces']['right']} of 24 right" in shown
    printed = CliRunner().invoke(lab, command)
    assert printed.exit_code == 0, printed.output


def test_a_run_can_be_of_countdown() -> None:
    made = search_problems("countdown_search", None, 2, 0)
    assert [(p.task, p.group) for p in made] == [(TASK.name, "C3")] * 2 + [(TASK.name, "C4")] * 2
    assert [p.group for p in search_problems("graph_search_dfs", ["G15_2,4"], 1, 0)] == ["G15_2,4"]
    with pytest.raises(WrongturnError, match="--task math needs a file of problems"):
        search_problems("math", None, 2, 0)


def test_a_picture_without_a_wrong_trace() -> None:
    problems = asked(3)
    facts = dissect([trace(encoded(TRACE), p) for p in problems], problems).dict()
    assert facts["habits"]["groups"][0]["habits"]["subgoals"]["wrong"]["count"]["value"] is None
    xml.dom.minidom.parseString(picture.habits("right", facts["habits"]["groups"]))
    none = dissect([trace(encoded("25+3=28"), p) for p in problems], problems).dict()
    xml.dom.minidom.parseString(picture.habits("no habit at all", none["habits"]["groups"]))
