"""What token entropy looks like around a wrong turn (guard.md §1.2), with the controls the published study lacks.

Segments: are invalid ones more uncertain than valid ones, over all traces (``pooled``: mixes hard problems with wrong
steps) and inside one trace (``within``)? Tokens: entropy aligned to the onset of lost traces, next to a *control*: as
many decisions of right, exact traces. Most tokens are forced by what stands before them, so a fair control for an
onset is a token that follows the same token as the onset does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wrongturn.diagnose.intervals import UNKNOWN, Array, Index, Resamples, share
from wrongturn.diagnose.table import Table, summaries
from wrongturn.stats import Estimate

OFFSETS = np.arange(-12, 13)
_CONTROLS = 4  # control tokens drawn for each onset


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Mean entropy (nats) at ``offsets`` from the onset of lost traces and from control tokens, with simultaneous 95 %
    bands. ``matched`` is the share of onsets that have a control."""

    offsets: Index
    onset: Array
    onset_low: Array
    onset_high: Array
    control: Array
    control_low: Array
    control_high: Array
    n_onset: int
    n_control: int
    matched: float


@dataclass(frozen=True, slots=True, eq=False)
class EntropyStudy:
    """Entropy in nats. Segment entropy is the mean over its tokens; ``spread`` is a standard deviation: between
    segments when pooled, between the tokens of a segment when within traces."""

    n_invalid: int
    n_valid: int
    mean_invalid: Estimate
    mean_valid: Estimate
    mean_difference: Estimate  # invalid - valid, pooled
    mean_within: Estimate  # the same inside traces that have both
    spread_difference: Estimate
    spread_within: Estimate
    auroc: Estimate  # invalid against valid segments by mean entropy, pooled
    auroc_within: Estimate  # the same inside traces
    aligned: Aligned
    spike: Estimate  # segment entropy at the onset - mean of the segments before it, lost traces
    spike_over_control: Estimate  # token entropy at the onset - at the control tokens
    rank_at_onset: Estimate  # share of earlier tokens with lower entropy than the onset token
    highest_so_far: Estimate  # share of onsets that are the most uncertain token so far
    peak_before: Estimate  # share of lost traces whose most uncertain token is before the onset; base: a random token
    peak_at: Estimate
    peak_after: Estimate
    peak_before_excess: Estimate  # peak_before - its base rate


def entropy_study(table: Table, boot: Resamples, seed: int = 0) -> EntropyStudy:
    """Entropy of invalid and valid segments, around onsets, and where its maximum lies."""
    segment = summaries(table.signals["entropy"], *_flat_segments(table))
    judged = np.flatnonzero(~np.isnan(table.valid) & ~np.isnan(segment["mean"]))
    mean, spread, invalid = segment["mean"][judged], segment["std"][judged], table.valid[judged] == 0
    trace = table.segment_trace[judged]
    cluster = table.problem[trace]
    aligned, spike_over_control = _aligned(table, boot, np.random.default_rng(seed))
    return EntropyStudy(
        n_invalid=int(invalid.sum()),
        n_valid=int((~invalid).sum()),
        mean_invalid=boot.mean(cluster[invalid], mean[invalid]),
        mean_valid=boot.mean(cluster[~invalid], mean[~invalid]),
        mean_difference=boot.contrast(cluster, mean, invalid),
        mean_within=_within_traces(table, boot, trace, mean, invalid),
        spread_difference=boot.contrast(cluster, mean, invalid, "std"),
        spread_within=_within_traces(table, boot, trace, spread, invalid),
        auroc=boot.auroc(cluster, invalid, mean),
        auroc_within=boot.auroc(cluster, invalid, mean, within=trace),
        aligned=aligned,
        spike=_spike(table, boot, segment["mean"]),
        spike_over_control=spike_over_control,
        **_ranks(table, boot),
    )


def _flat_segments(table: Table) -> tuple[Index, Index]:
    """Segment spans as indices into all tokens."""
    offset = table.first[table.segment_trace]
    return offset + table.start, offset + table.stop


def _within_traces(table: Table, boot: Resamples, trace: Index, values: Array, invalid: np.ndarray) -> Estimate:
    """Mean over traces of (mean over its invalid segments - mean over its valid ones)."""
    means = []
    with np.errstate(invalid="ignore"):
        for kind in (invalid, ~invalid):
            total = np.bincount(trace[kind], values[kind], minlength=len(table))
            means.append(total / np.bincount(trace[kind], minlength=len(table)))
    return boot.mean(table.problem, means[0] - means[1], base_rate=0.0)


def _spike(table: Table, boot: Resamples, mean: Array) -> Estimate:
    """Hbar_tau - mean_{i < tau} Hbar_i over lost traces whose onset is not in the first segment."""
    order = np.arange(len(mean)) - table.first_segment[table.segment_trace]
    tau = np.where(table.lost, table.onset_segment, -1)[table.segment_trace]
    known = ~np.isnan(mean)
    at, before = (order == tau) & known, (order < tau) & known
    with np.errstate(invalid="ignore"):
        height, level = (
            np.bincount(table.segment_trace[part], mean[part], minlength=len(table))
            / np.bincount(table.segment_trace[part], minlength=len(table))
            for part in (at, before)
        )
    return boot.mean(table.problem, height - level, base_rate=0.0)


def _aligned(table: Table, boot: Resamples, rng: np.random.Generator) -> tuple[Aligned, Estimate]:
    """Curves around onsets and controls, and the difference at offset 0."""
    lost = np.flatnonzero(table.lost)
    onset = table.first[lost] + table.onset[lost]
    trace = table.token_trace
    before = np.where(np.arange(len(trace)) > table.first[trace], np.roll(table.ids, 1), -1)  # -1: first of its trace
    allowed = np.flatnonzero(((table.right == 1) & table.exact)[trace] & ~np.isnan(table.signals["entropy"]))
    allowed = allowed[np.argsort(before[allowed], kind="stable")]
    low, high = (np.searchsorted(before[allowed], before[onset], side) for side in ("left", "right"))
    matched = high > low
    drawn = rng.integers(low[matched], high[matched], (_CONTROLS, int(matched.sum()))).ravel()
    control = allowed[drawn]
    here, there = _around(table, onset), _around(table, control)
    cluster, clusters_there = table.problem[trace[onset]], table.problem[trace[control]]
    curves = boot.curve(cluster, here), boot.curve(clusters_there, there)
    zero = int(np.flatnonzero(OFFSETS == 0)[0])
    difference = UNKNOWN
    if len(onset) and len(control):
        difference = boot.contrast(
            np.concatenate((cluster[matched], clusters_there)),
            np.concatenate((here[matched, zero], there[:, zero])),
            np.arange(int(matched.sum()) + len(control)) < int(matched.sum()),
        )
    share_matched = float(matched.mean()) if len(onset) else float("nan")
    return Aligned(OFFSETS, *curves[0], *curves[1], len(onset), len(control), share_matched), difference


def _around(table: Table, tokens: Index) -> Array:
    """Entropies ``[n, offsets]`` around tokens (indices into all tokens); NaN outside the trace."""
    at = tokens[:, None] + OFFSETS
    trace = table.token_trace[tokens]
    inside = (at >= table.first[trace][:, None]) & (at < table.first[trace + 1][:, None])
    around = np.full(at.shape, np.nan)
    around[inside] = table.signals["entropy"][at[inside]]
    return around


def _ranks(table: Table, boot: Resamples) -> dict[str, Estimate]:
    """Where the onset token stands among the tokens before it, and the trace's maximum relative to it."""
    rows, rank, top, peak = [], [], [], []
    for i in np.flatnonzero(table.lost):
        entropy, onset = table.entropy_of(i), int(table.onset[i])
        if np.isnan(entropy[onset]):
            continue
        past = entropy[:onset][~np.isnan(entropy[:onset])]
        rows.append(i)
        rank.append(np.mean(past < entropy[onset]) if len(past) else np.nan)
        top.append(bool(np.all(past < entropy[onset])))
        peak.append(int(np.nanargmax(entropy)))
    at = np.array(rows, np.intp)
    cluster, onset, length = table.problem[at], table.onset[at], table.length[at]
    where = np.array(peak, np.intp) - onset
    chance = {"before": onset / length, "at": 1 / length, "after": (length - onset - 1) / length}
    hits = {"before": where < 0, "at": where == 0, "after": where > 0}
    base = {name: float(values.mean()) if len(at) else float("nan") for name, values in chance.items()}
    return {
        "rank_at_onset": boot.mean(cluster, np.array(rank, np.float64), base_rate=0.5),
        "highest_so_far": share(top, cluster, float(np.mean(1 / (onset + 1))) if len(at) else float("nan")),
        **{f"peak_{name}": share(hits[name], cluster, base[name]) for name in hits},
        "peak_before_excess": boot.mean(cluster, hits["before"] - chance["before"], base_rate=0.0),
    }
