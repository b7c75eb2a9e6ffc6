"""Right traces of a graph search, written fast: plain loops over an adjacency, without the automaton that checks.

They are the traces of :mod:`wrongturn.tasks.graphs` and :mod:`wrongturn.tasks.graph_orders` (tested against both). With
``target`` None the trace is a traversal: everything reachable is expanded in the same order, and the trace back starts
from the node expanded last. Lists have the order of the adjacency, except best-first's, whose order is free. All raise
``ValueError`` where the target cannot be reached.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from wrongturn.lab.draw import Adjacent
from wrongturn.tasks.graph_text import COMMA, DONE, EOS, FIRST_LABEL, FOUND, LABELS, LIST, NEXT, OPEN

Writer = Callable[[Adjacent, int, int | None, random.Random], list[int]]

_HEAD = [(v + FIRST_LABEL, LIST) for v in range(LABELS)]
_NODE = [(v + FIRST_LABEL, COMMA) for v in range(LABELS)]


def bfs(adjacent: Adjacent, source: int, target: int | None, rng: random.Random | None = None) -> list[int]:
    """The trace of a breadth-first search, which is unique: ``rng`` is not used."""
    ends, begin = adjacent
    trace, parent, queue = [OPEN], {source: -1}, [source]
    for u in queue:  # which grows
        trace += _HEAD[u]
        around = ends[begin[u] : begin[u + 1]]
        if not around:
            trace.append(NEXT)
            continue
        for v in around:
            trace += _NODE[v]
            if v not in parent:
                parent[v] = u
                queue.append(v)
        trace[-1] = NEXT
        if target in around:
            break
    return _finish(trace, parent, queue[-1] if target is None else target)


def dfs(adjacent: Adjacent, source: int, target: int | None, rng: random.Random | None = None) -> list[int]:
    """The trace of a depth-first search, which is unique: ``rng`` is not used.

    Next is the node listed last, of those listed last together the first of the list; its parent is who listed it last.
    """
    ends, begin = adjacent
    trace, parent, expanded, stack, last = [OPEN], {source: -1}, set[int](), [source], source
    while stack:
        u = stack.pop()
        if u in expanded:  # as it was listed again later
            continue
        expanded.add(u)
        last = u
        trace += _HEAD[u]
        around = ends[begin[u] : begin[u + 1]]
        if not around:
            trace.append(NEXT)
            continue
        for v in around:
            trace += _NODE[v]
            if v not in expanded:
                parent[v] = u
        trace[-1] = NEXT
        if target in around:
            break
        stack += around[::-1]
    return _finish(trace, parent, last if target is None else target)


def best(adjacent: Adjacent, source: int, target: int | None, rng: random.Random) -> list[int]:
    """One trace of a best-first search by out-degree: every node that may be next, and every order of a list, as
    likely as the others."""
    ends, begin = adjacent
    chance = rng.random
    trace, parent, last = [OPEN], {source: -1}, source
    waiting: list[list[int]] = [[] for _ in range(LABELS)]  # by out-degree
    most = begin[source + 1] - begin[source]
    waiting[most].append(source)
    while most >= 0:
        ties = waiting[most]
        if not ties:
            most -= 1
            continue
        last = u = ties.pop(int(chance() * len(ties)) if len(ties) > 1 else 0)
        trace += _HEAD[u]
        around = ends[begin[u] : begin[u + 1]]
        if not around:
            trace.append(NEXT)
            continue
        for i in range(len(around) - 1, 0, -1):  # Fisher and Yates
            k = int(chance() * (i + 1))
            around[i], around[k] = around[k], around[i]
        for v in around:
            trace += _NODE[v]
            if v not in parent:
                parent[v] = u
                degree = begin[v + 1] - begin[v]
                waiting[degree].append(v)
                if degree > most:
                    most = degree
        trace[-1] = NEXT
        if target in around:
            break
    return _finish(trace, parent, last if target is None else target)


WRITERS: dict[str, Writer] = {"graph_search": bfs, "graph_search_dfs": dfs, "graph_search_best": best}
"""By the name of the task."""


def _finish(trace: list[int], parent: dict[int, int], node: int) -> list[int]:
    """The trace, its last list closed as the one with the target, the trace back from ``node`` and the path."""
    if node not in parent:
        raise ValueError(f"no path to {node}")
    back: list[int] = []
    while node >= 0:
        back += _NODE[node]
        node = parent[node]
    back.pop()
    trace[-1] = FOUND
    return [*trace, *back, DONE, *back[::-1], EOS]
