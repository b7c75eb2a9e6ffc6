"""The signal gate: are failures told any better than permuted labels would be?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.modes.ridge import group_folds, out_of_fold
from wrongturn.diagnose.modes.scoring import plain_precision

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_SPLITS = 2


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
    labels = permuted(failed, groups, permutations, rng)
    flat = np.zeros(int(groups.max()) + 1)
    folds = [group_folds(groups, flat, rng) for _ in range(_SPLITS)]
    found = np.zeros((len(tables), labels.shape[1]))
    for table, row in zip(tables, found, strict=True):
        scores = sum(out_of_fold(table, labels, fold) for fold in folds)
        row[:] = [plain_precision(labels[:, k] > 0, scores[:, k]) for k in range(labels.shape[1])]  # type: ignore[index]
    return found.max(axis=0)


def permuted(failed: NDArray[np.bool_], groups: Index, n: int, rng: np.random.Generator) -> Array:
    """``[rows, 1 + n]``: the labels, then ``n`` permutations in which groups of one size swap all their labels."""
    labels = np.repeat(failed[:, None].astype(np.float64), n + 1, axis=1)
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    for size in np.unique(sizes[sizes > 0]):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        for k in range(1, n + 1):
            labels[rows, k] = failed[rows[rng.permutation(len(rows))]]
    return labels
