"""Graph search: a breadth-first search written out token by token, every token of which can be checked.

A prompt lists directed edges and a query, ``1,3|2,4|1,2|0,1|0,2|3,4/0,4``; the completion writes the search and then
the shortest path, ``<0,(1,2),1,(2,3),2,(4)-4,2,0>0,2,4``. Each ``u,(...)`` expands the head of the queue and lists
*all* its out-neighbours in ascending order (queue and visited set stay implicit); ``-`` follows the list that contains
the target; then come the trace back through first discoverers and, after ``>``, the path. The correct trace is unique,
so the first token that leaves the automaton is the exact onset of a failure.

Format and distributions: "Learning to search" (H. N. Nguyen, 2025).
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from wrongturn.tasks.base import PAD, Check, OwnTokens
from wrongturn.tasks.graph_check import ERRORS, check
from wrongturn.tasks.graph_text import (
    BAR,
    BOS,
    COMMA,
    DONE,
    EOS,
    FIRST_LABEL,
    FOUND,
    LABELS,
    LIST,
    NEXT,
    OPEN,
    SLASH,
    TOKEN,
    VOCAB,
    Edge,
    Query,
    decode,
    encode,
    parse_prompt,
    pieces,
    prompt_ids,
)
from wrongturn.trace import Problem

__all__ = [
    "BAR",
    "BOS",
    "COMMA",
    "DONE",
    "EOS",
    "ERRORS",
    "FIRST_LABEL",
    "FOUND",
    "LABELS",
    "LIST",
    "NEXT",
    "OPEN",
    "PAD",
    "SLASH",
    "TOKEN",
    "VOCAB",
    "Distribution",
    "Edge",
    "GraphSearch",
    "Query",
    "answer",
    "check",
    "decode",
    "discoverers",
    "distances",
    "encode",
    "gold",
    "grade",
    "listing",
    "parse_prompt",
    "pieces",
    "prompt_ids",
    "random_edges",
    "random_query",
    "trace_back",
]

# -- graphs ------------------------------------------------------------------------------------------------------------

TRIES = 100_000
"""Graphs drawn for a path of a certain length before that is given up, some seconds later."""


def distances(adjacent: dict[int, list[int]], source: int) -> dict[int, int]:
    """Shortest-path length in edges from ``source`` to every node it reaches."""
    found = {source: 0}
    queue = deque([source])
    while queue:
        u = queue.popleft()
        for v in adjacent.get(u, ()):
            if v not in found:
                found[v] = found[u] + 1
                queue.append(v)
    return found


def random_edges(rng: random.Random, nodes: int, density: tuple[float, float] = (1.3, 1.8)) -> tuple[Edge, ...]:
    """Distinct directed edges in random order, m ~ U[1.3 n, 1.8 n], over a random n-subset of the labels."""
    names = rng.sample(range(LABELS), nodes)
    m = min(rng.randint(round(density[0] * nodes), round(density[1] * nodes)), nodes * (nodes - 1))
    edges = []
    for k in rng.sample(range(nodes * (nodes - 1)), m):
        u, v = divmod(k, nodes - 1)
        edges.append((names[u], names[v + (v >= u)]))
    return tuple(edges)


def random_query(rng: random.Random, nodes: int, hops: tuple[int, int]) -> Query:
    """A query whose shortest path has a length drawn uniformly from ``hops`` (inclusive, in edges).

    Raises ``ValueError`` where graphs of so many nodes do not seem to have such paths.
    """
    want = rng.randint(*hops)
    for _ in range(TRIES):
        edges = random_edges(rng, nodes)
        adjacent = Query(edges, 0, 0).neighbours()
        source = rng.choice(tuple(adjacent))
        at_distance = [v for v, d in distances(adjacent, source).items() if d == want]
        if at_distance:
            return Query(edges, source, rng.choice(at_distance))
    raise ValueError(f"graphs of {nodes} nodes with shortest paths of {want} edges are too rare to draw")


def discoverers(query: Query) -> dict[int, int | None]:
    """The node that first listed each node, in the order of discovery (None for the source)."""
    adjacent = query.neighbours()
    found: dict[int, int | None] = {query.source: None}
    for u in distances(adjacent, query.source):
        for v in adjacent[u]:
            found.setdefault(v, u)
    return found


def gold(query: Query) -> list[int]:
    """The one correct completion, ending in ``<eos>``. Raises ``ValueError`` where the target cannot be reached."""
    adjacent = query.neighbours()
    ids = [OPEN]
    for u in distances(adjacent, query.source):  # in order of discovery, which is the order of the queue
        around = adjacent.get(u, [])
        ids += listing(u, around)
        if query.target in around:
            ids[-1] = FOUND
            return ids + trace_back(query)
    raise ValueError(f"no path from {query.source} to {query.target}")


def trace_back(query: Query) -> list[int]:
    """``target,...,source>source,...,target<eos>``: back through first discoverers, then the path."""
    parent = discoverers(query)
    back, node = [], query.target
    while node is not None:
        back.append(node)
        node = parent[node]
    return [*_joined(back), DONE, *_joined(back[::-1]), EOS]


def listing(node: int, neighbours: Sequence[int]) -> list[int]:
    """``u,(v,w),``: one expansion."""
    return [node + FIRST_LABEL, LIST, *_joined(neighbours), NEXT]


def _joined(nodes: Sequence[int]) -> list[int]:
    ids = [COMMA] * (2 * len(nodes) - 1) if nodes else []
    ids[::2] = [v + FIRST_LABEL for v in nodes]
    return ids


def answer(ids: Sequence[int]) -> str | None:
    """The final path, ``"0,2,4"``: what stands between ``>`` and ``<eos>``; None where the trace has no such part."""
    ids = [int(i) for i in ids]
    if not ids or ids[-1] != EOS or DONE not in ids:
        return None
    return decode(ids[len(ids) - ids[::-1].index(DONE) :]) or None


def grade(query: Query, path: str | None) -> bool:
    """True where ``path`` is a path from source to target and no shorter one exists (whatever the trace said)."""
    if path is None or not re.fullmatch(r"\d+(,\d+)*", path):
        return False
    nodes = [int(v) for v in path.split(",")]
    adjacent = query.neighbours()
    if nodes[0] != query.source or nodes[-1] != query.target:
        return False
    if any(v not in adjacent.get(u, ()) for u, v in pairwise(nodes)):
        return False
    return len(nodes) - 1 == distances(adjacent, query.source).get(query.target)


# -- distributions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Distribution:
    """``G{nodes}_{lo},{hi}``: graphs of so many nodes whose shortest path has ``lo`` to ``hi`` edges."""

    nodes: int
    hops: tuple[int, int]

    def __post_init__(self) -> None:
        if not 2 <= self.nodes <= LABELS:
            raise ValueError(f"nodes must be between 2 and {LABELS}, not {self.nodes}")
        low, high = self.hops
        if not 1 <= low <= high < self.nodes:
            raise ValueError(f"hops must satisfy 1 <= low <= high < nodes, not {low},{high} with {self.nodes} nodes")

    def __str__(self) -> str:
        return f"G{self.nodes}_{self.hops[0]},{self.hops[1]}"

    @classmethod
    def parse(cls, name: str) -> Distribution:
        """``"G15_2,4"`` -> Distribution(15, (2, 4)); ValueError otherwise."""
        match = re.fullmatch(r"G(\d+)_(\d+),(\d+)", name)
        if match is None:
            raise ValueError(f"not a graph distribution: {name!r} (expected e.g. 'G15_2,4')")
        return cls(int(match[1]), (int(match[2]), int(match[3])))

    def queries(self, seed: int) -> Iterator[Query]:
        """An endless stream of queries; the same seed gives the same stream."""
        rng = random.Random(f"{self}/{seed}")
        while True:
            yield random_query(rng, self.nodes, self.hops)


# -- the task ----------------------------------------------------------------------------------------------------------


class GraphSearch(OwnTokens):
    """The task the rest of the package sees; grading and checking read the query from the problem's own prompt."""

    name = "graph_search"
    stop_ids: tuple[int, ...] = (EOS,)
    boundary_ids: tuple[int, ...] = (NEXT, FOUND, DONE, EOS)  # a closed expansion, the trace back, the path
    words = VOCAB
    token = TOKEN
    usual_tokens = 192

    def problems(self, distribution: str | Distribution, n: int, seed: int = 0) -> list[Problem]:
        """``n`` problems of a distribution; the same seed gives the same problems, whatever ``n`` is."""
        if isinstance(distribution, str):
            distribution = Distribution.parse(distribution)
        group, stream = str(distribution), distribution.queries(seed)
        return [self.problem(next(stream), f"{group}/{seed}/{i}", group) for i in range(n)]

    def problem(self, query: Query, id: str, group: str = "") -> Problem:
        """One query as a problem."""
        ids = prompt_ids(query)
        return Problem(id, self.name, decode(ids), tuple(ids), answer(gold(query)), group)

    def encode(self, text: str) -> list[int]:
        return encode(text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return pieces(ids)

    def answer(self, ids: Sequence[int] | np.ndarray) -> str | None:
        return answer([int(i) for i in ids])

    def grade(self, problem: Problem, answer: str | None) -> bool:
        return grade(parse_prompt(problem.prompt_ids), answer)

    def check(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Check:
        return check(parse_prompt(problem.prompt_ids), [int(i) for i in ids])
