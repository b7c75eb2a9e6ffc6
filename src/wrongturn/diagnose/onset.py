"""Where wrong traces go wrong: the onset study of guard.md §1.2, with the null models it lacks.

A failure is *lost* if a token of it is wrong; its onset position rho is one of

- ``token``:   tokens before the first invalid segment / all tokens (the default; what GUARD's "first 30 %" is taken
  to be)
- ``exact``:   tokens before the first wrong token / all tokens (never earlier than ``token``)
- ``segment``: segments before the first invalid one / all segments

F(r) is the share of lost traces with rho <= r. Early onsets are partly mechanical: a long tail after the onset
shrinks rho. Hence a null that puts the onset at a uniformly random token of the first N_correct tokens (the median
length of right traces of the same group) and measures it the same way, on the failed trace's own segments and length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from wrongturn.diagnose.intervals import UNKNOWN, Array, Index, Resamples, exponential, share
from wrongturn.diagnose.table import Table
from wrongturn.stats import Estimate

GRID = np.linspace(0.0, 1.0, 101)
POSITIONS = ("token", "exact", "segment")
_EARLY = 30  # grid index of r = 0.30


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """F(r) on ``GRID`` under one definition of position: ``low``/``high`` are a simultaneous 95 % band, ``null`` is
    what uniform onsets would give. ``excess_30`` is F(.30) minus the null, on the traces that have a null."""

    name: str
    n: int
    r: Array
    value: Array
    low: Array
    high: Array
    null: Array
    median: Estimate
    share_30: Estimate
    null_30: Estimate
    excess_30: Estimate
    positions: Array = field(repr=False)  # [n] rho of each lost trace
    problems: Index = field(repr=False)  # [n] its problem, for intervals

    def share_before(self, r: float) -> Estimate:
        """Share of lost traces with an onset at or before the fraction ``r`` of the trace."""
        if not 0 <= r <= 1:
            raise ValueError(f"r must be in [0, 1], not {r}")
        k = int(np.floor(r * 100 + 1e-9))
        return share(self.positions <= r + 1e-12, self.problems, float(self.null[k]) if self.n else math.nan)


@dataclass(frozen=True, slots=True, eq=False)
class OnsetStudy:
    """Onsets of failures (wrong answers). ``n_failed`` = ``n_onset`` + ``n_no_onset`` + ``n_unknown``; of those without
    an onset, ``n_cut`` ran out of tokens before any was wrong."""

    n_failed: int
    n_onset: int
    n_no_onset: int
    n_cut: int
    n_unknown: int
    median: Estimate  # of the default position, as the next three
    share_30: Estimate
    null_30: Estimate
    excess_30: Estimate
    curves: dict[str, Curve]
    single_invalid: Estimate  # share of judged failures with exactly one invalid segment
    invalid_segments: Estimate  # mean number of invalid segments in a judged failure
    expansion_tokens: Estimate  # mean tokens of wrong answers / of right answers
    expansion_segments: Estimate
    expansion_tokens_within: Estimate  # the same inside problems with both outcomes: geometric mean over problems
    expansion_segments_within: Estimate
    after_share: Estimate  # share of a lost trace's tokens from the first invalid segment on
    after_tokens: Estimate  # tokens after the first invalid segment
    after_validity: Estimate  # share of valid segments after it: high is "locally coherent, globally wrong"

    @property
    def token(self) -> Curve:
        """The default position."""
        return self.curves["token"]

    def share_before(self, r: float, position: str = "token") -> Estimate:
        """F(r): share of lost traces with an onset at or before the fraction ``r`` of the trace."""
        return self.curves[position].share_before(r)


def onset_study(table: Table, boot: Resamples) -> OnsetStudy:
    """Where failures go wrong, how many wrong steps they have, and what follows."""
    failed, lost = table.failed, table.lost
    judged = np.bincount(table.segment_trace, ~np.isnan(table.valid), minlength=len(table)) > 0
    invalid = np.bincount(table.segment_trace, table.valid == 0, minlength=len(table))
    rows = np.flatnonzero(failed & judged)
    at = np.flatnonzero(lost)
    onset = table.first_segment[at] + table.onset_segment[at]
    cluster, length = table.problem[at], table.length[at]
    later = np.arange(len(table.start)) > _spread(table, at, onset, fill=len(table.start))
    after = np.flatnonzero(later & ~np.isnan(table.valid))
    curves = {name: _curve(name, table, at, boot) for name in POSITIONS}
    default = curves["token"]
    return OnsetStudy(
        n_failed=int(failed.sum()),
        n_onset=len(at),
        n_no_onset=int((failed & ~lost & (table.onset >= -1)).sum()),
        n_cut=int((failed & (table.onset == table.length)).sum()),
        n_unknown=int((failed & (table.onset < -1)).sum()),
        median=default.median,
        share_30=default.share_30,
        null_30=default.null_30,
        excess_30=default.excess_30,
        curves=curves,
        single_invalid=share(invalid[rows] == 1, table.problem[rows]),
        invalid_segments=boot.mean(table.problem[rows], invalid[rows]),
        expansion_tokens=_expansion(table, table.length, boot),
        expansion_segments=_expansion(table, table.segments, boot),
        expansion_tokens_within=_expansion_within(table, table.length, boot),
        expansion_segments_within=_expansion_within(table, table.segments, boot),
        after_share=boot.mean(cluster, 1 - table.start[onset] / length),
        after_tokens=boot.mean(cluster, length - table.stop[onset]),
        after_validity=boot.mean(table.problem[table.segment_trace[after]], table.valid[after]),
    )


def _spread(table: Table, at: Index, values: Index, fill: int) -> Index:
    """One value per trace in ``at`` to all segments of these traces; ``fill`` for the other traces."""
    per_trace = np.full(len(table), fill, np.intp)
    per_trace[at] = values
    return per_trace[table.segment_trace]


def _curve(name: str, table: Table, at: Index, boot: Resamples) -> Curve:
    cluster = table.problem[at]
    onset = table.first_segment[at] + table.onset_segment[at]
    observed = {
        "token": table.start[onset] / table.length[at],
        "exact": table.onset[at] / table.length[at],
        "segment": table.onset_segment[at] / table.segments[at],
    }[name]
    reached = (observed[:, None] <= GRID + 1e-12).astype(np.float64)
    null = _null(name, table, at)
    if len(at) == 0:
        flat = np.full(len(GRID), np.nan)
        return Curve(name, 0, GRID, flat, flat, flat, flat, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, observed, cluster)
    value, low, high = boot.curve(cluster, reached, even=True)
    expected, *_ = boot.curve(cluster, null)
    low, high = np.maximum.accumulate(np.clip(low, 0, 1)), np.maximum.accumulate(np.clip(high, 0, 1))
    early, chance = reached[:, _EARLY], null[:, _EARLY]
    return Curve(
        name,
        len(at),
        GRID,
        value,
        low,
        high,
        expected,
        median=boot.median(cluster, observed),
        share_30=share(early, cluster, float(expected[_EARLY])),
        null_30=boot.mean(cluster, chance),
        excess_30=boot.mean(cluster, early - chance, base_rate=0.0),
        positions=observed,
        problems=cluster,
    )


def _null(name: str, table: Table, at: Index) -> Array:
    """``[lost, grid]`` chance that a uniformly random token of the first N_correct is at or before r, in each trace.

    NaN for traces of a group without a single right answer, which has no N_correct.
    """
    right = table.right == 1
    typical = np.array([_median(table.length[right & (table.group == g)]) for g in range(len(table.groups))])
    length = table.length[at]
    first = np.minimum(typical[table.group[at]], length) if len(at) else np.zeros(0)  # candidate tokens
    if name == "exact":
        tokens = np.floor(GRID * length[:, None] + 1e-9) + 1
        return np.minimum(tokens / first[:, None], 1.0)
    row = np.full(len(table), -1)
    row[at] = np.arange(len(at))
    mine = np.flatnonzero(row[table.segment_trace] >= 0)
    trace = table.segment_trace[mine]
    order = mine - table.first_segment[trace]
    position = table.start[mine] / table.length[trace] if name == "token" else order / table.segments[trace]
    candidates = np.clip(np.minimum(table.stop[mine], first[row[trace]]) - table.start[mine], 0, None)
    weight = np.zeros((len(at), len(GRID)))
    np.add.at(weight, (row[trace], np.ceil(position * 100 - 1e-9).astype(np.intp)), candidates / first[row[trace]])
    return np.minimum(np.cumsum(weight, axis=1), 1.0)


def _median(values: Index) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _expansion(table: Table, size: Index, boot: Resamples) -> Estimate:
    graded = ~np.isnan(table.right)
    return exponential(boot.contrast(table.problem[graded], size[graded], table.failed[graded], "log mean"))


def _expansion_within(table: Table, size: Index, boot: Resamples) -> Estimate:
    """Mean over problems with both outcomes of log(mean size of its wrong traces / of its right ones)."""
    n = len(table.problems)
    mean = {}
    for outcome in (0, 1):
        rows = table.right == outcome
        count = np.bincount(table.problem[rows], minlength=n)
        total = np.bincount(table.problem[rows], size[rows], minlength=n)
        mean[outcome] = np.where((count > 0) & (total > 0), total / np.maximum(count, 1), np.nan)
    return exponential(boot.mean(np.arange(n), np.log(mean[0]) - np.log(mean[1])))
