"""Estimates with intervals: proportions, paired comparisons, the (clustered) bootstrap, and ranking scores.

Every estimate says how many independent units it rests on. With no data it is NaN, not an error, so a report can be
written of any run; malformed data is a ``ValueError``. Everything random takes a ``seed`` and repeats exactly.

Several traces of one problem are not independent: name the problem in ``clusters`` (any integers or strings, one per
observation) and whole problems are resampled.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 1 << 19  # resampled observations held at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its confidence interval, the number of independent units, and what chance alone would give."""

    value: float
    low: float
    high: float
    n: int
    base_rate: float = math.nan

    def dict(self) -> dict[str, float | int | None]:
        """Plain values for JSON, which knows no NaN or infinity: those become ``None``."""
        items = {name: float(getattr(self, name)) for name in ("value", "low", "high", "base_rate")}
        finite = {name: item if math.isfinite(item) else None for name, item in items.items()}
        return {**finite, "n": int(self.n)}

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"unknown (n={self.n})"
        text = f"{self.value:z.2f} [{self.low:z.2f}, {self.high:z.2f}] n={self.n}"
        return text if math.isnan(self.base_rate) else f"{text} base={self.base_rate:.2f}"


def proportion(successes: int, n: int, level: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927), which stays inside [0, 1] and has width at 0 and 1.

    Raises:
        ValueError: unless 0 <= successes <= n.
    """
    z = _normal_quantile(level)
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in [0, n], got {successes} of {n}")
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    high = 1.0 if successes == n else min(centre + half, 1.0)
    return Estimate(p, low, high, int(n))


def difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """mean(a) - mean(b) for two outcomes of the same n problems (booleans ``[n]``).

    Newcombe (1998), Statistics in Medicine 17:2635, method 10: the Wilson limits of both proportions, squared and added
    with the correlation phi of the pairs, whose numerator is reduced by n/2 (not past 0) when it is positive.
    """
    both, only_a, only_b, neither = _paired_table(a, b)
    n = both + only_a + only_b + neither
    first, second = proportion(both + only_a, n, level), proportion(both + only_b, n, level)
    if n == 0:
        return first
    product = both * neither - only_a * only_b
    if product > 0:
        product = max(product - n / 2, 0.0)
    scale = math.sqrt((both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither))
    phi = product / scale if scale else 0.0

    def length(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    value = (only_a - only_b) / n
    low = value - length(first.value - first.low, second.high - second.value)
    high = value + length(first.high - first.value, second.value - second.low)
    return Estimate(value, max(low, -1.0), min(high, 1.0), n)


def mcnemar(a: ArrayLike, b: ArrayLike, mid_p: bool = False) -> float:
    """Two-sided p-value of "a and b succeed equally often" from the discordant pairs of booleans ``[n]``.

    Exact binomial; ``mid_p`` counts the observed split by half (Fagerland, Lydersen & Laake 2013), which is less
    conservative. No discordant pair gives 1, no pair at all NaN.
    """
    both, only_a, only_b, neither = _paired_table(a, b)
    if both + only_a + only_b + neither == 0:
        return math.nan
    trials, fewer = only_a + only_b, min(only_a, only_b)
    ways = tail = 1  # of trials choose i, as integers: exact for any number of pairs
    for i in range(fewer):
        ways = ways * (trials - i) // (i + 1)
        tail += ways
    if mid_p:
        return 1.0 - ways / 2 ** (trials + 1) if only_a == only_b else (2 * tail - ways) / 2**trials
    return min(2 * tail / 2**trials, 1.0)


def bootstrap(
    values: ArrayLike | Sequence[ArrayLike],
    statistic: Callable[..., object],
    *,
    clusters: ArrayLike | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Percentile bootstrap interval of a statistic of the data (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: one array ``[n]``, or a list of arrays ``[n]`` that belong together row by row: each resample draws the
            same rows of all of them, and ``statistic(*arrays)`` gets them all.
        statistic: if it has a parameter ``axis`` (as ``np.mean`` has) it is called with ``axis=-1`` on blocks
            ``[b, n]`` of resamples, else once per resample.
        clusters: labels ``[n]``; whole clusters are resampled.

    Returns:
        The statistic of the data itself, and quantiles over the resamples where it is not NaN. ``n`` counts what was
        resampled: rows, or clusters. A single unit has a value but no interval (NaN).

    Raises:
        ValueError: an array is not one-dimensional, or lengths differ.
    """
    _normal_quantile(level)
    several = isinstance(values, (list, tuple)) and len(values) > 0 and np.ndim(values[0]) > 0
    arrays = [np.asarray(array) for array in (values if several else [values])]  # type: ignore[union-attr]
    n = _common_length(*arrays)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    vectorised = _takes_axis(statistic)
    order, starts, sizes = _clusters(clusters, n)
    value = float(np.asarray(statistic(*arrays)))
    units = len(sizes)
    if units < 2:
        return Estimate(value, math.nan, math.nan, units)
    arrays = [array[order] for array in arrays]
    results = []
    for draws in _draws(units, n_boot, seed, width=n):
        for rows in _rows(draws, starts, sizes):
            samples = [array[rows] for array in arrays]
            if vectorised:
                results.append(np.asarray(statistic(*samples, axis=-1)))
            else:
                results.append(np.array([statistic(*sample) for sample in zip(*samples, strict=True)]))
    known = np.concatenate(results)
    known = known[~np.isnan(known)]
    if known.size == 0:
        return Estimate(value, math.nan, math.nan, units)
    low, high = np.quantile(known, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(low), float(high), units)


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """mean(a - b) over the same n problems, with the percentile bootstrap over problems (or ``clusters``)."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    _common_length(first, second)
    return bootstrap(first - second, np.mean, clusters=clusters, n_boot=n_boot, seed=seed, level=level)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall steps: sum of (R_k - R_{k-1}) P_k over distinct thresholds, highest first.

    Tied scores are one threshold, so their order cannot matter. NaN without a positive label. Chance level is the
    share of positives.

    Args:
        labels: booleans (or 0/1) ``[n]``.
        scores: ``[n]``, higher means more likely positive.

    Raises:
        ValueError: labels other than 0/1, NaN scores (what to do with them changes the question, so the caller says),
            or different lengths.
    """
    labels, scores = _labels_and_scores(labels, scores)
    order, starts = _thresholds(scores)
    weights = np.ones((1, len(scores)))
    return float(_weighted_average_precision(weights, labels, order, starts)[0])


def average_precision_bootstrap(
    labels: ArrayLike, scores: ArrayLike, n_boot: int = 2000, seed: int = 0, clusters: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Average precision of ``n_boot`` resamples, ``[n_boot]``; NaN where a resample has no positive.

    The scores are sorted once: a resample is a weight (how often it was drawn) per row. The draws depend on ``n``,
    ``clusters`` and ``seed`` alone, so two scores of the same rows get the same resamples and can be subtracted.
    """
    labels, scores = _labels_and_scores(labels, scores)
    n = len(scores)
    if n == 0:
        return np.full(n_boot, math.nan)
    order, starts = _thresholds(scores)
    cluster_order, _, sizes = _clusters(clusters, n)
    cluster_of = np.empty(n, dtype=np.intp)
    cluster_of[cluster_order] = np.repeat(np.arange(len(sizes)), sizes)
    results = [np.empty(0)]
    for draws in _draws(len(sizes), n_boot, seed, width=n):
        weights = _counts(draws, len(sizes))
        results.append(_weighted_average_precision(weights[:, cluster_of], labels, order, starts))
    return np.concatenate(results)


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a random positive scores above a random negative, ties counting half; NaN without a pair.

    Raises:
        ValueError: as in :func:`average_precision`; NaN scores are refused, not dropped.
    """
    labels, scores = _labels_and_scores(labels, scores)
    wins, pairs = _wins_and_pairs(labels, scores, np.zeros(len(scores), dtype=np.intp), 1)
    return float(wins[0] / pairs[0]) if pairs[0] else math.nan


def within_auroc(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, *, n_boot: int = 2000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """AUROC over pairs from the same group (problem), so that telling easy from hard problems earns nothing.

    All such pairs count equally. The interval resamples the groups that have both outcomes; ``n`` is their number.
    """
    labels, scores = _labels_and_scores(labels, scores)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    _common_length(index, scores)
    wins, pairs = _wins_and_pairs(labels, scores, index, len(names))
    wins, pairs = wins[pairs > 0], pairs[pairs > 0]

    def pooled(won: NDArray, held: NDArray, axis: int = -1) -> NDArray:
        return won.sum(axis=axis) / held.sum(axis=axis)

    estimate = bootstrap([wins, pairs], pooled, n_boot=n_boot, seed=seed, level=level)
    return Estimate(estimate.value, estimate.low, estimate.high, estimate.n, base_rate=0.5)


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment (1979): reject where the result is <= alpha, at family-wise error alpha.

    NaN (a test that could not be made) stays NaN and does not count as a test.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    p = np.asarray(pvalues, dtype=np.float64)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise ValueError("p-values must be a list of numbers in [0, 1]")
    m = int((~np.isnan(p)).sum())
    order = np.argsort(p, kind="stable")[:m]  # NaN sorts last
    adjusted = np.full(len(p), math.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(m, 0, -1)), 1.0)
    return adjusted


def _normal_quantile(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return NormalDist().inv_cdf(0.5 + level / 2)


def _common_length(*arrays: NDArray) -> int:
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 1:
        raise ValueError(f"need one-dimensional data of one length, got shapes {[array.shape for array in arrays]}")
    return len(arrays[0])


def _as_bool(values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise ValueError("outcomes must be true/false (or 1/0)")
    return array.astype(np.bool_)


def _paired_table(a: ArrayLike, b: ArrayLike) -> tuple[int, int, int, int]:
    """Counts of (both, only a, only b, neither)."""
    first, second = _as_bool(a), _as_bool(b)
    _common_length(first, second)
    tables = (first & second, first & ~second, ~first & second, ~first & ~second)
    both, only_a, only_b, neither = (int(table.sum()) for table in tables)
    return both, only_a, only_b, neither


def _labels_and_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth, numbers = _as_bool(labels), np.asarray(scores, dtype=np.float64)
    _common_length(truth, numbers)
    if np.isnan(numbers).any():
        raise ValueError("scores contain NaN; leave those rows out, or give them a score")
    return truth, numbers


def _takes_axis(statistic: Callable[..., object]) -> bool:
    with contextlib.suppress(TypeError, ValueError):  # some built-ins have no signature
        return "axis" in inspect.signature(statistic).parameters
    return False


def _clusters(clusters: ArrayLike | None, n: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Rows ordered by cluster, and where each cluster starts in that order and how many rows it has."""
    if clusters is None:
        return np.arange(n), np.arange(n), np.ones(n, dtype=np.intp)
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        raise ValueError(f"clusters must have one label per observation ({n}), got shape {labels.shape}")
    _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.argsort(index, kind="stable"), np.cumsum(sizes) - sizes, sizes


def _draws(units: int, n_boot: int, seed: int, width: int) -> Iterator[NDArray[np.int64]]:
    """Blocks ``[b, units]`` of units drawn with replacement, ``n_boot`` rows in all."""
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, n_boot, step):
        yield rng.integers(0, units, (min(step, n_boot - start), units))


def _rows(draws: NDArray[np.int64], starts: NDArray[np.intp], sizes: NDArray[np.intp]) -> Iterator[NDArray[np.integer]]:
    """Row numbers ``[b, m]`` of the drawn clusters: all at once if clusters are of one size, else one resample each."""
    if (sizes == sizes[0]).all():
        yield (starts[draws][:, :, None] + np.arange(sizes[0])).reshape(len(draws), -1)
        return
    for draw in draws:
        lengths = sizes[draw]
        ends = np.cumsum(lengths)
        yield (np.arange(ends[-1]) + np.repeat(starts[draw] - (ends - lengths), lengths))[None]


def _counts(draws: NDArray[np.int64], units: int) -> NDArray[np.float64]:
    """How often each unit was drawn: ``[b, units]`` from ``[b, anything]``."""
    b = len(draws)
    flat = (draws + units * np.arange(b)[:, None]).reshape(-1)
    return np.bincount(flat, minlength=b * units).reshape(b, units).astype(np.float64)


def _thresholds(scores: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows from the highest score down, and where each distinct score starts in that order."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    return order, np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(order)])


def _weighted_average_precision(
    weights: NDArray[np.float64], labels: NDArray[np.bool_], order: NDArray[np.intp], starts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Average precision ``[b]`` for row weights ``[b, n]``."""
    if len(order) == 0:
        return np.full(len(weights), math.nan)
    weights = weights[:, order]
    positive = weights * labels[order]
    if len(starts) < len(order):
        weights, positive = (np.add.reduceat(array, starts, axis=1) for array in (weights, positive))
    found, seen = np.cumsum(positive, axis=1), np.cumsum(weights, axis=1)
    with np.errstate(invalid="ignore"):  # 0/0 where nothing has been drawn yet, or no positive at all
        precision = np.where(seen > 0, found / seen, 0.0)
        return np.einsum("ij,ij->i", positive, precision) / found[:, -1]


def _wins_and_pairs(
    labels: NDArray[np.bool_], scores: NDArray[np.float64], groups: NDArray[np.intp], n_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per group: positive-negative pairs the positive wins (a tie is half a win), and all such pairs.

    By mid-ranks (Mann & Whitney 1947): positives of rank sum S win S - P(P+1)/2 pairs.
    """
    order = np.lexsort((scores, groups))
    labels, scores, groups = labels[order], scores[order], groups[order]
    n = len(scores)
    new = np.append(True, (groups[1:] != groups[:-1]) | (scores[1:] != scores[:-1]))[:n]
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, n))
    midrank = np.repeat(starts + (sizes + 1) / 2, sizes)  # counted through all groups
    members = np.bincount(groups, minlength=n_groups)
    before = np.cumsum(members) - members
    positives = np.bincount(groups, weights=labels, minlength=n_groups)
    rank_sum = np.bincount(groups, weights=labels * (midrank - before[groups]), minlength=n_groups)
    return rank_sum - positives * (positives + 1) / 2, positives * (members - positives).astype(np.float64)
