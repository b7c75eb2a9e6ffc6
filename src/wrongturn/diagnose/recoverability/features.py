"""What failed traces look like to who knows the model's ancestor: the three published features, and what hangs on them.

Per token J is the demotion pressure and V the logit variance (:mod:`wrongturn.divergence`); a trace of L tokens has its
*junction* at t* = argmax J. Per trace, then the mean over a problem's failed traces:

==================== ===============================================================================================
spread               share of tokens with J > 0 (published); ``spread_1e-3``, ``spread_1e-2``: above that many nats
concentration        log10(max J / mean J) (published). At most log10 L, so it grows with the trace
concentration_share  concentration - log10 L: log10 of the share of all J that falls on the junction
concentration_free   concentration less what its length predicts, by least squares on log10 L over all traces given
dispersion           log10 of the mean V over t* - 8 .. t* + 8 (published)
junction             t* / (L - 1), from 0 to 1
tokens               L
==================== ===============================================================================================

Floors are the published 1e-8. Tokens of unknown J are left out; a trace where all are unknown is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wrongturn.divergence import Divergence
from wrongturn.stats import Estimate, bootstrap

Array = NDArray[np.float64]
Index = NDArray[np.intp]

PUBLISHED = ("spread", "concentration", "dispersion")
WINDOW = 8
FLOOR = 1e-8
_ABOVE = {"spread": 0.0, "spread_1e-3": 1e-3, "spread_1e-2": 1e-2}
_FREE = "concentration_free"


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """A row for each of P failed problems: ``values`` [P, F] of ``names``; NaN: not known, and ``reasons`` says why.

    ``failed`` [P] counts the failed traces a row is the mean of.
    """

    problems: tuple[str, ...]
    groups: tuple[str, ...]
    names: tuple[str, ...]
    values: Array
    failed: Index
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.problems)

    def column(self, name: str) -> Array:
        """[P]; NaN throughout for a feature that is not there."""
        return self.values[:, self.names.index(name)] if name in self.names else np.full(len(self), np.nan)

    def columns(self, names: Sequence[str]) -> Array:
        """[P, len(names)]"""
        return np.column_stack([self.column(name) for name in names])


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A row for each of n failed traces: ``values`` [n, F] of ``names``. ``problem`` [n] is an index into
    ``problems``, whose ``groups`` stand beside them."""

    problems: tuple[str, ...]
    groups: tuple[str, ...]
    problem: Index
    names: tuple[str, ...]
    values: Array

    def mean(self, of: NDArray[np.bool_] | None = None) -> Array:
        """[P, F] means over each problem's traces (those of the mask [n]), NaN left out."""
        known = ~np.isnan(self.values) & (True if of is None else of[:, None])
        sums, counts = np.zeros((2, len(self.problems), len(self.names)))
        np.add.at(sums, self.problem, np.where(known, self.values, 0.0))
        np.add.at(counts, self.problem, known)
        with np.errstate(invalid="ignore"):
            return sums / counts

    @property
    def failed(self) -> Index:
        """[P] traces of each problem."""
        return np.bincount(self.problem, minlength=len(self.problems))


def of_trace(divergence: Divergence) -> dict[str, float]:
    """Every feature of one trace but ``concentration_free``, which takes many."""
    demotion, length = divergence.demotion.astype(np.float64), len(divergence)
    known = ~np.isnan(demotion)
    n = int(known.sum())
    if n == 0:
        return dict.fromkeys(names(), math.nan) | {"tokens": float(length)}
    values = np.where(known, demotion, 0.0)
    at, most = int(values.argmax()), float(values.max())
    concentration = _log10(most / max(values.sum() / n, FLOOR))
    window = divergence.variance[max(at - WINDOW, 0) : at + WINDOW + 1].astype(np.float64)
    window = window[~np.isnan(window)]
    found = {name: float(np.count_nonzero(values > eps)) / n for name, eps in _ABOVE.items()}
    return found | {
        "concentration": concentration,
        "concentration_share": concentration - math.log10(n),
        "dispersion": _log10(float(window.mean())) if len(window) else math.nan,
        "junction": at / (length - 1) if length > 1 else math.nan,
        "tokens": float(length),
    }


def names() -> tuple[str, ...]:
    """Of what :func:`of_trace` gives."""
    return (*_ABOVE, "concentration", "concentration_share", "dispersion", "junction", "tokens")


def rows(
    traces: Sequence[Mapping[str, float]], problem: Sequence[str], group: Mapping[str, str], keys: Sequence[str]
) -> Rows:
    """Features by name of each trace, its problem, and the group of every problem, as one table of ``keys``.

    Where ``concentration`` is among them, ``concentration_free`` is added.
    """
    problems, index = np.unique(np.array(problem, np.str_), return_inverse=True)
    found = tuple(map(str, problems))
    values = np.array([[trace.get(key, math.nan) for key in keys] for trace in traces], np.float64)
    values = values.reshape(len(traces), len(keys))
    if "concentration" in keys:
        at, length = list(keys).index("concentration"), list(keys).index("tokens")
        values = np.column_stack((values, without_length(values[:, at], values[:, length])))
        keys = (*keys, _FREE)
    return Rows(found, tuple(group[name] for name in found), index.astype(np.intp), tuple(keys), values)


def without_length(values: ArrayLike, tokens: ArrayLike) -> Array:
    """[n] residuals of the least-squares line on log10 of the number of tokens; NaN where either is unknown.

    Where all have one length there is nothing to take out but the mean.
    """
    y, x = np.asarray(values, np.float64), np.log10(np.maximum(np.asarray(tokens, np.float64), 1.0))
    known = ~(np.isnan(y) | np.isnan(x))
    if not known.any():
        return np.full(len(y), np.nan)
    centred = x - x[known].mean()
    square = float((centred[known] ** 2).sum())
    slope = float((centred * np.where(known, y, 0.0))[known].sum()) / square if square > 1e-12 else 0.0
    return y - y[known].mean() - slope * centred


def correlation_with_length(features: Features, seed: int = 0) -> dict[str, Estimate]:
    """Spearman's rank correlation of each feature with the mean number of tokens, over problems; NaN below 3 problems
    or where either is constant."""
    tokens = features.column("tokens")
    found = {}
    for name in features.names:
        x = features.column(name)
        known = ~(np.isnan(x) | np.isnan(tokens))
        if name != "tokens":
            found[name] = _spearman(x[known], tokens[known], seed)
    return found


def _spearman(x: Array, y: Array, seed: int) -> Estimate:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Estimate(math.nan, math.nan, math.nan, len(x))
    with np.errstate(invalid="ignore", divide="ignore"):
        return bootstrap([_ranks(x), _ranks(y)], _pearson, seed=seed, n_boot=1000)


def _pearson(x: Array, y: Array, axis: int = -1) -> Array:
    x, y = (part - part.mean(axis=axis, keepdims=True) for part in (x, y))
    return (x * y).sum(axis=axis) / np.sqrt((x * x).sum(axis=axis) * (y * y).sum(axis=axis))


def _ranks(x: Array) -> Array:
    """Mid-ranks."""
    _, index, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[index]


def _log10(x: float) -> float:
    return math.log10(max(x, FLOOR))
