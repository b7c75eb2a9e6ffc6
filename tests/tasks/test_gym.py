"""Problems of reasoning-gym: the same for the same seed, graded by its own scorers."""

from __future__ import annotations

import json

import pytest

from wrongturn import tasks
from wrongturn.errors import WrongturnError
from wrongturn.tasks import gym, read_problems

pytestmark = pytest.mark.extras


@pytest.mark.parametrize("name", ["chain_sum", "countdown", "ransom_note", "rearc"])
def test_generators_grade_their_own_answers(name: str) -> None:
    problems = read_problems(f"gym:{name}", limit=3, seed=7)
    task = tasks.get(f"gym:{name}")
    assert [p.id for p in problems] == [f"{name}/7/{i}" for i in range(3)]
    assert read_problems(f"gym:{name}", limit=3, seed=7) == problems
    assert read_problems(f"gym:{name}", limit=3, seed=8) != problems
    for problem in problems:
        answer = json.loads(problem.reference or "")["answer"]
        assert task.answer_text(f"So <answer>{answer}</answer>") == answer
        assert task.grade(problem, answer) is True
        assert task.grade(problem, "no such thing") is False


def test_unknown_and_unwilling_generators() -> None:
    with pytest.raises(WrongturnError, match="gym:nope: there is no such generator"):
        read_problems("gym:nope")
    with pytest.raises(WrongturnError, match="gym:composite: AssertionError"):
        read_problems("gym:composite", limit=1)


def test_another_version_gives_no_verdict() -> None:
    (problem,) = read_problems("gym:chain_sum", limit=1)
    asked = json.loads(problem.reference or "") | {"answer": "another"}
    assert gym.grade("gym:chain_sum", json.dumps(asked), "5") is None
