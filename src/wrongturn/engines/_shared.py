"""Which rows have what in common."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import numpy as np

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
