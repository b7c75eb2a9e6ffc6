"""What all importers share: an entry of a log, the log itself, and the format it is in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wrongturn.errors import WrongturnError
from wrongturn.trace import Problem

Row = dict[str, Any]

_RIGHT = {"C": True, "I": False, "N": False, "true": True, "false": False, "correct": True, "incorrect": False}
_PREFERRED = ("exact_match", "acc", "accuracy", "correct", "score", "reward", "pass@1")
_NAMED = 4  # metrics that are told one by one


class Unusable(Exception):
    """A row of which no trace can be made. ``reason`` is a few words, to count; the message says what is wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row left out: where it stands, why in a few words, and in a line."""

    where: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a log tells of each token: its name, its text, its log-probability and the best alternatives.

    ``ids`` are the model's own where the log has them (then ``pieces`` may be unknown). ``names`` tell tokens apart
    where texts do not (half a character). All of one length.
    """

    logprobs: list[float]
    names: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    tops: list[list[tuple[str, float]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Imported:
    """One completion, as its log tells it. Without ``tokens`` the words of ``text`` stand in for them."""

    problem: Problem
    text: str
    tokens: Tokens | None = None
    finish: str = "stop"
    answer: str | None = None
    correct: bool | None = None
    kept: int | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Log:
    """The file being read, and how: ``metric`` and ``filter`` by name, ``requests`` by their id (OpenAI batches).

    ``metrics`` are those met so far, and whether any row has a value; ``other`` has, of each that once says neither
    right nor wrong, the first such row and value. ``notices`` count what is odd about completions that are imported.
    """

    path: Path
    task: str = "exact"
    metric: str | None = None
    filter: str | None = None
    requests: Mapping[str, Row] = field(default_factory=dict)
    warn: Callable[[str], None] = lambda line: None
    notes: dict[str, Any] = field(default_factory=dict)  # what a format remembers between rows
    where: str = ""  # the row being read
    metrics: dict[str, bool] = field(default_factory=dict)
    other: dict[str, tuple[str, Any]] = field(default_factory=dict)
    notices: dict[str, tuple[int, str]] = field(default_factory=dict)  # how often, and the first row

    def grade(self, metrics: Mapping[str, Any]) -> tuple[bool | None, dict[str, Any]]:
        """Whether the file's metric says right or wrong, and which one it is; None where the row does not have it."""
        for name, value in metrics.items():
            there = value is not None and value == value
            self.metrics[name] = self.metrics.get(name, False) or there
            if there and name not in self.other and _binary(value) is None:
                self.other[name] = self.where, value
        verdict = _binary(metrics.get(self.metric)) if self.metric is not None else None
        return verdict, {} if verdict is None else {"metric": self.metric}

    def notice(self, what: str, where: str | None = None) -> None:
        """Count a completion that ``what`` is said of."""
        count, first = self.notices.get(what, (0, where or self.where))
        self.notices[what] = count + 1, first


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of log: the names of its files, how its rows are read, and what completions a row holds.

    ``rows`` yields (where, row) and raises :class:`WrongturnError` for a file it cannot read; a row may be
    :class:`Unusable` itself. ``entries`` raises :class:`Unusable`.
    """

    name: str
    files: tuple[str, ...]
    rows: Callable[[Log], Iterator[tuple[str, Row | Unusable]]]
    entries: Callable[[Row, Log], Iterable[Imported]]
    looks: Callable[[Row], bool]  # whether a row is one of this format
    graded: bool = True  # whether its rows may have metrics


def _binary(value: Any) -> bool | None:
    """A score as right or wrong; None where it is neither."""
    if isinstance(value, str):
        return _RIGHT.get(value, _RIGHT.get(value.lower()))
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def brief(value: Any) -> str:
    """A value as JSON of at most 40 characters, for messages."""
    try:
        told = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # numbers with more digits than Python likes to print
        told = type(value).__name__
    return told if len(told) <= 40 else f"{told[:39]}…"


def read(kind: Format, log: Log) -> Iterator[Imported | Skipped]:
    """The completions of a log, and what was left out. A log with metrics is read twice: one metric grades all rows.

    Raises ``WrongturnError`` for a file that cannot be read, or whose rows the given metric does not grade.
    """
    if kind.graded:
        log.metric = _metric(kind, log)
    yield from _entries(kind, log)


def _entries(kind: Format, log: Log) -> Iterator[Imported | Skipped]:
    for where, row in kind.rows(log):
        log.where = where
        try:
            if isinstance(row, Unusable):
                raise row
            for entry in kind.entries(row, log):
                yield replace(entry, provenance={"row": where} | entry.provenance)
        except Unusable as problem:
            yield Skipped(where, problem.reason, str(problem))


def _metric(kind: Format, log: Log) -> str | None:
    """The metric that grades a file: the given one, else the first that is right, wrong or missing in every row."""
    met = replace(log, notes={}, metrics={}, other={}, notices={})
    found = sum(isinstance(entry, Imported) for entry in _entries(kind, met))
    if log.metric is not None:
        if found and log.metric not in met.metrics:
            there = ", ".join(sorted(met.metrics)) or "none"
            raise WrongturnError(f"{log.path}: there is no metric {log.metric!r} (there are: {there})")
        if log.metric in met.other:
            where, value = met.other[log.metric]
            told = f"{log.path}: {where}: metric {log.metric!r} is {brief(value)}"
            raise WrongturnError(f"{told}, expected 0 or 1, true or false in every row")
        return log.metric
    names = sorted(met.metrics, key=lambda name: name not in _PREFERRED)
    chosen = next((name for name in names if met.metrics[name] and name not in met.other), None)
    passed = [name for name in names[: names.index(chosen) if chosen else None] if name in met.other]
    if passed:
        told = ", ".join(f"{name!r} is {brief(met.other[name][1])} in {met.other[name][0]}" for name in passed[:_NAMED])
        told += f" and {len(passed) - _NAMED} more" if len(passed) > _NAMED else ""
        log.warn(
            f"{log.path}: graded by {chosen!r}, as {told} (--metric names another)"
            if chosen
            else f"{log.path}: nothing is graded, as no metric is 0 or 1 in every row ({told}): "
            "add one that is, or grade the answers with `wrongturn regrade`"
        )
    return chosen
