"""What is for testing. Graphs: a split by isomorphism class, so that no test graph was trained on under other names.

A hash that does not depend on names or on the order of edges decides. Isomorphic graphs have the same hash, so they are
on the same side, always. (Graphs that are not isomorphic may share a hash as well; that costs nothing but a little
variety.) Source and target play no part: a test graph was not trained on with another question either.

Countdown's puzzles are split by target and numbers, whatever the order of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wrongturn.tasks.countdown import Puzzle
from wrongturn.tasks.graph_text import LABELS, Query

SHARE = 8
"""One class, or puzzle, in so many is for testing."""

Hashes = npt.NDArray[np.uint64]


def shape_hash(adjacency: npt.NDArray[np.bool_], rounds: int = 3) -> Hashes:
    """[B] hashes of directed graphs [B, n, n] (row: from), the same for isomorphic graphs, whatever n pads them to.

    Colour refinement in both directions: a node's colour is hashed from its own and the sums of its successors' and
    predecessors'. Nodes without an edge are not seen in a prompt and count nothing.
    """
    forth = adjacency.astype(np.float64)
    back = forth.transpose(0, 2, 1)
    degrees = forth.sum(2) * 64 + back.sum(2)
    colour = _mix(degrees.astype(np.uint64))
    for _ in range(rounds):
        # sums of up to 64 numbers below 2**47 are exact in float64
        small = (colour >> np.uint64(17)).astype(np.float64)[..., None]
        ahead, behind = (np.matmul(a, small)[..., 0].astype(np.uint64) for a in (forth, back))
        colour = _mix(colour + _mix(ahead) + _mix(_mix(behind)))
    return _mix(np.where(degrees > 0, colour, np.uint64(0)).sum(1, dtype=np.uint64))


def _mix(x: Hashes) -> Hashes:
    """A bijection of 64 bits that spreads every bit over all of them (splitmix64; Steele, Lea & Flood, 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def adjacency_of(queries: Sequence[Query]) -> npt.NDArray[np.bool_]:
    """[B, LABELS, LABELS] bool: True where an edge leads from row to column."""
    found = np.zeros((len(queries), LABELS, LABELS), bool)
    for matrix, query in zip(found, queries, strict=True):
        edges = np.array(query.edges)
        matrix[edges[:, 0], edges[:, 1]] = True
    return found


def is_test(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Which of the hashes belong to the test side."""
    return hashes % np.uint64(SHARE) == 0


def held_out(queries: Sequence[Query]) -> npt.NDArray[np.bool_]:
    """[B] bool: which queries are for testing; training draws none of them."""
    return is_test(shape_hash(adjacency_of(queries)))


def held_out_puzzles(puzzles: Sequence[Puzzle]) -> npt.NDArray[np.bool_]:
    """[B] bool: which puzzles (of up to 7 numbers, which are below 256) are for testing; training draws none."""
    codes = [int.from_bytes(bytes(p.same)) for p in puzzles]
    return is_test(_mix(np.array(codes, np.uint64)))
