"""What all importers share: an entry of a log, the log itself, and the format it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wrongturn.errors import WrongturnError
from wrongturn.trace import Problem

Row = dict[str, Any]

_RIGHT = {"C": True, "I": False, "true": True, "false": False, "correct": True, "incorrect": False}
_PREFERRED = ("exact_match", "acc", "accuracy", "correct", "score", "reward", "pass@1")


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
    """The file being read, and how: ``metric`` and ``filter`` by name, ``requests`` by their id (OpenAI batches)."""

    path: Path
    task: str = "exact"
    metric: str | None = None
    filter: str | None = None
    requests: Mapping[str, Row] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)  # what a format remembers between rows

    def grade(self, metrics: Mapping[str, Any]) -> tuple[bool | None, dict[str, Any]]:
        """Whether a metric says right or wrong, and which one: the given one, else the first that is binary.

        Raises ``WrongturnError`` where the given one is not there.
        """
        if self.metric is not None and self.metric not in metrics:
            there = ", ".join(sorted(metrics)) or "none"
            raise WrongturnError(f"{self.path}: there is no metric {self.metric!r} (there are: {there})")
        names = [self.metric] if self.metric else sorted(metrics, key=lambda name: name not in _PREFERRED)
        for name in names:
            verdict = _binary(metrics[name])
            if verdict is not None:
                return verdict, {"metric": name}
        return None, {}


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


def _binary(value: Any) -> bool | None:
    """A score as right or wrong; None where it is neither."""
    if isinstance(value, str):
        return _RIGHT.get(value, _RIGHT.get(value.lower()))
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def read(kind: Format, log: Log) -> Iterator[Imported | Skipped]:
    """The completions of a log, and what was left out. Raises ``WrongturnError`` for a file that cannot be read."""
    for where, row in kind.rows(log):
        try:
            if isinstance(row, Unusable):
                raise row
            for entry in kind.entries(row, log):
                yield replace(entry, provenance={"row": where} | entry.provenance)
        except Unusable as problem:
            yield Skipped(where, problem.reason, str(problem))
