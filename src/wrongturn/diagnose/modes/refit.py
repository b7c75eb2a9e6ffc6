"""How well scores tell failures, with intervals that contain what fitting the scores adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.intervals import student
from wrongturn.diagnose.modes.ridge import group_folds, out_of_fold
from wrongturn.diagnose.modes.scoring import Ranked
from wrongturn.stats import Estimate

Array = NDArray[np.float64]
Index = NDArray[np.intp]

N_REFIT = 100  # resamples: the standard error of a standard error is then 7 %


def drawn_rows(groups: Index, n_boot: int, rng: np.random.Generator) -> Array:
    """How often each row was drawn ``[n, n_boot]``, whole groups at a time."""
    units = int(groups.max()) + 1
    draws = rng.integers(0, units, (n_boot, units))
    return np.stack([np.bincount(draw, minlength=units) for draw in draws], axis=1)[groups].astype(np.float64)


def each(of: Callable[[Ranked, Array], Array], failed: NDArray[np.bool_], scores: Array, drawn: Array) -> Array:
    """``[b]``: a measure of scores ``[n, b]`` that differ between resamples ``drawn`` ``[n, b]``."""
    return np.array([of(Ranked(failed, scores[:, b]), drawn[:, [b]])[0] for b in range(drawn.shape[1])])


class Scored:
    """Out-of-fold scores of the same n rows from several tables of features, and of each as fitted in resamples.

    ``scores`` name -> ``[n]``, averaged over ``repeats`` splits. A resample draws whole groups and fits again, with
    folds as they are, so that no row is in its own fit.

    Args:
        failed: ``[n]``; groups: ``[n]`` from 0, whole in folds and resamples.
        tables: name -> features ``[n, F]``.
        given: name -> scores ``[n]`` that need no fit.
    """

    def __init__(
        self,
        failed: NDArray[np.bool_],
        groups: Index,
        tables: Mapping[str, Array],
        given: Mapping[str, Array] | None = None,
        *,
        repeats: int = 5,
        n_boot: int = N_REFIT,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng([seed, 4])
        labels = failed.astype(np.float64)[:, None]
        rate = np.bincount(groups, labels[:, 0]) / np.bincount(groups)
        self.failed, self.groups = failed, groups
        self.folds = [group_folds(groups, rate, rng) for _ in range(repeats)]
        self.scores: dict[str, Array] = dict(given or {})
        for name, table in tables.items():
            self.scores[name] = np.sum([out_of_fold(table, labels, fold)[:, 0] for fold in self.folds], axis=0)
        drawn = drawn_rows(groups, n_boot, rng)
        everywhere = np.ones((len(failed), 1))
        self._value: dict[tuple[str, str], float] = {}
        self._boot: dict[tuple[str, str], Array] = {}
        for name, scores in self.scores.items():
            whole = Ranked(failed, scores)
            again = out_of_fold(tables[name], labels, self.folds[0], drawn) if name in tables else None
            for kind, of in (("auroc", Ranked.auroc), ("ap", Ranked.precision)):
                self._value[name, kind] = float(of(whole, everywhere)[0])
                self._boot[name, kind] = of(whole, drawn) if again is None else each(of, failed, again, drawn)

    def auroc(self, name: str, over: str | None = None) -> Estimate:
        """AUROC of a score, or how much it is above that of another."""
        return self._estimate("auroc", name, over, 0.5)

    def ap(self, name: str, over: str | None = None) -> Estimate:
        """Average precision with failures as positives, or how much it is above that of another score."""
        return self._estimate("ap", name, over, float(self.failed.mean()))

    def _estimate(self, kind: str, name: str, over: str | None, chance: float) -> Estimate:
        value, boot = self._value[name, kind], self._boot[name, kind]
        if over is not None:
            value, boot, chance = value - self._value[over, kind], boot - self._boot[over, kind], math.nan
        units = min(len(np.unique(self.groups[self.failed == kind])) for kind in (True, False))
        reach = student(units) * float(np.nanstd(boot))
        floor = 0.0 if over is None else -1.0
        return Estimate(value, max(value - reach, floor), min(value + reach, 1.0), units, chance)
