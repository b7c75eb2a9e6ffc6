"""How graph search is written: the vocabulary, prompts and traces as text and as token ids.

Format: "Learning to search" (H. N. Nguyen, 2025).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wrongturn.tasks.base import BOS, EOS, SPECIAL, read

LABELS = 20  # node names 0..19; a graph of n nodes uses a random subset, so every name is trained
FIRST_LABEL = len(SPECIAL)
SYMBOLS = (",", "|", "/", "<", ",(", "),", ")-", ">")
VOCAB: tuple[str, ...] = (*SPECIAL, *map(str, range(LABELS)), *SYMBOLS)
COMMA, BAR, SLASH, OPEN, LIST, NEXT, FOUND, DONE = range(FIRST_LABEL + LABELS, len(VOCAB))
_ID = {token: i for i, token in enumerate(VOCAB)}
TOKEN = re.compile(r"\d+|\),|\)-|,\(|[,|/<>]")

Edge = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Query:
    """A graph and what is asked of it: the path from ``source`` to ``target`` (labels, edges in prompt order)."""

    edges: tuple[Edge, ...]
    source: int
    target: int

    def neighbours(self) -> dict[int, list[int]]:
        """Out-neighbours of every node, ascending."""
        out: dict[int, list[int]] = {}
        for u, v in dict.fromkeys(self.edges):  # named twice, an edge is one
            out.setdefault(u, []).append(v)
            out.setdefault(v, [])
        for adjacent in out.values():
            adjacent.sort()
        return out


# -- text and tokens ---------------------------------------------------------------------------------------------------


def encode(text: str) -> list[int]:
    """Token ids of a prompt or trace (spaces ignored). Raises ``ValueError`` naming the first foreign character."""
    return read(text, TOKEN, _ID, "graph-search")


def decode(ids: Iterable[int]) -> str:
    """Text of token ids; padding, begin and end tokens are left out."""
    return "".join(VOCAB[i] for i in ids if i > EOS)


def pieces(ids: Iterable[int]) -> list[str]:
    """The text of each token on its own (begin, end and padding are empty)."""
    return [VOCAB[i] if i > EOS else "" for i in ids]


def prompt_ids(query: Query) -> list[int]:
    """``<bos>`` edges ``/`` source ``,`` target."""
    ids = [BOS]
    for u, v in query.edges:
        ids += (u + FIRST_LABEL, COMMA, v + FIRST_LABEL, BAR)
    ids[-1] = SLASH
    return [*ids, query.source + FIRST_LABEL, COMMA, query.target + FIRST_LABEL]


def parse_prompt(ids: Sequence[int]) -> Query:
    """The query a prompt states. Raises ``ValueError`` where it is not of the form ``u,v|...|u,v/s,t``."""
    text = decode(ids)
    if not re.fullmatch(r"\d+,\d+(\|\d+,\d+)*/\d+,\d+", text):
        raise ValueError(f"not a graph-search prompt: {text[:40]!r} (expected 'u,v|u,v|.../source,target')")
    edges, query = text.split("/")
    pairs = [tuple(map(int, edge.split(","))) for edge in edges.split("|")]
    source, target = map(int, query.split(","))
    return Query(tuple((u, v) for u, v in pairs), source, target)
