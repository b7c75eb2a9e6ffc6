"""Which tokens of which traces go into a page of a given size.

``lengths``, ``right`` and ``related`` have one entry a trace: its tokens, whether its answer is right, and whether it
is the parent or the child of another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Lengths = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LONGEST = 200_000  # tokens; what a trace has beyond goes before any other trace does
SHORTEST = 2_000  # tokens; a trace is cut to no less than this


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of the traces' tokens goes into the page."""

    alternatives: bool = True  # of every token; else only where entropy is high or the model was at a fork
    right: float = 1.0  # share of the right traces whose tokens are kept
    wrong: float = 1.0  # and of all others
    longest: int | None = None  # tokens kept of one trace, from its start


NO_TOKENS = Plan(alternatives=False, right=0.0, wrong=0.0)


def plan_for(lengths: Lengths, right: Mask, room: float, full: float, few: float) -> Plan:
    """The plan that keeps most in ``room`` bytes, a token taking ``full`` bytes with all alternatives, else ``few``."""
    total, tokens = int(lengths.sum()), room / few
    if total * full <= room:
        return Plan()
    if total <= tokens:
        return Plan(alternatives=False)
    longest = cap(lengths, tokens)
    if longest >= LONGEST:
        return Plan(alternatives=False, longest=longest)
    lengths = np.minimum(lengths, LONGEST)
    of_right, others = int(lengths[right].sum()), lengths[~right]
    spare = tokens - int(others.sum())
    if spare >= 0:
        return Plan(False, min(spare / max(of_right, 1), 1.0), 1.0, LONGEST)
    longest = cap(others, tokens)
    if longest >= SHORTEST:
        return Plan(False, 0.0, 1.0, longest)
    return Plan(False, 0.0, tokens / max(int(np.minimum(others, SHORTEST).sum()), 1), SHORTEST)


def kept(plan: Plan, lengths: Lengths, right: Mask, related: Mask) -> list[int]:
    """The traces whose tokens are stored: the planned shares, evenly spread, those with relatives first to stay."""
    if plan.longest is not None:
        lengths = np.minimum(lengths, plan.longest)
    found: list[int] = []
    for rows, share in ((np.flatnonzero(right), plan.right), (np.flatnonzero(~right), plan.wrong)):
        family, others = rows[related[rows]].tolist(), rows[~related[rows]].tolist()
        tokens, of_family = share * lengths[rows].sum(), int(lengths[family].sum())
        if of_family <= tokens:
            rest = int(lengths[others].sum())
            found += family + spread(others, (tokens - of_family) / rest if rest else 1.0)
        else:
            found += spread(family, tokens / of_family)
    return sorted(found)


def spread(items: list[T], share: float) -> list[T]:
    """A share of the items, evenly spaced."""
    n = min(len(items), math.floor(len(items) * share + 1e-9))
    return [items[(2 * i + 1) * len(items) // (2 * n)] for i in range(n)]


def cap(lengths: Lengths, tokens: float) -> int:
    """The largest cap under which the capped lengths sum to at most ``tokens``."""
    low, high = 0, int(lengths.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(lengths, middle).sum() <= tokens else (low, middle - 1)
    return low
