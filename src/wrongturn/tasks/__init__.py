"""Tasks: generate, prompt, grade, and check every token where that is possible."""

from __future__ import annotations

from wrongturn.tasks.base import Check, Segment, Task
from wrongturn.tasks.graphs import Distribution, GraphSearch
from wrongturn.trace import Problem

__all__ = ["Check", "Distribution", "GraphSearch", "Segment", "Task", "get", "graph_search"]

_TASKS: dict[str, Task] = {task.name: task for task in (GraphSearch(),)}


def get(name: str) -> Task:
    """The task of that name. Raises ``ValueError`` naming the tasks there are."""
    if name not in _TASKS:
        raise ValueError(f"unknown task {name!r} (expected one of {', '.join(_TASKS)})")
    return _TASKS[name]


def graph_search(nodes: int = 15, hops: tuple[int, int] = (2, 4), n: int = 100, seed: int = 0) -> list[Problem]:
    """``n`` graph-search problems on ``nodes`` nodes whose shortest path has ``hops`` (low, high) edges."""
    return GraphSearch().problems(Distribution(nodes, hops), n, seed)
