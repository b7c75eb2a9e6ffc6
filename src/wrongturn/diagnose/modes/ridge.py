"""Failure scores without leakage: logistic regression in NumPy, for many label vectors at once, over grouped folds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_STEPS = 12  # of Newton; with the penalty and standardised features it has converged after 5 to 8
_TIGHT = 1e-6
_STEEPEST = 30.0  # log odds beyond which a probability is 0 or 1 anyway


def group_folds(groups: Index, order: Array, rng: np.random.Generator, folds: int = 5) -> Index:
    """The fold ``[n]`` of each row; a group (``0 .. g - 1``) is in one fold as a whole.

    Groups alike in ``order`` ``[g]`` (their share of failures; constant: any) are spread over the folds: sorted, each
    run of as many groups as there are folds is dealt out at random.
    """
    sequence = rng.permutation(len(order))
    sequence = sequence[np.argsort(order[sequence], kind="stable")]
    fold = np.empty(len(order), np.intp)
    for start in range(0, len(order), folds):
        dealt = sequence[start : start + folds]
        fold[dealt] = rng.permutation(folds)[: len(dealt)]
    return fold[groups]


def out_of_fold(features: Array, labels: Array, fold: Index, weights: Array | None = None) -> Array:
    """Log odds ``[n, P]`` of failure of each row from fits on the other folds, for P label vectors ``[n, P]``, or one
    ``[n, 1]`` in P resamples, whose ``weights`` ``[n, P]`` say how often each row was drawn.

    Inside each fold missing features ``[n, F]`` get the median of the training rows, then all are standardised. The
    scores of a fold are centred and scaled by those of its training rows, so that folds can be pooled.
    """
    scores = np.zeros(labels.shape if weights is None else weights.shape)
    for k in range(int(fold.max()) + 1):
        test = fold == k
        train, held = prepare(features[~test], features[test])
        drawn = None if weights is None else weights[~test]
        beta = logistic(train, labels[~test], weights=drawn)
        fitted = train @ beta
        if drawn is None:
            mean, spread = fitted.mean(axis=0), fitted.std(axis=0)
        else:
            total = drawn.sum(axis=0)
            mean = (drawn * fitted).sum(axis=0) / total
            spread = np.sqrt((drawn * (fitted - mean) ** 2).sum(axis=0) / total)
        spread[spread == 0] = 1.0
        scores[test] = (held @ beta - mean) / spread
    return scores


def prepare(train: Array, test: Array) -> tuple[Array, Array]:
    """Both imputed and standardised by the training rows, with a leading column of ones: ``[., 1 + F]``.

    A column that is unknown or constant in training is 0.
    """
    empty = np.isnan(train)
    known = ~empty.all(axis=0)
    centre = np.zeros(train.shape[1])
    for column in np.flatnonzero((empty.any(axis=0) | np.isnan(test).any(axis=0)) & known):
        centre[column] = np.median(train[~empty[:, column], column])
    train, test = (np.where(np.isnan(part), centre, part) for part in (train, test))
    mean, spread = train.mean(axis=0), train.std(axis=0)
    flat = spread <= 1e-12 * np.maximum(np.abs(mean), 1.0)  # rounding is no signal
    scale = np.where(flat | ~known, 0.0, 1.0 / np.where(flat, 1.0, spread))
    return tuple(np.column_stack([np.ones(len(part)), (part - mean) * scale]) for part in (train, test))  # type: ignore[return-value]


def logistic(design: Array, labels: Array, penalty: float = 1.0, weights: Array | None = None) -> Array:
    """Coefficients ``[1 + F, P]`` of L2-penalised logistic regressions by Newton: of P label vectors ``[n, P]``, or of
    one in P resamples of the rows (``weights`` ``[n, P]``).

    The first column of ``design`` ``[n, 1 + F]`` is ones; its coefficient is penalised only enough to stay finite.
    """
    n, width = design.shape
    products = (design[:, :, None] * design[:, None, :]).reshape(n, width * width)
    ridge = np.full(width, penalty)
    ridge[0] = 1e-3
    if weights is None:
        weight, beta = np.ones((1, 1)), np.zeros((width, labels.shape[1]))
    else:  # resamples are not far from the sample
        weight, beta = weights, np.repeat(logistic(design, labels, penalty), weights.shape[1], axis=1)
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -_STEEPEST, _STEEPEST)))
        slope = design.T @ (weight * (labels - p)) - ridge[:, None] * beta
        curvature = ((weight * p * (1.0 - p)).T @ products).reshape(-1, width, width) + np.diag(ridge)
        step = np.linalg.solve(curvature, slope.T[:, :, None])[:, :, 0].T
        beta += step
        if np.abs(step).max() < _TIGHT:
            break
    return beta
