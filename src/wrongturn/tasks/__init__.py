"""Tasks: generate, prompt, grade, and check every token where that is possible."""

from __future__ import annotations

from wrongturn.tasks.base import Check, Segment, Task
from wrongturn.tasks.code import allow as allow_code
from wrongturn.tasks.files import read_problems
from wrongturn.tasks.graphs import Distribution, GraphSearch
from wrongturn.tasks.registry import get, names, register
from wrongturn.tasks.text import TextTask
from wrongturn.trace import Problem

__all__ = [
    "Check",
    "Distribution",
    "GraphSearch",
    "Segment",
    "Task",
    "TextTask",
    "allow_code",
    "get",
    "graph_search",
    "names",
    "read_problems",
    "register",
]


def graph_search(nodes: int = 15, hops: tuple[int, int] = (2, 4), n: int = 100, seed: int = 0) -> list[Problem]:
    """``n`` graph-search problems on ``nodes`` nodes whose shortest path has ``hops`` (low, high) edges."""
    return GraphSearch().problems(Distribution(nodes, hops), n, seed)
