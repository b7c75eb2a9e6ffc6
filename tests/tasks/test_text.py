"""A task in words: bound to a vocabulary, asked, answered, graded; and tasks by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrongturn import tasks
from wrongturn.errors import WrongturnError
from wrongturn.tasks import TextTask, graders, maths
from wrongturn.tasks.sets import SETS, TASKS
from wrongturn.trace import Problem
from wrongturn.vocabulary import Interned

ASKED = Problem("p", "numeric", "2 + {x}?", reference="4")


class Words(Interned):
    """One token a word, line breaks with the word before them."""

    stop_ids = (7,)

    def encode(self, text: str) -> list[int]:
        return [self.intern(piece) for piece in text.replace("\n ", "\n~").split("~")]


def bound() -> tuple[TextTask, Words]:
    words = Words()
    for text in ("so", "that\n", "\n\n", "is \\boxed{4}"):
        words.intern(text)
    task = tasks.get("numeric").on(words)
    assert isinstance(task, TextTask)
    return task, words


def test_a_task_is_bound_to_a_vocabulary() -> None:
    task, words = bound()
    ids = [words.intern(text) for text in ("so", "that\n", "\n\n", "is \\boxed{4}")]
    assert task.stop_ids == (7,)
    assert task.pieces(ids) == ["so", "that\n", "\n\n", "is \\boxed{4}"]
    assert task.encode("so") == ids[:1]
    assert task.boundaries(ids).tolist() == [False, True, True, False]
    assert set(ids[1:3]) <= set(task.boundary_ids)
    assert not {ids[0], ids[3]} & set(task.boundary_ids)
    assert task.answer(ids) == task.answer_text("so that is \\boxed{4}") == "4"
    assert task.answer(ids[:3]) is None
    assert task.check(ASKED, ids) is None
    assert task == tasks.get("numeric")  # the vocabulary is not part of what a task is


@given(st.lists(st.sampled_from(("**\n\n", " \n", "```\n", "$\n\n", "so", ".", "\n")), max_size=12))
def test_a_step_ends_where_the_text_says_so_whenever_it_was_met(texts: list[str]) -> None:
    words = Words()
    task = tasks.get("numeric").on(words)
    ids = [words.intern(text) for text in texts]
    assert np.isin(ids, task.boundary_ids).tolist() == task.boundaries(ids).tolist() == ["\n" in t for t in texts]


def test_an_unbound_task_says_what_to_do() -> None:
    task = tasks.get("numeric")
    assert task.stop_ids == task.boundary_ids == ()
    assert task.answer_text("\\boxed{4}") == "4"
    for use in (
        lambda: task.encode("a"),
        lambda: task.pieces([1]),
        lambda: task.answer([1]),
        lambda: task.boundaries([1]),
    ):
        with pytest.raises(ValueError, match=r"task\.on"):
            use()
    assert task.on(bound()[1]).on(None).boundary_ids == ()


def test_what_is_put_to_a_model() -> None:
    task = TextTask("t", graders.exact, template="Q: {prompt} {x}", system="Be brief.")
    assert task.messages(ASKED) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: 2 + {x}? {x}"},
    ]
    own = ({"role": "system", "content": "Own."}, {"role": "user", "content": "hi"})
    assert task.messages(Problem("p", "t", "hi", messages=own)) == list(own)
    assert TextTask("t", graders.exact).messages(ASKED) == [{"role": "user", "content": "2 + {x}?"}]


def test_grades() -> None:
    task = tasks.get("numeric")
    assert task.grade(ASKED, "4.0") is True
    assert task.grade(ASKED, "5") is False
    assert task.grade(ASKED, None) is False
    assert task.grade(Problem("p", "numeric", "?"), "4") is None


def test_any_function_grades() -> None:
    task = TextTask("mine", lambda reference, answer: reference in answer)
    assert task.grade(ASKED, "14") is True

    def broken(reference: str, answer: str) -> bool:
        raise KeyError("x")

    with pytest.raises(WrongturnError, match=r"problem 'p': the grader of task 'mine' failed: KeyError: 'x'"):
        TextTask("mine", broken).grade(ASKED, "4")


def test_tasks_by_name() -> None:
    assert {"graph_search", "math", "numeric", "exact", "choice", "code", *SETS} <= set(tasks.names())
    assert all(tasks.get(name).name == name for name in tasks.names())
    with pytest.raises(ValueError, match=r"unknown task 'maths' \(expected one of graph_search, .*exact, numeric"):
        tasks.get("maths")
    for name in ("regex", "regex:", "gym:", ""):
        with pytest.raises(ValueError, match="unknown task"):
            tasks.get(name)


def test_patterns_as_tasks() -> None:
    task = tasks.get(r"regex:=> (\w+:\w+)")
    assert task.answer_text("=> a:b") == "a:b"
    assert task.grade(Problem("p", task.name, "?", reference="A:B"), "a:b") is True
    with pytest.raises(WrongturnError, match="not a regular expression"):
        tasks.get("regex:(")


def test_tasks_are_registered_once() -> None:
    task = tasks.register(TextTask("registered here", graders.exact))
    assert tasks.get("registered here") is task
    tasks.register(task)
    with pytest.raises(ValueError, match="another task"):
        tasks.register(TextTask("registered here", graders.numeric))
    with pytest.raises(ValueError, match="cannot be named"):
        tasks.register(TextTask("a:b", graders.exact))


def test_every_set_has_a_task() -> None:
    assert SETS.keys() <= TASKS.keys()
    assert all("{prompt}" in task.template for task in TASKS.values())


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maths, "_missing", lambda: "math_verify")
    with pytest.raises(WrongturnError, match=r"needs math_verify: pip install 'wrongturn\[math\]'"):
        tasks.get("math").grade(Problem("p", "math", "?", reference="1"), "1")
