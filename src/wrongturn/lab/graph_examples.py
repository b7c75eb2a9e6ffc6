"""Training examples for graph search in every order: full searches, and two drills that teach its parts."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wrongturn.lab.data import Example, held, kept
from wrongturn.lab.draw import graphs
from wrongturn.lab.published import DISTRIBUTIONS
from wrongturn.lab.split import held_out
from wrongturn.lab.traces import WRITERS
from wrongturn.tasks import get
from wrongturn.tasks import graphs as gs
from wrongturn.trace import Problem

if TYPE_CHECKING:
    from wrongturn.lab.model import Reasoner

BFS, BEST = "graph_search", "graph_search_best"


@dataclass(frozen=True, slots=True)
class GraphRecipe:
    """What is trained on, as functions of progress p in [0, 1].

    Graphs grow from ``start_nodes`` to ``nodes`` during the first ``growth`` of training. Drills: *listing* writes the
    adjacency of every node in random order (the choice of node carries no loss); *traversal* is a search with no
    target, which visits everything reachable and traces back from the last. Both shares fall linearly to ``*_end`` at
    ``drill_until`` and stay there.

    ``task`` is the order of the search. ``order`` of the neighbours in a list: "ascending", which is the task's, or
    that of the "prompt", which no checker knows (for ablations of breadth-first search). Best-first's are shuffled.
    """

    task: str = BFS
    nodes: int = 15
    hops: tuple[int, int] = (2, 4)
    start_nodes: tuple[int, int] = (5, 8)
    growth: float = 0.12
    listing: float = 0.5
    listing_end: float = 0.02
    traversal: float = 0.2
    traversal_end: float = 0.15
    drill_until: float = 0.3
    label_weight: float = 3.0
    batch: int = 32
    order: str = "ascending"

    def __post_init__(self) -> None:
        if self.task not in WRITERS:
            raise ValueError(f"unknown graph search {self.task!r} (expected one of {', '.join(WRITERS)})")
        if self.order not in ("ascending", "prompt"):
            raise ValueError(f"unknown order of neighbours {self.order!r} (expected 'ascending' or 'prompt')")
        if self.order == "prompt" and self.task != BFS:
            raise ValueError(f"the order of the prompt is for {BFS}, not {self.task}")

    @classmethod
    def only(cls, distribution: str, task: str = BFS, batch: int = 32) -> GraphRecipe:
        """Searches of one distribution and nothing else. Raises ``ValueError`` for a malformed one."""
        d = gs.Distribution.parse(distribution)
        shares = dict.fromkeys(("growth", "listing", "listing_end", "traversal", "traversal_end"), 0.0)
        return cls(task=task, nodes=d.nodes, hops=d.hops, start_nodes=(d.nodes, d.nodes), batch=batch, **shares)

    @property
    def context(self) -> int:
        """The longest example of the largest graphs there are has 360 tokens."""
        return 384

    @property
    def distributions(self) -> tuple[str, ...]:
        return DISTRIBUTIONS

    @property
    def goal(self) -> str:
        return "G15_5,6"

    def longest(self) -> int:
        """No example has more tokens than this (prompt, every list, trace back, path)."""
        edges = round(1.8 * self.nodes)
        return 4 * edges + 4 + 3 * self.nodes + 2 * edges + 4 * self.nodes

    def shares(self, p: float) -> tuple[float, float]:
        """The share of listing and of traversal drills."""
        fade = max(0.0, 1 - p / self.drill_until)
        listing = self.listing_end + (self.listing - self.listing_end) * fade
        return listing, self.traversal_end + (self.traversal - self.traversal_end) * fade

    def weights(self) -> npt.NDArray[np.float32]:
        """[vocabulary]: labels weigh ``label_weight``."""
        weigh = np.ones(len(gs.VOCAB), np.float32)
        weigh[gs.FIRST_LABEL : gs.FIRST_LABEL + gs.LABELS] = self.label_weight
        return weigh

    def examples(self, rng: np.random.Generator, p: float, number: int) -> list[Example]:
        """``number`` examples at progress ``p``, in random order."""
        grown = min(1.0, p / self.growth) if self.growth > 0 else 1.0
        small = rng.integers(self.start_nodes[0], self.start_nodes[1], number, endpoint=True)
        sizes = np.rint(small + (self.nodes - small) * grown).astype(int)
        kinds = np.searchsorted(np.cumsum(self.shares(p)), rng.random(number), side="right")
        made: list[Example] = []
        for nodes in np.unique(sizes).tolist():
            listing, traversal, full = (int(((sizes == nodes) & (kinds == k)).sum()) for k in range(3))
            high = self.hops[1] if nodes == self.nodes else min(self.hops[1], max(2, nodes - 3))  # small: no long paths
            if listing:
                made += listing_drills(rng, nodes, listing, self.task, self.order)
            if traversal:
                made += traversal_drills(rng, nodes, traversal, self.task, self.order)
            if full:
                made += searches(rng, nodes, (min(self.hops[0], high), high), full, self.task, self.order)
        return [made[i] for i in rng.permutation(number).tolist()]

    def gold(self, query: gs.Query) -> list[int]:
        """The right trace of a query where it is unique; best-first, one of them."""
        by = None if self.order == "ascending" else itemgetter(0)  # sorting is stable
        starts, ends = zip(*sorted(query.edges, key=by), strict=True)
        begin = [bisect_left(starts, u) for u in range(gs.LABELS + 1)]
        return WRITERS[self.task]((list(ends), begin), query.source, query.target, random.Random(0))

    def fresh(self, distribution: str, n: int, seed: int) -> list[Problem]:
        """``n`` problems on graphs of test classes, which no training draws (see :mod:`wrongturn.lab.split`).

        Raises ``ValueError`` where graphs are so small that there are hardly any such classes.
        """
        d = gs.Distribution.parse(distribution)
        found = held(d.queries(seed), held_out, n, distribution)
        return [self._searches.problem(query, f"{d}/test{seed}/{i}", str(d)) for i, query in enumerate(found)]

    def practice(self, distribution: str, seed: int) -> Iterator[Problem]:
        """An endless stream of problems on graphs of the other classes."""
        d = gs.Distribution.parse(distribution)
        drawn = enumerate(kept(d.queries(seed), held_out))
        return (self._searches.problem(query, f"{d}/practice{seed}/{i}", str(d)) for i, query in drawn)

    @property
    def _searches(self) -> gs.GraphSearch:
        task = get(self.task)
        assert isinstance(task, gs.GraphSearch)
        return task

    def accuracy(self, model: Reasoner) -> dict[str, float]:
        """By teacher forcing where the trace is unique, on longer paths as well; else by decoding."""
        if self.task == BEST:
            from wrongturn.lab.decoding import decoded

            return decoded(model, self, "G15_2,4")
        from wrongturn.lab.forcing import exact_trace

        long = exact_trace(model, "G15_5,6", 128, gold=self.gold)["exact"]
        return exact_trace(model, "G15_2,4", gold=self.gold) | {"exact_long": long}


def searches(
    rng: np.random.Generator,
    nodes: int,
    hops: tuple[int, int],
    number: int,
    task: str = BFS,
    order: str = "ascending",
) -> list[Example]:
    """Queries and right traces; path lengths uniform in ``hops``."""
    lengths = rng.integers(hops[0], hops[1], number, endpoint=True)
    drawn, write, ties = graphs(rng, nodes, number, lengths), WRITERS[task], _ties(rng, task)
    ends = drawn.source.tolist(), drawn.target.tolist()
    return [
        Example(prompt, write(adjacent, source, target, ties))
        for prompt, adjacent, source, target in zip(drawn.prompts(), drawn.adjacent(order), *ends, strict=True)
    ]


def listing_drills(
    rng: np.random.Generator, nodes: int, number: int, task: str = BFS, order: str = "ascending"
) -> list[Example]:
    """Prompt without a question; the adjacency of all nodes in random order."""
    drawn, ties = graphs(rng, nodes, number), _ties(rng, task)
    made = []
    for prompt, adjacent in zip(drawn.prompts(0), drawn.adjacent(order), strict=True):
        trace, free = [gs.OPEN], []
        ends, begin = adjacent
        nodes_there = [u for u in range(gs.LABELS) if begin[u] < begin[u + 1] or u in ends[: begin[-1]]]
        for node in rng.permutation(nodes_there).tolist():
            free.append(len(trace))
            around = ends[begin[node] : begin[node + 1]]
            if task == BEST:
                ties.shuffle(around)
            trace += gs.listing(node, around)
        made.append(Example(prompt, trace, tuple(free)))
    return made


def traversal_drills(
    rng: np.random.Generator, nodes: int, number: int, task: str = BFS, order: str = "ascending"
) -> list[Example]:
    """Prompt with a source and no target: expand everything reachable, then trace back from the last node.

    Teaches the order and the trace back beyond the path lengths of the searches, which name their target.
    """
    drawn, write, ties = graphs(rng, nodes, number), WRITERS[task], _ties(rng, task)
    sources = drawn.source.tolist()
    return [
        Example(prompt, write(adjacent, source, None, ties))
        for prompt, adjacent, source in zip(drawn.prompts(1), drawn.adjacent(order), sources, strict=True)
    ]


def _ties(rng: np.random.Generator, task: str) -> random.Random:
    """What breaks free ties; a unique trace takes nothing from ``rng`` for it."""
    return random.Random(int(rng.integers(1 << 62)) if task == BEST else 0)
