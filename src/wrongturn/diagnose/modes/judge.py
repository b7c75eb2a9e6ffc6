"""Ours: committed, persistent, or undetermined with the reason. What each step mends is in docs/modes.md.

1. A signal gate. Unless whole traces or prefixes tell failures better than permuted labels do, nothing else is said.
2. Scores are out of fold, groups whole, imputed inside the folds, averaged over repeated splits; the spread over splits
   is part of every standard error.
3. Committed: a prefix beats the whole trace, by a band that holds for all prefixes at once (max-T), and beats chance.
4. Persistent: whole traces beat chance, and *every* prefix is shown not to be better by more than a margin
   (non-inferiority; each at 5 % one-sided: an intersection-union test needs no correction, Berger 1982).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.modes.features import Features
from wrongturn.diagnose.modes.gate import gate
from wrongturn.diagnose.modes.judgement import Judgement, Prefix, Skill
from wrongturn.diagnose.modes.measure import Measured, going_on, group_index

Array = NDArray[np.float64]
Index = NDArray[np.intp]

REPEATS = 10
N_BOOT = 2000
PERMUTATIONS = 199
MARGIN = 0.05  # of average precision; the differences published as "committed" are 0.02 to 0.09
FEWEST = 10  # failures, successes and groups
ALPHA = 0.05
_EARLY = 0.5  # share of traces that go on after a prefix, from which on it counts as early


def judge(
    features: Features,
    *,
    repeats: int = REPEATS,
    n_boot: int = N_BOOT,
    permutations: int = PERMUTATIONS,
    margin: float = MARGIN,
    seed: int = 0,
    p: float | None = None,
) -> Judgement:
    """The verdict on these features; never an error for what they hold, but ``undetermined`` with the reason.

    Args:
        margin: difference in average precision below which a prefix does not count as better.
        p: of the signal gate where it has been tested already.
    """
    groups = group_index(features)
    kept, warnings = _usable(features)
    reason = _too_little(features, groups)
    full, windows, commitment = None, (), None
    verdict = "undetermined"
    if not reason:
        tables = [features.full, *(features.early[w] for w in kept)]
        early = [going_on(features, features.windows[w]) >= _EARLY for w in kept]
        if p is None:
            p = gate(features.failed, groups, tested(features), permutations, seed)
        measured = Measured(features, groups, tables, kept, repeats, n_boot, seed)
        full = measured.skill(0)
        windows = tuple(measured.prefixes(early))
        verdict, reason, best = decide(p, full, windows, margin)
        commitment = None if best is None else measured.commitment(best, early)
        if verdict != "undetermined" and full.length_lift > full.lift:
            warnings.append("the length of a trace alone tells failures better than its uncertainty")
    return Judgement(
        source=features.source,
        n=len(features),
        failures=int(features.failed.sum()),
        groups=len(set(groups.tolist())),
        mode=features.mode,
        outcomes=features.outcomes,
        verdict=verdict,
        reason=reason,
        p=math.nan if p is None else p,
        full=full,
        windows=windows,
        commitment=commitment,
        relative_commitment=_relative(commitment, features),
        margin=margin,
        relative=features.relative,
        warnings=(*features.warnings, *warnings),
    )


def tested(features: Features) -> list[Array]:
    """The tables ``[n, F]`` a signal may be in: whole traces, and windows that are early and not empty."""
    early = [w for w in _usable(features)[0] if going_on(features, features.windows[w]) >= _EARLY]
    return [features.full, *(features.early[w] for w in early)]


def decide(p: float, full: Skill, windows: tuple[Prefix, ...], margin: float) -> tuple[str, str, float | None]:
    """Verdict, reason, and the window failures are committed at."""
    early = [window for window in windows if window.going_on >= _EARLY]
    if not p <= ALPHA:
        return "undetermined", f"no signal: failures are told no better than permuted labels (p = {p:.3f})", None
    if not early:
        return "undetermined", "no window is early: fewer than half of the traces go on after the first one", None
    committed = [window for window in early if window.band[0] > 0 and window.skill.ci[0] > 0]
    if committed:
        best = max(committed, key=lambda window: window.skill.ap)
        return "committed", f"the first {_name(best.T)} tell more than whole traces, all windows considered", best.T
    if full.ci[0] <= 0:
        return "undetermined", "whole traces tell failures no better than chance, and no window is shown to", None
    open_windows = [window for window in early if not window.upper < margin]
    if not open_windows:
        return "persistent", f"whole traces beat chance; no window can be better by {margin:g} or more", None
    worst = max(open_windows, key=lambda window: window.upper)
    reason = f"the first {_name(worst.T)} may be better than whole traces by up to {worst.upper:.3f}, or not at all"
    return "undetermined", reason, None


def _usable(features: Features) -> tuple[list[int], list[str]]:
    """Windows with at least one known feature in at least one row, and a warning for each other one."""
    empty = [bool(np.isnan(table).all()) for table in features.early]
    warnings = [
        f"the window {_name(T)} is empty: left out" for T, none in zip(features.windows, empty, strict=True) if none
    ]
    return [w for w, none in enumerate(empty) if not none], warnings


def _too_little(features: Features, groups: Index) -> str:
    """Why no verdict can be reached, whatever the features say; empty if one can."""
    failures = int(features.failed.sum())
    successes = len(features) - failures
    if min(failures, successes) < FEWEST:
        return f"{failures} wrong and {successes} right answers: fewer than {FEWEST} of either"
    if len(set(groups.tolist())) < FEWEST:
        return f"{len(set(groups.tolist()))} groups: fewer than {FEWEST}"
    if np.isnan(features.full).all():
        return "whole traces have no features"
    if all(np.isnan(table).all() for table in features.early):
        return "no window has any features"
    return ""


def _relative(commitment: tuple[float, float, float] | None, features: Features) -> tuple[float, float, float] | None:
    """A commitment window and its interval as fractions of the median trace; None without one, or without lengths."""
    known = features.lengths[~np.isnan(features.lengths)]
    if commitment is None or features.relative or not len(known):
        return commitment if features.relative else None
    value, low, high = (T / float(np.median(known)) for T in commitment)
    return value, low, high


def _name(T: float) -> str:
    return f"{100 * T:g} %" if T < 1 else f"{T:g} tokens"
