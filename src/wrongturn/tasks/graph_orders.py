"""Searches of a graph in other orders than breadth-first: depth-first, and best-first with free ties.

They are written as breadth-first search is (:mod:`wrongturn.tasks.graphs`); what differs is which node is expanded
next, and who is traced back to.

``dfs``: of the listed nodes, the one listed last; of those listed last together, the smallest. A node is traced back to
the node that listed it last before its expansion. Lists ascend, so the trace is unique.

``best``: any listed node with the most out-neighbours (greedy best-first search whose heuristic is the out-degree), and
a list may be written in any order: several tokens are right, and the checker accepts each. Traced back to the first
that listed it.

The target test is made when a node is listed, in all of them. Paths need not be the shortest, and any real path is a
right answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from wrongturn.tasks.base import Check
from wrongturn.tasks.graph_check import ERRORS as BREADTH_FIRST
from wrongturn.tasks.graph_check import Search, check
from wrongturn.tasks.graph_text import COMMA, DONE, EOS, FIRST_LABEL, FOUND, LIST, NEXT, OPEN, Query, parse_prompt
from wrongturn.tasks.graphs import GraphSearch, answer
from wrongturn.trace import Problem


@dataclass(slots=True)
class DepthFirst(Search):
    """The node listed last comes first."""

    when: dict[int, int] = field(default_factory=dict)  # number of expansions at its last listing

    def turn(self, label: int) -> str | None:
        return None if label == self.next()[0] else "order"

    def next(self) -> list[int]:
        """The nodes that may be expanded now."""
        latest = max(self.when.get(v, 0) for v in self.queue)
        return [min(v for v in self.queue if self.when.get(v, 0) == latest)]

    def discover(self, label: int) -> None:
        if label in self.expanded:
            return
        if label not in self.queue:
            self.queue.append(label)
        self.when[label] = len(self.expanded)
        self.parent[label] = self.node


@dataclass(slots=True)
class BestFirst(Search):
    """Any listed node with the most out-neighbours; lists in any order."""

    def turn(self, label: int) -> str | None:
        return None if label in self.next() else "order"

    def next(self) -> list[int]:
        """The nodes that may be expanded now."""
        degree = {v: len(self.adjacent.get(v, ())) for v in self.queue}
        most = max(degree.values())
        return [v for v in self.queue if degree[v] == most]

    def due(self) -> list[int]:
        return [v for v in self.adjacent.get(self.node, ()) if v not in self.listed]


ERRORS = {name: text for name, text in BREADTH_FIRST.items() if name != "fifo"}
ERRORS["order"] = "expanded a listed node out of turn"

ORDERS: dict[str, type[DepthFirst] | type[BestFirst]] = {"dfs": DepthFirst, "best": BestFirst}


def write(query: Query, order: str, rng: random.Random) -> list[int]:
    """One right trace, ties broken at random. Raises ``ValueError`` where the target cannot be reached.

    The automaton that checks is asked what may come next, so whatever is written here is right by its account.
    """
    search = ORDERS[order](query)
    ids: list[int] = []

    def put(*tokens: int) -> None:
        for token in tokens:
            search.step(token)
        ids.extend(tokens)

    put(OPEN)
    while search.queue:
        put(rng.choice(search.next()) + FIRST_LABEL, LIST)
        while due := search.due():
            if search.listed:
                put(COMMA)
            put(rng.choice(due) + FIRST_LABEL)
        if query.target in search.listed:
            put(FOUND)
            break
        put(NEXT)
    else:
        raise ValueError(f"no path from {query.source} to {query.target}")
    node = query.target
    put(node + FIRST_LABEL)
    while node != query.source:
        node = search.parent[node]
        put(COMMA, node + FIRST_LABEL)
    put(DONE)
    for i, v in enumerate(search.back[::-1]):
        put(*([COMMA] if i else []), v + FIRST_LABEL)
    put(EOS)
    return ids


def grade(query: Query, path: str | None) -> bool:
    """True where ``path`` leads from source to target along edges, visiting no node twice."""
    if path is None or not all(v.isdigit() for v in path.split(",")):
        return False
    nodes = [int(v) for v in path.split(",")]
    edges = set(query.edges)
    ends = nodes[0] == query.source and nodes[-1] == query.target
    return ends and len(set(nodes)) == len(nodes) and all(edge in edges for edge in pairwise(nodes))


class OrderedSearch(GraphSearch):
    """Graph search in another order; the reference answer is the path of one right trace."""

    def __init__(self, order: str) -> None:
        if order not in ORDERS:
            raise ValueError(f"unknown order {order!r} (expected one of {', '.join(ORDERS)})")
        self.order = order
        self.name = f"graph_search_{order}"

    def problem(self, query: Query, id: str, group: str = "") -> Problem:
        made = super().problem(query, id, group)
        path = answer(write(query, self.order, random.Random(id)))
        return Problem(id, self.name, made.prompt, made.prompt_ids, path, group)

    def grade(self, problem: Problem, answer: str | None) -> bool:
        return grade(parse_prompt(problem.prompt_ids), answer)

    def check(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Check:
        return check(parse_prompt(problem.prompt_ids), [int(i) for i in ids], ORDERS[self.order])
