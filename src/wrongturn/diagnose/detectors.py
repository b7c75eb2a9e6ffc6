"""Finding the onset from entropy alone, and GUARD's trigger held against it.

A detector names one token of a trace. A trigger fires at any number of boundaries. Both are judged on lost traces, with
exact traces (no wrong token) for false alarms; slips, which have an onset but a right answer, are left out of both.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wrongturn import triggers
from wrongturn.diagnose.intervals import Array, Index, Resamples, share
from wrongturn.diagnose.table import Table
from wrongturn.stats import Estimate

_WARM_UP = 8  # tokens before a running quantile means anything
_LEVEL = 0.5  # nats
_CELLS = 1 << 21  # history entries held at once


# -- detectors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Detector:
    """``exact`` and ``segment`` are the shares of lost traces in which it names the onset token, or one of its
    segment (base rate: a random token of the trace); ``before`` of all it answers, those before the onset. ``lead``
    is the median of onset - named token (positive: early); ``false_alarm`` the share of exact traces in which it
    names any."""

    name: str
    n: int
    answered: Estimate
    exact: Estimate
    segment: Estimate
    before: Estimate
    lead: Estimate
    false_alarm: Estimate


def highest(entropy: Array) -> int:
    """The most uncertain token."""
    return int(np.nanargmax(entropy)) if not np.isnan(entropy).all() else -1


def above_level(entropy: Array) -> int:
    """The first token above half a nat."""
    return _first(entropy > _LEVEL)


def above_running_quantile(entropy: Array) -> int:
    """The first token above the 0.9 quantile of all before it."""
    past: list[float] = []  # ascending
    for t, value in enumerate(entropy.tolist()):
        if value != value:
            continue
        if len(past) >= _WARM_UP:
            low = int(0.9 * (len(past) - 1))
            if value > past[low] + (0.9 * (len(past) - 1) - low) * (past[min(low + 1, len(past) - 1)] - past[low]):
                return t
        insort(past, value)
    return -1


def rise(entropy: Array) -> int:
    """The token from which entropy is raised: the split with the largest scaled rise of the mean (Page 1954)."""
    known = np.flatnonzero(~np.isnan(entropy))
    x, n = entropy[known], len(known)
    if n < 2:
        return -1
    before = np.arange(1, n)
    total = np.cumsum(x)
    contrast = (total[-1] - total[:-1]) / (n - before) - total[:-1] / before
    return int(known[before[np.argmax(contrast * np.sqrt(before * (n - before)))]])


DETECTORS: dict[str, Callable[[Array], int]] = {
    "highest": highest,
    "above_level": above_level,
    "above_running_quantile": above_running_quantile,
    "rise": rise,
}
"""Entropies of a trace [tokens] -> a token, -1 for none."""


def detector_study(table: Table, boot: Resamples) -> dict[str, Detector]:
    """How well each detector finds the onset. Traces without entropies take no part."""
    known = np.bincount(table.token_trace, ~np.isnan(table.signals["entropy"]), minlength=len(table)) > 0
    lost, exact = np.flatnonzero(table.lost & known), np.flatnonzero(table.exact & known)
    return {name: _detector(name, rule, table, boot, lost, exact) for name, rule in DETECTORS.items()}


def _detector(
    name: str, rule: Callable[[Array], int], table: Table, boot: Resamples, lost: Index, exact: Index
) -> Detector:
    named = np.array([rule(table.entropy_of(i)) for i in lost], np.intp)
    alarms = np.array([rule(table.entropy_of(i)) >= 0 for i in exact], bool)
    onset, cluster, length = table.onset[lost], table.problem[lost], table.length[lost]
    segment = table.first_segment[lost] + table.onset_segment[lost]
    start, stop = table.start[segment], table.stop[segment]
    answered = named >= 0
    return Detector(
        name,
        len(lost),
        answered=share(answered, cluster),
        exact=share(answered & (named == onset), cluster, _mean(1 / length)),
        segment=share(answered & (start <= named) & (named < stop), cluster, _mean((stop - start) / length)),
        before=share((named < onset)[answered], cluster[answered], _mean((onset / length)[answered])),
        lead=boot.median(cluster[answered], (onset - named)[answered]),
        false_alarm=share(alarms, table.problem[exact]),
    )


# -- GUARD's trigger ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trigger:
    """One trigger rule replayed on saved traces: it may fire at the first token after a boundary.

    ``precision``: triggers that stand at the start of the onset segment of a lost trace, of all triggers (base rate:
    as many triggers in each trace, at random among the boundaries where the rule was able to fire). ``above_chance``
    is the difference. A rule with little history fires early whatever the entropies are, so ``above_schedule`` is the
    same with random triggers that prefer the k-th boundary as often as the rule does. ``recall``: lost traces with
    such a trigger. ``in_time``: lost traces with a trigger at or before it; ``lead``: median tokens from the last of
    these to the onset. ``false_per_trace``: triggers in a trace without a wrong token."""

    rule: str
    q: float
    min_history: int
    n_lost: int
    n_exact: int
    n_triggers: int
    precision: Estimate
    above_chance: Estimate
    above_schedule: Estimate
    recall: Estimate
    in_time: Estimate
    lead: Estimate
    false_per_trace: Estimate


QUANTILES = (0.5, 0.7, 0.8, 0.9)


def trigger_study(table: Table, boot: Resamples, min_history: int = 1) -> list[Trigger]:
    """The paper's rule at several quantiles and the published code's at 0.9, against the onset."""
    use = np.flatnonzero(table.lost | table.exact)
    entropy, token = boundary_entropies(table, use)
    rules = [("paper", q, min_history) for q in QUANTILES] + [("repo", 0.9, 5)]
    return [_trigger(table, boot, use, entropy, token, *rule) for rule in rules]


def boundary_entropies(table: Table, rows: Index) -> tuple[Array, Index]:
    """``[rows, most boundaries]`` entropy of the first token after each boundary (NaN-padded), and its index (-1)."""
    inner = table.segments[rows] - 1
    width = int(np.max(inner, initial=0))
    column = np.arange(width)
    there = column < inner[:, None]
    segment = np.where(there, table.first_segment[rows][:, None] + 1 + column, 0)
    if width == 0:
        return np.zeros((len(rows), 0)), np.zeros((len(rows), 0), np.intp)
    token = table.start[segment]
    entropy = table.signals["entropy"][np.where(there, table.first[rows][:, None] + token, 0)]
    return np.where(there, entropy, np.nan), np.where(there, token, -1)


def replay(entropy: Array, q: float, rule: str, min_history: int) -> np.ndarray:
    """:func:`wrongturn.triggers.replay` for many traces at once: ``[rows, boundaries]``."""
    rows, width = entropy.shape
    fired = np.zeros(entropy.shape, bool)
    step = max(1, _CELLS // max(width * width, 1))
    for begin in range(0, rows if width else 0, step):
        block = entropy[begin : begin + step]
        past = np.where(np.tri(width, k=-1, dtype=bool), block[:, None, :], np.nan)
        fired[begin : begin + step] = triggers.fires(block, past, q, rule, min_history)
    return fired


def _trigger(
    table: Table, boot: Resamples, use: Index, entropy: Array, token: Index, rule: str, q: float, min_history: int
) -> Trigger:
    fired = replay(entropy, q, rule, min_history)
    known = ~np.isnan(entropy)
    seen = np.cumsum(known, axis=1) - (rule == "paper") * known  # the repo's history holds the current value
    able = (known & (seen >= max(1, min_history))).astype(np.float64)
    tau = np.where(table.lost[use], table.onset_segment[use], -1)
    order = np.arange(entropy.shape[1]) + 1  # segment that begins at each boundary
    at_onset = order == tau[:, None]
    count, hits = fired.sum(axis=1), (fired & at_onset).sum(axis=1)
    schedule = able * fired.sum(axis=0) / np.maximum(able.sum(axis=0), 1)
    expected, scheduled = (count * _share_of_row(weight, at_onset) for weight in (able, schedule))
    cluster, lost = table.problem[use], table.lost[use]
    timely = fired & (order <= tau[:, None])
    last = np.max(np.where(timely, token, -1), axis=1, initial=-1)
    caught = lost & timely.any(axis=1)
    row, column = np.nonzero(fired)
    return Trigger(
        rule,
        q,
        min_history,
        n_lost=int(lost.sum()),
        n_exact=int((~lost).sum()),
        n_triggers=int(count.sum()),
        precision=share(at_onset[row, column], cluster[row], float(expected.sum() / max(len(row), 1))),
        above_chance=_excess(boot, cluster, hits - expected, count, lost),
        above_schedule=_excess(boot, cluster, hits - np.minimum(scheduled, 1), count, lost),
        recall=share(hits[lost] > 0, cluster[lost]),
        in_time=share(caught[lost], cluster[lost]),
        lead=boot.median(cluster[caught], (table.onset[use] - last)[caught]),
        false_per_trace=boot.mean(cluster[~lost], count[~lost]),
    )


def _share_of_row(weight: Array, where: np.ndarray) -> Array:
    """Share of each row's weight that stands at ``where``."""
    total = weight.sum(axis=1)
    return (weight * where).sum(axis=1) / np.where(total > 0, total, 1)


def _excess(boot: Resamples, cluster: Index, excess: Array, count: Index, lost: np.ndarray) -> Estimate:
    """Excess hits a trigger; it rests on the problems with lost traces, however many others there are."""
    n = len(np.unique(cluster[lost & (count > 0)]))
    return boot.estimate(cluster, (excess, count), lambda s: s[..., 0] / s[..., 1], 0.0, n=n)


def _first(mask: np.ndarray) -> int:
    return int(np.argmax(mask)) if mask.any() else -1


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
