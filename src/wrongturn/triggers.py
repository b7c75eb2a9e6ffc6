"""GUARD's trigger as pure arithmetic: is this entropy a spike against its own past?

Two rules (guard.md §2.1, §2.2). "paper": the strict past, linearly interpolated quantile. "repo": the published code,
whose history includes the current value and whose threshold is the order statistic ``sorted[floor(n q)]``; it cannot
fire on fewer than 11 values at q = .9 and needs at least 5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RULES = ("paper", "repo")
_REPO_MIN = 5


def threshold(history: npt.ArrayLike, q: float, rule: str = "paper") -> np.ndarray:
    """The value to exceed, for each row of ``history`` [..., m] (nats, NaN where shorter); NaN for an empty row."""
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, not {rule!r}")
    if not 0 <= q <= 1:
        raise ValueError(f"q must be in [0, 1], not {q}")
    past = np.sort(np.asarray(history, np.float64), axis=-1)  # NaN sorts last
    n = np.count_nonzero(~np.isnan(past), axis=-1)
    last = np.maximum(n - 1, 0)
    if rule == "repo":
        return _at(past, np.minimum(np.floor(n * q).astype(int), last))
    position = last * q
    low = np.floor(position).astype(int)
    below, above = _at(past, low), _at(past, np.minimum(low + 1, last))
    return below + (position - low) * (above - below)


def fires(
    entropy: npt.ArrayLike, past: npt.ArrayLike, q: float, rule: str = "paper", min_history: int = 1
) -> np.ndarray:
    """Whether each ``entropy`` [...] is a spike against its strict ``past`` [..., m] (NaN-padded).

    ``min_history`` counts past values; the repo rule counts the current one too and never asks for fewer than 5.
    """
    now, before = np.asarray(entropy, np.float64), np.asarray(past, np.float64)
    if rule == "repo":
        before = np.concatenate((before, now[..., None]), axis=-1)
        min_history = max(_REPO_MIN, min_history)
    enough = np.count_nonzero(~np.isnan(before), axis=-1) >= max(1, min_history)
    return enough & (now > threshold(before, q, rule))


def replay(entropies: npt.ArrayLike, q: float, rule: str = "paper", min_history: int = 1) -> np.ndarray:
    """Which of a trace's boundary entropies [m], in order, would have fired: each against those before it."""
    values = np.asarray(entropies, np.float64)
    past = np.where(np.tri(len(values), k=-1, dtype=bool), values, np.nan)
    return fires(values, past, q, rule, min_history) if len(values) else np.zeros(0, bool)


def _at(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    return np.take_along_axis(values, index[..., None], axis=-1)[..., 0]
