"""Graphs drawn many at once: distributed as the task's, with long paths too, and the same for the same seed."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from wrongturn.lab import draw
from wrongturn.tasks import graphs as gs


def test_every_sequence_of_edges_is_as_likely() -> None:
    """Three of the six pairs of three nodes: 120 sequences, chi-square within 4.5 deviations; the table agrees."""
    rows = 60_000
    cells, table = draw._edges(np.random.default_rng(0), 3, 3, rows)
    assert (np.take_along_axis(table.reshape(rows, -1), cells, 1) == np.arange(3)).all()
    assert ((table != draw.NONE).sum((1, 2)) == 3).all()
    drawn, counts = np.unique(cells, axis=0, return_counts=True)
    pairs = [u * draw.WIDE + v for u, v in permutations(range(3), 2)]
    assert sorted(map(tuple, drawn.tolist())) == sorted(permutations(pairs, 3))
    expected = rows / 120
    assert abs(((counts - expected) ** 2 / expected).sum() - 119) < 4.5 * np.sqrt(2 * 119)


def test_choices_are_as_likely_and_allowed() -> None:
    allowed = np.repeat([[True], [False], [True], [True]], 30_000, axis=1)
    counts = np.bincount(draw._choose(np.random.default_rng(0), allowed), minlength=4)
    assert counts[1] == 0
    assert abs(counts[[0, 2, 3]] - 10_000).max() < 4.5 * np.sqrt(30_000 * 2 / 9)


@pytest.mark.parametrize("name", ["G5_2,3", "G15_5,6", "G20_5,6"])
def test_graphs_with_long_paths_are_those_of_the_task(name: str) -> None:
    """Means of what a search sees against the plain generator, within 4.5 errors; every target is as far as asked."""
    d, rng, n = gs.Distribution.parse(name), np.random.default_rng(0), 1200
    lengths = rng.integers(d.hops[0], d.hops[1], n, endpoint=True)
    ours = [gs.parse_prompt(ids.tolist()) for ids in draw.graphs(rng, d.nodes, n, lengths).prompts()]
    assert [gs.distances(q.neighbours(), q.source)[q.target] for q in ours] == lengths.tolist()
    stream = d.queries(0)
    plain = [next(stream) for _ in range(n)]
    for measure in (
        lambda q: len(q.edges),
        lambda q: len(q.neighbours()),
        lambda q: len(gs.distances(q.neighbours(), q.source)),
        lambda q: len(q.neighbours()[q.source]),
        lambda q: sum(q.target == v for _, v in q.edges),
        lambda q: len(gs.gold(q)),
        lambda q: q.source,
        lambda q: q.target,
        lambda q: next(i for i, edge in enumerate(q.edges) if q.source in edge) / len(q.edges),
    ):
        a, b = ([measure(q) for q in qs] for qs in (ours, plain))
        assert abs(np.mean(a) - np.mean(b)) < 4.5 * np.sqrt(np.var(a) / n + np.var(b) / n)


@pytest.mark.parametrize("nodes", [2, 3, 4, gs.LABELS])
def test_sizes(nodes: int) -> None:
    """The smallest graphs, which have nearly every pair, and the largest; edges are distinct and the seed decides."""
    drawn, again = (draw.graphs(np.random.default_rng(1), nodes, 50) for _ in range(2))
    for edges, count in zip(drawn.edges.tolist(), drawn.count.tolist(), strict=True):
        assert len({(u, v) for u, v in edges[:count] if u != v}) == count
    assert all(np.array_equal(getattr(drawn, f), getattr(again, f)) for f in ("edges", "count", "source", "target"))
