"""The published procedure, step by step as its authors' tables were made (LMTwoFailureModeFramework, arXiv 2606.06635).

An early prefix whose scores tell failures better than the whole trace's makes failures *committed*. It is here so that
published numbers can be checked; what it leaves out (any test that there is a signal, a correction for six windows, a
way to say "cannot be told") is in docs/modes.md. Its verdicts should not be used for new data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.modes.features import Features
from wrongturn.diagnose.modes.scoring import (
    compare_again,
    out_of_fold,
    plain_precision,
    resampled_precision,
    stratified_folds,
)
from wrongturn.errors import WrongturnError
from wrongturn.stats import auroc

Array = NDArray[np.float64]

SEED = 42
FOLDS = 5
N_BOOT = 10_000
_LIKELY = 0.8  # share of resamples above the full trace from which a window is "near-committed"

VERDICTS = {
    "committed": "TYPE 1 - COMMITTED FAILURE",
    "near-committed": "NEAR-COMMITTED / AMBIGUOUS",
    "persistent": "TYPE 2 - PERSISTENT UNCERTAINTY",
}


@dataclass(frozen=True, slots=True)
class Score:
    """How well failures are told: average precision with its 95 % interval, and AUROC."""

    ap: float
    ci: tuple[float, float]
    auroc: float

    def dict(self) -> dict[str, Any]:
        return {"ap": finite(self.ap), "ci": pair(self.ci), "auroc": finite(self.auroc)}


@dataclass(frozen=True, slots=True)
class Window:
    """A prefix against the whole trace: ``delta`` is the mean over resamples, ``p`` the share of them above 0.

    ``code``: C committed, F full trace better, N near-committed, ? ambiguous, N/A not to be computed.
    """

    T: float
    score: Score
    delta: float
    delta_ci: tuple[float, float]
    p: float
    code: str

    def dict(self) -> dict[str, Any]:
        delta = {"delta": finite(self.delta), "delta_ci": pair(self.delta_ci), "p": finite(self.p)}
        return {"T": number(self.T), **self.score.dict(), **delta, "code": self.code}


@dataclass(frozen=True, slots=True)
class FeatureCurve:
    """One summary, or a set of them, alone: average precision from the whole trace and from each prefix."""

    name: str
    full: float
    early: tuple[float, ...]
    best: float
    shape: str


@dataclass(frozen=True, slots=True)
class Published:
    """The published report of one table. ``warnings`` are ours: the published report has none."""

    source: str
    n: int
    failures: int
    mode: str
    full: Score
    windows: tuple[Window, ...]
    verdict: str
    commitment_window: float | None
    features: tuple[FeatureCurve, ...]
    relative: bool
    warnings: tuple[str, ...]

    @property
    def base_rate(self) -> float:
        return self.failures / self.n

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        grid = [number(window.T) for window in self.windows]
        return {
            "n": self.n,
            "failures": self.failures,
            "base_rate": self.base_rate,
            "mode": self.mode,
            "full": self.full.dict(),
            "windows": [window.dict() for window in self.windows],
            "verdict": self.verdict,
            "verdict_text": VERDICTS[self.verdict],
            "commitment_window": None if self.commitment_window is None else number(self.commitment_window),
            "features": [
                {
                    "name": f.name,
                    "full": finite(f.full),
                    "windows": [{"T": T, "ap": finite(ap)} for T, ap in zip(grid, f.early, strict=True)],
                    "best": number(f.best),
                    "shape": f.shape,
                }
                for f in self.features
            ],
        }


def published(features: Features, n_boot: int = N_BOOT, curves: bool = True) -> Published:
    """The published procedure on these features; without ``curves`` single features, half of the work, are left out.

    Raises:
        WrongturnError: fewer than five failures or successes (there are five folds), or whole traces or all windows
            without features.
    """
    failed = features.failed
    failures, successes = int(failed.sum()), int((~failed).sum())
    if min(failures, successes) < FOLDS:
        raise WrongturnError(
            f"{features.source}: {failures} failures and {successes} successes; the procedure needs {FOLDS} of each"
        )
    folds = stratified_folds(failed, SEED, FOLDS)
    tables = [impute(table) for table in (features.full, *features.early)]
    if np.isnan(tables[0]).any():
        raise WrongturnError(f"{features.source}: {_empty(features, 0)} is empty in all {len(failed)} rows")
    known = [k for k, table in enumerate(tables) if not np.isnan(table).any()]
    if known == [0]:
        raise WrongturnError(f"{features.source}: every window lacks a feature in all rows: no verdict can be reached")
    scores = np.stack([out_of_fold(tables[k], failed, folds) for k in known])
    resampled = resampled_precision(failed, scores, n_boot, SEED)
    signs = compare_again(failed, scores, resampled, SEED)
    # Published intervals of one score resample the rows in the order of the folds, those of a difference as they stand.
    rows = np.concatenate([test for _, test in folds])
    spread = resampled_precision(failed[rows], scores[:, rows], n_boot, SEED)
    place = {k: i for i, k in enumerate(known)}
    measured = {k: _score(failed, scores[i], spread[i]) for k, i in place.items()}
    windows = []
    for k, T in enumerate(features.windows, start=1):
        if k in place:
            windows.append(_window(T, measured[k], resampled[place[k]] - resampled[0], signs[place[k] - 1]))
        else:
            windows.append(Window(T, _NO_SCORE, math.nan, (math.nan, math.nan), math.nan, "N/A"))
    name, commitment = verdict(windows)
    return Published(
        source=features.source,
        n=len(failed),
        failures=failures,
        mode=features.mode,
        full=measured[0],
        windows=tuple(windows),
        verdict=name,
        commitment_window=commitment,
        features=tuple(_curves(features, tables, folds)) if curves else (),
        relative=features.relative,
        warnings=(*features.warnings, *_cautions(features, known, failures, successes)),
    )


def impute(table: Array) -> Array:
    """``[n, F]`` with missing cells set to the median of their column over all rows, test folds included.

    A column without any number stays NaN.
    """
    filled = table.copy()
    for column in filled.T:
        unknown = np.isnan(column)
        if unknown.any() and not unknown.all():
            column[unknown] = np.median(column[~unknown])
    return filled


def verdict(windows: list[Window]) -> tuple[str, float | None]:
    """The verdict on a table, and the window it is pinned to.

    A committed window makes failures committed, at the committed window of highest average precision. Else a near one
    makes them near-committed, at the window of highest average precision *of all*, which may not be near itself. Else
    they are called persistent.
    """
    for name, code in (("committed", "C"), ("near-committed", "N")):
        if any(window.code == code for window in windows):
            pool = [window for window in windows if code == "N" or window.code == code]
            pool = [window for window in pool if not math.isnan(window.score.ap)]
            return name, max(pool, key=lambda window: window.score.ap).T
    return "persistent", None


_NO_SCORE = Score(math.nan, (math.nan, math.nan), math.nan)


def _score(failed: NDArray[np.bool_], scores: Array, resampled: Array) -> Score:
    return Score(plain_precision(failed, scores), _percentiles(resampled), auroc(failed, scores))


def _percentiles(resampled: Array) -> tuple[float, float]:
    low, high = np.percentile(resampled[~np.isnan(resampled)], [2.5, 97.5])
    return float(low), float(high)


def _window(T: float, score: Score, difference: Array, sign: Array) -> Window:
    """``difference`` and ``sign`` ``[n_boot]``: average precision minus that of the whole trace, per resample."""
    known = ~np.isnan(difference)
    difference = difference[known]
    delta, ci = float(np.mean(difference)), _percentiles(difference)
    p = float(np.mean(sign[known] > 0))
    if ci[0] > 0:
        code = "C"
    elif ci[1] < 0:
        code = "F"
    else:
        code = "N" if p > _LIKELY and delta > 0 else "?"
    return Window(T, score, delta, ci, p, code)


def _curves(features: Features, tables: list[Array], folds: list[Any]) -> list[FeatureCurve]:
    """Each summary alone, then all maxima together and all means (with the fork rate) together."""
    names = features.names
    sets = {name: [i] for i, name in enumerate(names)}
    sets["max features"] = [i for i, name in enumerate(names) if name.endswith("_max")]
    sets["mean features"] = [i for i, name in enumerate(names) if name.endswith(("_mean", "_rate"))]
    curves = []
    for name, columns in sets.items():
        aps = []
        for table in tables:
            part = np.ascontiguousarray(table[:, columns])
            known = not np.isnan(part).any()
            scores = out_of_fold(part, features.failed, folds) if known else None
            aps.append(math.nan if scores is None else plain_precision(features.failed, scores))
        curves.append(_curve(name, aps[0], aps[1:], features.windows))
    return curves


def _curve(name: str, full: float, early: list[float], grid: tuple[float, ...]) -> FeatureCurve:
    best = int(np.nanargmax(early)) if not np.isnan(early).all() else 0
    if early[best] > full:
        shape = "Early>Full"
    elif best == len(grid) - 1:
        shape = "Monotone"
    else:
        shape = "First peak" if best == 0 else "Inverted-U"
    return FeatureCurve(name, full, tuple(early), grid[best], shape)


def _empty(features: Features, k: int) -> str:
    """The first summary of table k (0: whole traces, then the windows) that no row has."""
    table = features.full if k == 0 else features.early[k - 1]
    name = features.names[int(np.flatnonzero(np.isnan(table).all(axis=0))[0])]
    return name if k == 0 else f"{name} at T={number(features.windows[k - 1])}"


def _cautions(features: Features, known: list[int], failures: int, successes: int) -> list[str]:
    absent = [k for k in range(1, len(features.windows) + 1) if k not in known]
    cautions = [f"{_empty(features, k)} is empty in all rows: no verdict there" for k in absent]
    if min(failures, successes) < 10:
        cautions.append(f"{failures} failures and {successes} successes: fewer than 10 of either tell next to nothing")
    return cautions


def finite(value: float) -> float | None:
    """A number for JSON, which knows no NaN."""
    return float(value) if math.isfinite(value) else None


def pair(values: tuple[float, float]) -> list[float | None]:
    return [finite(value) for value in values]


def number(T: float) -> float | int:
    """A window as people write it: 128, not 128.0."""
    return int(T) if int(T) == T else T
