"""From lessons to a rule: every kind is fitted, cross-validation says what it is worth, the simplest good one wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.modes.ridge import group_folds
from wrongturn.diagnose.recoverability.outcomes import Outcomes
from wrongturn.routing.rules import FALLBACK, PUBLISHED, Fixed, Lessons, Linear, Rule, Standardised, Threshold
from wrongturn.routing.spending import Float, Index, Spent

MARGINS = (0.1, 0.05, 0.02, 0.0)
PENALTIES = (100.0, 10.0, 1.0)
FOLDS = 5
ERRORS = 1.0


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which rules are considered, and with what: the pairs of feature and operator of the published rule, and the
    feature of a threshold."""

    published: Mapping[str, str] | None = None
    fallback: str = FALLBACK
    feature: str = "entropy"
    penalties: tuple[float, ...] = PENALTIES
    margins: tuple[float, ...] = MARGINS

    def standardised(self, lessons: Lessons) -> Standardised | None:
        """The published rule; None where a feature or an operator of it is not there."""
        pairs = PUBLISHED if self.published is None else self.published
        needed = {(name,) for name in (*pairs.values(), self.fallback)}
        if not pairs or not set(pairs) <= set(lessons.names) or not needed <= set(lessons.plans):
            return None
        return Standardised.fit(lessons, pairs, self.fallback)

    def threshold(self, lessons: Lessons) -> Threshold | None:
        """None where there is no such feature."""
        return Threshold.fit(lessons, self.feature) if self.feature in lessons.names else None

    def candidates(self, lessons: Lessons) -> list[Rule]:
        """Every rule, simplest first; as many of each kind whatever the lessons."""
        found: list[Rule | None] = [Fixed.fit(lessons), Fixed.fit(lessons, most=2)]
        if lessons.names:
            found += [self.standardised(lessons), self.threshold(lessons)]
            for penalty in self.penalties:
                fitted = Linear.fit(lessons, penalty)
                found += [replace(fitted, margin=margin) for margin in self.margins]
        return [rule for rule in found if rule is not None]


def choose(lessons: Lessons, kinds: Kinds | None = None, *, folds: int = FOLDS, seed: int = 0) -> Rule:
    """The simplest rule that is within ``ERRORS`` standard errors of the best on folds that had no part in its fit.

    The standard error is that of the paired difference to the best. Fewer than two problems a fold: the best operator.
    """
    kinds = kinds or Kinds()
    whole = kinds.candidates(lessons)
    fold = folds_of(lessons.clusters, folds, seed)
    if len(whole) == 1 or np.bincount(fold, minlength=folds).min() < 2:
        return whole[0]
    value = np.zeros((len(lessons.value), len(whole)))
    for k in range(folds):
        test, train = lessons.take(fold == k), lessons.take(fold != k)
        for i, rule in enumerate(kinds.candidates(train)):
            value[fold == k, i] = test.value[np.arange(len(test.value)), picked(rule, test)]
    best = value[:, int(value.mean(axis=0).argmax())]
    behind = best[:, None] - value
    error = behind.std(axis=0) / np.sqrt(len(value))
    return whole[int((behind.mean(axis=0) <= ERRORS * error + 1e-12).argmax())]


def picked(rule: Rule, lessons: Lessons) -> Index:
    """[n]: the plan (column of the lessons) that the rule gives each problem."""
    columns = [lessons.names.index(name) for name in rule.reference.names]
    return lessons.index(rule.plans)[rule.pick(lessons.features[:, columns])]


def folds_of(clusters: Index, folds: int, seed: int) -> Index:
    """[n]: the fold of each row; rows of one problem are together."""
    numbers = np.unique(clusters, return_inverse=True)[1]
    groups = int(numbers.max(initial=-1)) + 1
    return group_folds(numbers, np.zeros(groups), np.random.default_rng(seed), folds)


def lessons_of(
    outcomes: Outcomes, spent: Spent, names: tuple[str, ...], features: Float, value: NDArray | None = None
) -> Lessons:
    """Lessons from what was spent on all ``outcomes``; ``value``: what counts, instead of being rescued."""
    return Lessons(names, features, spent.plans, spent.rescued if value is None else value, outcomes.clusters)
