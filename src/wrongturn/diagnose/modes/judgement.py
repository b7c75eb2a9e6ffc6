"""What our method says of a table or run: plain frozen figures, and how they become JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wrongturn.diagnose.modes.published import finite, number, pair


@dataclass(frozen=True, slots=True)
class Skill:
    """Average precision, its lift over the base rate with a 95 % interval, AUROC, and the lift of length alone."""

    ap: float
    lift: float
    ci: tuple[float, float]
    auroc: float
    length_lift: float

    def dict(self) -> dict[str, Any]:
        return {
            "ap": finite(self.ap),
            "lift": finite(self.lift),
            "lift_ci": pair(self.ci),
            "auroc": finite(self.auroc),
            "length_lift": finite(self.length_lift),
        }


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix against the whole trace: difference, simultaneous 95 % band, one-sided 95 % upper limit.

    ``going_on`` is the share of traces longer than the prefix; below a half it is shown but says nothing. ``split_sd``:
    standard deviation of the difference over repeated splits.
    """

    T: float
    skill: Skill
    delta: float
    band: tuple[float, float]
    upper: float
    split_sd: float
    going_on: float

    def dict(self) -> dict[str, Any]:
        return {
            "T": number(self.T),
            **self.skill.dict(),
            "delta": finite(self.delta),
            "delta_band": pair(self.band),
            "delta_upper": finite(self.upper),
            "split_sd": finite(self.split_sd),
            "going_on": finite(self.going_on),
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """``p``: of the signal gate (NaN: not tested). ``commitment``: window, and the interval it lies in; in tokens or
    fractions as the windows are. ``relative_commitment``: the same as fractions of the median trace."""

    source: str
    n: int
    failures: int
    groups: int
    mode: str
    outcomes: dict[str, int]
    verdict: str
    reason: str
    p: float
    full: Skill | None
    windows: tuple[Prefix, ...]
    commitment: tuple[float, float, float] | None
    relative_commitment: tuple[float, float, float] | None
    margin: float
    relative: bool
    warnings: tuple[str, ...]

    @property
    def base_rate(self) -> float:
        return self.failures / self.n if self.n else math.nan

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON."""

        def point(at: tuple[float, float, float] | None) -> dict[str, Any] | None:
            return None if at is None else {"value": number(at[0]), "low": number(at[1]), "high": number(at[2])}

        return {
            "n": self.n,
            "failures": self.failures,
            "groups": self.groups,
            "base_rate": finite(self.base_rate),
            "mode": self.mode,
            "outcomes": self.outcomes,
            "verdict": self.verdict,
            "reason": self.reason,
            "signal_p": finite(self.p),
            "full": None if self.full is None else self.full.dict(),
            "windows": [window.dict() for window in self.windows],
            "commitment": point(self.commitment),
            "commitment_relative": point(self.relative_commitment),
            "margin": self.margin,
            "warnings": list(self.warnings),
        }
