"""Failure scores of completions that were not in the fit, and average precision of thousands of resamples of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.modes.table import needs

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Fold = tuple[NDArray[np.intp], NDArray[np.intp]]

_BLOCK = 1 << 19  # resampled rows held at once
_SAME = 1e-9  # two average precisions closer than this are compared again in the reference's own arithmetic


def stratified_folds(failed: Bools, seed: int, folds: int = 5) -> list[Fold]:
    """(train, test) row numbers of scikit-learn's shuffled stratified folds."""
    selection = needs("sklearn.model_selection")
    splitter = selection.StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros((len(failed), 1)), failed.astype(np.int64)))


def out_of_fold(features: Array, failed: Bools, folds: Sequence[Fold]) -> Array:
    """Probability of failure ``[n]`` of each row by a regression fitted on the other folds.

    Standardised inside the fold, then L2-penalised logistic regression (C = 1, balanced class weights).

    Args:
        features: ``[n, F]`` without NaN.
    """
    preprocessing, linear, sklearn = needs("sklearn.preprocessing"), needs("sklearn.linear_model"), needs("sklearn")
    y = failed.astype(np.int64)
    scores = np.full(len(y), np.nan)
    # Inputs are checked once here, not in each of hundreds of fits.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "did not converge": the published scores are those of an unconverged fit
        for train, test in folds:
            scale = preprocessing.StandardScaler().fit(features[train])
            model = linear.LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced")
            model.fit(scale.transform(features[train]), y[train])
            scores[test] = model.predict_proba(scale.transform(features[test]))[:, 1]
    return scores


def resampled_precision(
    failed: Bools, scores: Array, n_boot: int, seed: int, groups: NDArray[np.intp] | None = None
) -> Array:
    """Average precision ``[k, n_boot]`` of k scores ``[k, n]`` of the same rows, in the same resamples.

    The resamples are those of ``numpy.random.default_rng(seed).integers(0, n, n)``, drawn ``n_boot`` times; with
    ``groups`` ``[n]`` (``0 .. g - 1``) whole groups are drawn instead. NaN where a resample has one outcome only. Cost
    is linear in ``k n n_boot``; memory is not more than a few blocks.
    """
    ranked = [Ranked(failed, row) for row in scores]
    out = np.empty((len(scores), n_boot))
    done = 0
    for draws in _draws(len(failed) if groups is None else int(groups.max()) + 1, n_boot, seed):
        weights = _counts(draws)
        weights = weights if groups is None else weights[groups]
        block = slice(done, done + len(draws))
        for row, ranking in enumerate(ranked):
            out[row, block] = ranking.precision(weights)
        done += len(draws)
    return out


def compare_again(failed: Bools, scores: Array, found: Array, seed: int) -> Array:
    """Signs of ``found[1:] - found[0]`` (``[k - 1, n_boot]``; 1, 0 or -1), exact where the two are all but equal.

    Two rankings that differ only among failures have the same average precision, up to rounding; which of the two
    comes out above depends on the order of summation. The published share of positive differences counts what
    scikit-learn's order gives, so these few resamples are scored once more in that order.
    """
    with np.errstate(invalid="ignore"):
        difference = found[1:] - found[0]
        close = (np.abs(difference) < _SAME) & (difference != 0)
        sign = np.sign(difference)
    wanted = close.any(axis=0)
    for b, draw in _picked(len(failed), found.shape[1], seed, wanted):
        whole = plain_precision(failed[draw], scores[0][draw])
        for k in np.flatnonzero(close[:, b]):
            sign[k, b] = np.sign(plain_precision(failed[draw], scores[k + 1][draw]) - whole)
    return sign


def plain_precision(failed: Bools, scores: Array) -> float:
    """Average precision of one sample, summed in the order in which scikit-learn sums it.

    There: recall and precision at each distinct score, from the lowest up, and minus the sum of steps times precision.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    failed, scores = failed[order], scores[order]
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    found = np.cumsum(failed, dtype=np.float64)[ends]
    precision = np.append((found / (1.0 + ends))[::-1], 1.0)
    recall = np.append((found / found[-1])[::-1], 0.0)
    return max(0.0, -float(np.sum(np.diff(recall) * precision[:-1])))


def random_precision(n: int, failures: int) -> float:
    """Average precision that a random order of n rows gets on average: the base rate and, in small tables, a little
    more (the first failure is at the top now and then; Bestgen 2015). NaN without failures."""
    if not 0 < failures <= n:
        return math.nan
    harmonic = float(np.sum(1.0 / np.arange(1, n + 1)))
    return (harmonic + (failures - 1) / max(n - 1, 1) * (n - harmonic)) / n


class Ranked:
    """One ranking of n rows, made once; each resample only weighs the rows (``weights`` ``[n, b]``)."""

    def __init__(self, failed: Bools, scores: Array) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ordered, hits = scores[self.order], failed[self.order]
        ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # the last row of each distinct score
        self.hits = np.flatnonzero(hits)
        place = np.searchsorted(ends, self.hits)
        self.end = ends[place]  # where the threshold ends that a failure belongs to
        self.last = np.searchsorted(self.hits, self.end, side="right") - 1  # the last failure up to there
        self.start = np.append(0, ends + 1)[place]  # and where it begins
        self.first = np.searchsorted(self.hits, self.start)

    def precision(self, weights: Array) -> Array:
        """Average precision ``[b]``: the mean, over drawn failures, of precision there; NaN for one outcome only."""
        seen, found, drawn = self._sums(weights)
        total = found[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = found[self.last] / seen[self.end]
            np.copyto(precision, 0.0, where=drawn == 0)  # 0/0 where nothing has been drawn yet
            result = np.einsum("ij,ij->j", precision, drawn) / total
        return np.where((total > 0) & (total < seen[-1]), result, np.nan)

    def auroc(self, weights: Array) -> Array:
        """AUROC ``[b]``: the mean, over drawn failures, of the share of successes below, ties counting half."""
        seen, found, drawn = self._sums(weights)
        total, right = found[-1], seen[-1] - found[-1]
        zero = np.zeros((1, seen.shape[1]))
        seen, found = np.concatenate([zero, seen]), np.concatenate([zero, found])
        above = seen[self.start] - found[self.first]
        level = seen[self.end + 1] - found[self.last + 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            result = 1.0 - np.einsum("ij,ij->j", (above + level) / 2, drawn) / (total * right)
        return np.where((total > 0) & (right > 0), result, np.nan)

    def _sums(self, weights: Array) -> tuple[Array, Array, Array]:
        """Weight seen down to each row ``[n, b]``, of failures down to each ``[m, b]``, and of each failure."""
        weights = weights[self.order]
        drawn = weights[self.hits]
        return np.add.accumulate(weights, axis=0), np.add.accumulate(drawn, axis=0), drawn


def _draws(n: int, n_boot: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Blocks ``[b, n]``. Drawn together they are the same numbers as drawn resample by resample."""
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // n)
    for start in range(0, n_boot, step):
        yield rng.integers(0, n, (min(step, n_boot - start), n))


def _picked(n: int, n_boot: int, seed: int, wanted: Bools) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The wanted resamples: number and rows ``[n]``."""
    if wanted.any():
        done = 0
        for draws in _draws(n, n_boot, seed):
            for b in np.flatnonzero(wanted[done : done + len(draws)]):
                yield done + int(b), draws[b]
            done += len(draws)


def _counts(draws: NDArray[np.int64]) -> Array:
    """How often each row was drawn: ``[n, b]`` from ``[b, n]``."""
    b, n = draws.shape
    flat = draws * b + np.arange(b)[:, None]
    return np.bincount(flat.ravel(), minlength=b * n).reshape(n, b).astype(np.float64)
