"""Problems of ``reasoning-gym``'s generators, graded by their own scorers (extra ``[gym]``)."""

from __future__ import annotations

import functools
import importlib.util
import json
from typing import Any

from wrongturn.errors import WrongturnError
from wrongturn.tasks import extract, workers
from wrongturn.tasks.text import TextTask
from wrongturn.trace import Problem

TEMPLATE = (
    "{prompt}\n\nThink it through first. Then give the final answer, and nothing else, in <answer> and </answer>."
)


MOST = 600.0
"""Seconds for making all problems."""

LIMIT = 60.0
"""Seconds for scoring one answer, which begins with making its problem again."""


def task(name: str) -> TextTask:
    """The task ``gym:NAME``. A reply is right where the generator's scorer gives it full marks."""
    return TextTask(name, functools.partial(grade, name), extract.tagged, TEMPLATE, slow=True, needs=needs)


def needs() -> None:
    """Raises ``WrongturnError`` where reasoning-gym or the worker pool is not installed."""
    for library in ("reasoning_gym", "pebble"):
        if importlib.util.find_spec(library) is None:
            raise WrongturnError(f"gym problems need {library}: pip install 'wrongturn[gym]'")


def problems(name: str, n: int, seed: int = 0) -> list[Problem]:
    """``n`` problems of a generator, by its default settings. Raises ``WrongturnError`` where it has none."""
    needs()
    made = workers.call("gym problems", name, n, seed, limit=MOST)
    if not isinstance(made, list):
        raise WrongturnError(f"gym:{name}: {made or f'{n} problems were not made in {MOST} s'}")
    return [
        Problem(
            f"{name}/{seed}/{i}",
            f"gym:{name}",
            question,
            reference=json.dumps({"seed": seed, "size": n, "index": i, "answer": answer}, ensure_ascii=False),
            group=name,
        )
        for i, (question, answer) in enumerate(made)
    ]


def grade(name: str, reference: str, answer: str) -> bool | None:
    """True for full marks; None where the scorer gave no verdict in time. It runs in a worker process."""
    needs()
    marks = workers.call("gym", name.partition(":")[2], reference, answer, limit=LIMIT)
    return None if marks is None else marks >= 1.0


# -- in a worker: some generators iterate over sets, so only where hashes are not random do seeds mean the same problem


@functools.cache
def _generator(name: str, seed: int, size: int) -> Any:
    from reasoning_gym.factory import create_dataset

    return create_dataset(name, seed=seed, size=size)


def make(name: str, n: int, seed: int) -> list[list[str | None]] | str:
    """[question, answer] of each problem, or what is wrong."""
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        return f"there is no such generator (there are {', '.join(sorted(DATASETS))})"
    try:
        generator = _generator(name, seed, n)
        entries = [generator[i] for i in range(n)]
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    return [[entry["question"], entry["answer"]] for entry in entries]


def score(name: str, reference: str, answer: str) -> float:
    """The generator's own marks, 0 to 1. The problem is made again: what its scorer needs does not all go into JSON."""
    asked: dict[str, Any] = json.loads(reference)
    generator = _generator(name, asked["seed"], asked["size"])
    entry = generator[asked["index"]]
    if entry["answer"] != asked["answer"]:
        raise ValueError("another version of reasoning-gym made this problem")
    return float(generator.score_answer(answer, entry))
