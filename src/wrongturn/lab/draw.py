"""Training graphs by the thousand: drawn, measured and checked against the split with NumPy, many at once.

The same distributions as :func:`wrongturn.tasks.graphs.random_query` and :func:`~wrongturn.tasks.graphs.random_edges`
(tested against them), less the classes held out for testing, and several times as fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wrongturn.lab.split import is_test, shape_hash
from wrongturn.tasks.graph_text import BAR, BOS, COMMA, FIRST_LABEL, LABELS, SLASH

Ints = npt.NDArray[np.intp]
Adjacent = tuple[list[int], list[int]]

DENSITY = (1.3, 1.8)
"""Edges a node; m ~ U[1.3 n, 1.8 n]."""


@dataclass(slots=True)
class Graphs:
    """B random graphs on n nodes, none of a test class.

    ``edges`` [B, M, 2] are labels in prompt order, of which a row has the first ``count`` [B]. ``source`` and
    ``target`` [B] are labels: of a random node that has an edge, and of one at the distance asked for (or the same).
    """

    edges: Ints
    count: Ints
    source: Ints
    target: Ints

    def __len__(self) -> int:
        return len(self.edges)

    def prompts(self, ends: int = 2) -> list[npt.NDArray[np.int64]]:
        """Token ids: ``<bos>`` edges ``/`` and as many ``ends`` of the question: source, target."""
        b, m, _ = self.edges.shape
        ids = np.full((b, 4 * m + 4), BOS, np.int64)
        inner = ids[:, 1 : 4 * m + 1].reshape(b, m, 4)
        inner[..., ::2] = self.edges + FIRST_LABEL
        inner[..., 1::2] = COMMA, BAR
        question = SLASH, self.source + FIRST_LABEL, COMMA, self.target + FIRST_LABEL
        for k, token in enumerate(question):
            ids[np.arange(b), 4 * self.count + k] = token
        stops = (4 * self.count + (1, 2, 4)[ends]).tolist()
        return [row[:stop] for row, stop in zip(ids, stops, strict=True)]

    def adjacent(self, order: str = "ascending") -> list[Adjacent]:
        """Where edges end, by start; those from u are ``ends[begin[u]:begin[u + 1]]``, ``order`` as in a recipe."""
        starts, ends = self.edges[..., 0], self.edges[..., 1]
        places = np.arange(starts.shape[1])
        used = places < self.count[:, None]
        rank = ends if order == "ascending" else places
        codes = np.sort(np.where(used, (starts * 64 + rank) * 64 + ends, 1 << 20), axis=1) & 63
        rows = np.arange(len(self))[:, None] * (LABELS + 1)
        degrees = np.bincount((rows + starts + 1)[used], minlength=len(self) * (LABELS + 1))
        begin = degrees.reshape(-1, LABELS + 1).cumsum(1)
        return list(zip(codes.tolist(), begin.tolist(), strict=True))


def graphs(rng: np.random.Generator, nodes: int, number: int, lengths: Ints | None = None) -> Graphs:
    """``number`` > 0 graphs; with ``lengths`` [number], each with a target whose shortest path has so many edges.

    Every graph is drawn until it fits, as if the others were not there: a length is as likely as it was asked for.
    Raises ``ValueError`` where graphs of so many nodes do not seem to have such paths.
    """
    parts: list[tuple[Ints, Graphs]] = []
    waiting = np.arange(number)
    for _ in range(300):
        if not len(waiting):
            break
        tries = np.tile(waiting, -(-max(128, min(1024, 2 * len(waiting))) // len(waiting)))
        places, drawn = _draw(rng, nodes, tries, None if lengths is None else lengths[tries])
        _, first = np.unique(places, return_index=True)  # of several that fit one place, the first
        parts.append((places[first], _rows(drawn, first)))
        waiting = np.setdiff1d(waiting, places, assume_unique=False)
    if len(waiting):
        length = "" if lengths is None else f" with shortest paths of {lengths[waiting[0]]} edges"
        raise ValueError(f"graphs of {nodes} nodes{length} are too rare to draw")
    order = np.argsort(np.concatenate([places for places, _ in parts]))
    fields = (np.concatenate([getattr(p, f) for _, p in parts])[order] for f in ("edges", "count", "source", "target"))
    return Graphs(*fields)


def _rows(drawn: Graphs, rows: Ints | npt.NDArray[np.bool_]) -> Graphs:
    return Graphs(drawn.edges[rows], drawn.count[rows], drawn.source[rows], drawn.target[rows])


def _draw(rng: np.random.Generator, nodes: int, places: Ints, lengths: Ints | None) -> tuple[Ints, Graphs]:
    """One graph for each of ``places``: those that fit, and where they belong."""
    b, pairs = len(places), nodes * (nodes - 1)
    low, high = (min(round(d * nodes), pairs) for d in DENSITY)
    keys = rng.random((b, pairs), np.float32)
    chosen = np.argpartition(keys, high - 1, axis=1)[:, :high] if high < pairs else np.tile(np.arange(pairs), (b, 1))
    order = np.take_along_axis(keys, chosen, 1).argsort(1)
    u, v = np.divmod(np.take_along_axis(chosen, order, 1), nodes - 1)
    v += v >= u
    count = rng.integers(low, high, b, endpoint=True)
    rows, columns = np.nonzero(np.arange(high) < count[:, None])
    adjacency = np.zeros((b, nodes, nodes), bool)
    adjacency[rows, u[rows, columns], v[rows, columns]] = True
    fits = np.ones(b, bool)
    source = target = _choose(rng, np.logical_or(adjacency.any(1), adjacency.any(2)))
    if lengths is not None:
        there = at_distance(adjacency, source, lengths)
        fits = there.any(1)
        target = _choose(rng, there)
    kept = np.flatnonzero(fits)
    kept = kept[~is_test(shape_hash(adjacency[kept]))]
    names = rng.random((len(kept), LABELS), np.float32).argsort(1)[:, :nodes]
    edges = np.take_along_axis(names, np.stack((u, v), -1)[kept].reshape(len(kept), 2 * high), 1).reshape(
        len(kept), high, 2
    )
    ends = (np.take_along_axis(names, of[kept, None], 1)[:, 0] for of in (source, target))
    return places[kept], Graphs(edges, count[kept], *ends)


def at_distance(adjacency: npt.NDArray[np.bool_], source: Ints, lengths: Ints) -> npt.NDArray[np.bool_]:
    """[B, n] bool: the nodes whose shortest path from the source [B] has ``lengths`` [B] edges."""
    nodes = adjacency.shape[1]
    bit = np.int64(1) << np.arange(nodes, dtype=np.int64)
    reach = np.matmul(adjacency.astype(np.float64), bit.astype(np.float64)).astype(np.int64)  # successors as bits
    front = bit[source]
    seen, found = front.copy(), np.zeros_like(front)
    for length in range(1, int(lengths.max()) + 1):
        front = np.bitwise_or.reduce(np.where(front[:, None] & bit, reach, 0), axis=1) & ~seen
        seen |= front
        found = np.where(lengths == length, front, found)
    return (found[:, None] & bit) != 0


def _choose(rng: np.random.Generator, allowed: npt.NDArray[np.bool_]) -> Ints:
    """One True column of each row [B, n], all as likely (any, where there is none)."""
    return np.where(allowed, rng.random(allowed.shape, np.float32), -1.0).argmax(1)
