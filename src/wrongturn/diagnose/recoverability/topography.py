"""Do failures tell by which post-training their model was made? A published claim, held against what is simpler.

A logistic regression (one against the rest) of the method on the three features, tested on task distributions it was
not fitted to. A problem that failed in several runs is never in both. Two figures each: on the problems as they are,
and with methods made equal (fit with weights, and the mean of each method's share).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.intervals import Index, Resamples, share
from wrongturn.diagnose.modes.ridge import group_folds, logistic, prepare
from wrongturn.diagnose.recoverability.features import PUBLISHED, Features
from wrongturn.stats import Estimate

Array = NDArray[np.float64]

_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Accuracy:
    """Share of failed problems told right, of all and with methods made equal; intervals resample problems. ``lift`` is
    what the features add to it, problem by problem (NaN for the features themselves)."""

    told_from: str
    raw: Estimate
    balanced: Estimate
    lift: Estimate
    lift_balanced: Estimate

    def dict(self) -> dict[str, Any]:
        names = ("raw", "balanced", "lift", "lift_balanced")
        return {"told_from": self.told_from} | {name: getattr(self, name).dict() for name in names}


@dataclass(frozen=True, slots=True, eq=False)
class Topography:
    """``methods`` with how many failed problems each, what tests were held out (``folds``), and the accuracies:
    features, majority, length_only, failures_only. None of these, and a reason, where it cannot be tested."""

    methods: dict[str, int]
    folds: str = ""
    reason: str = ""
    accuracies: tuple[Accuracy, ...] = ()

    def dict(self) -> dict[str, Any]:
        told = {("accuracy" if a.told_from == "features" else a.told_from): a.dict() for a in self.accuracies}
        return {"methods": self.methods, "folds": self.folds, "reason": self.reason} | told


def topography(runs: Sequence[tuple[str, Features]], names: Sequence[str] = PUBLISHED, seed: int = 0) -> Topography:
    """Tell the method of each failed problem of several runs, given as (method, features).

    The length told from is the mean number of tokens, and failures are counted per problem: they say how hard it is for
    the model, not how it fails.
    """
    methods = sorted({method for method, _ in runs})
    label = np.concatenate([np.full(len(found), methods.index(method)) for method, found in runs]).astype(np.intp)
    count = {method: int((label == j).sum()) for j, method in enumerate(methods)}
    values = np.concatenate([found.columns(names) for _, found in runs])
    known = ~np.isnan(values).any(axis=1)
    sources = {
        "features": values,
        "majority": np.zeros((len(label), 0)),
        "length_only": np.concatenate([np.log(found.columns(["tokens"])) for _, found in runs]),
        "failures_only": np.concatenate([found.failed[:, None].astype(np.float64) for _, found in runs]),
    }
    if len(methods) < 2:
        return Topography(count, reason=f"all runs are of one method, {methods[0]}")
    if len(np.unique(label[known])) < len(methods):
        return Topography(count, reason="a method has no failed problem with all features")
    problems = np.concatenate([np.array(found.problems, np.str_) for _, found in runs])[known]
    groups = np.concatenate([np.array(found.groups, np.str_) for _, found in runs])[known]
    label, sources = label[known], {name: x[known] for name, x in sources.items()}
    _, problem = np.unique(problems, return_inverse=True)
    fold, folds = _folds(groups, problem, seed)
    for j in np.unique(fold):
        if len(np.unique(label[_others(fold, problem, j)])) < len(methods):
            return Topography(count, folds, f"without one of the {folds}, a method has no other failed problem")
    hits = {
        name: [_told(x, label, fold, problem, even) == label for even in (False, True)] for name, x in sources.items()
    }
    draws = Resamples(int(problem.max()) + 1, seed=seed)
    return Topography(count, folds, "", tuple(_accuracy(name, hits, label, problem, draws) for name in hits))


def _folds(groups: NDArray[np.str_], problem: Index, seed: int) -> tuple[Index, str]:
    """The fold of each row, and what a fold is: a group; where there is one only, a fifth of the problems."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) > 1:
        return group, "task distributions"
    rng, n = np.random.default_rng(seed), int(problem.max()) + 1
    return group_folds(problem, np.zeros(n), rng, min(_FOLDS, n)), "problems"


def _others(fold: Index, problem: Index, j: int) -> NDArray[np.bool_]:
    """The rows of other folds whose problem is not in this one."""
    return (fold != j) & ~np.isin(problem, problem[fold == j])


def _told(values: Array, label: Index, fold: Index, problem: Index, even: bool) -> Index:
    """The method of each row from fits on the other folds, which never see its problem."""
    k, told = int(label.max()) + 1, np.zeros(len(label), np.intp)
    for j in np.unique(fold):
        test = fold == j
        train = _others(fold, problem, j)
        count = np.bincount(label[train], minlength=k).astype(np.float64)
        weight = (len(label) / np.maximum(count, 1.0))[label[train]] if even else np.ones(int(train.sum()))
        fitted, held = prepare(values[train], values[test])
        targets = label[train][:, None] == np.arange(k)
        weight = weight[:, None] * (train.sum() / weight.sum())
        beta = [logistic(fitted, targets[:, [c]].astype(np.float64), weights=weight) for c in range(k)]
        told[test] = np.round(held @ np.concatenate(beta, axis=1), 6).argmax(axis=1)  # rounding breaks no tie
    return told


def _accuracy(
    name: str, hits: dict[str, list[NDArray[np.bool_]]], label: Index, problem: Index, draws: Resamples
) -> Accuracy:
    raw, even = hits[name]
    mine, mine_even = hits["features"]
    kinds = int(label.max()) + 1
    member = (label[:, None] == np.arange(kinds)).astype(np.float64)

    def balanced(right: Array) -> Estimate:
        columns = [*(member * right[:, None]).T, *member.T]
        return draws.estimate(problem, columns, lambda s: (s[..., :kinds] / s[..., kinds:]).mean(axis=-1))

    unknown = Estimate(np.nan, np.nan, np.nan, 0)
    first = name == "features"
    return Accuracy(
        name,
        share(raw, problem),
        balanced(even.astype(np.float64)),
        unknown if first else draws.mean(problem, mine.astype(np.float64) - raw),
        unknown if first else balanced(mine_even.astype(np.float64) - even),
    )
