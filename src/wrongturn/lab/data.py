"""Training examples for graph search: full searches, and two drills that teach its parts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from wrongturn.lab.draw import Adjacent, graphs
from wrongturn.tasks import graphs as gs

GROUP = 16
"""Batches drawn together."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained on, as functions of progress p in [0, 1].

    Graphs grow from ``start_nodes`` to ``nodes`` during the first ``growth`` of training. Drills: *listing* writes the
    adjacency of every node in random order (the choice of node carries no loss); *traversal* is a search with no
    target, which visits everything reachable and traces back from the last. Both shares fall linearly to ``*_end`` at
    ``drill_until`` and stay there.

    ``order`` of the neighbours in a list: "ascending", which is the task's, or that of the "prompt", which no checker
    knows (for ablations).
    """

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
        if self.order not in ("ascending", "prompt"):
            raise ValueError(f"unknown order of neighbours {self.order!r} (expected 'ascending' or 'prompt')")

    @classmethod
    def only(cls, distribution: str, batch: int = 32) -> Recipe:
        """Searches of one distribution and nothing else. Raises ``ValueError`` for a malformed one."""
        d = gs.Distribution.parse(distribution)
        shares = dict.fromkeys(("growth", "listing", "listing_end", "traversal", "traversal_end"), 0.0)
        return cls(nodes=d.nodes, hops=d.hops, start_nodes=(d.nodes, d.nodes), batch=batch, **shares)

    def longest(self) -> int:
        """No example has more tokens than this (prompt, every list, trace back, path)."""
        edges = round(1.8 * self.nodes)
        return 4 * edges + 4 + 3 * self.nodes + 2 * edges + 4 * self.nodes

    def shares(self, p: float) -> tuple[float, float]:
        """The share of listing and of traversal drills."""
        fade = max(0.0, 1 - p / self.drill_until)
        listing = self.listing_end + (self.listing - self.listing_end) * fade
        return listing, self.traversal_end + (self.traversal - self.traversal_end) * fade


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids. The loss is on the trace, except at ``free`` places of it."""

    prompt: npt.NDArray[np.int64]
    trace: list[int]
    free: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt) + len(self.trace)


def searches(
    rng: np.random.Generator, nodes: int, hops: tuple[int, int], number: int, order: str = "ascending"
) -> list[Example]:
    """Queries and their gold traces; path lengths uniform in ``hops``."""
    drawn = graphs(rng, nodes, number, rng.integers(hops[0], hops[1], number, endpoint=True))
    ends = drawn.source.tolist(), drawn.target.tolist()
    return [
        Example(prompt, search(adjacent, source, target))
        for prompt, adjacent, source, target in zip(drawn.prompts(), drawn.adjacent(order), *ends, strict=True)
    ]


def listing_drills(rng: np.random.Generator, nodes: int, number: int, order: str = "ascending") -> list[Example]:
    """Prompt without a question; the adjacency of all nodes in random order."""
    drawn = graphs(rng, nodes, number)
    made = []
    for prompt, adjacent in zip(drawn.prompts(0), drawn.adjacent(order), strict=True):
        trace, free = [gs.OPEN], []
        ends, begin = adjacent
        nodes_there = [u for u in range(gs.LABELS) if begin[u] < begin[u + 1] or u in ends[: begin[-1]]]
        for node in rng.permutation(nodes_there).tolist():
            free.append(len(trace))
            trace += gs.listing(node, ends[begin[node] : begin[node + 1]])
        made.append(Example(prompt, trace, tuple(free)))
    return made


def traversal_drills(rng: np.random.Generator, nodes: int, number: int, order: str = "ascending") -> list[Example]:
    """Prompt with a source and no target: expand everything reachable, then trace back from the node found last.

    Teaches the queue and the trace back beyond the path lengths of the searches, which name their target.
    """
    drawn = graphs(rng, nodes, number)
    sources = drawn.source.tolist()
    return [
        Example(prompt, search(adjacent, source, None))
        for prompt, adjacent, source in zip(drawn.prompts(1), drawn.adjacent(order), sources, strict=True)
    ]


def search(adjacent: Adjacent, source: int, target: int | None) -> list[int]:
    """The gold trace (as :func:`wrongturn.tasks.graphs.gold`) in one pass; without a target, that of a traversal."""
    ends, begin = adjacent
    trace, parent, queue = [gs.OPEN], {source: -1}, [source]
    for u in queue:  # which grows
        around = ends[begin[u] : begin[u + 1]]
        trace += (u + gs.FIRST_LABEL, gs.LIST)
        for v in around:
            trace += (v + gs.FIRST_LABEL, gs.COMMA)
            if v not in parent:
                parent[v] = u
                queue.append(v)
        if around:
            trace[-1] = gs.NEXT
        else:
            trace.append(gs.NEXT)
        if target in around:
            break
    trace[-1] = gs.FOUND
    node, back = queue[-1] if target is None else target, []
    while node >= 0:
        back += (node + gs.FIRST_LABEL, gs.COMMA)
        node = parent[node]
    back.pop()
    return [*trace, *back, gs.DONE, *back[::-1], gs.EOS]


def gold(query: gs.Query, order: str = "ascending") -> list[int]:
    """The gold trace of a query whose lists have this order (ascending: :func:`wrongturn.tasks.graphs.gold`)."""
    edges = sorted(query.edges) if order == "ascending" else sorted(query.edges, key=itemgetter(0))  # which is stable
    starts, ends = zip(*edges, strict=True)
    begin = [bisect_left(starts, u) for u in range(gs.LABELS + 1)]
    return search((list(ends), begin), query.source, query.target)


def examples(recipe: Recipe, rng: np.random.Generator, p: float, number: int) -> list[Example]:
    """``number`` examples at progress ``p``, in random order."""
    grown = min(1.0, p / recipe.growth) if recipe.growth > 0 else 1.0
    small = rng.integers(recipe.start_nodes[0], recipe.start_nodes[1], number, endpoint=True)
    sizes = np.rint(small + (recipe.nodes - small) * grown).astype(int)
    kinds = np.searchsorted(np.cumsum(recipe.shares(p)), rng.random(number), side="right")
    made: list[Example] = []
    for nodes in np.unique(sizes).tolist():
        listing, traversal, full = (int(((sizes == nodes) & (kinds == k)).sum()) for k in range(3))
        high = min(recipe.hops[1], max(2, nodes - 3))  # a small graph has no long paths
        if listing:
            made += listing_drills(rng, nodes, listing, recipe.order)
        if traversal:
            made += traversal_drills(rng, nodes, traversal, recipe.order)
        if full:
            made += searches(rng, nodes, (min(recipe.hops[0], high), high), full, recipe.order)
    return [made[i] for i in rng.permutation(number).tolist()]


def batches(recipe: Recipe, seed: int, number: int, progress: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rest of a group of ``GROUP`` batches from number ``number`` on: ids [B, T] padded right, weights [B, T].

    A group is drawn together and sorted by length, which wastes little on padding. It depends on (seed, its number,
    ``progress``) alone, so a resumed training sees what an uninterrupted one would have seen.
    """
    group, within = divmod(number, GROUP)
    rng = np.random.default_rng([seed, group])
    pool = examples(recipe, rng, progress, GROUP * recipe.batch)
    pool.sort(key=len)
    weigh = np.ones(len(gs.VOCAB), np.float32)
    weigh[gs.FIRST_LABEL : gs.FIRST_LABEL + gs.LABELS] = recipe.label_weight
    for k in rng.permutation(GROUP)[within:].tolist():
        rows = pool[k * recipe.batch : (k + 1) * recipe.batch]
        longest = -(-len(rows[-1]) // 8) * 8
        ids = np.full((recipe.batch, longest), gs.PAD, np.int64)
        carries = np.zeros((recipe.batch, longest), bool)
        for r, example in enumerate(rows):
            start = len(example.prompt)
            ids[r, :start] = example.prompt
            ids[r, start : len(example)] = example.trace
            carries[r, start : len(example)] = True
            carries[r, [start + i for i in example.free]] = False
        yield ids, np.where(carries, weigh[ids], np.float32(0))
