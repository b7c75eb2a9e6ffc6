"""Intervals for figures about traces, which come in problems: traces of one problem are not independent.

Two tools do everything here:

- :func:`share`, a proportion: Wilson's interval at the *effective* sample size (Kish 1965; Korn & Graubard 1998), so it
  has width at 0 and 1 and needs no resampling.
- :class:`Resamples`, the cluster bootstrap: whole problems are drawn with replacement, once for a whole study. A
  figure is a function of *sums over traces*; a resample re-weights each problem's sums, so 2 000 resamples are one
  matrix product.

Percentile intervals are too narrow for few problems; both tools widen by Student's t in place of the normal (for the
bootstrap: "expanded percentile", Hesterberg 2015). ``n`` of an estimate counts the problems it rests on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wrongturn.stats import Estimate, proportion

Array = NDArray[np.float64]
Index = NDArray[np.intp]

UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)
_LEVEL = 0.95
_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.5 + _LEVEL / 2)


def student(units: int) -> float:
    """Two-sided 95 % quantile of Student's t with ``units - 1`` degrees of freedom (Fisher & Cornish 1960)."""
    z, v = _Z, max(units - 1, 1)
    if v <= 2:  # the expansion is poor here, the closed forms are simple
        return (12.7062, 4.3027)[v - 1]
    powers = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / v ** (i + 1) for i, term in enumerate(powers))


def share(hits: ArrayLike, clusters: ArrayLike, base_rate: float = math.nan) -> Estimate:
    """Proportion of ``hits`` [n] (0 to 1; NaN: not known, left out) whose rows belong to ``clusters`` [n]."""
    hits, clusters = np.asarray(hits, np.float64), np.asarray(clusters)
    known = ~np.isnan(hits)
    hits, clusters = hits[known], clusters[known]
    n = len(hits)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, base_rate)
    names, index = np.unique(clusters, return_inverse=True)
    units, p = len(names), float(hits.mean())
    if units < 2:
        return Estimate(p, math.nan, math.nan, units, base_rate)
    residual = np.bincount(index, hits - p)
    variance = float(residual @ residual) / n**2 * units / (units - 1)
    effective = min(p * (1 - p) / variance, n) if variance > 0 else units
    effective *= (_Z / student(units)) ** 2
    low, high = _wilson(p, effective)
    return Estimate(p, low, high, units, base_rate)


def _wilson(p: float, n: float) -> tuple[float, float]:
    if n == round(n) and p * n == round(p * n):
        exact = proportion(round(p * n), round(n), _LEVEL)
        return exact.low, exact.high
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
    return (0.0 if p == 0 else max(centre - half, 0.0)), (1.0 if p == 1 else min(centre + half, 1.0))


class Resamples:
    """``n_boot`` resamples of ``n_clusters`` problems: how often each was drawn, ``weights`` [n_boot, n_clusters]."""

    def __init__(self, n_clusters: int, n_boot: int = 2000, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.clusters = n_clusters
        self.weights: Array = np.zeros((n_boot, n_clusters))
        for row in range(n_boot if n_clusters else 0):
            self.weights[row] = np.bincount(rng.integers(0, n_clusters, n_clusters), minlength=n_clusters)

    def estimate(
        self,
        clusters: Index,
        columns: Sequence[ArrayLike],
        statistic: Callable[[Array], Array],
        base_rate: float = math.nan,
        n: int | None = None,
    ) -> Estimate:
        """``statistic`` of the column sums. ``columns``: arrays [rows], row i of problem ``clusters[i]``; the
        statistic maps sums [..., k] to values [...]. Rows with a NaN anywhere are left out. ``n``: problems the
        figure rests on, where these are fewer than those with a row."""
        table = np.column_stack([np.asarray(column, np.float64) for column in columns])
        known = ~np.isnan(table).any(axis=1)
        sums, present = self._sums(clusters[known], table[known])
        with np.errstate(all="ignore"):
            value = float(statistic(sums.sum(axis=0)))
            resampled = statistic(self.weights[:, present] @ sums[present])
        return _interval(value, resampled, len(present) if n is None else n, base_rate)

    def mean(self, clusters: Index, values: ArrayLike, base_rate: float = math.nan) -> Estimate:
        """Mean over rows."""
        return self.ratio(clusters, values, np.ones(len(clusters)), base_rate)

    def ratio(self, clusters: Index, above: ArrayLike, below: ArrayLike, base_rate: float = math.nan) -> Estimate:
        """sum(above) / sum(below)."""
        return self.estimate(clusters, (above, below), lambda s: s[..., 0] / s[..., 1], base_rate)

    def contrast(self, clusters: Index, values: ArrayLike, first: ArrayLike, statistic: str = "mean") -> Estimate:
        """Mean (or "std", or "log mean": a ratio of means) of the rows where ``first`` minus that of the others.

        ``n`` counts the problems of the rarer kind of row: no amount of right traces makes up for few wrong ones.
        """
        x = np.asarray(values, np.float64)
        known = ~np.isnan(x)
        clusters, x, a = clusters[known], x[known], np.asarray(first, bool)[known]
        columns = [part * mask for mask in (a, ~a) for part in (np.ones(len(x)), x, x * x)]

        def difference(s: Array) -> Array:
            means = s[..., 1] / s[..., 0], s[..., 4] / s[..., 3]
            if statistic == "log mean":
                return np.log(means[0]) - np.log(means[1])
            if statistic == "std":
                squares = s[..., 2] / s[..., 0], s[..., 5] / s[..., 3]
                means = tuple(np.sqrt(np.maximum(q - m * m, 0)) for q, m in zip(squares, means, strict=True))
            return means[0] - means[1]

        return self.estimate(clusters, columns, difference, n=_rarer(clusters, a))

    def median(self, clusters: Index, values: ArrayLike) -> Estimate:
        """Median over rows."""
        x = np.asarray(values, np.float64)
        clusters, x = clusters[~np.isnan(x)], x[~np.isnan(x)]
        if len(x) == 0:
            return UNKNOWN
        order = np.argsort(x, kind="stable")
        weight = np.cumsum(self.weights[:, clusters[order]], axis=1)
        at = (weight < weight[:, -1:] / 2).sum(axis=1)
        resampled = np.where(weight[:, -1] > 0, x[order][np.minimum(at, len(x) - 1)], np.nan)
        return _interval(float(np.median(x)), resampled, len(np.unique(clusters)))

    def auroc(self, clusters: Index, labels: ArrayLike, scores: ArrayLike, within: Index | None = None) -> Estimate:
        """Chance that a positive scores above a negative; with ``within`` only pairs that share its value count.

        Pooled resamples use the Hájek projection (each row's placement among the other class, as in DeLong 1988 and,
        for clusters, Obuchowski 1997), which agrees with the full bootstrap to first order at a thousandth of the
        work.
        """
        scores = np.asarray(scores, np.float64)
        known = ~np.isnan(scores)
        positive, scores, clusters = np.asarray(labels, bool)[known], scores[known], clusters[known]
        unit = np.zeros(len(scores), np.intp) if within is None else within[known]
        wins, rivals = _wins(positive, scores, unit)
        if within is not None:
            mixed = positive & (rivals > 0)
            return self.ratio(clusters[mixed], wins[mixed], rivals[mixed], 0.5)
        if not len(scores) or rivals.min() == 0:
            return UNKNOWN
        whole = float((wins / rivals)[positive].mean())
        columns = [part * mask for mask in (positive, ~positive) for part in (wins / rivals, np.ones(len(wins)))]

        def projection(s: Array) -> Array:
            return np.clip(s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3] - whole, 0.0, 1.0)

        return self.estimate(clusters, columns, projection, 0.5, n=_rarer(clusters, positive))

    def curve(self, clusters: Index, rows: Array, even: bool = False) -> tuple[Array, Array, Array]:
        """Mean of ``rows`` [n, points] with a *simultaneous* 95 % band: the whole curve is inside with that chance.

        Sup-t band (Montiel Olea & Plagborg-Møller 2019): as many standard errors everywhere. With ``even`` it is
        equally wide everywhere, as Kolmogorov's, which is what shares need: near 0 and 1 their standard errors cannot
        be trusted. NaN entries are left out.
        """
        known = ~np.isnan(rows)
        above, present = self._sums(clusters, np.where(known, rows, 0.0))
        below, _ = self._sums(clusters, known.astype(np.float64))
        with np.errstate(all="ignore"):
            mean = above.sum(axis=0) / below.sum(axis=0)
            if len(present) < 2:
                return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
            weights = self.weights[:, present]
            away = np.abs((weights @ above[present]) / (weights @ below[present]) - mean)
        away[~np.isfinite(away)] = 0.0
        scale = np.ones(len(mean)) if even else np.sqrt((away**2).mean(axis=0))
        widest = np.max(away / np.where(scale > 0, scale, 1.0), axis=1, initial=0.0)
        reach = np.quantile(widest, _LEVEL) * student(len(present)) / _Z * scale
        return mean, mean - reach, mean + reach

    def _sums(self, clusters: Index, table: Array) -> tuple[Array, Index]:
        """Column sums per problem [n_clusters, k], and which problems have a row."""
        sums = np.zeros((self.clusters, table.shape[1]))
        for k in range(table.shape[1]):
            sums[:, k] = np.bincount(clusters, table[:, k], minlength=self.clusters)
        return sums, np.unique(clusters)


def _rarer(clusters: Index, first: NDArray[np.bool_]) -> int:
    """Number of problems with a row of the rarer kind."""
    return min(len(np.unique(clusters[first])), len(np.unique(clusters[~first])))


def _wins(positive: NDArray[np.bool_], scores: Array, unit: Index) -> tuple[Array, Array]:
    """Per row: how many rows of the other class in its unit it wins against (positives by a higher score, negatives
    by a lower one, a tie is half a win), and how many there are. By mid-ranks: rank among all minus rank among its
    own class."""
    units = int(unit.max(initial=-1)) + 1
    above = _midranks(scores, unit) - _midranks(scores, unit * 2 + positive)
    count = np.stack([np.bincount(unit[positive == kind], minlength=units) for kind in (False, True)])
    rivals = np.where(positive, count[0][unit], count[1][unit]).astype(np.float64)
    return np.where(positive, above, rivals - above), rivals


def _midranks(scores: Array, unit: Index) -> Array:
    """Rank of each row inside its unit, from 1; ties share the mean of their ranks."""
    order = np.lexsort((scores, unit))
    sorted_scores, sorted_unit = scores[order], unit[order]
    new_unit = np.append(True, sorted_unit[1:] != sorted_unit[:-1])[: len(order)]
    starts = np.flatnonzero(new_unit | np.append(True, sorted_scores[1:] != sorted_scores[:-1])[: len(order)])
    sizes = np.diff(np.append(starts, len(order)))
    first = np.flatnonzero(new_unit)
    begin = np.repeat(first, np.diff(np.append(first, len(order))))
    ranks = np.empty(len(order))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes) - begin
    return ranks


def exponential(estimate: Estimate) -> Estimate:
    """The estimate of a ratio from that of its logarithm."""
    with np.errstate(over="ignore"):
        value, low, high = (float(x) for x in np.exp([estimate.value, estimate.low, estimate.high]))
    return Estimate(value, low, high, estimate.n, 1.0)


def _interval(value: float, resampled: Array, units: int, base_rate: float = math.nan) -> Estimate:
    """Expanded percentile interval (Hesterberg 2015): the tail is that of Student's t, for the n - 1 bias too."""
    known = resampled[np.isfinite(resampled)]
    value = value if math.isfinite(value) else math.nan
    if math.isnan(value) or units < 2 or len(known) == 0:
        return Estimate(value, math.nan, math.nan, units, base_rate)
    tail = _NORMAL.cdf(-math.sqrt(units / (units - 1)) * student(units))
    low, high = np.quantile(known, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), units, base_rate)
