"""Which operator rescues which problem, said so that luck does not write the label.

An *operator* is anything that tries a failed problem again; ``retry`` is the plain one that the others must beat. The
published rule takes the best of several noisy rates and asks whether it is 5 points above one noisy rate: where no
operator does anything, it still calls 40 to 60 % of problems steerable. Here the tries of a problem are split. The
*select* half chooses the operator and says whether the problem is hard; the *score* half, which had no part in the
choice, makes the one test that counts (Fisher's exact, one-sided), and its rates are what is reported.

Every function works on counts and knows nothing of models. What cannot be told is NaN, or ``UNTOLD`` with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wrongturn.diagnose.intervals import share
from wrongturn.stats import Estimate, holm, proportion

STEERABLE, RESAMPLE, BEYOND, UNTOLD = "steerable", "resample", "beyond reach", "cannot be told"
COMPAT = (None, "naive")
MARGIN, HARD = 0.05, 0.5
"""The published thresholds: an operator beats retry by a margin, on a problem where retry fails so often."""
ALPHA = 0.05
REACH = 0.25
"""No success counts as beyond reach only where every operator's rate is below this with 95 % confidence: 11 tries."""

Counted = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """``successes`` of ``tries``, both [problems, operators]."""

    successes: Counted
    tries: Counted

    def __post_init__(self) -> None:
        good, tries = np.asarray(self.successes), np.asarray(self.tries)
        if good.ndim != 2 or good.shape != tries.shape:
            raise ValueError(f"counts are two tables [problems, operators], not of shapes {good.shape}, {tries.shape}")
        wrong = np.argwhere((good < 0) | (good > tries) | (good != np.floor(good)) | (tries != np.floor(tries)))
        if len(wrong):
            row, column = wrong[0].tolist()
            found = f"{good[row, column]} of {tries[row, column]}"
            raise ValueError(f"problem {row}, operator {column}: {found} is no number of successes and tries")
        object.__setattr__(self, "successes", good.astype(np.int64))
        object.__setattr__(self, "tries", tries.astype(np.int64))

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.successes + other.successes, self.tries + other.tries)

    @property
    def rates(self) -> NDArray[np.float64]:
        """[problems, operators]; NaN without a try."""
        with np.errstate(invalid="ignore"):
            return np.where(self.tries > 0, self.successes / self.tries, np.nan)


@dataclass(frozen=True, slots=True)
class Cell:
    """An operator on a problem: (successes, tries) of both halves, and the score half's rate with Wilson's interval.

    ``p``: Fisher's one-sided p against retry on the score half; ``holm``: the same, adjusted for all operators of the
    problem. NaN for retry itself and where either has no try.
    """

    operator: str
    select: tuple[int, int]
    score: tuple[int, int]
    rate: Estimate
    p: float
    holm: float


@dataclass(frozen=True, slots=True)
class Label:
    """What rescues a problem. ``operator`` is the one the select half chose (None: none stood out there), ``p`` its
    test; ``rescuers`` are all operators whose Holm-adjusted p is at most alpha."""

    label: str
    operator: str | None
    p: float
    reason: str
    rescuers: tuple[str, ...]
    cells: tuple[Cell, ...]


def split(outcomes: ArrayLike, seed: int = 0) -> tuple[Counts, Counts]:
    """Tries [problems, operators, tries] (1, 0, or NaN: not made) as (select, score): each cell's tries are shared out
    at random, the odd one to the score half (so an operator with a single try is tested, and never chosen)."""
    table = np.asarray(outcomes, np.float64)
    if table.ndim != 3 or not np.isin(table[~np.isnan(table)], (0, 1)).all():
        raise ValueError("outcomes are a table [problems, operators, tries] of 1, 0 and NaN")
    made = ~np.isnan(table)
    order = np.where(made, np.random.default_rng(seed).random(table.shape), np.inf).argsort(axis=2).argsort(axis=2)
    first = order < made.sum(axis=2, keepdims=True) // 2
    good = table == 1
    return tuple(Counts((good & part).sum(axis=2), part.sum(axis=2)) for part in (made & first, made & ~first))  # type: ignore[return-value]


def label(
    select: Counts,
    score: Counts,
    operators: Sequence[str],
    *,
    retry: str = "retry",
    once: Collection[str] = (),
    alpha: float = ALPHA,
    compat: str | None = None,
) -> list[Label]:
    """One label per problem. ``once`` are operators every try of which is the same (greedy decoding): tried once.

    - ``steerable``: on the select half retry fails at least half of the time and the best operator is at least 5
      points above it; on the score half that operator beats retry, p <= ``alpha``
    - ``resample``: not so, and retry has succeeded
    - ``beyond reach``: no operator ever succeeded, in enough tries to say that none often does (``REACH``); of an
      operator that is tried once, one failure is enough
    - ``cannot be told``: anything else, with the reason

    A success of an operator that is tried once makes no label: the try that chose it cannot test it, and a retry with
    a fixed seed would be such an operator too. Its cell holds it against retry as one more draw; so do ``rescuers``.

    ``compat="naive"`` is the published rule: both halves pooled, the two thresholds, no test.

    Raises:
        ValueError: tables that do not fit each other or ``operators``, no operator called ``retry``, or another
            ``compat``.
    """
    plain = _retry(select, score, operators, retry, compat)
    steerable, best, p = _judged(select, score, plain, alpha, compat)
    both, found = select + score, []
    for i in range(len(best)):
        cells = tuple(_cells(select, score, i, operators, plain))
        chosen = operators[int(best[i])] if best[i] >= 0 else None
        rescuers = tuple(cell.operator for cell in cells if cell.holm <= alpha)
        name, reason = (STEERABLE, "") if steerable[i] else _otherwise(both, i, plain, p[i], compat, operators, once)
        found.append(Label(name, chosen, float(p[i]), reason, rescuers, cells))
    return found


def null_rate(select: Counts, score: Counts, *, clusters: ArrayLike | None = None, **how: Any) -> Estimate:
    """Share of problems labelled steerable where it makes no difference which operator is used: the mean of
    :func:`by_chance` (which takes ``how``), with an interval over problems. Rows of one of ``clusters`` [problems] are
    one problem."""
    hits = by_chance(select, score, **how)
    return share(hits, np.arange(len(hits)) if clusters is None else clusters)


def by_chance(
    select: Counts,
    score: Counts,
    *,
    retry: int = 0,
    alpha: float = ALPHA,
    compat: str | None = None,
    draws: int = 200,
    seed: int = 0,
) -> NDArray[np.float64]:
    """How often each problem [problems] is labelled steerable where no operator is better than another.

    A problem's successes are dealt out anew among all its tries (both halves, every operator), ``draws`` times. NaN
    without a draw.
    """
    rng, problems = np.random.default_rng(seed), len(select.tries)
    tries = np.concatenate((select.tries, score.tries), axis=1)
    total = (select.successes + score.successes).sum(axis=1)
    width, hits = select.tries.shape[1], np.zeros(problems)
    for _ in range(draws):
        dealt = np.array([rng.multivariate_hypergeometric(t, k) for t, k in zip(tries, total, strict=True)])
        dealt = dealt.reshape(problems, 2 * width)
        first, second = Counts(dealt[:, :width], select.tries), Counts(dealt[:, width:], score.tries)
        hits += _judged(first, second, retry, alpha, compat)[0]
    return hits / draws if draws else np.full(problems, np.nan)


@lru_cache(maxsize=1 << 16)
def fisher(successes: int, n: int, baseline: int, m: int) -> float:
    """One-sided exact p-value (Fisher 1935) that ``successes`` of ``n`` is no better a rate than ``baseline`` of ``m``.

    NaN where either has no try.
    """
    if n == 0 or m == 0:
        return math.nan
    total = successes + baseline
    ways = sum(math.comb(n, k) * math.comb(m, total - k) for k in range(successes, min(n, total) + 1))
    return ways / math.comb(n + m, total)


def _retry(select: Counts, score: Counts, operators: Sequence[str], retry: str, compat: str | None) -> int:
    """The column of the plain operator, once everything fits."""
    if compat not in COMPAT:
        raise ValueError(f"compat must be one of {', '.join(map(repr, COMPAT))}, not {compat!r}")
    shapes = select.tries.shape, score.tries.shape
    if shapes[0] != shapes[1] or shapes[0][1] != len(operators):
        raise ValueError(f"select {shapes[0]} and score {shapes[1]} must be [problems, {len(operators)} operators]")
    if retry not in operators:
        raise ValueError(f"no operator is called {retry!r} (there are: {', '.join(operators)})")
    return list(operators).index(retry)


def _judged(
    select: Counts, score: Counts, retry: int, alpha: float, compat: str | None
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.float64]]:
    """Which problems are steerable, the operator chosen for each (-1: none stands out), and its p (NaN: no test)."""
    basis = select + score if compat == "naive" else select
    rates = basis.rates
    plain = rates[:, retry]
    others = np.where(np.isnan(rates), -np.inf, rates)
    others[:, retry] = -np.inf
    best = others.argmax(axis=1)
    rows = np.arange(len(best))
    with np.errstate(invalid="ignore"):
        ahead = (others[rows, best] - plain >= MARGIN - 1e-12) & (1 - plain >= HARD - 1e-12)
    p = np.full(len(best), np.nan)
    if compat == "naive":
        return ahead, np.where(ahead, best, -1), p
    for i in np.flatnonzero(ahead):
        good, tries = score.successes[i], score.tries[i]
        p[i] = fisher(int(good[best[i]]), int(tries[best[i]]), int(good[retry]), int(tries[retry]))
    with np.errstate(invalid="ignore"):
        return p <= alpha, np.where(ahead, best, -1), p


def _cells(select: Counts, score: Counts, i: int, operators: Sequence[str], retry: int) -> Iterator[Cell]:
    good, tries = score.successes[i].tolist(), score.tries[i].tolist()
    p = [
        math.nan if j == retry else fisher(good[j], tries[j], good[retry], tries[retry]) for j in range(len(operators))
    ]
    adjusted = holm(p).tolist()
    for j, operator in enumerate(operators):
        first = int(select.successes[i, j]), int(select.tries[i, j])
        yield Cell(operator, first, (good[j], tries[j]), proportion(good[j], tries[j]), p[j], adjusted[j])


def _otherwise(
    both: Counts,
    i: int,
    retry: int,
    p: float,
    compat: str | None,
    operators: Sequence[str],
    once: Collection[str],
) -> tuple[str, str]:
    """The label of a problem that is not steerable, and why."""
    good, tries = both.successes[i], both.tries[i]
    if compat == "naive":
        return (BEYOND, "no operator succeeded") if good.max() == 0 else (RESAMPLE, "no operator is 5 points ahead")
    if tries[retry] == 0:
        return UNTOLD, f"{operators[retry]} was not tried: nothing to compare with"
    if np.delete(tries, retry).sum() == 0:
        return UNTOLD, "no other operator was tried"
    if good[retry] > 0:
        return RESAMPLE, f"{operators[retry]} succeeds in {good[retry]} of {tries[retry]} and no operator beats it"
    again = (tries > 0) & ~np.isin(operators, list(once))
    if good.max() > 0 and good[again].max(initial=0) == 0:
        which = ", ".join(name for name, n in zip(operators, good, strict=True) if n)
        why = "a single try cannot both choose and test"
        return UNTOLD, f"{which} succeeded and {operators[retry]} never did, but {why}"
    if good.max() > 0:
        why = "none stood out on the select half" if math.isnan(p) else f"p = {p:.2g} on the score half"
        return UNTOLD, f"an operator succeeded and {operators[retry]} never did, but {why}"
    weakest = int(tries[again].min())  # retry is one of them
    most = 1 - 0.05 ** (1 / weakest)
    if most <= REACH:
        return BEYOND, f"no success in {int(tries.sum())} tries; each operator's rate is below {most:.2f}"
    return UNTOLD, f"no success, but {weakest} tries leave room for a rate of {most:.2f}"
