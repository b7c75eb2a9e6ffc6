"""Keys and values of a Hugging Face model's requests: a batch aligned at its right end, and what is kept of the past.

The batch lives in buffers [slots, heads, columns, head_dim], one pair a layer, grown when needed. Rows [0, n) are
being decoded and end at one column, so that a step writes that column of all rows and attends to a view of the buffers:
nothing is copied, whatever the lengths. A row begins where its length says; before that a mask hides what stands there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from wrongturn.trace import Ids


@dataclass(slots=True)
class Place:
    """Where a forward pass reads and writes: rows, and columns [first, end + tokens fed)."""

    slots: int
    columns: int = 0  # of the buffers
    rows: slice | torch.Tensor = field(default_factory=lambda: slice(0, 0))
    first: int = 0
    end: int = 0
    keep: torch.Tensor | None = None  # bool [rows, 1, tokens, 1]: which of the tokens fed are written; None: all


class Layer(CacheLayerMixin):
    """One layer's buffers, as transformers asks for them."""

    is_sliding = False  # all columns are there; a sliding window is a matter of the mask

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make room, once it is known of what shape."""
        self.keys, self.values = (
            states.new_zeros((self.place.slots, states.shape[1], self.place.columns, states.shape[3]))
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write what the tokens fed have given; all there is to attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        at, stop = self.place, self.place.end + key_states.shape[2]
        found = []
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            assert buffer is not None
            if at.keep is not None:
                states = torch.where(at.keep, states, buffer[at.rows, :, at.end : stop])
            buffer[at.rows, :, at.end : stop] = states
            found.append(buffer[at.rows, :, at.first : stop])
        return found[0], found[1]

    def get_seq_length(self) -> int:
        """Columns before the tokens fed."""
        return self.place.end - self.place.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns with the tokens fed, and the number of the first."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


@dataclass(frozen=True, slots=True)
class Past:
    """Tokens and, per buffer, their keys or values [heads, tokens, head_dim]."""

    ids: Ids
    states: list[torch.Tensor]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(s.nbytes for s in self.states)


@dataclass(frozen=True, slots=True)
class Match:
    """``count`` tokens of a prefix are there, in an active row or (else) in the past; ``promise`` soon will be."""

    count: int = 0
    row: int = -1
    past: int = -1
    promise: int = 0


class KV:
    """The batch's rows, and the finished requests whose keys and values are kept, up to ``limit`` bytes.

    ``layers`` are those of each model that decodes in step; there is a cache for each.
    """

    def __init__(self, layers: Sequence[int], slots: int, context: int, limit: int) -> None:
        self.n = 0
        self.place = Place(slots)
        models = [[Layer(self.place) for _ in range(count)] for count in layers]
        self.caches = [Cache(layers=list(own)) for own in models]
        self.layers = [layer for own in models for layer in own]
        self.tokens = np.zeros((slots, context), np.int32)
        self.known = np.zeros(slots, np.intp)  # tokens a row holds
        self.fed = np.zeros(slots, np.intp)  # of these, with keys and values; they end at column ``end``
        self.slot = np.full(slots, -1, np.intp)  # of each active row
        self.row = np.full(slots, -1, np.intp)  # of each slot in use
        self.end = 0
        self._past: OrderedDict[int, Past] = OrderedDict()  # least recently used first
        self._made = 0
        self._limit = limit

    def find(self, prefix: Ids) -> Match:
        """The longest part of ``prefix`` there is, without its last token, which is fed for its distribution."""
        wanted = prefix[:-1]
        best = Match()
        if self.n:
            same = self.tokens[: self.n, : len(wanted)] == wanted
            common = np.where(same.all(1), len(wanted), same.argmin(1) if len(wanted) else 0)
            common = np.minimum(common, self.known[: self.n])
            ready = np.minimum(common, self.fed[: self.n])
            best = Match(int(ready.max()), int(ready.argmax()), promise=int(common.max()))
        for number, past in self._past.items():
            shorter = min(len(past.ids), len(wanted))
            if shorter > best.count:
                differs = past.ids[:shorter] != wanted[:shorter]
                common = int(differs.argmax()) if differs.any() else shorter
                if common > best.count:
                    best = Match(common, past=number, promise=max(best.promise, common))
        return best

    def begin(self, slot: int, prefix: Ids, match: Match) -> int:
        """A new row, which holds ``prefix`` and what is there of it; its number."""
        ahead = len(prefix) - 1
        if self.n == 0:
            self.end = ahead
            self._widen(ahead)
        elif ahead > self.end:
            self._align(ahead + ahead // 4)
        row = self.n
        start = self.end - ahead
        for i, buffer in enumerate(self._buffers()):
            buffer[row, :, :start] = 0  # hidden by the mask, but 0 · NaN is NaN
            if match.count:
                if match.row >= 0:
                    begun = int(self.starts()[match.row])
                    states = buffer[match.row, :, begun : begun + match.count]
                else:
                    states = self._past[match.past].states[i][:, : match.count]
                buffer[row, :, start : start + match.count] = states
        if match.past >= 0:
            self._past.move_to_end(match.past)
        self.n += 1
        self.slot[row], self.row[slot] = slot, row
        self.tokens[row, : len(prefix)] = prefix
        self.known[row], self.fed[row] = len(prefix), match.count
        return row

    def starts(self) -> npt.NDArray[np.intp]:
        """The columns [n] where the rows begin; the last token of a row, not yet fed, is beyond the end."""
        known, fed = self.known[: self.n], self.fed[: self.n]
        return self.end - np.where(fed < known, known - 1, known)

    def advance(self) -> None:
        """Every row has been fed its last token."""
        self.fed[: self.n] += 1
        self.end += 1

    def append(self, slots: Any, tokens: Ids) -> None:
        """One more token for each of ``slots``."""
        rows = self.row[slots]
        self.tokens[rows, self.known[rows]] = tokens
        self.known[rows] += 1

    def finish(self, slot: int) -> None:
        """The request has ended: keep what it computed, and close the gap it leaves with the last active row."""
        row, last = int(self.row[slot]), self.n - 1
        self._retain(row)
        if row != last:
            for buffer in self._buffers():
                buffer[row, :, : self.end] = buffer[last, :, : self.end]
            self.tokens[row, : self.known[last]] = self.tokens[last, : self.known[last]]
            self.known[row], self.fed[row], self.slot[row] = self.known[last], self.fed[last], self.slot[last]
            self.row[self.slot[row]] = row
        self.slot[last] = self.row[slot] = -1
        self.n = last

    def _buffers(self) -> list[torch.Tensor]:
        found = [buffer for layer in self.layers for buffer in (layer.keys, layer.values)]
        return [buffer for buffer in found if buffer is not None]  # a layer that shares another's has none

    def _retain(self, row: int) -> None:
        fed, begun = int(self.fed[row]), int(self.starts()[row])
        buffers = self._buffers()
        size = sum(buffer[0, :, :fed].nbytes for buffer in buffers)
        if not 0 < size <= self._limit:
            return
        states = [buffer[row, :, begun : begun + fed].clone() for buffer in buffers]
        self._past[self._made] = Past(self.tokens[row, :fed].copy(), states)
        self._made += 1
        held = sum(past.size for past in self._past.values())
        while held > self._limit:
            held -= self._past.popitem(last=False)[1].size

    def _widen(self, columns: int) -> None:
        """Room for at least one column more than ``columns``; what the buffers held is lost."""
        if columns >= self.place.columns:
            self.place.columns = max(64, columns * 3 // 2)
            for layer in self.layers:
                for name in ("keys", "values"):
                    buffer = getattr(layer, name)
                    if buffer is not None:
                        shape = (buffer.shape[0], buffer.shape[1], self.place.columns, buffer.shape[3])
                        setattr(layer, name, buffer.new_zeros(shape))

    def _align(self, end: int) -> None:
        """Move all rows so that they end at column ``end`` or later, with room to go on."""
        rows = slice(0, self.n)
        first = int(self.starts().min())
        held = [buffer[rows, :, first : self.end].clone() for buffer in self._buffers()]
        width = self.end - first
        end = max(end, width)
        self._widen(end + end // 4)
        for buffer, states in zip(self._buffers(), held, strict=True):
            buffer[rows, :, : end - width] = 0
            buffer[rows, :, end - width : end] = states
        self.end = end

    def make_room(self) -> None:
        """See that a step can write its column."""
        if self.n and self.end >= self.place.columns:
            self._align(0)
