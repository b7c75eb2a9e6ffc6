"""What becomes of a next-token distribution: signals, stop conditions, budgets, the draw, and why a row ends.

Shared by the engines that own their logits, so that they cannot differ. A *row* here is a slot a request keeps while
it is decoded. A step is NumPy over all rows; Python per request happens at its beginning, its end and per chunk. What
is kept of a distribution differs: :class:`Kept` keeps the logits and makes signals of them at the end, which is fastest
for a small vocabulary; :class:`~wrongturn.engines._measured.Measured` makes them at once, for any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wrongturn.divergence import Divergence
from wrongturn.divergence import from_logits as diverging
from wrongturn.engines._draw import Floats, alternatives, draw, uniform
from wrongturn.engines._shared import Shared
from wrongturn.engines.base import Chunk, Meter, Request, Until, Watch
from wrongturn.engines.edits import Edit
from wrongturn.signals import SignalConfig, Signals, from_logits
from wrongturn.trace import Ids

Slots = npt.NDArray[np.intp]

GOES_ON, STOP, LENGTH, UNTIL, BUDGET, FAILED = range(6)
REASON = {STOP: "stop", LENGTH: "length", UNTIL: "until", BUDGET: "budget"}

_NEVER = np.iinfo(np.intp).max


class Rows(ABC):
    """The state of up to ``slots`` requests being decoded, one array entry per slot."""

    def __init__(self, slots: int, vocab: int, context: int) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
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
        self._chance = np.ones((slots, context))  # in (0, 1], of each token to be drawn
        self._stops = np.zeros((slots, vocab), bool)
        self._top_k = np.zeros(slots, np.intp)
        self._ids = np.zeros((slots, context), np.int32)
        self._config = [SignalConfig()] * slots
        self._meters: Shared[Meter] = Shared(slots)
        self._edits: Shared[Edit] = Shared(slots)
        self._untils: Shared[tuple[Until, SignalConfig]] = Shared(slots)
        self._watches: dict[int, Watch] = {}

    # -- what a subclass is --------------------------------------------------------------------------------------------

    @abstractmethod
    def _draw(self, slots: Slots, at: Slots, logits: Any) -> Ids:
        """The next token of each row, its ``at``-th."""

    @abstractmethod
    def _keep(self, slots: Slots, at: Slots, logits: Any) -> None:
        """Keep of the distributions what :meth:`take` will want; where a row drew no token, it is overwritten later."""

    @abstractmethod
    def _judged(self, rows: Slots, logits: Any, config: SignalConfig) -> Signals:
        """Signals of rows ``rows`` of ``logits``; their nll is of no account."""

    @abstractmethod
    def _fetched(self, rows: Slots, logits: Any) -> Floats:
        """Rows ``rows`` of ``logits`` in main memory, a copy."""

    @abstractmethod
    def _redrawn(self, rows: Slots, logits: Floats, tokens: Ids) -> None:
        """Rows ``rows``, whose own logits are ``logits``, take ``tokens`` instead of what :meth:`_draw` gave."""

    @abstractmethod
    def _chunk_of(self, slot: int, span: slice) -> Chunk:
        """The tokens ``span`` a row has drawn."""

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
        positions = np.arange(self._limit[slot]) + (len(request.prefix) - begun)
        self._chance[slot, : len(positions)] = uniform(request.seed, positions)
        self._stops[slot] = False
        self._stops[slot, [i for i in request.stop_ids if 0 <= i < self.vocab]] = True
        self._top_k[slot] = request.top_k
        self._config[slot] = request.signals
        self._meters.take(slot, request.meter)
        try:
            self._edits.take(slot, request.edit)
            if request.until is not None:
                self._watch(slot, request, request.until, begun)
        except Exception:
            self._forget(slot)
            raise
        return self.free.pop()

    def _watch(self, slot: int, request: Request, until: Until, begun: int) -> None:
        number = self._untils.take(slot, (until, request.signals))
        if number not in self._watches:
            self._watches[number] = until.watch(self.slots)
        history = request.history or Signals.empty(len(request.prefix) - begun)
        self._watches[number].admit(slot, request.prefix[begun:].tolist(), history)

    def release(self, slot: int) -> None:
        """The request has ended, or its caller has gone; what its stop condition raises now concerns nobody."""
        watch = self._watches.get(int(self._untils.of[slot]))
        if watch is not None:
            with suppress(Exception):
                watch.release(slot)
        self._forget(slot)
        self.errors.pop(slot, None)
        self.pending.pop(slot, None)
        self.free.append(slot)

    def _forget(self, slot: int) -> None:
        number = int(self._untils.of[slot])
        self._meters.release(slot)
        self._edits.release(slot)
        self._untils.release(slot)
        if self._untils.values[number] is None:
            self._watches.pop(number, None)

    # -- a step --------------------------------------------------------------------------------------------------------

    def step(self, slots: Slots, logits: Any, ancestor: Any = None) -> tuple[Ids, npt.NDArray[np.int8]]:
        """Draw the next token of the rows ``slots`` [n] from ``logits`` [n, V], unless a row ends before that.

        ``ancestor`` [n, V] are the logits of a model that decodes in step, for edits and stop conditions that want it.
        Returns the tokens [n] of the rows that go on, and per row why it ended, or ``GOES_ON``.
        """
        finish = np.full(len(slots), GOES_ON, np.int8)
        if self._watches:
            self._ask_watches(slots, logits, ancestor, finish)
        at = self._count[slots]
        tokens = self._draw(slots, at, logits)
        if self._edits.of[slots].any():
            self._draw_edited(slots, at, logits, ancestor, tokens, finish)
        drew = finish == GOES_ON
        broke = self._charge(slots, drew)
        # Where a row drew none, this is written behind what it holds, and not counted.
        self._ids[slots, at] = self._last[slots] = tokens
        self._keep(slots, at, logits)
        self._count[slots] += drew

        undecided = finish == GOES_ON
        finish[undecided & broke] = BUDGET
        finish[undecided & drew & (self._count[slots] == self._limit[slots])] = LENGTH
        finish[undecided & drew & self._stops[slots, tokens]] = STOP
        return tokens, finish

    def _draw_edited(
        self, slots: Slots, at: Slots, logits: Any, ancestor: Any, tokens: Ids, finish: npt.NDArray[np.int8]
    ) -> None:
        """Draw ``tokens`` again where a row has an edit. One that fails ends the requests that share it."""
        which = self._edits.of[slots]
        for number in np.unique(which[which > 0]).tolist():
            rows, edit = np.flatnonzero((which == number) & (finish == GOES_ON)), self._edits.values[number]
            if not len(rows) or edit is None:
                continue
            own = self._fetched(rows, logits)
            try:
                edited = edit(own, self._fetched(rows, ancestor) if edit.needs_ancestor else None)
                if edited.shape != own.shape:
                    raise ValueError(f"{edit} made logits {edited.shape} of {own.shape}")
            except Exception as error:
                self._fail(slots, rows, error, finish)
                continue
            possible = np.isfinite(edited.max(axis=1))
            if not possible.all():
                self._fail(slots, rows[~possible], ValueError(f"{edit} leaves no token to draw"), finish)
                rows, own, edited = rows[possible], own[possible], edited[possible]
            here = slots[rows]
            drawn = draw(edited, self._temperature[here], self._top_p[here], self._chance[here, at[rows]])
            self._redrawn(rows, own, drawn)
            tokens[rows] = drawn

    def _fail(self, slots: Slots, rows: Slots, error: Exception, finish: npt.NDArray[np.int8]) -> None:
        finish[rows] = FAILED
        self.errors |= dict.fromkeys(slots[rows].tolist(), error)

    def _ask_watches(self, slots: Slots, logits: Any, ancestor: Any, finish: npt.NDArray[np.int8]) -> None:
        """Let each stop condition judge its rows; one that raises fails the requests that share it, and no others."""
        which = self._untils.of[slots]
        for number, watch in list(self._watches.items()):
            rows = np.flatnonzero(which == number)
            value = self._untils.values[number]
            if not len(rows) or value is None:
                continue
            signals = self._judged(rows, logits, value[1])
            signals = replace(signals, nll=np.full(len(rows), np.nan, np.float32))
            try:
                given = (self._diverges(slots, rows, logits, ancestor),) if value[0].needs_ancestor else ()
                stops = np.flatnonzero(watch.step(slots[rows], self._last[slots[rows]], signals, *given))
                stopped = rows[stops]
            except Exception as error:
                self._fail(slots, rows, error, finish)
                del self._watches[number]
                continue
            finish[stopped] = UNTIL
            for i in stops.tolist():
                self.pending[int(slots[rows[i]])] = signals[[i]]

    def _diverges(self, slots: Slots, rows: Slots, logits: Any, ancestor: Any) -> Divergence:
        """How the two models differ in ``rows``, each where it decodes (1 where that is greedy)."""
        own, theirs, told = self._fetched(rows, logits), self._fetched(rows, ancestor), self._temperature[slots[rows]]
        told = np.where(told > 0, told, 1.0)
        order = np.argsort(told, kind="stable")
        parts = [diverging(own[told == t], theirs[told == t], temperature=float(t)) for t in np.unique(told)]
        return Divergence.concat(parts)[np.argsort(order)]

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

    # -- what is handed out --------------------------------------------------------------------------------------------

    def due(self, slots: Slots) -> Slots:
        """Those of ``slots`` that have a whole chunk to hand out."""
        return slots[self._count[slots] - self._sent[slots] >= self._chunk[slots]]

    def take(self, slot: int) -> Chunk:
        """What the row has drawn since the last call."""
        span = slice(self._sent[slot], self._count[slot])
        self._sent[slot] = self._count[slot]
        return self._chunk_of(slot, span)


class Kept(Rows):
    """Rows that keep the logits of every token: ``slots`` · ``context`` · ``vocab`` floats, as far as they are used."""

    def __init__(self, slots: int, vocab: int, context: int) -> None:
        super().__init__(slots, vocab, context)
        self._logits = np.zeros((slots, context, vocab), np.float32)

    def _draw(self, slots: Slots, at: Slots, logits: Floats) -> Ids:
        return draw(logits, self._temperature[slots], self._top_p[slots], self._chance[slots, at])

    def _keep(self, slots: Slots, at: Slots, logits: Floats) -> None:
        self._logits[slots, at] = logits

    def _judged(self, rows: Slots, logits: Floats, config: SignalConfig) -> Signals:
        return from_logits(logits[rows], np.zeros(len(rows), np.intp), config)

    def _fetched(self, rows: Slots, logits: Floats) -> Floats:
        return logits[rows]

    def _redrawn(self, rows: Slots, logits: Floats, tokens: Ids) -> None:
        pass  # signals are made of what is kept, at the end

    def _chunk_of(self, slot: int, span: slice) -> Chunk:
        ids, logits = self._ids[slot, span].copy(), self._logits[slot, span]
        signals = from_logits(logits, ids, self._config[slot])
        return Chunk(ids, signals, *alternatives(logits, ids, signals, int(self._top_k[slot])))
