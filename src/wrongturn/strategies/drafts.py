"""A trace while a strategy writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from wrongturn.divergence import Divergence
from wrongturn.engines.base import Chunk
from wrongturn.signals import Signals
from wrongturn.trace import Ids


@dataclass(slots=True, eq=False)
class Draft:
    """A trace being written: the completion so far (one :class:`Chunk`), and how it came about.

    ``given`` is True at tokens that were not decoded here (injected, or resumed from); ``seed`` draws what is.
    ``source`` is the trace that a recalled draft is, ``divergence`` what :meth:`Context.score` made of it.
    """

    number: int
    seed: int
    read: Callable[[Ids], str | None] = field(repr=False)
    chunk: Chunk = field(repr=False)
    given: np.ndarray = field(default_factory=lambda: np.zeros(0, bool), repr=False)
    finish: str | None = None
    parent: Draft | None = field(default=None, repr=False)
    at: int = 0
    reason: str = ""
    pending: Signals | None = field(default=None, repr=False)
    source: str = ""
    divergence: Divergence | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.chunk.ids)

    @property
    def ids(self) -> Ids:
        """Completion token ids."""
        return self.chunk.ids

    @property
    def signals(self) -> Signals:
        """One entry per completion token; NaN where injected."""
        return self.chunk.signals

    @property
    def answer(self) -> str | None:
        """The final answer, None where the draft has none (yet)."""
        return self.read(self.ids)

    @property
    def ended(self) -> bool:
        """True where nothing more can be decoded."""
        return self.finish in ("stop", "length", "budget")

    @property
    def branch(self) -> Signals:
        """Signals of what was written since the fork."""
        return self.signals[self.at :]


def blank_chunk(ids: Iterable[int], top_k: int) -> Chunk:
    """Tokens without signals: what a strategy writes itself."""
    tokens = np.asarray(tuple(ids), np.int32)
    shape = (len(tokens), top_k)
    return Chunk(tokens, Signals.empty(len(tokens)), np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32))


def in_common(a: Ids, b: Ids) -> int:
    """How many tokens two sequences begin with in common."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def mix_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable, the same on every machine and in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
