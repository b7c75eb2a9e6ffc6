"""Where a failed trace was lost, found by resampling: what a search for the onset is, and two known rules for one.

The value V(i) of a cut is the chance that a continuation of the first i tokens is right. The *onset* is the step that
takes it down: high at its start, low at its end. At the end of a failed trace V is 0 for certain.

A :class:`Design` says which cut to resample next and how often (``ask``), is told what came of it (``tell``), and ends
with an :class:`Onset`. It holds no engine: who asks it carries its wishes out. The rules themselves are generators that
yield an :class:`Ask`, are sent the rollouts, and return the onset:

- :func:`omega`: OmegaPRM's binary search (Luo et al. 2024, arXiv 2406.06592): a cut with any success is alive
- :func:`curve`: every cut equally often, and the single step that explains the counts best (Math-Shepherd's labels,
  Wang et al. 2023, arXiv 2312.08935, at their full price)
- :func:`wrongturn.diagnose.recoverability.bisection.bisection`: this package's
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wrongturn.stats import Estimate

FOUND, INTERVAL, UNTOLD = "found", "interval", "cannot be told"
UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)

Spans = NDArray[np.intp]
"""[steps, 2]: the half-open token spans of a trace's steps, in order."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Sample ``tries`` continuations of the first ``at`` tokens."""

    at: int
    tries: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """One continuation of the first ``at`` tokens, and whether its answer is right.

    ``left`` is the first token at which it is not the failed trace (the trace's length where it repeats all of it): up
    to there it is a continuation of every cut in between. Where that is not known, it is ``at``.
    """

    at: int
    left: int
    right: bool
    decoded: int = 0


@dataclass(frozen=True, slots=True)
class Onset:
    """What a search came to. ``status`` is ``found``, ``interval`` or ``cannot be told``; ``reason`` says why not more.

    ``step`` and ``token`` are the best guesses (None: there is none), ``steps`` and ``tokens`` the first and last that
    they may be (95 % credible for the bisection; the rules it is up against give none), ``probability`` that of
    ``step``. ``drop`` is the success of fresh continuations that leave the trace at the onset minus that of those that
    go past it, ``p`` that there is no such drop (Fisher's, for all looks at it). ``rollouts`` and ``decoded`` were
    spent.
    """

    status: str
    reason: str = ""
    step: int | None = None
    steps: tuple[int, int] | None = None
    token: int | None = None
    tokens: tuple[int, int] | None = None
    probability: float = math.nan
    drop: Estimate = UNKNOWN
    p: float = math.nan
    rollouts: int = 0
    decoded: int = 0


Plan = Generator[Ask, Sequence[Rollout], Onset]


@dataclass(slots=True, eq=False)
class Design:
    """A search under way. ``ask`` is its next wish, None once ``onset`` is there."""

    plan: Plan
    ask: Ask | None = field(default=None, init=False)
    onset: Onset | None = field(default=None, init=False)
    rollouts: list[Rollout] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._go_on(None)

    def tell(self, rollouts: Sequence[Rollout]) -> None:
        """What came of ``ask``; fewer than asked for where the engine failed. Raises ``ValueError`` for another cut."""
        if self.ask is None:
            raise ValueError("this search has ended: it asks for nothing")
        for rollout in rollouts:
            if rollout.at != self.ask.at or rollout.left < rollout.at:
                raise ValueError(f"{rollout} is no continuation of the first {self.ask.at} tokens")
        self.rollouts += rollouts
        if rollouts:
            self._go_on(rollouts)
        else:
            self._end(Onset(UNTOLD, f"nothing came of {self.ask.tries} continuations from token {self.ask.at}"))

    def _go_on(self, rollouts: Sequence[Rollout] | None) -> None:
        try:
            self.ask = next(self.plan) if rollouts is None else self.plan.send(rollouts)
        except StopIteration as end:
            self._end(end.value)

    def _end(self, onset: Onset) -> None:
        self.ask = None
        self.onset = replace(
            onset, rollouts=len(self.rollouts), decoded=sum(rollout.decoded for rollout in self.rollouts)
        )


def checked(spans: Spans) -> Spans:
    """The spans, once they are ordered and none is empty; ``ValueError`` otherwise."""
    spans = np.asarray(spans, np.intp)
    if spans.ndim != 2 or spans.shape[1:] != (2,) or not len(spans):
        raise ValueError(f"spans are a table [steps, 2] with at least one step, not of shape {spans.shape}")
    if (spans[:, 0] >= spans[:, 1]).any() or (spans[1:, 0] != spans[:-1, 1]).any() or spans[0, 0]:
        raise ValueError("spans must tile a trace: each begins where the one before ends, the first at 0")
    return spans


def dead(tries: int) -> Onset:
    """No success from the beginning of the trace: it has no onset that could be found this way."""
    most = 1 - 0.05 ** (1 / tries)
    return Onset(UNTOLD, f"no live prefix: 0 of {tries} continuations from the start are right (V < {most:.2f})")


def omega(spans: Spans, tries: int = 8) -> Plan:
    """Binary search over the steps: a cut with any success in ``tries`` is alive, one without is not.

    The start is asked first, as only prefixes with a success enter OmegaPRM's tree; the end is known to be dead.
    """
    starts = checked(spans)[:, 0]
    alive, lost = 0, len(starts)
    if not any(rollout.right for rollout in (yield Ask(0, tries))):
        return dead(tries)
    while lost - alive > 1:
        middle = (alive + lost) // 2
        if any(rollout.right for rollout in (yield Ask(int(starts[middle]), tries))):
            alive = middle
        else:
            lost = middle
    return Onset(FOUND, step=alive)


def curve(spans: Spans, tries: int = 8) -> Plan:
    """``tries`` at every cut, then the step before which and after which the rates, one each, are likeliest."""
    good = []
    made = []
    for start in checked(spans)[:, 0]:
        rollouts = yield Ask(int(start), tries)
        good.append(sum(rollout.right for rollout in rollouts))
        made.append(len(rollouts))
    if not sum(good):
        return dead(made[0])
    before, after = np.cumsum(good), sum(good) - np.cumsum(good)
    tried, rest = np.cumsum(made), sum(made) - np.cumsum(made)
    with np.errstate(invalid="ignore", divide="ignore"):
        drops = before / tried >= np.nan_to_num(after / rest)
    fit = np.where(drops, _likelihood(before, tried) + _likelihood(after, rest), -np.inf)
    return Onset(FOUND, step=int(fit.argmax()))


def _likelihood(good: NDArray[np.int64], tries: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log-likelihood of counts at their own rate."""
    rate = np.where(tries > 0, good / np.maximum(tries, 1), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.nan_to_num(good * np.log(rate)), np.nan_to_num((tries - good) * np.log1p(-rate))
    return np.asarray(parts[0] + parts[1], np.float64)
