"""Traces with a known value at every cut, to hold a search against: no model, no engine.

At each token a continuation leaves the failed trace with some chance; one that does is right with another. That gives
the value of every cut, and everything a search is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wrongturn.diagnose.recoverability.designs import Design, Onset, Plan, Rollout, Spans


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """``leave`` and ``rescue`` [tokens]: chance of leaving the trace at a token, and of success after that."""

    leave: NDArray[np.float64]
    rescue: NDArray[np.float64]

    @classmethod
    def of_values(cls, values: ArrayLike) -> Self:
        """A world where every continuation leaves at once, so that ``values`` [tokens] are what its cuts are worth."""
        values = np.asarray(values, np.float64)
        return cls(np.ones(len(values)), values)

    @classmethod
    def of_step(cls, length: int, onset: int, high: float, low: float) -> Self:
        """One step down: ``high`` at every cut up to ``onset``, ``low`` after it."""
        return cls.of_values(np.where(np.arange(length) <= onset, high, low))

    @property
    def values(self) -> NDArray[np.float64]:
        """[tokens + 1] the value of each cut; the last is 0."""
        found = np.zeros(len(self.leave) + 1)
        for i in range(len(self.leave) - 1, -1, -1):
            found[i] = self.leave[i] * self.rescue[i] + (1 - self.leave[i]) * found[i + 1]
        return found

    def rollouts(self, at: int, n: int, rng: np.random.Generator) -> list[Rollout]:
        """``n`` continuations of the first ``at`` tokens."""
        length = len(self.leave)
        gone = rng.random((n, length - at)) < self.leave[at:]
        left = np.where(gone.any(axis=1), at + gone.argmax(axis=1), length)
        rescue = np.append(self.rescue, 0.0)[left]
        right = rng.random(n) < rescue
        return [Rollout(at, int(where), bool(good), length - at) for where, good in zip(left, right, strict=True)]

    def search(self, plan: Plan, rng: np.random.Generator) -> Onset:
        """What a search comes to here."""
        design = Design(plan)
        while design.ask is not None:
            design.tell(self.rollouts(design.ask.at, design.ask.tries, rng))
        assert design.onset is not None
        return design.onset


def even(steps: int, width: int = 1) -> Spans:
    """``steps`` steps of ``width`` tokens."""
    edges = np.arange(steps + 1) * width
    return np.column_stack((edges[:-1], edges[1:]))
