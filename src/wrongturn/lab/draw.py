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
Bits = npt.NDArray[np.uint32]
Adjacent = tuple[list[int], list[int]]

DENSITY = (1.3, 1.8)
"""Edges a node; m ~ U[1.3 n, 1.8 n]."""

WIDE, NONE = 32, 255
"""Columns of a table of pairs (as many as a word has bits), and what stands where there is no edge."""


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
    low, high = (min(round(d * nodes), nodes * (nodes - 1)) for d in DENSITY)
    cells, table = _edges(rng, nodes, high, len(places))
    count = rng.integers(low, high, len(places), np.uint8, endpoint=True)
    adjacency = table < count[:, None, None]
    reach = np.packbits(adjacency, axis=2, bitorder="little").view("<u4")[..., 0].T.copy()  # [n, B] successors as bits
    bit = np.uint32(1) << np.arange(nodes, dtype=np.uint32)[:, None]
    linked = (reach | (np.bitwise_or.reduce(reach, axis=0) & bit)) != 0
    source = _choose(rng, linked)
    there = None if lengths is None else at_distance(reach, source, lengths)
    kept = np.arange(len(places)) if there is None else np.flatnonzero(there)
    kept = kept[~is_test(shape_hash(adjacency[kept, :, :nodes]))]
    ends = (source[kept], source[kept] if there is None else _choose(rng, (there[kept] & bit) != 0))
    names = rng.random((len(kept), LABELS), np.float32).argsort(1)
    rows = np.arange(len(kept))
    edges = names[rows[:, None, None], np.stack(np.divmod(cells[kept], WIDE), -1)]
    return places[kept], Graphs(edges, count[kept].astype(np.intp), *(names[rows, of] for of in ends))


def _edges(rng: np.random.Generator, nodes: int, number: int, rows: int) -> tuple[Ints, npt.NDArray[np.uint8]]:
    """``number`` distinct pairs of nodes (u, v) in random order, for each row.

    As cells ``u * WIDE + v`` [rows, number], and as a table of their numbers [rows, nodes, WIDE] (else ``NONE``).
    All are drawn at once; of those that collide the last stays and the others are drawn again until they are free. Who
    stays does not depend on which pair it is, so every sequence of distinct pairs is as likely.
    """
    u, v = np.divmod(np.arange(nodes * (nodes - 1)), nodes - 1)
    pairs = u * WIDE + v + (v >= u)
    table = np.full(rows * nodes * WIDE, NONE, np.uint8)
    begin = np.arange(0, len(table), nodes * WIDE)[:, None]
    numbers = np.arange(number, dtype=np.uint8)
    cells = begin + pairs[rng.integers(0, len(pairs), (rows, number), np.uint16)]
    table[cells] = numbers
    row, k = np.nonzero(table[cells] != numbers)
    while len(row):
        drawn = begin[row, 0] + pairs[rng.integers(0, len(pairs), len(row), np.uint16)]
        free = table[drawn] == NONE
        table[drawn[free]] = k[free]
        settled = table[drawn] == k
        cells[row[settled], k[settled]] = drawn[settled]
        row, k = row[~settled], k[~settled]
    return cells - begin, table.reshape(rows, nodes, WIDE)


def at_distance(reach: Bits, source: Ints, lengths: Ints) -> Bits:
    """[B] the nodes whose shortest path from the source [B] has ``lengths`` [B] edges, as bits.

    ``reach`` [n, B] has the successors of every node as bits.
    """
    shift = np.arange(len(reach), dtype=np.uint32)[:, None]
    front = np.uint32(1) << source.astype(np.uint32)
    seen, found = front.copy(), np.zeros_like(front)
    for length in range(1, int(lengths.max()) + 1):
        front = np.bitwise_or.reduce(reach * (front >> shift & 1), axis=0) & ~seen
        seen |= front
        found = np.where(lengths == length, front, found)
    return found


def _choose(rng: np.random.Generator, allowed: npt.NDArray[np.bool_]) -> Ints:
    """One True row of each column [n, B], all as likely (any, where there is none)."""
    before = allowed.cumsum(0, np.uint8)
    which = rng.integers(0, np.maximum(before[-1], 1))
    return (before <= which).sum(0)
