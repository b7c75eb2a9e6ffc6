"""What continuations of a failed trace say of where it was lost: a tally by place, and the posterior of one step down.

Model of a trace with its onset in step t: the value of a cut is h up to the start of step t, and l < h after it. A
continuation need not leave the trace where it was cut: much of what a sharp reasoner samples repeats the trace for
long. One that leaves in step u is right with probability

- h where u < t: it is as good as any before the onset
- d where u = t, with q(d - l) = h - l: what the value loses in step t is what leaving it there, with chance q, saves
- l where u > t; one that repeats the whole trace has failed

so a continuation from the start that repeats ten steps and departs in the eleventh tells of all eleven, at the price of
one. h, l and q lie on a grid; they and t are equally likely a priori. How often steps other than t are left says
nothing, and is integrated out. Where continuations count as leaving at their cut (``share=False``), q = 1 and d = h:
the plain step down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wrongturn.diagnose.recoverability.designs import Rollout

HIGH = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LOW = (0.001, 0.02, 0.05, 0.1, 0.2)
LEAVE = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
Edges = NDArray[np.intp]
Counted = NDArray[np.int64]


def _grid(leave: Sequence[float]) -> NDArray[np.float64]:
    """[combinations, (h, d, l, q)] that are possible."""
    all_of = [(h, low + (h - low) / q, low, q) for h in HIGH for low in LOW for q in leave if h > low]
    return np.array([row for row in all_of if row[1] <= 0.99])


def _log(p: ArrayLike) -> NDArray[np.float64]:
    return np.log(np.maximum(p, 1e-9))


_GRIDS = {True: _grid(LEAVE), False: _grid((1.0,))}


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Rollouts by the place, between two edges, where they left the trace, [places + 1]: the last is past the end.

    What left before the first edge counts as ``earlier`` (right, wrong). ``stayed`` [places] began no later than a
    place and went past it.
    """

    right: Counted
    wrong: Counted
    earlier: tuple[int, int]
    stayed: Counted

    @classmethod
    def of(cls, seen: Sequence[Rollout], edges: Edges, share: bool = True) -> Self:
        at = np.array([rollout.at for rollout in seen], np.intp)
        left = np.array([rollout.left for rollout in seen], np.intp) if share else at
        right = np.array([rollout.right for rollout in seen], bool)
        began, went = (np.searchsorted(edges, token, side="right") - 1 for token in (at, left))
        good, bad = (np.bincount(went[rows & (went >= 0)], minlength=len(edges)) for rows in (right, ~right))
        early = int((right & (went < 0)).sum()), int((~right & (went < 0)).sum())
        places = np.arange(len(edges) - 1)[:, None]
        return cls(good, bad, early, ((began <= places) & (went > places)).sum(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """What a tally says of one step down. ``joint`` [places, combinations of ``grid``] sums to 1."""

    joint: NDArray[np.float64]
    grid: NDArray[np.float64]

    @classmethod
    def of(cls, tally: Tally, share: bool = True) -> Self:
        grid = _GRIDS[share]
        h, d, low, q = grid.T
        counts = np.stack((tally.right, tally.wrong))
        until = counts.cumsum(axis=1)
        here, after = counts[:, :-1], until[:, -1:] - until[:, :-1]
        before = until[:, :-1] - here + np.array(tally.earlier)[:, None]
        log = np.zeros((len(before[0]), len(grid)))
        for (right, wrong), rate in ((before, h), (here, d), (after, low)):
            log += np.outer(right, _log(rate)) + np.outer(wrong, _log(1 - rate))
        if share:
            gone, free = here.sum(axis=0), np.array(LEAVE)
            log += np.outer(gone, _log(q)) + np.outer(tally.stayed, _log(1 - q))
            any_of = np.outer(gone, _log(free)) + np.outer(tally.stayed, _log(1 - free))
            log -= np.logaddexp.reduce(any_of, axis=1, keepdims=True)
        joint = np.exp(log - log.max())
        return cls(joint / joint.sum(), grid)

    @property
    def place(self) -> NDArray[np.float64]:
        """[places] how likely the onset is in each."""
        return self.joint.sum(axis=1)

    def best(self) -> tuple[int, float]:
        """The likeliest place and its probability."""
        i = int(self.place.argmax())
        return i, float(self.place[i])

    def interval(self, level: float = 0.95) -> tuple[int, int]:
        """First and last place of the shortest run of places that holds ``level``."""
        total = np.concatenate(([0.0], self.place.cumsum()))
        reach = np.searchsorted(total, total[:-1] + level - 1e-9)
        width = np.where(reach < len(total), reach - np.arange(len(reach)), len(total))
        first = int(width.argmin())
        return first, min(int(reach[first]), len(self.place)) - 1

    def split(self) -> int:
        """The cut, as the number of places before it, at which "the onset is earlier" is nearest to even."""
        earlier = self.place.cumsum()[:-1]
        return 1 + int(np.abs(earlier - 0.5).argmin()) if len(earlier) else 0

    def misfit(self, tally: Tally, draws: int = 400) -> float:
        """Posterior predictive p-value (Rubin 1984): how often counts drawn from the model lie as far from it."""
        n, seen = (tally.right + tally.wrong)[:-1], tally.right[:-1]
        rng = np.random.default_rng(int(1009 * n.sum() + seen.sum()))
        at, row = np.divmod(rng.choice(self.joint.size, draws, p=self.joint.ravel()), self.joint.shape[1])
        side = np.sign(np.arange(len(n))[None, :] - at[:, None]) + 1  # 0: before the onset, 1: in it, 2: after
        rate = self.grid[row[:, None], side]
        scale = np.maximum(n * rate * (1 - rate), 1e-9)
        far, near = (((k - n * rate) ** 2 / scale).sum(axis=1) for k in (seen, rng.binomial(n, rate)))
        return float((near >= far - 1e-9).mean())
