"""What becomes of a next-token distribution: signals, stop conditions, budgets, the draw, and why a row ends.

Shared by the engines that own their logits, so that they cannot differ. A *row* here is a slot a request keeps while it
is decoded. A step is NumPy over all rows; Python per request happens at its beginning, at its end and per chunk.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from wrongturn.engines.base import Chunk, Meter, Request, Watch
from wrongturn.signals import FIELDS, SignalConfig, Signals, from_logits

Slots = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float32]

GOES_ON, STOP, LENGTH, UNTIL, BUDGET, FAILED = range(6)
REASON = {STOP: "stop", LENGTH: "length", UNTIL: "until", BUDGET: "budget"}

_NLL = FIELDS.index("nll")
_NEVER = np.iinfo(np.intp).max

T = TypeVar("T", bound=Hashable)


class Shared(Generic[T]):
    """Values that rows have in common, numbered, so that a step loops over distinct values instead of over rows.

    ``of[slot]`` is the number of a row's value; number 0 means it has none.
    """

    def __init__(self, slots: int) -> None:
        self.of = np.zeros(slots, np.intp)
        self.values: list[T | None] = [None]
        self._number: dict[T, int] = {}

    def take(self, slot: int, value: T | None) -> int:
        """Note ``value`` for a row; its number."""
        number = 0
        if value is not None:
            number = self._number.get(value, 0) or self._free()
            self._number[value], self.values[number] = number, value
        self.of[slot] = number
        return number

    def release(self, slot: int) -> None:
        """The row has ended; the last one to hold a value takes it along."""
        number, self.of[slot] = int(self.of[slot]), 0
        value = self.values[number]
        if value is not None and number not in self.of:
            del self._number[value]
            self.values[number] = None

    def _free(self) -> int:
        for number, value in enumerate(self.values[1:], 1):
            if value is None:
                return number
        self.values.append(None)
        return len(self.values) - 1


@dataclass(slots=True)
class Step:
    """What a step did to each of its n rows: the token drawn, and a reason in ``finish`` if the row ended.

    A row that ended with ``UNTIL``, ``BUDGET`` before a draw, or ``FAILED`` has drawn no token (``drew`` is False).
    """

    tokens: npt.NDArray[np.int32]
    finish: npt.NDArray[np.int8]
    drew: npt.NDArray[np.bool_]


class Rows:
    """The state of up to ``slots`` requests being decoded, one array entry per slot."""

    def __init__(self, slots: int, vocab: int, context: int) -> None:
        self.slots, self.vocab, self.context = slots, vocab, context
        self.free = list(range(slots))[::-1]
        self.errors: dict[int, Exception] = {}  # of rows that ended with FAILED, until they are released
        self.pending: dict[int, Signals] = {}  # of rows that ended with UNTIL, until they are released
        self._count = np.zeros(slots, np.intp)  # tokens drawn
        self._sent = np.zeros(slots, np.intp)  # of these, handed out in chunks
        self._limit = np.zeros(slots, np.intp)
        self._chunk = np.full(slots, _NEVER)
        self._last = np.zeros(slots, np.int32)
        self._arrival = np.zeros(slots, np.int64)
        self._arrivals = 0
        self._temperature = np.ones(slots)
        self._top_p = np.ones(slots)
        self._key = np.zeros(slots, np.uint64)
        self._position = np.zeros(slots, np.intp)  # completion position of the first token drawn
        self._stops = np.zeros((slots, vocab), bool)
        self._top_k = np.zeros(slots, np.intp)
        self._ids = np.zeros((slots, context), np.int32)
        self._signals = np.zeros((slots, len(FIELDS), context), np.float32)
        self._top_ids = np.zeros((slots, context, 0), np.int32)
        self._top_logprobs = np.zeros((slots, context, 0), np.float32)
        self._configs: Shared[SignalConfig] = Shared(slots)
        self._meters: Shared[Meter] = Shared(slots)
        self._untils: Shared[Hashable] = Shared(slots)
        self._watches: dict[int, Watch] = {}

    # -- a request begins and ends -------------------------------------------------------------------------------------

    def admit(self, request: Request) -> int:
        """Take up a (checked) request; its slot. What its stop condition raises is passed on, and no slot taken."""
        slot = self.free[-1]
        begun = len(request.prefix) if request.start is None else request.start
        self._arrivals += 1
        self._arrival[slot] = self._arrivals
        self._count[slot] = self._sent[slot] = 0
        self._limit[slot] = min(request.max_tokens, self.context - len(request.prefix))
        self._chunk[slot] = request.chunk or _NEVER
        self._last[slot] = request.prefix[-1]
        self._temperature[slot], self._top_p[slot] = request.sampling.temperature, request.sampling.top_p
        self._key[slot] = seed_key(request.seed)
        self._position[slot] = len(request.prefix) - begun
        self._stops[slot] = False
        self._stops[slot, [i for i in request.stop_ids if 0 <= i < self.vocab]] = True
        self._top_k[slot] = request.top_k
        self._room(min(request.top_k, self.vocab))
        self._configs.take(slot, request.signals)
        self._meters.take(slot, request.meter)
        number = self._untils.take(slot, request.until)
        if request.until is not None:
            history = request.history or Signals.empty(len(request.prefix) - begun)
            try:
                watch = self._watches.get(number) or request.until.watch(self.slots)
                self._watches[number] = watch
                watch.admit(slot, request.prefix[begun:].tolist(), history)
            except Exception:
                self._forget(slot)
                raise
        return self.free.pop()

    def release(self, slot: int) -> None:
        """The request has ended, or its caller has gone; what its stop condition raises now concerns nobody."""
        watch = self._watches.get(int(self._untils.of[slot]))
        if watch is not None:
            try:
                watch.release(slot)
            except Exception:
                self._watches.pop(int(self._untils.of[slot]))
        self._forget(slot)
        self.errors.pop(slot, None)
        self.pending.pop(slot, None)
        self.free.append(slot)

    def _forget(self, slot: int) -> None:
        number = int(self._untils.of[slot])
        for shared in (self._configs, self._meters, self._untils):
            shared.release(slot)
        if self._untils.values[number] is None:
            self._watches.pop(number, None)

    def _room(self, k: int) -> None:
        """Make room for k alternatives per token."""
        have = self._top_ids.shape[2]
        if k > have:
            wider = ((0, 0), (0, 0), (0, k - have))
            self._top_ids = np.pad(self._top_ids, wider)
            self._top_logprobs = np.pad(self._top_logprobs, wider)

    # -- a step --------------------------------------------------------------------------------------------------------

    def step(self, slots: Slots, logits: Floats) -> Step:
        """Draw the next token of the rows ``slots`` [n] from ``logits`` [n, V], unless a row ends before that."""
        best = logits.argmax(axis=1)
        signals = self._measure(slots, logits, best)
        finish = np.full(len(slots), GOES_ON, np.int8)
        if self._watches:
            self._ask_watches(slots, signals, finish)
        drew = finish == GOES_ON
        broke = self._charge(slots, drew)
        chance = uniform(self._key[slots], self._position[slots] + self._count[slots])
        tokens = draw(logits, best, self._temperature[slots], self._top_p[slots], chance)
        self._record(slots, tokens, logits, best, signals)
        self._last[slots] = tokens
        self._count[slots] += drew

        undecided = finish == GOES_ON
        finish[undecided & broke] = BUDGET
        finish[undecided & drew & (self._count[slots] == self._limit[slots])] = LENGTH
        finish[undecided & drew & self._stops[slots, tokens]] = STOP
        return Step(tokens, finish, drew)

    def _measure(self, slots: Slots, logits: Floats, chosen: npt.NDArray[np.intp]) -> Signals:
        """Signals [n] of the raw distributions, as each row's request defines them."""
        which = self._configs.of[slots]
        first = self._configs.values[which[0]]
        assert first is not None
        if (which == which[0]).all():
            return from_logits(logits, chosen, first)
        out = Signals.empty(len(slots))
        for number in np.unique(which):
            rows, config = which == number, self._configs.values[number]
            assert config is not None
            for name, values in from_logits(logits[rows], chosen[rows], config).dict().items():
                getattr(out, name)[rows] = values
        return out

    def _ask_watches(self, slots: Slots, signals: Signals, finish: npt.NDArray[np.int8]) -> None:
        """Let each stop condition judge its rows; one that raises fails the requests that share it, and no others."""
        undrawn = replace(signals, nll=np.full(len(slots), np.nan, np.float32))
        which = self._untils.of[slots]
        for number, watch in list(self._watches.items()):
            rows = np.flatnonzero(which == number)
            if not len(rows):
                continue
            try:
                stopped = rows[watch.step(slots[rows], self._last[slots[rows]], undrawn[rows])]
            except Exception as error:
                finish[rows] = FAILED
                self.errors |= dict.fromkeys(slots[rows].tolist(), error)
                del self._watches[number]
                continue
            finish[stopped] = UNTIL
            for row in stopped.tolist():
                self.pending[int(slots[row])] = undrawn[[row]]

    def _charge(self, slots: Slots, drew: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Count the tokens about to be drawn on the rows' meters, exactly.

        Where fewer are left than there are rows, the requests that came first get them; ``drew`` becomes False for the
        rest. Returns the rows for which nothing is left after this step.
        """
        which = self._meters.of[slots]
        broke = np.zeros(len(slots), bool)
        for number, wanted in enumerate(np.bincount(which[drew]).tolist()):
            meter = self._meters.values[number]
            if meter is None or not wanted:
                continue
            if wanted >= meter.left:
                rows = np.flatnonzero(which == number)
                broke[rows] = True
                rows = rows[drew[rows]]
                wanted = max(0, int(meter.left))
                drew[rows[np.argsort(self._arrival[slots[rows]])][wanted:]] = False
            meter.spent += wanted
        return broke

    def _record(
        self, slots: Slots, tokens: npt.NDArray[np.int32], logits: Floats, best: npt.NDArray[np.intp], signals: Signals
    ) -> None:
        """Write the n tokens behind what their rows hold. Where a row drew none, that place is simply not counted."""
        at, every = self._count[slots], np.arange(len(slots))
        relative = logits - logits[every, best][:, None]
        measured = np.stack([getattr(signals, name) for name in FIELDS], axis=1)
        measured[:, _NLL] -= relative[every, tokens]  # was the best token's; ln p differ as the logits do
        self._ids[slots, at] = tokens
        self._signals[slots, :, at] = measured
        listing = self._top_k[slots] > 0
        if listing.any():
            rows, at, relative = slots[listing], at[listing], relative[listing]
            order = np.argsort(-relative, axis=1, kind="stable")[:, : self._top_ids.shape[2]]
            self._top_ids[rows, at] = order
            self._top_logprobs[rows, at] = np.take_along_axis(relative, order, 1) - signals.nll[listing, None]

    # -- what is handed out --------------------------------------------------------------------------------------------

    def due(self, slots: Slots) -> Slots:
        """Those of ``slots`` that have a whole chunk to hand out."""
        return slots[self._count[slots] - self._sent[slots] >= self._chunk[slots]]

    def take(self, slot: int) -> Chunk:
        """What the row has drawn since the last call."""
        span = slice(self._sent[slot], self._count[slot])
        self._sent[slot] = self._count[slot]
        ids, k = self._ids[slot, span].copy(), int(self._top_k[slot])
        top_ids, top_logprobs = no_alternatives(len(ids), k)
        known = min(k, self.vocab)
        top_ids[:, :known] = self._top_ids[slot, span, :known]
        top_logprobs[:, :known] = self._top_logprobs[slot, span, :known]
        banned = np.isneginf(top_logprobs)
        top_ids[banned], top_logprobs[banned] = -1, np.nan
        return Chunk(ids, Signals(*self._signals[slot, :, span].copy()), top_ids, top_logprobs)


def no_alternatives(n: int, k: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """``top_ids`` and ``top_logprobs`` [n, k] of tokens nothing is known about."""
    return np.full((n, k), -1, np.int32), np.full((n, k), np.nan, np.float32)


# -- the draw ----------------------------------------------------------------------------------------------------------

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_MASK = (1 << 64) - 1


def seed_key(seed: int) -> int:
    """The stream of a seed: any integer, hashed to 64 bits."""
    key = (seed + _GOLDEN) & _MASK
    for shift, factor in _MIX:
        key = ((key ^ (key >> shift)) * factor) & _MASK
    return key ^ (key >> 31)


def uniform(key: npt.NDArray[np.uint64], position: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Number ``position`` of stream ``key``, in (0, 1]: splitmix64, which needs no state but these two."""
    z = key + (position.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    for shift, factor in _MIX:
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53


def draw(
    logits: Floats,
    best: npt.NDArray[np.intp],
    temperature: npt.NDArray[np.float64],
    top_p: npt.NDArray[np.float64],
    chance: npt.NDArray[np.float64],
) -> npt.NDArray[np.int32]:
    """One token per row of ``logits`` [n, V]: where the cumulative distribution, in token order, reaches ``chance``.

    Temperature 0 takes ``best``. Nucleus: the most probable tokens *after* temperature that reach ``top_p``.
    """
    greedy = temperature == 0
    if greedy.all():
        return best.astype(np.int32)
    shifted = logits - np.take_along_axis(logits, best[:, None], 1)
    weights = np.exp(shifted / np.where(greedy, 1.0, temperature)[:, None])
    cut = top_p < 1
    if cut.any():
        weights[cut] = _nucleus(weights[cut], top_p[cut])
    reached = weights.cumsum(axis=1)
    tokens = (reached < chance[:, None] * reached[:, -1:]).sum(axis=1)  # chance > 0, so never a token of weight 0
    return np.where(greedy, best, tokens).astype(np.int32)


def _nucleus(weights: npt.NDArray[np.float64], top_p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``weights`` [n, V] without the tokens outside each row's nucleus."""
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, 1)
    before = ranked.cumsum(axis=1) - ranked
    ranked[before >= top_p[:, None] * ranked.sum(axis=1, keepdims=True)] = 0.0
    kept = np.empty_like(weights)
    np.put_along_axis(kept, order, ranked, 1)
    return kept
