"""Does a signal know that a trace fails? Asked for both kinds of failure, and never without two guards.

A pooled AUROC is mostly about which *problem* it is: hard problems have long, uncertain traces. So each is reported
with its AUROC *within* problems (only pairs of traces of one problem), with the figures that trace length alone
reaches, and with what the signal adds to length: the change in the failure rate per standard deviation of the signal,
between traces of one problem and at equal length (linear, problem fixed effects; length and its square as controls).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wrongturn.diagnose.intervals import UNKNOWN, Array, Index, Resamples
from wrongturn.diagnose.table import UNJUDGED, Table, summaries
from wrongturn.stats import Estimate

TARGETS = ("outcome", "process")
_FLAT = 1e-9  # share of a signal's variance that must be left at equal length to speak of it


@dataclass(frozen=True, slots=True)
class Predictor:
    """AUROC of ``signal`` for failure of kind ``target``; each with the figure of length alone on the same traces."""

    signal: str
    target: str
    n: int
    n_failed: int
    pooled: Estimate
    pooled_length: Estimate
    within: Estimate
    within_length: Estimate
    adds: Estimate  # change in failure rate per within-problem standard deviation, at equal length


def features(table: Table) -> dict[str, Array]:
    """Per-trace numbers [N], each higher where the trace is the less certain one; NaN where not measured."""
    start, stop = table.first[:-1], table.first[1:]
    entropy, nll, margin, fork = (
        summaries(table.signals[name], start, stop) for name in ("entropy", "nll", "margin", "fork")
    )
    half = start + (table.length + 1) // 2
    return {
        "entropy_mean": entropy["mean"],
        "entropy_max": entropy["max"],
        "entropy_first_half": summaries(table.signals["entropy"], start, half)["mean"],
        "nll_mean": nll["mean"],
        "nll_max": nll["max"],
        "margin_min": -margin["min"],
        "fork_rate": fork["mean"],
        "length": table.length.astype(np.float64),
    }


def predictor_study(table: Table, boot: Resamples) -> list[Predictor]:
    """Every signal against both targets. A cut-off trace is a process failure: it never reached its end."""
    scores = features(table)
    targets = {
        "outcome": np.where(np.isnan(table.right), np.nan, table.right == 0),
        "process": np.where(table.onset == UNJUDGED, np.nan, table.onset >= 0),
    }
    return [
        _predictor(signal, target, scores[signal], scores["length"], targets[target], table.problem, boot)
        for target in TARGETS
        for signal in scores
    ]


def _predictor(
    signal: str, target: str, score: Array, length: Array, failed: Array, problem: Index, boot: Resamples
) -> Predictor:
    known = ~np.isnan(score) & ~np.isnan(failed) & np.isfinite(score)
    x, size, y, cluster = score[known], length[known], failed[known] == 1, problem[known]
    return Predictor(
        signal,
        target,
        n=len(y),
        n_failed=int(y.sum()),
        pooled=boot.auroc(cluster, y, x),
        pooled_length=boot.auroc(cluster, y, size),
        within=boot.auroc(cluster, y, x, within=cluster),
        within_length=boot.auroc(cluster, y, size, within=cluster),
        adds=UNKNOWN if signal == "length" else slope_at_equal_length(x, size, y, cluster, boot),
    )


def slope_at_equal_length(x: Array, length: Array, failed: np.ndarray, problem: Index, boot: Resamples) -> Estimate:
    """Least-squares slope of ``failed`` on ``x`` (per within-problem standard deviation) inside problems with both
    outcomes.

    By Frisch & Waugh: slope = cov(x, y | controls) / var(x | controls), all from within-problem sums of products.
    """
    n = int(problem.max(initial=-1)) + 1
    count = np.bincount(problem, minlength=n)
    rate = np.bincount(problem, failed, minlength=n) / np.maximum(count, 1)
    use = ((rate > 0) & (rate < 1))[problem]
    if not use.any():
        return UNKNOWN
    unit, count = problem[use], np.maximum(count, 1)
    size = (length[use] - length[use].mean()) / (length[use].std() or 1.0)
    columns = np.column_stack((x[use], failed[use], size, size * size)).astype(np.float64)
    for k in range(columns.shape[1]):
        columns[:, k] -= (np.bincount(unit, columns[:, k], minlength=n) / count)[unit]
    scale = float(columns[:, 0].std())
    if scale <= _FLAT * (1 + float(np.abs(x).max())):
        return UNKNOWN
    columns[:, 0] /= scale
    products = [columns[:, i] * columns[:, j] for i in range(4) for j in range(4)]

    def slope(sums: Array) -> Array:
        m = sums.reshape(*sums.shape[:-1], 4, 4)
        controls = np.linalg.pinv(m[..., 2:, 2:], rcond=1e-9, hermitian=True)
        projected = np.einsum("...ik,...kl,...lj->...ij", m[..., :2, 2:], controls, m[..., 2:, :2])
        left = m[..., :2, :2] - projected
        return np.where(left[..., 0, 0] > _FLAT * m[..., 0, 0], left[..., 0, 1] / left[..., 0, 0], np.nan)

    return boot.estimate(unit, products, slope, 0.0)
