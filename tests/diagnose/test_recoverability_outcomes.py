"""Outcomes: read from a run as they are, and split so that each try counts once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from made_traces import made
from wrongturn.diagnose.recoverability.labels import split
from wrongturn.diagnose.recoverability.outcomes import Outcomes, code, read_base, read_outcomes
from wrongturn.errors import WrongturnError
from wrongturn.store import Run
from wrongturn.trace import Usage


def row(number: int, problem: str, strategy: str, k: int, answer: str | None, correct: bool | None, **fields):
    name = strategy if strategy == "sample" else f"rescue:{strategy}"
    told = {"usage": Usage(kept=10, dropped=k), "group": "G", "sample": k, "answer": answer, "correct": correct}
    id = f"{problem}/{name}/{k}"
    return made(number, **{"id": id, "problem": problem, "strategy": name} | told | fields)


def run_of(path: Path, rows) -> Run:
    with Run.create(path, {}) as run:
        run.append(rows)
    return run


def random_outcomes(tries: int = 6) -> Outcomes:
    rng = np.random.default_rng(8)
    right = rng.integers(0, 2, (5, 3, tries)).astype(float)
    right[1, 2, 3:] = np.nan
    right[:, 1, 1:] = np.nan  # tried once
    names = tuple("abcde")
    return Outcomes(names, names, ("retry", "greedy", "x"), right, right + 5, np.zeros(right.shape, np.int64))


def test_tries_become_a_table(tmp_path: Path) -> None:
    rows = [
        row(0, "b", "retry", 0, "1", False),
        row(1, "b", "retry", 2, "2", True),
        row(2, "b", "ban", 0, None, False),
        row(3, "a", "retry", 0, "1", None),  # nobody could grade it
        row(4, "a", "retry", 1, "1", False),
        row(5, "b", "retry", 0, "9", True, id="b/rescue:retry/0+1"),  # a draft on the way
        row(6, "a", "sample", 0, "1", False),
        row(7, "a", "sample", 1, "3", True),
    ]
    run = run_of(tmp_path, rows)
    found = read_outcomes(run)
    assert (found.problems, found.groups, found.operators) == (("a", "b"), ("G", "G"), ("retry", "ban"))
    np.testing.assert_array_equal(found.right[:, 0], [[np.nan, 0, np.nan], [0, np.nan, 1]])
    np.testing.assert_array_equal(found.right[:, 1], [[np.nan] * 3, [0, np.nan, np.nan]])
    np.testing.assert_array_equal(found.tokens[1, 0], [10, np.nan, 12])
    assert found.answers[1].tolist() == [[code("1"), -1, code("2")], [-1, -1, -1]]
    assert found.cost()[0] == pytest.approx((11 + 10 + 12) / 3)
    assert found.once.tolist() == [False, True]
    assert found.complete.tolist() == [False, True]
    base = read_base(run)
    assert (base.problems, base.right.tolist()) == (("a",), [[0, 1]])
    assert base.answers[0, 0] == found.answers[0, 0, 1] == code("1") != code("2")


def test_what_cannot_be_compared_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(WrongturnError, match="no graded tries of failed problems"):
        read_outcomes(run_of(tmp_path / "a", [row(0, "a", "sample", 0, "1", True)]))
    with pytest.raises(WrongturnError, match="'retry' was not tried"):
        read_outcomes(run_of(tmp_path / "b", [row(0, "a", "ban", 0, "1", True)]))
    with pytest.raises(WrongturnError, match="no graded plain samples"):
        read_base(run_of(tmp_path / "c", [row(0, "a", "ban", 0, "1", True)]))
    outcomes = random_outcomes()
    with pytest.raises(ValueError, match=r"tokens must be \[5 problems, 3 operators, tries\]"):
        replace(outcomes, tokens=np.zeros(3))


def test_halves_share_out_the_tries_as_labels_do() -> None:
    whole = random_outcomes()
    select, score = whole.halves(seed=4)
    first, second = split(whole.right, seed=4)
    often = ~whole.once
    for half, counts in ((select, first), (score, second)):
        np.testing.assert_array_equal(half.counts().successes[:, often], counts.successes[:, often])
        np.testing.assert_array_equal(half.counts().tries[:, often], counts.tries[:, often])
    assert not (select.made & score.made)[:, often].any()
    np.testing.assert_array_equal((select.made | score.made), whole.made)
    np.testing.assert_array_equal(select.made[:, 1], score.made[:, 1])  # greedy: the same try again
    assert np.isnan(select.tokens[~select.made]).all()
    assert (score.answers[~score.made] == -1).all()


def test_rows_of_one_problem_are_one_cluster() -> None:
    whole = random_outcomes()
    twice = whole.take([0, 1, 0])
    assert twice.problems == ("a", "b", "a")
    assert twice.clusters.tolist() == [0, 1, 0]
    assert whole.take(whole.complete).problems == whole.problems
