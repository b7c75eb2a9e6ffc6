"""Rules: from the features of a failed problem to a plan. Frozen data, fitted on lessons of other problems.

Every rule has ``plans``, those it may choose, and ``pick(features [n, F]) -> [n]``, which of them each row gets. NaN is
a feature that is not known and counts as the reference mean, so that one problem alone can be routed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wrongturn.diagnose.modes.ridge import logistic
from wrongturn.routing.spending import Float, Index, Plan

PUBLISHED = {"spread": "dense", "concentration": "steer", "dispersion": "lift"}
"""The published pairs of a feature and the operator it calls for (arXiv 2606.05145)."""
FALLBACK = "steer:where=random"
"""The published operator for problems where no feature stands out."""

_FLAT = 1e-9  # standard deviation, relative to the mean: below, a column is constant
_FARTHEST = 10.0  # standard deviations: nothing a rule was fitted on is farther away
_PAIRS = 8  # plans of two operators that a linear rule may choose


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """What rules learn from: n problems, what each of N plans came to there (``value`` [n, N], 0 to 1), and which rows
    are of one problem (``clusters`` [n])."""

    names: tuple[str, ...]
    features: Float
    plans: tuple[Plan, ...]
    value: Float
    clusters: Index

    def __post_init__(self) -> None:
        n = len(self.value)
        if self.features.shape != (n, len(self.names)) or self.value.shape != (n, len(self.plans)):
            raise ValueError(
                f"features {self.features.shape} and values {self.value.shape} must be [problems, "
                f"{len(self.names)} features] and [problems, {len(self.plans)} plans] of the same problems"
            )
        if len(self.clusters) != n:
            raise ValueError(f"{n} problems, but {len(self.clusters)} clusters")

    def take(self, rows: NDArray) -> Lessons:
        return Lessons(self.names, self.features[rows], self.plans, self.value[rows], self.clusters[rows])

    def index(self, plans: Sequence[Plan]) -> Index:
        """Columns of these plans."""
        return np.array([self.plans.index(plan) for plan in plans], np.intp)


@dataclass(frozen=True, slots=True)
class Reference:
    """What features are measured against: names, means and standard deviations; 0 deviation: constant, not used."""

    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    sd: tuple[float, ...] = ()

    @classmethod
    def of(cls, features: Float, names: Sequence[str]) -> Self:
        mean, sd = np.zeros(len(names)), np.zeros(len(names))
        for column in range(len(names)):
            known = features[~np.isnan(features[:, column]), column]
            if len(known):
                mean[column], sd[column] = known.mean(), known.std()
        sd[sd <= _FLAT * np.maximum(np.abs(mean), 1.0)] = 0.0
        return cls(tuple(names), tuple(mean.tolist()), tuple(sd.tolist()))

    def z(self, features: ArrayLike) -> Float:
        """Standard deviations from the mean [n, F], at most 10; 0 where not known or constant.

        Raises ``ValueError`` for another number of features.
        """
        table = np.asarray(features, np.float64)
        if table.ndim != 2 or table.shape[1] != len(self.names):
            raise ValueError(f"need [problems, {len(self.names)} features], not {table.shape}")
        sd = np.array(self.sd)
        with np.errstate(over="ignore"):
            away = np.divide(table - np.array(self.mean), sd, out=np.zeros(table.shape), where=sd > 0)
        return np.where(np.isnan(away), 0.0, np.clip(away, -_FARTHEST, _FARTHEST))


class Rule(Protocol):
    @property
    def reference(self) -> Reference: ...

    @property
    def plans(self) -> tuple[Plan, ...]: ...

    def pick(self, features: ArrayLike) -> Index: ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same plan for every problem."""

    reference: Reference
    plan: Plan

    @classmethod
    def fit(cls, lessons: Lessons, most: int = 1) -> Self:
        """The best of the plans of at most so many operators; the first of equals."""
        allowed = np.array([len(plan) <= most for plan in lessons.plans])
        return cls(Reference(), lessons.plans[int(np.where(allowed, lessons.value.mean(axis=0), -1.0).argmax())])

    @property
    def plans(self) -> tuple[Plan, ...]:
        return (self.plan,)

    def pick(self, features: ArrayLike) -> Index:
        return np.zeros(len(np.asarray(features)), np.intp)


@dataclass(frozen=True, slots=True)
class Standardised:
    """The published rule: the operator of the feature that stands out most; ``fallback`` where none is above its mean.

    Training-free: a fit only measures the features. ``operators`` are one for each feature; ties go to the first.
    """

    reference: Reference
    operators: tuple[str, ...]
    fallback: str

    def __post_init__(self) -> None:
        if len(self.operators) != len(self.reference.names):
            raise ValueError(f"{len(self.reference.names)} features, but {len(self.operators)} operators")

    @classmethod
    def fit(cls, lessons: Lessons, operators: Mapping[str, str] | None = None, fallback: str = FALLBACK) -> Self:
        chosen = PUBLISHED if operators is None else operators
        columns = [lessons.names.index(name) for name in chosen]
        return cls(Reference.of(lessons.features[:, columns], tuple(chosen)), tuple(chosen.values()), fallback)

    @property
    def plans(self) -> tuple[Plan, ...]:
        return tuple((name,) for name in (*self.operators, self.fallback))

    def pick(self, features: ArrayLike) -> Index:
        z = self.reference.z(features)
        if not z.shape[1]:
            return np.zeros(len(z), np.intp)
        return np.where(z.max(axis=1) > 0, z.argmax(axis=1), z.shape[1])


@dataclass(frozen=True, slots=True)
class Threshold:
    """One plan where a feature is at most ``cut`` standard deviations above its mean, another beyond."""

    reference: Reference
    cut: float
    below: Plan
    above: Plan

    @classmethod
    def fit(cls, lessons: Lessons, feature: str) -> Self:
        """Cut (a decile) and single operators that do best together; one operator for both where none is better."""
        column = [lessons.names.index(feature)]
        reference = Reference.of(lessons.features[:, column], (feature,))
        z = reference.z(lessons.features[:, column])[:, 0]
        single = np.flatnonzero([len(plan) == 1 for plan in lessons.plans])
        value = lessons.value[:, single]
        best, found = -np.inf, (0.0, 0, 0)
        for cut in np.unique(np.quantile(z, np.arange(1, 10) / 10)).tolist():
            low, high = value[z <= cut].sum(axis=0), value[z > cut].sum(axis=0)
            if low.max() + high.max() > best + 1e-9:
                best, found = low.max() + high.max(), (cut, int(low.argmax()), int(high.argmax()))
        cut, below, above = found
        return cls(reference, cut, lessons.plans[single[below]], lessons.plans[single[above]])

    @property
    def plans(self) -> tuple[Plan, ...]:
        return self.below, self.above

    def pick(self, features: ArrayLike) -> Index:
        return (self.reference.z(features)[:, 0] > self.cut).astype(np.intp)


@dataclass(frozen=True, slots=True)
class Linear:
    """One penalised logistic regression for each plan, of what it comes to within the budget; the plan with the highest
    prediction, if that is more than ``margin`` above the prediction for ``plans[0]``, the best without looking.

    ``weights`` [plans][features] are for standardised features.
    """

    reference: Reference
    plans: tuple[Plan, ...]
    intercepts: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    margin: float = 0.0

    @classmethod
    def fit(cls, lessons: Lessons, penalty: float = 10.0, margin: float = 0.0, most: int = 2) -> Self:
        mean = lessons.value.mean(axis=0)
        order = np.argsort(-mean, kind="stable").tolist()
        allowed = [i for i in order if len(lessons.plans[i]) <= most]
        pairs = [i for i in allowed if len(lessons.plans[i]) > 1][:_PAIRS]
        kept = [i for i in allowed if len(lessons.plans[i]) == 1 or i in pairs]
        reference = Reference.of(lessons.features, lessons.names)
        z = reference.z(lessons.features)
        beta = logistic(np.column_stack([np.ones(len(z)), z]), lessons.value[:, kept], penalty)
        rows = tuple(tuple(row) for row in beta[1:].T.tolist())
        return cls(reference, tuple(lessons.plans[i] for i in kept), tuple(beta[0].tolist()), rows, margin)

    def predict(self, features: ArrayLike) -> Float:
        """[n, plans]: share rescued within the budget."""
        odds = self.reference.z(features) @ np.array(self.weights).reshape(len(self.plans), -1).T
        return 1 / (1 + np.exp(-np.clip(odds + np.array(self.intercepts), -30, 30)))

    def pick(self, features: ArrayLike) -> Index:
        expected = self.predict(features)
        best = expected.argmax(axis=1)
        return np.where(expected.max(axis=1) > expected[:, 0] + self.margin, best, 0)


KINDS: dict[str, type[Fixed] | type[Standardised] | type[Threshold] | type[Linear]] = {
    "fixed": Fixed,
    "standardised": Standardised,
    "threshold": Threshold,
    "linear": Linear,
}
