"""What a task is: it knows where its steps end, grades answers and, where it can, checks every token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wrongturn.trace import Problem


@dataclass(frozen=True, slots=True)
class Segment:
    """One step of a trace: tokens ``start:stop``, what it does, and its first local error (None where valid)."""

    start: int
    stop: int
    kind: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """What a checker found: the first offending token and its class, and each segment judged on what stands before it.

    ``index`` is -1 where the trace is correct; a truncated trace offends at its length.
    """

    index: int
    error: str | None
    segments: tuple[Segment, ...]

    @property
    def exact(self) -> bool:
        """True where every token is the correct one."""
        return self.error is None


class Task(Protocol):
    """Grading sees the problem and its reference; strategies see neither."""

    name: str
    stop_ids: tuple[int, ...]
    boundary_ids: tuple[int, ...]  # tokens that end a step

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each token."""
        ...

    def boundaries(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """[tokens] bool: True at each token that ends a step."""
        ...

    def answer(self, ids: Sequence[int] | np.ndarray) -> str | None:
        """The final answer of a completion, None where it has none."""
        ...

    def grade(self, problem: Problem, answer: str | None) -> bool:
        """Whether the answer is right."""
        ...

    def check(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Check | None:
        """Where a completion leaves the correct path; None where the task cannot tell."""
        ...
