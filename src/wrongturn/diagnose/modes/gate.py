"""The signal gate: are failures told any better than permuted labels would be?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.modes.ridge import group_folds, out_of_fold
from wrongturn.diagnose.modes.scoring import plain_precision

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_SPLITS = 2
_TOGETHER = 10  # groups a stratum needs, where sizes differ


def gate(failed: NDArray[np.bool_], groups: Index, tables: list[Array], permutations: int, seed: int) -> float:
    """p-value of "features tell nothing": the best lift over all tables, against that of permuted labels."""
    best = gate_statistics(failed, groups, tables, permutations, seed)
    return float(np.mean(best >= best[0] - 1e-12))


def gate_statistics(
    failed: NDArray[np.bool_], groups: Index, tables: list[Array], permutations: int, seed: int
) -> Array:
    """Best average precision over the tables, ``[1 + permutations]``: of the labels, then of each permutation of them.

    All go through the same folds, made without looking at labels, so that under "no signal" they are exchangeable and
    the test is exact.
    """
    rng = np.random.default_rng([seed, 1])
    strata = exchangeable(groups, rng)
    kept = np.sort(np.concatenate([rows.ravel() for rows in strata]))
    labels = permuted(failed, strata, permutations, rng)[kept]
    groups = np.unique(groups[kept], return_inverse=True)[1]
    flat = np.zeros(int(groups.max()) + 1)
    folds = [group_folds(groups, flat, rng) for _ in range(_SPLITS)]
    found = np.zeros((len(tables), labels.shape[1]))
    for table, row in zip(tables, found, strict=True):
        scores = np.sum([out_of_fold(table[kept], labels, fold) for fold in folds], axis=0)
        row[:] = [plain_precision(labels[:, k] > 0, scores[:, k]) for k in range(labels.shape[1])]
    return found.max(axis=0)


def exchangeable(groups: Index, rng: np.random.Generator) -> list[Index]:
    """Strata of groups that may swap their labels: the rows of each as ``[groups, size]``.

    Groups of one size are a stratum. Sizes that fewer than ten groups have are joined with the next such sizes until
    ten groups are together; of each only as many rows as the smallest has, drawn at random, take part in the gate.
    Without labels in the choice nothing is lost but rows.
    """
    order = np.lexsort((rng.random(len(groups)), groups))
    sizes = np.bincount(groups)
    rows = np.split(order, np.cumsum(sizes)[:-1])
    strata, rare = [], []
    for size in np.unique(sizes):
        alike = [rows[g] for g in np.flatnonzero(sizes == size)]
        if len(alike) >= _TOGETHER:
            strata.append(alike)
            continue
        if not rare or len(rare[-1]) >= _TOGETHER:
            rare.append([])
        rare[-1] += alike
    if len(rare) > 1 and len(rare[-1]) < _TOGETHER:
        rare[-2:] = [rare[-2] + rare[-1]]
    return [np.stack([some[: len(alike[0])] for some in alike]) for alike in (*strata, *rare)]


def permuted(failed: NDArray[np.bool_], strata: list[Index], n: int, rng: np.random.Generator) -> Array:
    """``[rows, 1 + n]``: the labels, then ``n`` permutations in which groups of one stratum swap all their labels."""
    labels = np.repeat(failed[:, None].astype(np.float64), n + 1, axis=1)
    for rows in strata:
        for k in range(1, n + 1):
            labels[rows, k] = failed[rows[rng.permutation(len(rows))]]
    return labels
