"""What came of tries: which operator got which failed problem right, for how many tokens, and with which answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.recoverability.labels import Counts
from wrongturn.errors import WrongturnError
from wrongturn.store import Run

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bools = NDArray[np.bool_]

PREFIX = "rescue:"
"""Of the strategy of a try; the operator's spec follows."""
RETRY = "retry"

_COLUMNS = ("id", "problem", "group", "strategy", "sample", "answer", "correct", "usage.kept", "usage.dropped")


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What T tries of each of O operators came to on P failed problems. Arrays [P, O, T]; NaN / -1: not made or not
    known.

    ``group`` is the task distribution. ``units`` (the problems, if not given) names what folds and resamples keep
    together: the failures of two models on one problem, say.
    ``tokens`` are all that were decoded; ``answers`` are codes that are equal where answers are, -1 for none.
    """

    problems: tuple[str, ...]
    groups: tuple[str, ...]
    operators: tuple[str, ...]
    right: Float
    tokens: Float
    answers: Int
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = len(self.problems), len(self.operators)
        for name in ("right", "tokens", "answers"):
            found = getattr(self, name).shape
            if len(found) != 3 or found[:2] != shape or found != self.right.shape:
                raise ValueError(f"{name} must be [{shape[0]} problems, {shape[1]} operators, tries], not {found}")
        if len(self.groups) != len(self.problems) or len(self.units) not in (0, len(self.problems)):
            raise ValueError(f"{len(self.problems)} problems, but {len(self.groups)} groups, {len(self.units)} units")

    @property
    def made(self) -> Bools:
        """[P, O, T]: tries whose grade and cost are known."""
        return ~np.isnan(self.right) & ~np.isnan(self.tokens)

    @property
    def once(self) -> Bools:
        """[O]: operators that are never tried twice, as another try would be the same (greedy decoding)."""
        tries = self.made.sum(axis=2)
        return tries.max(axis=0, initial=0) <= 1

    @property
    def complete(self) -> Bools:
        """[P]: problems on which every operator has a try for each half."""
        return (self.made.sum(axis=2) >= np.where(self.once, 1, 2)).all(axis=1)

    @property
    def clusters(self) -> NDArray[np.intp]:
        """[P]: rows of one unit have one number."""
        return np.unique(np.array(self.units or self.problems, dtype=str), return_inverse=True)[1]

    def take(self, rows: NDArray[Any] | Sequence[int]) -> Outcomes:
        """Some of the problems, by number or mask."""
        index = np.arange(len(self.problems))[np.asarray(rows)]
        names, units = (tuple(part[i] for i in index if part) for part in (self.problems, self.units))
        groups, operators = tuple(self.groups[i] for i in index), self.operators
        return Outcomes(names, groups, operators, self.right[index], self.tokens[index], self.answers[index], units)

    def halves(self, seed: int = 0) -> tuple[Outcomes, Outcomes]:
        """(select, score): each cell's tries shared out at random as :func:`labels.split` does, the odd one to score.

        The single try of an operator that is tried once is in both: it would come out the same.
        """
        made = self.made
        order = np.where(made, np.random.default_rng(seed).random(made.shape), np.inf).argsort(axis=2).argsort(axis=2)
        first = order < made.sum(axis=2, keepdims=True) // 2
        same = self.once[None, :, None]
        return self._only(made & (first | same)), self._only(made & (~first | same))

    def counts(self) -> Counts:
        """Successes of tries, as labels are told from."""
        return Counts((self.made & (self.right == 1)).sum(axis=2), self.made.sum(axis=2))

    def cost(self) -> Float:
        """[O]: mean decoded tokens of a try; NaN where none was made."""
        made = self.made
        with np.errstate(invalid="ignore"):
            return np.where(made, self.tokens, 0.0).sum(axis=(0, 2)) / made.sum(axis=(0, 2))

    def _only(self, kept: Bools) -> Outcomes:
        right, tokens = (np.where(kept, values, np.nan) for values in (self.right, self.tokens))
        return replace(self, right=right, tokens=tokens, answers=np.where(kept, self.answers, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """The plain samples of all P problems of a run, arrays [P, K] in the order drawn; NaN / -1 as in Outcomes."""

    problems: tuple[str, ...]
    groups: tuple[str, ...]
    right: Float
    tokens: Float
    answers: Int

    def take(self, rows: NDArray[Any] | Sequence[int], samples: slice = slice(None)) -> Base:
        """Some of the problems, by number or mask, and some of their samples."""
        index = np.arange(len(self.problems))[np.asarray(rows)]
        names = tuple(self.problems[i] for i in index), tuple(self.groups[i] for i in index)
        return Base(*names, self.right[index, samples], self.tokens[index, samples], self.answers[index, samples])


def read_outcomes(run: Run) -> Outcomes:
    """Outcomes of the traces whose strategy begins with ``rescue:``; drafts that a try did not choose are left out.

    Raises ``WrongturnError`` where there is no graded try, or none of "retry".
    """
    rows = [row for row in _rows(run) if row["strategy"].startswith(PREFIX) and _chosen(row)]
    if not rows:
        raise WrongturnError(f"{run.path}: it has no graded tries of failed problems (wrongturn rescue makes them)")
    named = {row["strategy"].removeprefix(PREFIX) for row in rows}
    if RETRY not in named:
        raise WrongturnError(f"{run.path}: {RETRY!r} was not tried, so there is nothing to compare operators with")
    operators = (RETRY, *sorted(named - {RETRY}))
    column = {PREFIX + name: i for i, name in enumerate(operators)}
    problems, groups, place = _problems(rows)
    at = np.array([(place[row["problem"]], column[row["strategy"]], row["sample"]) for row in rows])
    shape = len(problems), len(operators), int(at[:, 2].max()) + 1
    return Outcomes(problems, groups, operators, *_filled(rows, at, shape))


def read_base(run: Run) -> Base:
    """The graded plain samples of every problem. Raises ``WrongturnError`` where there is none."""
    rows = [row for row in _rows(run) if row["strategy"] == "sample"]
    if not rows:
        raise WrongturnError(f"{run.path}: it has no graded plain samples")
    problems, groups, place = _problems(rows)
    at = np.array([(place[row["problem"]], row["sample"]) for row in rows])
    return Base(problems, groups, *_filled(rows, at, (len(problems), int(at[:, 1].max()) + 1)))


def code(answer: str | None) -> int:
    """A number that is equal where answers are; -1 for none. The same in every run and process."""
    return -1 if answer is None else int.from_bytes(blake2b(answer.encode(), digest_size=7).digest(), "big")


def _rows(run: Run) -> list[dict[str, Any]]:
    return [row for row in run.table(_COLUMNS).to_pylist() if row["correct"] is not None]


def _chosen(row: dict[str, Any]) -> bool:
    """Whether a trace is what a try came to, not a draft that it wrote on the way."""
    return row["id"].rpartition("/")[2] == str(row["sample"])


def _problems(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, int]]:
    group = {row["problem"]: row["group"] for row in rows}
    names = sorted(group)
    return tuple(names), tuple(group[name] for name in names), {name: i for i, name in enumerate(names)}


def _filled(rows: list[dict[str, Any]], at: NDArray[Any], shape: tuple[int, ...]) -> tuple[Float, Float, Int]:
    right, tokens, answers = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, -1, np.int64)
    index = tuple(at.T)
    right[index] = [row["correct"] for row in rows]
    tokens[index] = [row["usage.kept"] + row["usage.dropped"] for row in rows]
    answers[index] = [code(row["answer"]) for row in rows]
    return right, tokens, answers
