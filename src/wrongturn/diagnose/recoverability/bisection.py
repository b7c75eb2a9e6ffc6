"""The noisy bisection: every success and every failure counts, none decides alone, and the end may be "cannot be told".

Model of a trace with its onset in step t: the value of a cut is h up to the start of step t, and l < h after it. A
continuation need not leave the trace where it was cut: most of what a sharp reasoner samples repeats the trace for long.
One that leaves in step u is right with probability

- h where u < t (it is as good as any before the onset)
- d where u = t, with q(d - l) = h - l: what the value loses in step t is what leaving it there, with probability q, saves
- l where u > t; one that repeats the whole trace has failed

so a continuation from the start that repeats ten steps and departs in the eleventh tells of all eleven, for the price of
one. h, l and q lie on a grid; they and t are equally likely a priori. How often steps other than t are left says nothing
and is integrated out. With ``share=False`` continuations count as leaving at their cut: then q = 1 and d = h, the plain
step down.

1. *Start*: up to ``root`` continuations of the prompt, until one is right; none: "no live prefix".
2. *Bisect*: sample from the cut that splits the posterior of t most evenly, until one t has probability ``sure`` or
   the budget is spent; then the same over the tokens of that step.
3. *Misfit*: do counts per step differ more from one step down than chance explains (predictive p < .05)? V need not
   fall in one step: traces correct themselves, and lose hope slowly.
4. *Confirm* by fresh continuations that had no part in the choice, delete against keep: those from just before the
   onset that leave the trace there, against those that write it again or begin after it. Fisher's exact test,
   one-sided, in up to ``LOOKS`` looks that share the 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wrongturn.diagnose.recoverability.designs import (
    FOUND,
    INTERVAL,
    UNTOLD,
    Ask,
    Onset,
    Plan,
    Rollout,
    Spans,
    checked,
    dead,
)
from wrongturn.diagnose.recoverability.labels import fisher
from wrongturn.stats import Estimate, proportion

HIGH = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LOW = (0.001, 0.02, 0.05, 0.1, 0.2)
LEAVE = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
LOOKS = 2
AFTER = 4
"""Fresh continuations of a look that begin after the onset; those from before it often get there by themselves."""

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
    def of(cls, seen: Sequence[Rollout], edges: Edges, share: bool = True) -> Tally:
        at = np.array([rollout.at for rollout in seen], np.intp)
        left = np.array([rollout.left for rollout in seen], np.intp) if share else at
        right = np.array([rollout.right for rollout in seen], bool)
        began, went = (np.searchsorted(edges, token, side="right") - 1 for token in (at, left))
        counted = [np.bincount(went[rows & (went >= 0)], minlength=len(edges)) for rows in (right, ~right)]
        early = int((right & (went < 0)).sum()), int((~right & (went < 0)).sum())
        places = np.arange(len(edges) - 1)[:, None]
        return cls(*counted, early, ((began <= places) & (went > places)).sum(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """What a tally says of one step down. ``joint`` [places, combinations of ``grid``] sums to 1."""

    joint: NDArray[np.float64]
    grid: NDArray[np.float64]

    @classmethod
    def of(cls, tally: Tally, share: bool = True) -> Posterior:
        grid = _GRIDS[share]
        h, d, low, q = grid.T
        counts = np.stack((tally.right, tally.wrong))
        until = counts.cumsum(axis=1)
        here, after = counts[:, :-1], until[:, -1:] - until[:, :-1]
        before = until[:, :-1] - here + np.array(tally.earlier)[:, None]
        log = sum(
            np.outer(right, _log(rate)) + np.outer(wrong, _log(1 - rate))
            for (right, wrong), rate in ((before, h), (here, d), (after, low))
        )
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


def bisection(
    spans: Spans,
    budget: int = 64,
    *,
    root: int = 16,
    batch: int = 2,
    sure: float = 0.9,
    confirm: int = 12,
    share: bool = True,
) -> Plan:
    """The onset of a failed trace with these steps, in at most ``budget`` continuations.

    ``confirm`` fresh ones from before the onset make a look (0: no confirmation, and nothing is ever "found").
    """
    spans, seen = checked(spans), list[Rollout]()
    reserve = min(LOOKS * (confirm + (AFTER if share else confirm)), budget // 4) if confirm else 0
    root = min(root, budget - reserve)
    while len(seen) < root and not any(rollout.right for rollout in seen):
        seen += yield Ask(0, min(batch, root - len(seen)))
    if not any(rollout.right for rollout in seen):
        return dead(len(seen))
    edges = np.append(spans[:, 0], spans[-1, 1])
    while len(seen) < budget - reserve:
        looking = edges
        if _posterior(seen, edges, share).best()[1] >= sure:
            looking = _inside(seen, edges, share)
        posterior = _posterior(seen, looking, share)
        if posterior.best()[1] >= sure:
            break
        seen += yield Ask(int(looking[posterior.split()]), min(batch, budget - reserve - len(seen)))
    guess = _guess(seen, edges, share)
    odd = _posterior(seen, edges, share).misfit(Tally.of(seen, edges, share))
    if odd < 0.05:
        return replace(guess, status=UNTOLD, reason=f"the value does not fall in one step (misfit p = {odd:.2g})")
    if guess.probability >= sure and confirm:
        return (yield from _confirmed(guess, confirm, (budget - len(seen)) // LOOKS, edges[-1], share))
    left = guess.steps[1] - guess.steps[0] + 1 if guess.steps else len(spans)
    if left > max(1, len(spans) // 2):
        return replace(guess, status=UNTOLD, reason=f"{len(seen)} rollouts leave {left} of {len(spans)} steps")
    return replace(guess, reason="not confirmed" if guess.probability >= sure else f"{len(seen)} rollouts spent")


def _posterior(seen: Sequence[Rollout], edges: Edges, share: bool) -> Posterior:
    return Posterior.of(Tally.of(seen, edges, share), share)


def _inside(seen: Sequence[Rollout], edges: Edges, share: bool) -> Edges:
    """The tokens of the likeliest step, each a place."""
    step = _posterior(seen, edges, share).best()[0]
    return np.arange(edges[step], edges[step + 1] + 1)


def _guess(seen: Sequence[Rollout], edges: Edges, share: bool) -> Onset:
    steps, inside = _posterior(seen, edges, share), _inside(seen, edges, share)
    (step, probability), tokens = steps.best(), _posterior(seen, inside, share)
    first, last = tokens.interval()
    return Onset(
        INTERVAL,
        step=step,
        steps=steps.interval(),
        token=int(inside[tokens.best()[0]]),
        tokens=(int(inside[first]), int(inside[last])),
        probability=probability,
    )


def _confirmed(guess: Onset, confirm: int, most: int, length: int, share: bool) -> Plan:
    """The guess after fresh continuations from just before and just after the tokens it may be: delete against keep."""
    assert guess.tokens is not None
    first, after = guess.tokens[0], guess.tokens[1] + 1
    behind = 0 if after >= length else min(AFTER if share else confirm, most // 2)
    fresh: list[Rollout] = []
    for _ in range(LOOKS):
        if most - behind < 1:
            break
        fresh += yield Ask(first, min(confirm, most - behind))
        if behind:
            fresh += yield Ask(after, behind)
        went = np.array([rollout.left if share else rollout.at for rollout in fresh])
        right = np.array([rollout.right for rollout in fresh])
        deleted, kept = right[went < after], right[went >= after]
        counts = int(deleted.sum()), len(deleted), int(kept.sum()), len(kept)
        p = fisher(*counts)
        guess = replace(guess, drop=_apart(*counts), p=min(1.0, LOOKS * p))
        if guess.p <= 0.05:
            return replace(guess, status=FOUND)
    if math.isnan(guess.p):
        return replace(guess, reason="no fresh continuation left the trace at the onset, or none went past it")
    return replace(guess, reason=f"not confirmed: the drop among fresh continuations has p = {guess.p:.2g}")


def _apart(good: int, n: int, baseline: int, m: int) -> Estimate:
    """Difference of two independent proportions (Newcombe 1998, Statistics in Medicine 17:873, method 10)."""
    a, b = proportion(good, n), proportion(baseline, m)
    low = a.value - b.value - math.hypot(a.value - a.low, b.high - b.value)
    high = a.value - b.value + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(a.value - b.value, low, high, n + m)
