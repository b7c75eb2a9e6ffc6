"""Stop conditions, evaluated inside the engine's step loop over all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from wrongturn import triggers
from wrongturn.divergence import FIELDS as DIVERGENCE
from wrongturn.divergence import Divergence
from wrongturn.engines.base import Until, Watch
from wrongturn.signals import FIELDS as SIGNALS
from wrongturn.signals import Signals

HISTORIES = ("boundaries", "tokens")


class Repeatable:
    """A condition with a field ``draw_first``; it reads probabilities, and those of one model, unless it says so."""

    __slots__ = ()

    @property
    def needs_logprobs(self) -> bool:
        return True

    @property
    def needs_ancestor(self) -> bool:
        return False

    def again(self) -> Self:
        return replace(self, draw_first=True)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Spike(Repeatable):
    """Stop where the first token of a new step is more uncertain than the trace's own past: GUARD's trigger.

    ``boundaries`` are the tokens that end a step. ``history`` says what the quantile ``q`` is taken over: entropies at
    "boundaries" (as the published code) or at all "tokens". ``rule`` and ``min_history``: :mod:`wrongturn.triggers`.
    ``draw_first``: see :meth:`wrongturn.engines.base.Until.again`.
    """

    q: float
    boundaries: Sequence[int]
    rule: str = "paper"
    min_history: int = 1
    history: str = "boundaries"
    draw_first: bool = False

    def __post_init__(self) -> None:
        if self.history not in HISTORIES:
            raise ValueError(f"history must be one of {', '.join(HISTORIES)}, not {self.history!r}")

    def watch(self, rows: int) -> SpikeWatch:
        return SpikeWatch(self, rows)


class SpikeWatch:
    """Entropy histories of all rows, NaN-padded: [rows, longest]."""

    def __init__(self, condition: Spike, rows: int) -> None:
        self.condition = condition
        self.past = np.full((rows, 64), np.nan, np.float32)
        self.count = np.zeros(rows, np.intp)
        self.held = np.zeros(rows, bool)  # stopped at this very place before: one token must be drawn first
        self.blank = np.zeros(rows, bool)  # nothing is written yet: the last token is the prompt's, and ends no step

    def admit(self, row: int, ids: Sequence[int], signals: Signals) -> None:
        entropy = np.asarray(signals.entropy, np.float32)
        if self.condition.history == "boundaries":
            ends = np.isin(np.asarray(ids[:-1]), self.condition.boundaries) if len(ids) else np.zeros(0, bool)
            entropy = entropy[1:][ends]
        entropy = entropy[~np.isnan(entropy)]
        self._room(len(entropy) + 1)
        self.past[row] = np.nan
        self.past[row, : len(entropy)] = entropy
        self.count[row], self.held[row], self.blank[row] = len(entropy), self.condition.draw_first, not len(ids)

    def step(
        self,
        rows: npt.NDArray[np.intp],
        last: npt.NDArray[np.int32],
        signals: Signals,
        divergence: Divergence | None = None,
    ) -> npt.NDArray[np.bool_]:
        condition, entropy = self.condition, np.asarray(signals.entropy)
        at_boundary = np.isin(last, condition.boundaries) & ~self.blank[rows]
        stop = np.zeros(len(rows), bool)
        if at_boundary.any():
            here = rows[at_boundary]
            stop[at_boundary] = triggers.fires(
                entropy[at_boundary],
                self.past[here, : max(1, self.count[here].max())],
                condition.q,
                condition.rule,
                condition.min_history,
            )
        stop &= ~self.held[rows]
        self.held[rows] = self.blank[rows] = False
        # A row that stops is admitted again with its history once it goes on, so it records nothing here.
        record = ~stop & (at_boundary if condition.history == "boundaries" else True)
        kept = rows[record]
        self._room(int(self.count[kept].max(initial=0)) + 1)
        self.past[kept, self.count[kept]] = entropy[record]
        self.count[kept] += 1
        return stop

    def release(self, row: int) -> None:
        self.past[row], self.count[row] = np.nan, 0

    def _room(self, need: int) -> None:
        if need > self.past.shape[1]:
            extra = np.full(
                (len(self.past), max(need, 2 * self.past.shape[1]) - self.past.shape[1]), np.nan, np.float32
            )
            self.past = np.concatenate((self.past, extra), axis=1)


@dataclass(frozen=True, slots=True)
class Exceeds(Repeatable):
    """Stop where ``signal`` of the next token's distribution is above ``threshold`` (nats), from token ``after`` on.

    The signal is one of :mod:`wrongturn.signals`, or one of :mod:`wrongturn.divergence` known before the token is drawn
    ("pressure", "coverage", "kl", "variance"), for which the engine needs an ancestor.
    """

    signal: str
    threshold: float
    after: int = 0
    draw_first: bool = False

    def __post_init__(self) -> None:
        if self.signal not in (*SIGNALS, *DIVERGENCE) or self.signal in ("nll", "delta"):
            raise ValueError(f"{self.signal!r} is not known before a token is drawn")

    @property
    def needs_ancestor(self) -> bool:
        return self.signal in DIVERGENCE

    def watch(self, rows: int) -> ExceedsWatch:
        return ExceedsWatch(self, rows)


class ExceedsWatch:
    """How many tokens each row has."""

    def __init__(self, condition: Exceeds, rows: int) -> None:
        self.condition = condition
        self.count = np.zeros(rows, np.intp)
        self.held = np.zeros(rows, bool)

    def admit(self, row: int, ids: Sequence[int], signals: Signals) -> None:
        self.count[row], self.held[row] = len(ids), self.condition.draw_first

    def step(
        self,
        rows: npt.NDArray[np.intp],
        last: npt.NDArray[np.int32],
        signals: Signals,
        divergence: Divergence | None = None,
    ) -> npt.NDArray[np.bool_]:
        condition = self.condition
        value = np.asarray(getattr(divergence if condition.needs_ancestor else signals, condition.signal))
        stop = (value > condition.threshold) & (self.count[rows] >= condition.after) & ~self.held[rows]
        self.held[rows] = False
        self.count[rows] += 1
        return stop

    def release(self, row: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Wrote(Repeatable):
    """Stop right after one of ``tokens`` was written."""

    tokens: tuple[int, ...]
    draw_first: bool = False

    @property
    def needs_logprobs(self) -> bool:
        return False

    def watch(self, rows: int) -> WroteWatch:
        return WroteWatch(self, rows)


class WroteWatch:
    """The last token decides."""

    def __init__(self, condition: Wrote, rows: int) -> None:
        self.condition = condition
        self.held = np.zeros(rows, bool)

    def admit(self, row: int, ids: Sequence[int], signals: Signals) -> None:
        self.held[row] = self.condition.draw_first or not len(ids)  # the prompt's last token was not written

    def step(
        self,
        rows: npt.NDArray[np.intp],
        last: npt.NDArray[np.int32],
        signals: Signals,
        divergence: Divergence | None = None,
    ) -> npt.NDArray[np.bool_]:
        stop = np.isin(last, self.condition.tokens) & ~self.held[rows]
        self.held[rows] = False
        return stop

    def release(self, row: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Stop as soon as one of ``conditions`` does."""

    conditions: tuple[Until, ...]

    @property
    def needs_logprobs(self) -> bool:
        return any(condition.needs_logprobs for condition in self.conditions)

    @property
    def needs_ancestor(self) -> bool:
        return any(condition.needs_ancestor for condition in self.conditions)

    def watch(self, rows: int) -> AnyOfWatch:
        return AnyOfWatch([condition.watch(rows) for condition in self.conditions])

    def again(self) -> AnyOf:
        return AnyOf(tuple(condition.again() for condition in self.conditions))


class AnyOfWatch:
    """Asks every watch at every step, since each keeps its own history."""

    def __init__(self, watches: list[Watch]) -> None:
        self.watches = watches

    def admit(self, row: int, ids: Sequence[int], signals: Signals) -> None:
        for watch in self.watches:
            watch.admit(row, ids, signals)

    def step(
        self,
        rows: npt.NDArray[np.intp],
        last: npt.NDArray[np.int32],
        signals: Signals,
        divergence: Divergence | None = None,
    ) -> npt.NDArray[np.bool_]:
        return np.any([watch.step(rows, last, signals, divergence) for watch in self.watches], axis=0)

    def release(self, row: int) -> None:
        for watch in self.watches:
            watch.release(row)
