"""What became of each completion, before anything is told from it: a failure is not always a wrong answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.modes.table import Table, is_missing

OUTCOMES: tuple[str, ...] = ("correct", "wrong", "truncated", "unparsed", "missing")
"""Right answer; wrong answer; failed at the token limit; failed without an answer that could be read; no label."""

_ANSWERS = ("predicted_answer", "boxed_answer", "extracted_code")


def outcomes(table: Table) -> NDArray[np.str_]:
    """The outcome ``[n]`` of each row of a published table.

    The published label makes truncated and unparsed completions failures; telling those is telling the length.

    Raises:
        WrongturnError: a label other than 0, 1 or missing.
    """
    correct = table.numbers("correct")
    unknown = np.flatnonzero(~np.isnan(correct) & (correct != 0) & (correct != 1))
    if len(unknown):
        raise table.wrong(int(unknown[0]), "correct", table.column("correct")[unknown[0]], "0 or 1")
    failed = correct == 0
    outcome = np.where(failed, "wrong", "correct").astype("<U9")
    outcome[failed & _unparsed(table)] = "unparsed"
    outcome[failed & _truncated(table)] = "truncated"
    outcome[np.isnan(correct)] = "missing"
    return outcome


def counts(outcome: NDArray[np.str_]) -> dict[str, int]:
    return {name: int((outcome == name).sum()) for name in OUTCOMES}


def _truncated(table: Table) -> NDArray[np.bool_]:
    hit = np.zeros(len(table), np.bool_)
    if "hit_max_tokens" in table:
        hit |= table.numbers("hit_max_tokens") == 1
    if "finish_reason" in table:
        hit |= np.array(
            [str(cell).strip().lower() in ("length", "max_tokens") for cell in table.column("finish_reason")]
        )
    return hit


def _unparsed(table: Table) -> NDArray[np.bool_]:
    name = next((name for name in _ANSWERS if name in table), None)
    if name is None:
        return np.zeros(len(table), np.bool_)
    return np.array([is_missing(cell) for cell in table.column(name)])
