"""What can be rescued, by what, and from where: labels that are not selection noise, onsets found by resampling."""

from __future__ import annotations

from wrongturn.diagnose.recoverability.bisection import bisection
from wrongturn.diagnose.recoverability.designs import Ask, Design, Onset, Rollout, curve, omega
from wrongturn.diagnose.recoverability.labels import Counts, Label, label, null_rate, split

__all__ = [
    "Ask",
    "Counts",
    "Design",
    "Label",
    "Onset",
    "Rollout",
    "bisection",
    "curve",
    "label",
    "null_rate",
    "omega",
    "split",
]
