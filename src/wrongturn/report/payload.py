"""Everything a report's script reads, within a size: the list of traces and the blocks of their tokens.

The index is JSON: the list of traces as columns (``_ROW``), the names they refer to by number, the scale of the
shading, the token table of the blocks (:mod:`wrongturn.report.blocks`), and what was left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wrongturn.report.blocks import MOST_ERRORS, Columns, Table, alternatives, block, columns_of, deflate
from wrongturn.report.fitting import NO_TOKENS, Plan, kept, plan_for, spread
from wrongturn.report.traces import Pieces, check_of, entropy_scale, events_of, pieces_of
from wrongturn.tasks.registry import ERRORS
from wrongturn.trace import Problem, Trace

ALTERNATIVES = 5  # per token; more would not fit beside a token
BLOCK = 1 << 15  # tokens inflated at once: a few milliseconds in a browser
ROWS = 50_000  # traces a list is still pleasant with
TEXT = 100_000  # characters of the text of a trace without tokens

_ROW = (
    "id", "problem", "strategy", "group", "sample", "draft", "length", "correct", "onset", "error", "entropy", "finish",
    "answer", "parent", "at", "reason", "decoded", "block", "offset", "stored",
)  # fmt: skip

Stored = Mapping[int, tuple[int, int, int]]
"""Where the tokens of a trace are: its block, the first token in that, how many."""


@dataclass(slots=True)
class Payload:
    """Base64 texts for the page: the index and the blocks it points into; ``left_out`` says what is missing."""

    index: str
    blocks: list[str]
    left_out: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes in the page, with the elements around them."""
        return len(self.index) + sum(map(len, self.blocks)) + 80 * (len(self.blocks) + 1)


def pack(
    traces: Sequence[Trace],
    problems: Mapping[str, Problem],
    extra: Mapping[str, Any],
    room: int,
    pieces: Pieces = pieces_of,
) -> Payload:
    """Everything the page's script reads, in at most ``room`` bytes; ``extra`` goes into the index as it is.

    What does not fit goes in this order: alternatives where the model was sure; what traces have beyond 200 000 tokens;
    the tokens of right traces (evenly spread, those with relatives last); the ends of long traces; the tokens of other
    traces. Prompts and the list itself get at most half of the room: long prompts are cut, then whole traces left out.

    Raises:
        ValueError: ``room`` is too small for anything.
    """
    packer = _Packer(traces, problems, extra, pieces)
    packer.fit_index(room // 2)
    target = room * 0.98
    for _ in range(12):
        payload = packer.build(packer.plan(target))
        if payload.size <= room:
            return payload
        target *= 0.95 * room / payload.size
    payload = packer.build(NO_TOKENS)
    if payload.size > room:
        raise ValueError(f"the list of {len(packer.traces)} traces alone takes {payload.size:,} of {room:,} bytes")
    return payload


class _Packer:
    def __init__(
        self, traces: Sequence[Trace], problems: Mapping[str, Problem], extra: Mapping[str, Any], pieces: Pieces
    ) -> None:
        self.given = len(traces)
        self.problems = problems
        self.extra = extra
        self.pieces = pieces
        self.prompt_limit: int | None = None
        self.errors = Table("")
        self.keep_rows(list(traces))

    def keep_rows(self, traces: list[Trace]) -> None:
        """Go on with these traces only."""
        self.traces = traces if len(traces) <= ROWS else spread(traces, ROWS / len(traces))
        self.lengths = np.array([len(trace) for trace in self.traces], np.int64)
        self.right = np.array([trace.correct is True for trace in self.traces], np.bool_)
        parents = {trace.lineage.parent for trace in self.traces if trace.lineage}
        self.related = np.array([trace.lineage is not None or trace.id in parents for trace in self.traces], np.bool_)
        self.top = min(ALTERNATIVES, max(map(alternatives, self.traces), default=0))
        self.scale = entropy_scale(spread(self.traces, 2000 / max(len(self.traces), 1)))
        self.sure = self.scale / 3  # nats; alternatives of tokens below are the first to go
        self._checks: dict[int, list[tuple[int, int]]] = {}
        self._rates: tuple[float, float] | None = None

    def fit_index(self, room: int) -> None:
        """Shorten prompts, then the list, until the index fits. ``build`` adds little to what is measured here."""
        limits = iter((4000, 1000, 200))
        while len(self._index({}, [], Table(""))) > 0.9 * room and self.traces:
            self.prompt_limit = next(limits, 0 if self.prompt_limit else self.prompt_limit)
            if self.prompt_limit == 0:
                self.keep_rows(spread(self.traces, 0.5))
        self.index_size = len(self._index({}, [], Table(""))) + 12 * len(self.traces) + 20_000

    def plan(self, target: float) -> Plan:
        """The plan that should come to ``target`` bytes."""
        return plan_for(self.lengths, self.right, max(target - self.index_size, 0.0), *self.rates())

    def rates(self) -> tuple[float, float]:
        """Bytes in the page per token, with all alternatives and with few, measured on some of the traces."""
        if self._rates is None:
            wanted = (4 * BLOCK) / max(int(self.lengths.sum()), 1)
            sample = (spread(list(range(len(self.traces))), wanted) or [0]) if self.traces else []
            tokens = max(int(np.minimum(self.lengths[sample], BLOCK).sum()), 1)

            def rate(alternatives: bool) -> float:
                table = Table("")
                parts = [self._columns(i, Plan(alternatives, longest=BLOCK), table) for i in sample]
                return max(len(block(parts, table.width)), 1) / tokens

            self._rates = rate(True), rate(False)
        return self._rates

    def build(self, plan: Plan) -> Payload:
        """The payload under a plan."""
        table = Table("")
        rows = [i for i in kept(plan, self.lengths, self.right, self.related) if self.lengths[i]]
        stored: dict[int, tuple[int, int, int]] = {}
        batches: list[list[Columns]] = []
        filled = 0
        for i in rows:
            part = self._columns(i, plan, table)
            n = len(part.texts)
            if not batches or filled + n > BLOCK:
                batches.append([])
                filled = 0
            stored[i] = (len(batches) - 1, filled, n)
            batches[-1].append(part)
            filled += n
        sizes = [[sum(len(c.texts) for c in batch), sum(len(c.chances) for c in batch)] for batch in batches]
        left_out = self._left_out(plan, stored)
        blocks = [block(batch, table.width) for batch in batches]
        return Payload(self._index(stored, sizes, table, left_out), blocks, left_out)

    def _columns(self, i: int, plan: Plan, table: Table) -> Columns:
        trace = self.traces[i]
        end = len(trace) if plan.longest is None else min(len(trace), plan.longest)
        sure = 0.0 if plan.alternatives else self.sure
        return columns_of(trace, table, self.pieces, end=end, top=self.top, sure=sure, wrong=self._wrong_steps(i))

    def _wrong_steps(self, i: int) -> list[tuple[int, int]]:
        """(last token, number of its error) of every wrong step, as far as a flag can number the errors."""
        if i not in self._checks:
            trace = self.traces[i]
            wrong = trace.onset is not None and trace.onset >= 0
            check = check_of(trace, self.problems.get(trace.problem)) if wrong else None
            steps = [(s.stop - 1, self.errors[s.error]) for s in check.segments if s.error] if check else []
            self._checks[i] = [(last, error) for last, error in steps if error < MOST_ERRORS]
        return self._checks[i]

    def _index(self, stored: Stored, sizes: list[list[int]], table: Table, left_out: Sequence[str] = ()) -> str:
        strategies, groups, problems = Table(), Table(), Table()
        numbers = {trace.id: i for i, trace in enumerate(self.traces)}
        rows: dict[str, list[Any]] = {name: [] for name in _ROW}
        for i, trace in enumerate(self.traces):
            parent = numbers.get(trace.lineage.parent, -1) if trace.lineage else -1
            values = (
                trace.id,
                problems[trace.problem],
                strategies[trace.strategy],
                groups[trace.group],
                trace.sample,
                trace.draft,
                len(trace),
                -1 if trace.correct is None else int(trace.correct),
                -2 if trace.onset is None else trace.onset,
                self.errors[trace.error or ""],
                _mean(trace.signals.entropy),
                trace.finish,
                trace.answer,
                parent,
                trace.lineage.at if trace.lineage else 0,
                trace.lineage.reason if trace.lineage else "",
                trace.usage.decoded,
                *stored.get(i, (0, 0, 0)),
            )
            for name, value in zip(_ROW, values, strict=True):
                rows[name].append(value)
        index = {
            **self.extra,
            "scale": self.scale,
            "tokens": table.names,
            "width": table.width,
            "top": self.top,
            "blocks": sizes,
            "errors": [[name, ERRORS.get(name, "")] for name in self.errors.names],
            "strategies": strategies.names,
            "groups": groups.names,
            "problems": [self._problem(name) for name in problems.names],
            "traces": rows,
            "events": {i: events for i, trace in enumerate(self.traces) if (events := list(events_of(trace)))},
            "texts": {i: t.text[:TEXT] for i, t in enumerate(self.traces) if t.text and not len(t)},
            "left_out": list(left_out),
        }
        return deflate(json.dumps(index, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())

    def _problem(self, name: str) -> list[Any]:
        problem = self.problems.get(name)
        if problem is None:
            return [name, None, None]
        prompt = problem.prompt
        if self.prompt_limit is not None and len(prompt) > self.prompt_limit:
            prompt = prompt[: self.prompt_limit] + " […]"
        return [name, prompt, problem.reference]

    def _left_out(self, plan: Plan, stored: Stored) -> list[str]:
        """What the reader must know is not there."""
        said = []
        if len(self.traces) < self.given:
            said.append(f"{self.given - len(self.traces):,} of {self.given:,} traces (an even share)")
        if self.prompt_limit is not None:
            said.append(f"prompts beyond {self.prompt_limit:,} characters")
        if not plan.alternatives and self.top:
            said.append(
                f"alternatives of tokens with less than {self.sure:.2g} nats of entropy, unless the token was a fork"
            )
        empty = np.array([i not in stored for i in range(len(self.traces))], np.bool_) & (self.lengths > 0)
        for rows, name in ((self.right, "right"), (~self.right, "other")):
            gone = int((empty & rows).sum())
            if gone:
                said.append(f"the tokens of {gone:,} of {int(rows.sum()):,} {name} traces (an even share)")
        if plan.longest is not None and any(self.lengths[i] > plan.longest for i in stored):
            said.append(f"tokens from number {plan.longest:,} on of longer traces")
        return said


def _mean(values: npt.NDArray[np.floating]) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean(dtype=np.float64)), 4) if known.size else None
