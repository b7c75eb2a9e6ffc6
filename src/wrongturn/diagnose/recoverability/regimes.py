"""Do failures fall into regimes? A division of failed problems by their features, and what can be said against it.

Any data can be divided, so a division comes with four checks: is its silhouette above that of one normal cloud of the
same covariance; does it come back on resampled problems; does it come back from the other half of each problem's failed
traces; and has it anything to do with what rescues them?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.recoverability.clusters import (
    adjusted_rand,
    chi_square,
    distances,
    kmeans,
    nearest,
    silhouette,
    standardise,
)
from wrongturn.diagnose.recoverability.features import Features, Rows

Array = NDArray[np.float64]
Index = NDArray[np.intp]

MOST = 6
LEAST = 8
"""Problems below which nothing is divided."""
_RESTARTS, _AGAIN = 50, 5
_BOOTSTRAPS, _HALVES, _CLOUDS, _PERMUTATIONS = 200, 20, 99, 1999
_LARGE = 400  # problems the silhouette is taken over: it needs their pairs


@dataclass(frozen=True, slots=True, eq=False)
class Regimes:
    """A division into ``k`` regimes, the largest first. ``k`` is None where there is none, and ``reason`` says why.

    ``member`` [P] is each problem's regime, -1 where its features are not known. ``centres`` [k, F] are means of
    ``names``. ``silhouettes`` is by k; ``p_one`` is the chance that one normal cloud of that covariance has as high a
    one. Stabilities are mean adjusted Rand indices (1: the same division, 0: chance). ``table`` [k, labels] counts
    ``labels``, and ``p`` is the chance of so uneven a one where labels are permuted within groups. NaN: not known.
    """

    names: tuple[str, ...]
    member: Index
    k: int | None = None
    reason: str = ""
    centres: Array | None = None
    sizes: tuple[int, ...] = ()
    silhouettes: Mapping[int, float] | None = None
    p_one: float = math.nan
    stability_bootstrap: float = math.nan
    stability_rollouts: float = math.nan
    split_problems: int = 0
    labels: tuple[str, ...] = ()
    table: Index | None = None
    p: float = math.nan

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON, but for NaN; ``member`` goes with the problems."""
        return {
            "k": self.k,
            "reason": self.reason,
            "names": list(self.names),
            "centres": None if self.centres is None else self.centres.tolist(),
            "sizes": list(self.sizes),
            "silhouettes": {str(k): value for k, value in (self.silhouettes or {}).items()},
            "p_one": self.p_one,
            "stability_bootstrap": self.stability_bootstrap,
            "stability_rollouts": self.stability_rollouts,
            "split_problems": self.split_problems,
            "labels": list(self.labels),
            "table": None if self.table is None else self.table.tolist(),
            "p": self.p,
        }


def regimes(
    features: Features,
    names: Sequence[str],
    rows: Rows | None = None,
    labels: Sequence[str | None] | None = None,
    seed: int = 0,
) -> Regimes:
    """Divide problems by the features ``names``; k by the silhouette.

    ``rows`` are the traces that ``features`` are means of, in the same order of problems. ``labels`` [P] (None: not
    known) are what the regimes are held against.
    """
    values = features.columns(names)
    known = np.asarray(~np.isnan(values).any(axis=1))
    member = np.full(len(features), -1, np.intp)
    if known.sum() < LEAST:
        return Regimes(tuple(names), member, reason=f"{known.sum()} problems with these features: {LEAST} are needed")
    points = standardise(values[known])
    if not points.any():
        return Regimes(tuple(names), member, reason="all problems look the same")
    rng = np.random.default_rng(seed)
    by_k, found, high = _divide(points, _RESTARTS, rng)
    k = len(found)
    mine = nearest(points, found)
    order = np.argsort(-np.bincount(mine, minlength=k), kind="stable")
    mine = np.argsort(order)[mine]
    member[known] = mine
    clouds = [_divide(_cloud(points, rng), _AGAIN, rng)[2] for _ in range(_CLOUDS)]
    stable, split_problems = _halves(rows, names, known, k, rng)
    told, table, p = _against(member, labels, features.groups, rng)
    return Regimes(
        names=tuple(names),
        member=member,
        k=k,
        centres=np.array([values[member == j].mean(axis=0) for j in range(k)]),
        sizes=tuple(np.bincount(mine, minlength=k).tolist()),
        silhouettes=by_k,
        p_one=(1 + sum(cloud >= high for cloud in clouds)) / (1 + len(clouds)),
        stability_bootstrap=_bootstrapped(points, mine, k, rng),
        stability_rollouts=stable,
        split_problems=split_problems,
        labels=told,
        table=table,
        p=p,
    )


def _divide(points: Array, restarts: int, rng: np.random.Generator) -> tuple[dict[int, float], Array, float]:
    """The silhouette by k, and centres and silhouette of the best."""
    rows = points if len(points) <= _LARGE else points[rng.permutation(len(points))[:_LARGE]]
    apart, by_k, found = distances(rows), dict[int, float](), dict[int, Array]()
    for k in range(2, min(MOST, len(points) - 1) + 1):
        found[k] = kmeans(points, k, restarts, rng)[0]
        by_k[k] = silhouette(apart, nearest(rows, found[k]))
    best = max(by_k, key=by_k.__getitem__)
    return by_k, found[best], by_k[best]


def _cloud(points: Array, rng: np.random.Generator) -> Array:
    """As many points of one normal distribution with the covariance of these."""
    cov = np.atleast_2d(np.cov(points, rowvar=False))
    return standardise(rng.multivariate_normal(np.zeros(points.shape[1]), cov, len(points)))


def _bootstrapped(points: Array, member: Index, k: int, rng: np.random.Generator) -> float:
    """Mean agreement with the division that resampled problems make of all of them."""
    found = []
    for _ in range(_BOOTSTRAPS):
        centres = kmeans(points[rng.integers(0, len(points), len(points))], k, _AGAIN, rng)[0]
        found.append(adjusted_rand(member, nearest(points, centres)))
    return float(np.mean(found))


def _halves(
    rows: Rows | None, names: Sequence[str], known: NDArray[np.bool_], k: int, rng: np.random.Generator
) -> tuple[float, int]:
    """Mean agreement of the divisions made from two halves of each problem's traces, and how many problems have two."""
    if rows is None or any(name not in rows.names for name in names):
        return math.nan, 0
    at = [rows.names.index(name) for name in names]
    several = (rows.failed > 1) & known
    if several.sum() < LEAST:
        return math.nan, int(several.sum())
    found = []
    for _ in range(_HALVES):
        first = _half(rows.problem, rng)
        halves = [rows.mean(part)[several][:, at] for part in (first, ~first)]
        whole = ~np.isnan(np.column_stack(halves)).any(axis=1)
        members = []
        for half in halves:
            points = standardise(half[whole])
            members.append(nearest(points, kmeans(points, k, _AGAIN, rng)[0]))
        found.append(adjusted_rand(*members))
    return float(np.mean(found)), int(several.sum())


def _half(problem: Index, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[n] a random half of each problem's traces."""
    order = np.lexsort((rng.random(len(problem)), problem))
    first = np.searchsorted(problem[order], problem[order])
    half = np.empty(len(problem), bool)
    half[order] = (np.arange(len(problem)) - first) % 2 == 0
    return half


def _against(
    member: Index, labels: Sequence[str | None] | None, groups: Sequence[str], rng: np.random.Generator
) -> tuple[tuple[str, ...], Index | None, float]:
    """Names of the labels, the table [k, labels], and its permutation p."""
    rows = [i for i, label in enumerate(labels or ()) if label is not None and member[i] >= 0]
    if labels is None or len(rows) < 2:
        return (), None, math.nan
    told, code = np.unique([str(labels[i]) for i in rows], return_inverse=True)
    mine = member[rows]
    table = np.zeros((int(member.max()) + 1, len(told)), np.intp)
    np.add.at(table, (mine, code), 1)
    if len(told) < 2:
        return tuple(map(str, told)), table, math.nan
    _, group = np.unique([groups[i] for i in rows], return_inverse=True)
    seen, hits, order = chi_square(mine, code), 0, np.argsort(group, kind="stable")
    for _ in range(_PERMUTATIONS):
        shuffled = np.empty_like(code)
        shuffled[order] = code[np.lexsort((rng.random(len(code)), group))]
        hits += chi_square(mine, shuffled) >= seen - 1e-9
    return tuple(map(str, told)), table, (1 + hits) / (1 + _PERMUTATIONS)
