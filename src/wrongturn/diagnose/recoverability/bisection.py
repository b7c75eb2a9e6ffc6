"""The noisy bisection: every success and every failure counts, none decides alone, and the end may be "cannot be told".

1. *Start*: up to ``root`` continuations of the prompt, until one is right; none: "no live prefix".
2. *Bisect*: sample from the cut that splits the posterior of the onset (:mod:`.posterior`) most evenly, until one step
   has probability ``sure`` or the budget is spent; then the same over the tokens of that step.
3. *Misfit*: do counts per step differ more from one step down than chance explains (predictive p < .05)? The value
   need not fall in one step: traces correct themselves, and lose hope slowly.
4. *Confirm* by fresh continuations that had no part in the choice, delete against keep: those from just before the
   onset that leave the trace there, against those that write it again or begin after it. Fisher's exact test,
   one-sided, in up to ``LOOKS`` looks that share the 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

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
from wrongturn.diagnose.recoverability.posterior import Posterior, Tally
from wrongturn.stats import Estimate, proportion

LOOKS = 2
AFTER = 4
"""Fresh continuations of a look that begin after the onset; those from before it often get there by themselves."""

Edges = NDArray[np.intp]


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
        p = LOOKS * fisher(*counts)  # NaN where nothing left the trace there, or nothing stayed
        guess = replace(guess, drop=_apart(*counts), p=min(p, 1.0))
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
