"""The nouns everything else is made of: problem, trace, lineage, usage. Plain data; nothing here needs an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from wrongturn.signals import FIELDS, Signals
from wrongturn.vocabulary import Message

TRACE_VERSION = 2
"""Version of the stored trace. A change of its fields raises it and adds a step to ``MIGRATIONS``."""

Ids = npt.NDArray[np.int32]

OUTCOMES = ("right", "wrong", "ungraded", "truncated", "unparsed", "missing")
"""Graded; no reference; cut at a token limit before an answer; ended without one; no tokens at all."""

FINISH = ("stop", "length", "until", "budget", "cancelled")
"""Why decoding ended: end token, token limit, a stop condition, the budget, or the caller."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked. ``group`` is what results are broken down by (a distribution, a level, a subject).

    Without ``prompt_ids`` the model's own vocabulary makes them, of ``messages`` or else of the task's prompt.
    """

    id: str
    task: str
    prompt: str
    prompt_ids: tuple[int, ...] = ()
    reference: str | None = None
    group: str = ""
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a trace was forked from: the parent's id, the completion token index of the fork, and why."""

    parent: str
    at: int
    reason: str


@dataclass(slots=True)
class Usage:
    """The ledger: tokens by what was done with them.

    ``prompt`` were computed by prefill and ``reused`` were found in the engine's prefix cache (measured); ``ideal`` is
    what prefill would compute under a perfect prefix cache. Decoded tokens are ``kept`` where they are part of the
    returned trace and ``dropped`` where not; ``injected`` were written by the strategy, ``judge`` decoded by a judge.
    """

    prompt: int = 0
    reused: int = 0
    ideal: int = 0
    kept: int = 0
    dropped: int = 0
    injected: int = 0
    judge: int = 0
    seconds: float = 0.0

    @property
    def decoded(self) -> int:
        """All decoded tokens, whatever became of them: what a budget caps and comparisons are made equal in."""
        return self.kept + self.dropped

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


@dataclass(slots=True, eq=False)
class Trace:
    """One rollout: token ids in, token ids out, and what the model's distribution said at each token.

    ``offsets`` says where each token's text ends in ``text``, in characters (empty: unknown); an id is -1 where nobody
    knows it (imported text).
    ``signals`` and ``top_*`` have one entry per completion token; injected tokens are NaN there. ``top_ids`` and
    ``top_logprobs`` are [tokens, k], best first, padded with -1 and NaN. ``correct`` is the grade of the answer
    (None: ungraded); ``draft`` numbers what a strategy wrote for one problem, in the order begun; ``onset`` is the
    index of the first wrong token where a checker knows it (-1: none; None: unknown).
    ``provenance`` holds engine, model, sampling and seed; it never holds a key or a header.
    """

    id: str
    problem: str
    task: str
    prompt_ids: Ids
    ids: Ids
    signals: Signals
    finish: str
    group: str = ""
    sample: int = 0
    draft: int = 0
    strategy: str = "sample"
    text: str = ""
    offsets: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    answer: str | None = None
    correct: bool | None = None
    onset: int | None = None
    error: str | None = None
    lineage: Lineage | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    top_ids: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    top_logprobs: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    provenance: dict[str, Any] = field(default_factory=dict)
    version: int = TRACE_VERSION

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pieces(self) -> list[str] | None:
        """The text of each token, None where unknown."""
        if len(self.offsets) != len(self.ids):
            return None
        return [self.text[start:stop] for start, stop in pairwise([0, *self.offsets.tolist()])]

    @property
    def outcome(self) -> str:
        """What became of it, one of ``OUTCOMES``: a failure is not always a wrong answer."""
        if len(self.ids) == 0:
            return "missing"
        if self.correct:
            return "right"
        if self.answer is None:
            return "truncated" if self.finish in ("length", "budget") else "unparsed"
        return "ungraded" if self.correct is None else "wrong"

    def _repr_html_(self) -> str:
        """How a notebook shows a trace: tokens shaded by entropy, the onset marked."""
        from wrongturn.report.inline import trace_html  # a face: only needed where somebody looks

        return trace_html(self)

    def to_record(self) -> dict[str, Any]:
        """A flat row of plain values and 1-D arrays, as stored: nested parts become ``signal.*``, ``usage.*`` …

        Raises ``ValueError`` where signals or ``top_*`` do not have one entry per token: such a row could not be read.
        """
        self._check_lengths()
        record: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        record["top_k"] = self.top_ids.shape[1]
        record["top_ids"] = self.top_ids.ravel()
        record["top_logprobs"] = self.top_logprobs.ravel()
        record |= {f"signal.{name}": values for name, values in self.signals.dict().items()}
        record |= {f"usage.{name}": value for name, value in asdict(self.usage).items()}
        lineage = asdict(self.lineage) if self.lineage else {"parent": None, "at": None, "reason": None}
        record |= {f"lineage.{name}": value for name, value in lineage.items()}
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Trace:
        """The trace of a stored row, migrated from whatever version wrote it.

        Raises ``ValueError`` for a version newer than this package knows, a row that lacks a field, or arrays of which
        one does not fit the others.
        """
        record = migrate(dict(record))
        try:
            for name in ("prompt_ids", "ids", "offsets"):
                record[name] = np.asarray(record[name], np.int32)
            shape = len(record["ids"]), int(record["top_k"])
            lineage = [record[f"lineage.{name}"] for name in ("parent", "at", "reason")]
            trace = cls(
                **{name: record[name] for name in _PLAIN},
                signals=Signals.from_dict({name: record[f"signal.{name}"] for name in FIELDS}),
                usage=Usage(*(record[f"usage.{name}"] for name in _USAGE)),
                lineage=None if lineage[0] is None else Lineage(*lineage),
                top_ids=np.asarray(record["top_ids"], np.int32).reshape(shape),
                top_logprobs=np.asarray(record["top_logprobs"], np.float32).reshape(shape),
            )
        except KeyError as problem:
            raise ValueError(f"trace {record.get('id', '?')!r}: field {problem} is missing") from None
        except (TypeError, ValueError) as problem:
            raise ValueError(f"trace {record.get('id', '?')!r}: {problem}") from None
        trace._check_lengths()
        return trace

    def _check_lengths(self) -> None:
        n, tops = len(self.ids), self.top_ids.shape
        if len(self.offsets) not in (0, n):
            raise ValueError(f"trace {self.id!r}: {n} tokens, but {len(self.offsets)} text offsets")
        if self.signals.shape != (n,):
            raise ValueError(f"trace {self.id!r}: {n} tokens, but signals of shape {self.signals.shape}")
        if self.top_logprobs.shape != tops or len(tops) != 2 or (tops[1] and tops[0] != n):
            raise ValueError(
                f"trace {self.id!r}: {n} tokens, but top_ids {tops} and top_logprobs {self.top_logprobs.shape}"
            )


_NESTED = {"signals", "usage", "lineage", "top_ids", "top_logprobs"}
_PLAIN = tuple(f.name for f in fields(Trace) if f.name not in _NESTED)
_USAGE = tuple(f.name for f in fields(Usage))

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: lambda record: record | {"offsets": ()}}
"""``MIGRATIONS[v]`` turns a record of version v into one of version v + 1."""


def migrate(record: dict[str, Any]) -> dict[str, Any]:
    """A record brought to ``TRACE_VERSION``. Raises ``ValueError`` for one written by a newer package."""
    version = int(record.get("version", 0))
    if version > TRACE_VERSION:
        raise ValueError(
            f"trace {record.get('id', '?')!r} has version {version}; "
            f"this package reads up to {TRACE_VERSION}: upgrade it"
        )
    while version < TRACE_VERSION:
        if version not in MIGRATIONS:
            raise ValueError(f"trace {record.get('id', '?')!r} has version {version}, which was never published")
        record = MIGRATIONS[version](record)
        version += 1
        record["version"] = version
    return record
