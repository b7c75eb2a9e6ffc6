"""Keys and values of the requests being decoded and of those that lately were, found again by their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wrongturn.trace import Ids


@dataclass(frozen=True, slots=True)
class Match:
    """What is in the cache of a prefix: ``count`` tokens of it in ``row``.

    ``promise`` is how many there will be in ``active`` (a row being decoded) once it has computed the tokens it already
    holds; it is worth waiting for where it is more than ``count``.
    """

    row: int
    count: int
    base: int
    active: int
    promise: int


Shape = tuple[int, int, int, int]
"""Of a model's keys: layers, heads, context, head_dim."""


class Cache:
    """Rows of keys and values, per model that decodes in step a float32 [2 · layers, rows, heads, context, head_dim].

    Rows [0, n) are being decoded and stay side by side, so that a step binds just those; rows from ``slots`` on are
    retained, least recently used ones overwritten first. A row's first ``base`` tokens were computed by prefill and all
    others one by one; the two differ in the last bits, so a prefix counts as found only where it was computed the same
    way. That makes what is computed independent of what happens to be cached.
    """

    def __init__(self, models: Sequence[Shape], slots: int, retained: int) -> None:
        rows, context = slots + retained, min(context for _, _, context, _ in models)
        self.n = 0
        # Zeroed by the system page by page at first touch: rows and positions never used cost no memory.
        self.kv = [np.zeros((2 * layers, rows, *shape), np.float32) for layers, *shape in models]
        self.tokens = np.full((rows, context), -1, np.int32)  # -1 from ``known`` on
        self.known = np.zeros(rows, np.intp)  # tokens the row holds
        self.fed = np.zeros(rows, np.intp)  # of these, with keys and values
        self.base = np.zeros(rows, np.intp)
        self.slot = np.full(slots, -1, np.intp)  # of each active row
        self.row = np.full(slots, -1, np.intp)  # of each slot in use
        self._slots = slots
        self._used = np.zeros(rows, np.int64)  # when a retained row was last of use
        self._clock = 0

    def find(self, prefix: Ids, base: int | None) -> Match:
        """The longest usable part of ``prefix``, without its last token, which is always fed for its distribution.

        ``base`` None takes rows whatever part of them was prefilled.
        """
        wanted = prefix[:-1]
        same = self.tokens[:, : len(wanted)] == wanted
        common = np.where(same.all(axis=1), len(wanted), same.argmin(axis=1) if len(wanted) else 0)
        whole = common >= self.base  # a prompt is prefilled as one piece, and is of use as one piece
        common = np.where(whole if base is None else whole & (self.base == base), common, 0)
        ready = np.minimum(common, self.fed)
        ready[ready < self.base] = 0
        row, active = int(ready.argmax()), int(common[: self._slots].argmax())
        return Match(row, int(ready[row]), int(self.base[row]), active, int(common[active]))

    def begin(self, slot: int, prefix: Ids, base: int, source: Match | None = None) -> int:
        """A new active row, holding ``prefix`` and the keys and values of ``source``; its number."""
        row = self.n
        self.n += 1
        self.slot[row], self.row[slot] = slot, row
        self.tokens[row] = -1
        self.tokens[row, : len(prefix)] = prefix
        self.known[row], self.base[row], self.fed[row] = len(prefix), base, 0
        if source is not None:
            self._copy(source.row, row, source.count)
            self.fed[row] = source.count
            self._touch(source.row)
        return row

    def append(self, slots: npt.NDArray[np.intp], tokens: Ids) -> None:
        """One more token for each of ``slots``."""
        rows = self.row[slots]
        self.tokens[rows, self.known[rows]] = tokens
        self.known[rows] += 1

    def end(self, slot: int) -> None:
        """The request has ended: retain what it computed, and close the gap it leaves with the last active row."""
        row, last = int(self.row[slot]), self.n - 1
        if self.fed[row] > 0 and len(self._used) > self._slots:
            oldest = self._slots + int(self._used[self._slots :].argmin())
            self._move(row, oldest)
            self.tokens[oldest, self.fed[oldest] :] = -1
            self.known[oldest] = self.fed[oldest]
            self._touch(oldest)
        if row != last:
            self._move(last, row)
            self.slot[row] = self.slot[last]
            self.row[self.slot[row]] = row
        self.tokens[last], self.fed[last], self.known[last] = -1, 0, 0
        self.slot[last] = self.row[slot] = -1
        self.n = last

    def _move(self, source: int, target: int) -> None:
        self._copy(source, target, int(self.fed[source]))
        for column in (self.tokens, self.known, self.fed, self.base):
            column[target] = column[source]

    def _copy(self, source: int, target: int, count: int) -> None:
        for kv in self.kv:
            kv[:, target, :, :count] = kv[:, source, :, :count]

    def _touch(self, row: int) -> None:
        self._clock += 1
        self._used[row] = self._clock
