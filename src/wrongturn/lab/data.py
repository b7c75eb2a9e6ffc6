"""Training examples for graph search: full searches, and two drills that teach its parts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

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


Example = tuple[list[int], list[float]]  # ids, and the loss weight of each id as a target


def listing_drill(rng: random.Random, nodes: int) -> tuple[list[int], list[int], list[int]]:
    """Prompt without a query, adjacency of all nodes in random order: (prompt, trace, positions that carry no loss)."""
    query = gs.Query(gs.random_edges(rng, nodes), 0, 0)
    adjacent = query.neighbours()
    order = rng.sample(sorted(adjacent), len(adjacent))
    prompt = gs.prompt_ids(query)[:-3]
    trace, free = [gs.OPEN], []
    for node in order:
        free.append(len(trace))
        trace += gs.listing(node, adjacent[node])
    return prompt, trace, free


def traversal_drill(rng: random.Random, nodes: int) -> tuple[list[int], list[int], list[int]]:
    """Prompt with a source and no target: expand everything reachable, then trace back from the node found last.

    Teaches the queue and the trace back beyond the path lengths of the searches, which name their target.
    """
    edges = gs.random_edges(rng, nodes)
    source = rng.choice(sorted({node for edge in edges for node in edge}))
    adjacent = gs.Query(edges, source, source).neighbours()
    last = list(gs.distances(adjacent, source))[-1]  # a dict in order of discovery
    query = gs.Query(edges, source, last)
    prompt = gs.prompt_ids(query)[:-2]
    trace = [gs.OPEN]
    for node in gs.distances(adjacent, source):
        trace += gs.listing(node, adjacent[node])
    trace[-1] = gs.FOUND
    return prompt, trace + gs.trace_back(query), []


def search(rng: random.Random, nodes: int, hops: tuple[int, int]) -> tuple[list[int], list[int], list[int]]:
    """A query and its gold trace."""
    query = gs.random_query(rng, nodes, hops)
    return gs.prompt_ids(query), gs.gold(query), []


def examples(recipe: Recipe, rng: random.Random, p: float) -> Iterator[Example]:
    """Endless examples at progress ``p``."""
    fade = max(0.0, 1 - p / recipe.drill_until)
    listing = recipe.listing_end + (recipe.listing - recipe.listing_end) * fade
    traversal = recipe.traversal_end + (recipe.traversal - recipe.traversal_end) * fade
    grown = min(1.0, p / recipe.growth) if recipe.growth > 0 else 1.0
    while True:
        small = rng.randint(*recipe.start_nodes)
        nodes = round(small + (recipe.nodes - small) * grown)
        kind = rng.random()
        if kind < listing:
            prompt, trace, free = listing_drill(rng, nodes)
        elif kind < listing + traversal:
            prompt, trace, free = traversal_drill(rng, nodes)
        else:
            low, high = recipe.hops
            prompt, trace, free = search(rng, nodes, (min(low, 2), min(high, max(2, nodes - 3))))
        weight = [0.0] * len(prompt) + [
            recipe.label_weight if gs.FIRST_LABEL <= t < gs.FIRST_LABEL + gs.LABELS else 1.0 for t in trace
        ]
        for i in free:
            weight[len(prompt) + i] = 0.0
        yield prompt + trace, weight


def batches(recipe: Recipe, seed: int, number: int, progress: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rest of a group of ``GROUP`` batches from number ``number`` on: ids [B, T] padded right, weights [B, T].

    A group is drawn together and sorted by length, which wastes little on padding. It depends on (seed, its number,
    ``progress``) alone, so a resumed training sees what an uninterrupted one would have seen.
    """
    group, within = divmod(number, GROUP)
    rng = random.Random(f"{seed}/{group}")
    pool = list(islice(examples(recipe, rng, progress), GROUP * recipe.batch))
    pool.sort(key=lambda example: len(example[0]))
    for k in rng.sample(range(GROUP), GROUP)[within:]:
        rows = pool[k * recipe.batch : (k + 1) * recipe.batch]
        longest = -(-max(len(ids) for ids, _ in rows) // 8) * 8
        ids = np.full((recipe.batch, longest), gs.PAD, np.int64)
        weights = np.zeros((recipe.batch, longest), np.float32)
        for r, (row, weight) in enumerate(rows):
            ids[r, : len(row)] = row
            weights[r, : len(row)] = weight
        yield ids, weights
