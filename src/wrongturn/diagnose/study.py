"""The diagnosis of a set of traces: everything that can be told about how they fail, each figure with its interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from wrongturn.diagnose.claims import Claim, claims
from wrongturn.diagnose.detectors import Detector, Trigger, detector_study, trigger_study
from wrongturn.diagnose.entropy import EntropyStudy, entropy_study
from wrongturn.diagnose.intervals import Resamples, share
from wrongturn.diagnose.onset import OnsetStudy, onset_study
from wrongturn.diagnose.predictors import Predictor, predictor_study
from wrongturn.diagnose.recovery import Recovery, summarise
from wrongturn.diagnose.table import Table, tabulate
from wrongturn.stats import Estimate
from wrongturn.trace import Problem, Trace

OUTCOMES = (
    "process_ok_answer_right",
    "process_ok_answer_wrong",
    "process_wrong_answer_right",
    "process_wrong_answer_wrong",
)


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """``problems`` and ``traces`` are counts. ``accuracy`` is about answers (outcome), ``exact`` about every token
    (process); both, ``outcomes``, ``error_classes`` (of the first wrong token; failed or not) and ``finishes`` are by
    group."""

    problems: int
    traces: int
    accuracy: dict[str, Estimate]
    exact: dict[str, Estimate]
    outcomes: dict[str, dict[str, int]]
    error_classes: dict[str, dict[str, int]]
    finishes: dict[str, dict[str, int]]
    onset: OnsetStudy
    entropy: EntropyStudy
    entropy_onset: dict[str, Detector]
    trigger: list[Trigger]
    predictors: list[Predictor]
    recovery: Recovery | None
    claims: list[Claim]

    def claim(self, name: str) -> Claim:
        """The claim of that name. Raises ``ValueError`` naming those there are."""
        for claim in self.claims:
            if claim.name == name:
                return claim
        raise ValueError(f"unknown claim {name!r} (expected one of {', '.join(claim.name for claim in self.claims)})")

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON: arrays become lists, estimates objects, and NaN ``None``."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def study(
    traces: Sequence[Trace],
    problems: Mapping[str, Problem],
    *,
    recovery: Sequence[Trace] = (),
    seed: int = 0,
    n_boot: int = 2000,
) -> Study:
    """Diagnose ``traces``: independent rollouts, several a problem for what is told within problems.

    Args:
        problems: by id; a trace whose problem is missing, or whose task has no checker, is judged by its own ``onset``.
        recovery: graded continuations of some of the traces, as :func:`wrongturn.diagnose.recovery.plan` asked for
            them.

    Returns:
        The same study for the same traces and seed. Whatever the traces cannot tell is NaN with n = 0.
    """
    table = tabulate(traces, problems)
    boot = Resamples(len(table.problems), n_boot, seed)
    onset, entropy = onset_study(table, boot), entropy_study(table, boot, seed)
    triggers, predictors = trigger_study(table, boot), predictor_study(table, boot)
    resampled = summarise(traces, recovery, n_boot=n_boot, seed=seed) if recovery else None
    return Study(
        problems=len(table.problems),
        traces=len(table),
        accuracy={name: share(table.right[rows], table.problem[rows]) for name, rows in _groups(table)},
        exact={
            name: share(_process(table)[rows] == 0, table.problem[rows]) for name, rows in _groups(table, judged=True)
        },
        outcomes={name: _outcomes(table, rows) for name, rows in _groups(table)},
        error_classes={name: _count(table.error[i] for i in rows) for name, rows in _groups(table)},
        finishes={name: _count(table.finish[i] for i in rows) for name, rows in _groups(table)},
        onset=onset,
        entropy=entropy,
        entropy_onset=detector_study(table, boot),
        trigger=triggers,
        predictors=predictors,
        recovery=resampled,
        claims=claims(onset, entropy, triggers, predictors, resampled),
    )


def _process(table: Table) -> np.ndarray:
    """1: a process error (cut off included), 0: none, NaN: not judged."""
    return np.where(table.onset >= -1, table.onset >= 0, np.nan)


def _groups(table: Table, judged: bool = False) -> list[tuple[str, np.ndarray]]:
    known = ~np.isnan(_process(table)) if judged else np.ones(len(table), bool)
    return [(name, np.flatnonzero((table.group == g) & known)) for g, name in enumerate(table.groups)]


def _outcomes(table: Table, rows: np.ndarray) -> dict[str, int]:
    cells = [(process, right) for process in (0, 1) for right in (1, 0)]
    process, right = _process(table)[rows], table.right[rows]
    return {name: int(((process == p) & (right == r)).sum()) for name, (p, r) in zip(OUTCOMES, cells, strict=True)}


def _count(labels: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(label for label in labels if label is not None).most_common())


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
