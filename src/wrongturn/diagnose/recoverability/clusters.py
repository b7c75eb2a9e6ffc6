"""k-means on standardised rows, how good a division is, and whether two of them agree. NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_ROUNDS = 100


def standardise(values: Array) -> Array:
    """z-scores ``[P, F]`` by the population's mean and standard deviation; a constant column is 0."""
    spread = values.std(axis=0)
    flat = spread <= 1e-12 * np.maximum(np.abs(values.mean(axis=0)), 1.0)
    return np.where(flat, 0.0, (values - values.mean(axis=0)) / np.where(flat, 1.0, spread))


def kmeans(points: Array, k: int, restarts: int, rng: np.random.Generator) -> tuple[Array, Index, float]:
    """Centres ``[k, F]``, the centre of each point ``[P]``, and the sum of squares: the best of ``restarts`` runs of
    Lloyd's algorithm (1982) from k-means++ (Arthur & Vassilvitskii 2007). All restarts run at once."""
    runs = np.arange(restarts)
    centres = np.empty((restarts, k, points.shape[1]))
    centres[:, 0] = points[rng.integers(0, len(points), restarts)]
    near = ((points - centres[:, :1]) ** 2).sum(axis=2)
    for j in range(1, k):
        total = near.cumsum(axis=1)
        at = (total <= rng.random((restarts, 1)) * total[:, -1:]).sum(axis=1)
        centres[:, j] = points[np.minimum(at, len(points) - 1)]
        near = np.minimum(near, ((points - centres[:, j : j + 1]) ** 2).sum(axis=2))
    square = (points**2).sum(axis=1)
    for _ in range(_ROUNDS):
        member = _away(points, square, centres).argmin(axis=2)[:, :, None] == np.arange(k)
        count = member.sum(axis=1)
        sums = np.swapaxes(member.astype(np.float64), 1, 2) @ points
        moved = np.where(count[:, :, None] > 0, sums / np.maximum(count, 1)[:, :, None], centres)
        done = np.array_equal(moved, centres)
        centres = moved
        if done:
            break
    away = _away(points, square, centres)
    cost = away.min(axis=2).sum(axis=1)
    best = runs[cost.argmin()]
    return centres[best], away[best].argmin(axis=1), float(cost[best])


def nearest(points: Array, centres: Array) -> Index:
    """The centre ``[P]`` each point is nearest to."""
    return _away(points, (points**2).sum(axis=1), centres[None])[0].argmin(axis=1)


def _away(points: Array, square: Array, centres: Array) -> Array:
    """Squared distances ``[R, P, k]``."""
    cross = points @ np.swapaxes(centres, 1, 2)
    return np.maximum(square[:, None] - 2.0 * cross + (centres**2).sum(axis=2)[:, None, :], 0.0)


def distances(points: Array) -> Array:
    """``[P, P]``"""
    return np.sqrt(_away(points, (points**2).sum(axis=1), points[None])[0])


def silhouette(apart: Array, member: Index) -> float:
    """Mean silhouette (Rousseeuw 1987) of a division, from distances ``[P, P]``; a point alone in its cluster counts
    0."""
    k = int(member.max()) + 1
    one_hot = (member[:, None] == np.arange(k)).astype(np.float64)
    size = one_hot.sum(axis=0)
    total = apart @ one_hot
    own = size[member]
    rows = np.arange(len(member))
    inside = total[rows, member] / np.maximum(own - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(size > 0, total / size, np.inf)
    mean[rows, member] = np.inf
    outside = mean.min(axis=1)
    widest = np.maximum(inside, outside)
    score = np.where((own > 1) & (widest > 0), (outside - inside) / np.where(widest > 0, widest, 1.0), 0.0)
    return float(score.mean())


def adjusted_rand(a: Index, b: Index) -> float:
    """Agreement of two divisions (Hubert & Arabie 1985): 1 the same, 0 as by chance."""
    n = len(a)
    table = np.zeros((int(a.max(initial=0)) + 1, int(b.max(initial=0)) + 1))
    np.add.at(table, (a, b), 1.0)
    both, first, second = (float((x * (x - 1) / 2).sum()) for x in (table, table.sum(axis=1), table.sum(axis=0)))
    pairs = n * (n - 1) / 2
    if not pairs:
        return 1.0
    expected, most = first * second / pairs, (first + second) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def chi_square(a: Index, b: Index) -> float:
    """Pearson's statistic of the table of two divisions."""
    table = np.zeros((int(a.max(initial=0)) + 1, int(b.max(initial=0)) + 1))
    np.add.at(table, (a, b), 1.0)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / max(len(a), 1)
    return float(((table - expected) ** 2 / np.where(expected > 0, expected, 1.0)).sum())
