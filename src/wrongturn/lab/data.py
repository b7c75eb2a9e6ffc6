"""What a training is fed: a recipe makes examples, and batches are made of those."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from wrongturn.lab.split import SHARE
from wrongturn.tasks.base import PAD
from wrongturn.trace import Problem

if TYPE_CHECKING:
    from wrongturn.lab.model import Reasoner

GROUP = 16
"""Batches drawn together."""

Q = TypeVar("Q")
HeldOut = Callable[[Sequence[Q]], npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids. The loss is on the trace, except at ``free`` places of it."""

    prompt: npt.NDArray[np.int64]
    trace: list[int]
    free: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt) + len(self.trace)


class Recipe(Protocol):
    """What a training of a task is of, and how what it makes is measured: a dataclass that JSON can hold."""

    @property
    def task(self) -> str: ...

    @property
    def batch(self) -> int: ...

    @property
    def context(self) -> int:
        """Tokens that a model of the task should have room for."""
        ...

    @property
    def distributions(self) -> tuple[str, ...]:
        """What such a model is evaluated on, the one it was at home in first."""
        ...

    @property
    def goal(self) -> str:
        """The distribution that a further training is for unless another is asked for."""
        ...

    def longest(self) -> int:
        """No example has more tokens than this."""
        ...

    def weights(self) -> npt.NDArray[np.float32]:
        """[vocabulary]: what the loss of each token weighs."""
        ...

    def examples(self, rng: np.random.Generator, p: float, number: int) -> list[Example]:
        """``number`` examples at progress ``p`` in [0, 1], in random order; none is of what is held out for testing."""
        ...

    def fresh(self, distribution: str, n: int, seed: int) -> list[Problem]:
        """``n`` problems held out for testing. Raises ``ValueError`` for a malformed or too small distribution."""
        ...

    def practice(self, distribution: str, seed: int) -> Iterator[Problem]:
        """An endless stream of problems, none of them held out. Raises ``ValueError`` for a malformed distribution."""
        ...

    def accuracy(self, model: Reasoner) -> dict[str, float]:
        """What is logged during a training: ``exact``, the share of whole traces that are right, and more."""
        ...


def batches(recipe: Recipe, seed: int, number: int, progress: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rest of a group of ``GROUP`` batches from number ``number`` on: ids [B, T] padded right, weights [B, T].

    A group is drawn together and sorted by length, which wastes little on padding. It depends on (seed, its number,
    ``progress``) alone, so a resumed training sees what an uninterrupted one would have seen.
    """
    group, within = divmod(number, GROUP)
    rng = np.random.default_rng([seed, group])
    pool = recipe.examples(rng, progress, GROUP * recipe.batch)
    pool.sort(key=len)
    weigh = recipe.weights()
    for k in rng.permutation(GROUP)[within:].tolist():
        rows = pool[k * recipe.batch : (k + 1) * recipe.batch]
        longest = min(-(-len(rows[-1]) // 8) * 8, recipe.longest())
        ids = np.full((recipe.batch, longest), PAD, np.int64)
        carries = np.zeros((recipe.batch, longest), bool)
        for r, example in enumerate(rows):
            start = len(example.prompt)
            ids[r, :start] = example.prompt
            ids[r, start : len(example)] = example.trace
            carries[r, start : len(example)] = True
            carries[r, [start + i for i in example.free]] = False
        yield ids, np.where(carries, weigh[ids], np.float32(0))


def kept(stream: Iterator[Q], held_out: HeldOut[Q]) -> Iterator[Q]:
    """An endless stream less what is held out for testing."""
    while True:
        block = list(islice(stream, 64))
        yield from (query for query, out in zip(block, held_out(block), strict=True) if not out)


def held(
    stream: Iterator[Q], held_out: HeldOut[Q], n: int, name: str, same: Callable[[Q], Hashable] = lambda query: query
) -> list[Q]:
    """The first ``n`` different ones of a stream that are held out for testing; ``same`` is equal for what is the same.

    Raises ``ValueError`` where those of the distribution ``name`` are so few or so small that hardly any is.
    """
    made: dict[Hashable, Q] = {}
    for _ in range(SHARE + n * SHARE // 64):  # four times what is needed on average
        block = list(islice(stream, 256))
        for query, out in zip(block, held_out(block), strict=True):
            if out:
                made.setdefault(same(query), query)
        if len(made) >= n:
            return list(made.values())[:n]
    raise ValueError(f"{name}: too few problems are held out for testing; larger ones have more")
