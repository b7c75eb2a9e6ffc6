"""Rows whose distributions are measured at once, where they lie, and not kept: for vocabularies of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wrongturn.engines._draw import Floats, alternatives, draw, no_alternatives
from wrongturn.engines._rows import Rows, Slots
from wrongturn.engines.base import Chunk, Request
from wrongturn.signals import FIELDS, SignalConfig, Signals, from_logits
from wrongturn.trace import Ids

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of n distributions: per row how to draw and the constants of the signals, ``top_k`` of all."""

    temperature: Numbers
    top_p: Numbers
    chance: Numbers
    nucleus_p: Numbers
    tie_delta: Numbers
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer: tokens [n] drawn, signals [9, n] in the order of ``FIELDS``, ``top_k`` alternatives [n, k]."""

    tokens: Ids
    table: Floats
    top_ids: Ids
    top_logprobs: Floats


Look = Callable[[Any, Ask], Seen]
"""Measures logits [n, V] and draws from them."""


def look(logits: Floats, ask: Ask) -> Seen:
    """The look at logits in main memory; the one on a device is :func:`wrongturn.engines._device_signals.look`."""
    tokens = draw(logits, ask.temperature, ask.top_p, ask.chance)
    table = np.empty((len(FIELDS), len(tokens)), np.float32)
    constants = list(zip(ask.nucleus_p.tolist(), ask.tie_delta.tolist(), strict=True))
    for pair in set(constants):
        rows = np.array([i for i, own in enumerate(constants) if own == pair])
        whole = len(rows) == len(tokens)  # the usual case: no copy of the logits
        signals = from_logits(logits if whole else logits[rows], tokens[rows], SignalConfig(*pair))
        table[:, rows] = list(signals.dict().values())
    return Seen(tokens, table, *alternatives(logits, tokens, Signals(*table), ask.top_k))


class Measured(Rows):
    """Rows that keep 9 numbers a token, and what their request asked for besides.

    ``hidden`` is set by the engine before each step: for the slots that want them, the states [layers, width].
    """

    def __init__(self, slots: int, vocab: int, context: int, look: Look = look) -> None:
        super().__init__(slots, vocab, context)
        self.hidden: dict[int, npt.NDArray[np.float16]] = {}
        self._look = look
        self._nucleus_p, self._tie_delta = np.ones(slots), np.ones(slots)
        self._table = np.zeros((slots, context, len(FIELDS)), np.float32)
        self._alternatives: dict[int, tuple[Ids, Floats]] = {}  # by slot
        self._states: dict[int, npt.NDArray[np.float16]] = {}  # by slot

    def admit(self, request: Request) -> int:
        slot = super().admit(request)
        self._nucleus_p[slot], self._tie_delta[slot] = request.signals.nucleus_p, request.signals.tie_delta
        self._alternatives.pop(slot, None)
        self._states.pop(slot, None)
        if request.top_k:
            self._alternatives[slot] = no_alternatives(int(self._limit[slot]), request.top_k)
        return slot

    def step(self, slots: Slots, logits: Any, ancestor: Any = None) -> tuple[Ids, npt.NDArray[np.int8]]:
        at = self._count[slots]
        ask = Ask(
            self._temperature[slots],
            self._top_p[slots],
            self._chance[slots, at],
            self._nucleus_p[slots],
            self._tie_delta[slots],
            int(self._top_k[slots].max(initial=0)),
        )
        self._seen = self._look(logits, ask)
        return super().step(slots, logits, ancestor)

    def _draw(self, slots: Slots, at: Slots, logits: Any) -> Ids:
        return self._seen.tokens

    def _judged(self, rows: Slots, logits: Any, config: SignalConfig) -> Signals:
        return Signals(*self._seen.table[:, rows])

    def _fetched(self, rows: Slots, logits: Any) -> Floats:
        found = logits[rows]
        return found if isinstance(found, np.ndarray) else found.float().cpu().numpy()

    def _redrawn(self, rows: Slots, logits: Floats, tokens: Ids) -> None:
        seen, every = self._seen, np.arange(len(rows))
        seen.table[0, rows] += logits[every, seen.tokens[rows]] - logits[every, tokens]

    def _keep(self, slots: Slots, at: Slots, logits: Any) -> None:
        self._table[slots, at] = self._seen.table.T
        for i, (slot, where) in enumerate(zip(slots.tolist(), at.tolist(), strict=True)):
            if slot in self._alternatives:
                ids, logprobs = self._alternatives[slot]
                known = min(ids.shape[1], self._seen.top_ids.shape[1])
                ids[where, :known] = self._seen.top_ids[i, :known]
                logprobs[where, :known] = self._seen.top_logprobs[i, :known]
            if slot in self.hidden:
                states = self.hidden[slot]
                if slot not in self._states:
                    self._states[slot] = np.empty((int(self._limit[slot]), *states.shape), np.float16)
                self._states[slot][where] = states

    def _chunk_of(self, slot: int, span: slice) -> Chunk:
        ids = self._ids[slot, span].copy()
        top = no_alternatives(len(ids), 0)
        if slot in self._alternatives:
            top = self._alternatives[slot][0][span].copy(), self._alternatives[slot][1][span].copy()
        chunk = Chunk(ids, Signals(*self._table[slot, span].T.copy()), *top)
        if slot in self._states:
            chunk.hidden = self._states[slot][span].copy()
        return chunk
