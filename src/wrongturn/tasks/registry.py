"""Tasks by name."""

from __future__ import annotations

import re

from wrongturn.errors import WrongturnError
from wrongturn.tasks import countdown, extract, graders, graph_orders, graphs, gym
from wrongturn.tasks.base import Task
from wrongturn.tasks.countdown import Countdown
from wrongturn.tasks.graph_orders import ORDERS, OrderedSearch
from wrongturn.tasks.graphs import GraphSearch
from wrongturn.tasks.sets import TASKS
from wrongturn.tasks.text import TextTask

ERRORS: dict[str, str] = countdown.ERRORS | graph_orders.ERRORS | graphs.ERRORS
"""What the classes of first wrong tokens mean, of all tasks that are checked token by token."""

_SEARCHES: tuple[Task, ...] = (GraphSearch(), *map(OrderedSearch, ORDERS), Countdown())
_TASKS: dict[str, Task] = {task.name: task for task in _SEARCHES} | TASKS


def get(name: str) -> Task:
    """The task of that name: a ready or registered one, ``regex:PATTERN`` or ``gym:NAME``.

    Raises ``ValueError`` naming the tasks there are, ``WrongturnError`` for a pattern that is none.
    """
    if name in _TASKS:
        return _TASKS[name]
    kind, colon, rest = name.partition(":")
    if colon and rest and kind == "regex":
        return _regex(name, rest)
    if colon and rest and kind == "gym":
        return gym.task(name)
    raise ValueError(f"unknown task {name!r} (expected one of {', '.join([*names(), 'regex:PATTERN', 'gym:NAME'])})")


def names() -> list[str]:
    """The names of the tasks there are; ``regex:PATTERN`` and ``gym:NAME`` come on top."""
    return list(_TASKS)


def register(task: Task) -> Task:
    """Make a task known under its name. Raises ``ValueError`` where another one has it."""
    if ":" in task.name or not task.name.strip():
        raise ValueError(f"a task cannot be named {task.name!r}: the name is empty or has a colon")
    if _TASKS.setdefault(task.name, task) != task:
        raise ValueError(f"there is another task {task.name!r} already")
    return task


def _regex(name: str, pattern: str) -> TextTask:
    try:
        return TextTask(name, graders.exact, extract.pattern(pattern))
    except (re.error, OverflowError, RecursionError) as problem:
        raise WrongturnError(f"task {name!r}: not a regular expression: {problem}") from None
