"""How well failures are told from whole traces and from each prefix, with what the splits and the sample leave open."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.intervals import student
from wrongturn.diagnose.modes.features import Features
from wrongturn.diagnose.modes.judgement import Prefix, Skill
from wrongturn.diagnose.modes.refit import N_REFIT, drawn_rows, each
from wrongturn.diagnose.modes.ridge import group_folds, out_of_fold
from wrongturn.diagnose.modes.scoring import Ranked, plain_precision, random_precision, resampled_precision
from wrongturn.stats import auroc

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_LEVEL = 0.95
_Z_TWO_SIDED, _Z_ONE_SIDED = 1.959964, 1.644854


class Measured:
    """Scores of every table averaged over splits, and their average precision in the same resamples.

    Rows of ``boot`` ``[K, n_boot]``: the K tables, whole trace first; ``ap`` ``[2 K]`` has length alone for each after
    them, where lengths are known. ``chance`` is what a random order gets on average.

    What is uncertain about a *level* includes the fit: its standard error comes from resamples that are fitted again.
    In a *difference* most of that cancels: there the resamples of fixed scores and the spread over splits are enough,
    and fitting again would be too much (docs/modes.md has the coverage of both).
    """

    def __init__(
        self,
        features: Features,
        groups: Index,
        tables: list[Array],
        kept: list[int],
        repeats: int,
        n_boot: int,
        seed: int,
    ) -> None:
        self.failed, self.features, self.kept = features.failed, features, kept
        failed = features.failed.astype(np.float64)
        caps = [math.inf, *(features.windows[w] for w in kept)]
        known = not np.isnan(features.lengths).all()
        length = [_length_feature(features, cap) for cap in caps] if known else []
        everything = [*tables, *length]
        rng = np.random.default_rng([seed, 2])
        share = np.bincount(groups, failed) / np.bincount(groups)
        fold = group_folds(groups, share, rng)
        drawn = drawn_rows(groups, N_REFIT, rng)
        base = failed @ drawn / drawn.sum(axis=0)
        again = [out_of_fold(table, failed[:, None], fold, drawn) for table in tables]
        self.level_se = [
            float(np.nanstd(each(Ranked.precision, features.failed, scores, drawn) - base)) for scores in again
        ]
        self.chance = random_precision(len(failed), int(failed.sum()))
        scores = np.zeros((len(everything), len(failed)))
        aps = np.zeros((repeats, len(tables)))
        for r in range(repeats):
            fold = group_folds(groups, share, rng)
            for k, table in enumerate(everything):
                one = out_of_fold(table, failed[:, None], fold)[:, 0]
                scores[k] += one
                if k < len(tables):
                    aps[r, k] = plain_precision(features.failed, one)
        self.K = len(tables)
        self.scores = scores
        self.ap = np.array([plain_precision(features.failed, row) for row in scores])
        self.boot = resampled_precision(features.failed, scores[: len(tables)], n_boot, seed, groups)
        self.split_sd = (aps - aps[:, :1]).std(axis=0, ddof=1) if repeats > 1 else np.zeros(len(tables))
        units = min(len(np.unique(groups[failed == kind])) for kind in (0, 1))
        self.widen = student(units) / _Z_TWO_SIDED

    def skill(self, k: int) -> Skill:
        lift = float(self.ap[k] - self.chance)
        reach = _Z_TWO_SIDED * self.widen * self.level_se[k]
        area = auroc(self.failed, self.scores[k])
        length_lift = float(self.ap[self.K + k] - self.chance) if len(self.ap) > self.K else math.nan
        return Skill(float(self.ap[k]), lift, (lift - reach, lift + reach), area, length_lift)

    def prefixes(self, early: list[bool]) -> list[Prefix]:
        """The windows, the band made so that all *early* ones are inside it together in 95 % of cases."""
        delta = self.ap[1 : self.K] - self.ap[0]
        away = self.boot[1 : self.K] - self.boot[0]
        away = away[:, ~np.isnan(away).any(axis=0)]
        away = away - away.mean(axis=1, keepdims=True)
        spread = away.std(axis=1)
        se = np.hypot(spread, self.split_sd[1:])
        counted = np.array(early, np.bool_) & (spread > 1e-12)
        widest = np.max(np.abs(away[counted]) / spread[counted, None], axis=0, initial=0.0)
        reach = max(float(np.quantile(widest, _LEVEL)), _Z_TWO_SIDED) * self.widen * se
        upper = delta + _Z_ONE_SIDED * self.widen * se
        rows = []
        for i, w in enumerate(self.kept):
            T = self.features.windows[w]
            band = (float(delta[i] - reach[i]), float(delta[i] + reach[i]))
            sd = float(self.split_sd[i + 1])
            share = going_on(self.features, T)
            rows.append(Prefix(T, self.skill(i + 1), float(delta[i]), band, float(upper[i]), sd, share))
        return rows

    def commitment(self, best: float, early: list[bool]) -> tuple[float, float, float]:
        """The window, and the windows between which the best one falls in 95 % of resamples."""
        T = np.array([self.features.windows[w] for w in self.kept])[early]
        aps = self.boot[1 : self.K][early]
        winners = T[np.argmax(aps[:, ~np.isnan(aps).any(axis=0)], axis=0)]
        low, high = np.quantile(winners, [0.025, 0.975], method="nearest")
        return best, min(float(low), best), max(float(high), best)


def group_index(features: Features) -> Index:
    """Groups as numbers from 0 ``[n]``; without groups every row is its own."""
    if features.groups is None:
        return np.arange(len(features))
    return np.unique(features.groups, return_inverse=True)[1]


def going_on(features: Features, T: float) -> float:
    """Share of traces that are longer than a prefix (1 where lengths are not known: nothing speaks against it)."""
    if features.relative:
        return float(T < 1)
    known = features.lengths[~np.isnan(features.lengths)]
    return float(np.mean(known > T)) if len(known) else 1.0


def _length_feature(features: Features, cap: float) -> Array:
    """Log tokens ``[n, 1]`` of what is seen: of a prefix no more than its length; a relative one tells the length."""
    seen = features.lengths if features.relative else np.minimum(features.lengths, cap)
    return np.log1p(seen)[:, None]
