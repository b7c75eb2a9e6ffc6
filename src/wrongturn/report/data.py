"""The traces of a report as columns, compressed for a page that inflates them as they are looked at, within a size.

What a page shows is rounded to what can be seen: entropies and negative log-probabilities to a thousandth of a nat,
probabilities of alternatives to 0.3 % or better. ``app.js`` reads this format; :func:`pack` writes it.

A block holds the tokens of consecutive traces, one column after the other, so that like stands beside like when it is
compressed. Numbers wider than a byte are stored as byte planes, lowest first. With ``n`` tokens in a block, of which
``m`` have ``k`` alternatives, and ``w`` bytes per token text:

======================= ===== ==================================================================
column                  bytes meaning
======================= ===== ==================================================================
text                    w n   index into ``tokens``
entropy, nll            2 n   thousandths of a nat, 65535 where unknown
margin                  n     254ths, 255 where unknown
flags                   n     bit 0 ends a step, bit 1 fork, bit 2 has alternatives, the rest the error of the step
alternatives: text      w m k index into ``tokens``, 0 where there are fewer
alternatives: chance    m k   probability, 254ths of its square root
======================= ===== ==================================================================
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from wrongturn import tasks
from wrongturn.diagnose.segments import blank_lines
from wrongturn.signals import Signals
from wrongturn.tasks.base import Check
from wrongturn.tasks.graphs import ERRORS
from wrongturn.trace import Problem, Trace

T = TypeVar("T")

Pieces = Callable[[Trace, Sequence[int]], Sequence[str]]
"""The text of each of some token ids, in the vocabulary of the trace."""

ALTERNATIVES = 5  # per token; more would not fit beside a token
BLOCK = 1 << 15  # tokens inflated at once: a few milliseconds in a browser
EVENTS = 200  # per trace
ROWS = 50_000  # traces a list is still pleasant with
LONGEST = 200_000  # tokens; what a trace has beyond goes before any other trace does
SHORTEST = 2_000  # tokens; a trace is cut to no less than this

BOUNDARY, FORK, LISTED, ERROR_SHIFT = 1, 2, 4, 3
BLANK = "\0"  # a token without text; entry 0 of the table, the empty string, is no token at all


def pieces_of(trace: Trace, ids: Sequence[int]) -> Sequence[str]:
    """Token texts by the trace's task; where that knows none, the bare ids, as ``⟨17⟩``."""
    try:
        return tasks.get(trace.task).pieces(ids)
    except ValueError:
        return [f"⟨{i}⟩" for i in ids]


def token_texts(trace: Trace, pieces: Pieces) -> Sequence[str]:
    """The text of each token of a trace: its own where it has them."""
    if (own := trace.pieces) is not None:
        return own
    distinct, inverse = np.unique(trace.ids, return_inverse=True)
    names = pieces(trace, distinct.tolist())
    return [names[i] for i in inverse.tolist()]


def error_text(error: str | None) -> str:
    """``"revisit: expanded a node a second time"``-style sentence of an error class; the bare class if unknown."""
    if not error:
        return "of no known class"
    return f"{error} — {ERRORS[error]}" if error in ERRORS else error


def check_of(trace: Trace, problem: Problem | None) -> Check | None:
    """What the task's checker says of a trace; None where there is no problem, task or checker."""
    if problem is None:
        return None
    try:
        return tasks.get(trace.task).check(problem, trace.ids.tolist())
    except ValueError:  # an unknown task, or a prompt the checker cannot read
        return None


def boundaries_of(trace: Trace, pieces: Sequence[str]) -> npt.NDArray[np.bool_]:
    """[tokens]: True at each token that ends a step; of an unknown task the blank lines."""
    try:
        return np.asarray(tasks.get(trace.task).boundaries(trace.ids), np.bool_)[: len(pieces)]
    except ValueError:
        return blank_lines(pieces)


def entropy_scale(traces: Iterable[Trace]) -> float:
    """A round number of nats that nearly every token stays below: the dark end of the shading."""
    parts = [trace.signals.entropy for trace in traces]
    values = np.concatenate(parts) if parts else np.zeros(0)
    values = values[np.isfinite(values)]
    high = float(np.quantile(values, 0.995)) if values.size else 0.0
    return next((step for step in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0) if high <= step), 12.0)


# -- one trace as columns ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Columns:
    """The stored columns of one trace; ``texts`` and ``other_texts`` index the token table."""

    texts: npt.NDArray[np.int32]
    entropy: npt.NDArray[np.uint16]
    nll: npt.NDArray[np.uint16]
    margin: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]
    other_texts: npt.NDArray[np.int32]  # [m, k]
    chances: npt.NDArray[np.uint8]  # [m, k]


def _thousandths(nats: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    scaled = np.nan_to_num(np.rint(nats * 1000.0), nan=65535.0, posinf=65534.0)
    return np.where(np.isnan(nats), 65535, np.clip(scaled, 0, 65534)).astype(np.uint16)


def _margin(margin: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    known = np.clip(np.nan_to_num(margin), 0.0, 1.0)
    return np.where(np.isnan(margin), 255, np.rint(known * 254)).astype(np.uint8)


def _planes(values: npt.NDArray[np.integer], width: int) -> bytes:
    """The numbers as ``width`` byte planes, lowest first."""
    flat = values.ravel()
    return b"".join((flat >> (8 * plane) & 255).astype(np.uint8).tobytes() for plane in range(width))


class _Table:
    """Names numbered in the order they are met."""

    def __init__(self, *names: str) -> None:
        self.numbers: dict[str, int] = {}
        for name in names:
            self[name]

    def __getitem__(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))

    @property
    def names(self) -> list[str]:
        return list(self.numbers)


# -- what is kept ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of the traces' tokens goes into the page."""

    alternatives: bool = True  # of every token; else only where entropy is high or the model was at a fork
    right: float = 1.0  # share of the right traces whose tokens are kept
    wrong: float = 1.0  # and of all others
    longest: int | None = None  # tokens kept of one trace, from its start


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
    payload = packer.build(Plan(False, 0.0, 0.0))
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
        self.errors = _Table("")
        self.keep_rows(list(traces))

    def keep_rows(self, traces: list[Trace]) -> None:
        """Go on with these traces only."""
        self.traces = traces if len(traces) <= ROWS else _spread(traces, ROWS / len(traces))
        self.lengths = np.array([len(trace) for trace in self.traces], np.int64)
        self.right = np.array([trace.correct is True for trace in self.traces], np.bool_)
        parents = {trace.lineage.parent for trace in self.traces if trace.lineage}
        self.related = np.array([trace.lineage is not None or trace.id in parents for trace in self.traces], np.bool_)
        self.top = min(ALTERNATIVES, max((_width(trace) for trace in self.traces), default=0))
        self.scale = entropy_scale(_spread(self.traces, 2000 / max(len(self.traces), 1)))
        self._checks: dict[int, list[tuple[int, int]]] = {}
        self._rates: dict[bool, float] | None = None

    def fit_index(self, room: int) -> None:
        """Shorten prompts, then the list, until the index fits. ``build`` adds little to what is measured here."""
        limits = iter((4000, 1000, 200))
        while len(self._index({}, [], _Table(""), 1)) > 0.9 * room and self.traces:
            self.prompt_limit = next(limits, 0 if self.prompt_limit else self.prompt_limit)
            if self.prompt_limit == 0:
                self.keep_rows(_spread(self.traces, 0.5))
        self.index_size = len(self._index({}, [], _Table(""), 1)) + 12 * len(self.traces) + 20_000

    def plan(self, target: float) -> Plan:
        """The plan that should come to ``target`` bytes."""
        spare = max(target - self.index_size, 0.0)
        total, rates = int(self.lengths.sum()), self.rates()
        if total * rates[True] <= spare:
            return Plan()
        tokens = spare / rates[False]
        if total <= tokens:
            return Plan(alternatives=False)
        longest = _cap(self.lengths, tokens)
        if longest >= LONGEST:
            return Plan(alternatives=False, longest=longest)
        lengths = np.minimum(self.lengths, LONGEST)
        right, others = int(lengths[self.right].sum()), lengths[~self.right]
        spare_tokens = tokens - int(others.sum())
        if spare_tokens >= 0:
            return Plan(False, min(spare_tokens / max(right, 1), 1.0), 1.0, LONGEST)
        longest = _cap(others, tokens)
        if longest >= SHORTEST:
            return Plan(False, 0.0, 1.0, longest)
        return Plan(False, 0.0, tokens / max(int(np.minimum(others, SHORTEST).sum()), 1), SHORTEST)

    def rates(self) -> dict[bool, float]:
        """Bytes in the page per token, with all alternatives and with few, measured on some of the traces."""
        if self._rates is None:
            wanted = (4 * BLOCK) / max(int(self.lengths.sum()), 1)
            sample = _spread(list(range(len(self.traces))), wanted) or [0]
            tokens = max(int(np.minimum(self.lengths[sample], BLOCK).sum()), 1) if self.traces else 1
            self._rates = {}
            for alternatives in (True, False):
                plan = Plan(alternatives, longest=BLOCK)
                table = _Table("")
                columns = [self._columns(i, plan, table) for i in sample if self.traces]
                self._rates[alternatives] = max(len(self._block(columns, _bytes_for(table))), 1) / tokens
        return self._rates

    def build(self, plan: Plan) -> Payload:
        """The payload under a plan."""
        table = _Table("")
        kept = self._kept(plan)
        columns = {i: self._columns(i, plan, table) for i in kept if self.lengths[i]}
        width = _bytes_for(table)
        stored: dict[int, tuple[int, int, int]] = {}
        blocks, sizes, batch, filled = [], [], [], 0

        def flush() -> None:
            nonlocal batch, filled
            if batch:
                blocks.append(self._block(batch, width))
                sizes.append([filled, sum(len(c.chances) for c in batch)])
            batch, filled = [], 0

        for i, part in columns.items():
            if filled and filled + len(part.texts) > BLOCK:
                flush()
            stored[i] = (len(blocks), filled, len(part.texts))
            batch.append(part)
            filled += len(part.texts)
        flush()
        left_out = self._left_out(plan, stored)
        return Payload(self._index(stored, sizes, table, width, left_out), blocks, left_out)

    def _kept(self, plan: Plan) -> list[int]:
        """The traces whose tokens are stored: the given shares, evenly spread, in the order of the traces."""
        kept: list[int] = []
        for rows, share in ((np.flatnonzero(self.right), plan.right), (np.flatnonzero(~self.right), plan.wrong)):
            family, others = rows[self.related[rows]].tolist(), rows[~self.related[rows]].tolist()
            lengths = self.lengths if plan.longest is None else np.minimum(self.lengths, plan.longest)
            tokens = share * lengths[rows].sum()
            of_family = int(lengths[family].sum())
            if of_family <= tokens:
                rest = int(lengths[others].sum())
                kept += family + _spread(others, (tokens - of_family) / rest if rest else 1.0)
            else:
                kept += _spread(family, tokens / of_family)
        return sorted(kept)

    def _columns(self, i: int, plan: Plan, table: _Table) -> _Columns:
        trace = self.traces[i]
        end = len(trace) if plan.longest is None else min(len(trace), plan.longest)
        signals = (trace.signals if len(trace.signals) == len(trace) else Signals.empty(len(trace)))[:end]
        top, logprobs = _top(trace, end, self.top)
        listed = (top >= 0).any(axis=1)
        if not plan.alternatives:
            listed &= (signals.entropy >= self.scale / 3) | (signals.fork > 0) | (np.arange(end) == trace.onset)
        others = np.full((int(listed.sum()), self.top), -1, np.int32)
        chances = np.zeros(others.shape, np.uint8)
        others[:, : top.shape[1]] = top[listed]
        p = np.exp(np.nan_to_num(logprobs[listed], nan=-np.inf))
        chances[:, : top.shape[1]] = np.rint(254 * np.sqrt(np.clip(p, 0, 1)))

        pieces = token_texts(trace, self.pieces)[:end]
        texts = np.array([table[piece or BLANK] for piece in pieces], np.int32)
        distinct, inverse = np.unique(others, return_inverse=True)
        known = distinct[distinct >= 0].tolist()
        numbers = [0] * (len(distinct) - len(known)) + [table[name or BLANK] for name in self.pieces(trace, known)]

        flags = boundaries_of(trace, pieces).astype(np.uint8) * BOUNDARY
        flags |= (signals.fork > 0).astype(np.uint8) * FORK | listed.astype(np.uint8) * LISTED
        for last, error in self._wrong_steps(i):
            if last < end:
                flags[last] |= error << ERROR_SHIFT
        return _Columns(
            texts,
            _thousandths(signals.entropy),
            _thousandths(signals.nll),
            _margin(signals.margin),
            flags,
            np.array(numbers, np.int32)[inverse].reshape(others.shape),
            chances,
        )

    def _wrong_steps(self, i: int) -> list[tuple[int, int]]:
        """(last token, number of its error) of every wrong step, as far as five bits can number the errors."""
        if i not in self._checks:
            trace = self.traces[i]
            wrong = trace.onset is not None and trace.onset >= 0
            check = check_of(trace, self.problems.get(trace.problem)) if wrong else None
            steps = [(s.stop - 1, self.errors[s.error]) for s in check.segments if s.error] if check else []
            self._checks[i] = [(last, error) for last, error in steps if error < 1 << (8 - ERROR_SHIFT)]
        return self._checks[i]

    @staticmethod
    def _block(parts: Sequence[_Columns], width: int) -> str:
        if not parts:
            return ""
        columns = (
            _planes(np.concatenate([c.texts for c in parts]), width),
            _planes(np.concatenate([c.entropy for c in parts]), 2),
            _planes(np.concatenate([c.nll for c in parts]), 2),
            np.concatenate([c.margin for c in parts]).tobytes(),
            np.concatenate([c.flags for c in parts]).tobytes(),
            _planes(np.concatenate([c.other_texts for c in parts]), width),
            np.concatenate([c.chances for c in parts]).tobytes(),
        )
        return deflate(b"".join(columns))

    def _index(
        self,
        stored: Mapping[int, tuple[int, int, int]],
        sizes: list[list[int]],
        table: _Table,
        width: int,
        left_out: Sequence[str] = (),
    ) -> str:
        strategies, groups, errors, problems = _Table(), _Table(), self.errors, _Table()
        numbers = {trace.id: i for i, trace in enumerate(self.traces)}
        rows: dict[str, list[Any]] = {name: [] for name in _ROW}
        for i, trace in enumerate(self.traces):
            block, offset, count = stored.get(i, (0, 0, 0))
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
                errors[trace.error or ""],
                _mean(trace.signals.entropy),
                trace.finish,
                trace.answer,
                parent,
                trace.lineage.at if trace.lineage else 0,
                trace.lineage.reason if trace.lineage else "",
                trace.usage.decoded,
                block,
                offset,
                count,
            )
            for name, value in zip(_ROW, values, strict=True):
                rows[name].append(value)
        index = {
            **self.extra,
            "scale": self.scale,
            "tokens": table.names,
            "width": width,
            "top": self.top,
            "blocks": sizes,
            "errors": [[name, ERRORS.get(name, "")] for name in errors.names],
            "strategies": strategies.names,
            "groups": groups.names,
            "problems": [self._problem(name) for name in problems.names],
            "traces": rows,
            "events": {i: events for i, trace in enumerate(self.traces) if (events := list(_events(trace)))},
            "texts": {i: t.text[:100_000] for i, t in enumerate(self.traces) if t.text and not len(t)},
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

    def _left_out(self, plan: Plan, stored: Mapping[int, tuple[int, int, int]]) -> list[str]:
        """What the reader must know is not there."""
        said = []
        if len(self.traces) < self.given:
            said.append(f"{self.given - len(self.traces):,} of {self.given:,} traces (an even share)")
        if self.prompt_limit is not None:
            said.append(f"prompts beyond {self.prompt_limit:,} characters")
        if not plan.alternatives and self.top:
            limit = f"{self.scale / 3:.2g}"
            said.append(f"alternatives of tokens with less than {limit} nats of entropy, unless the token was a fork")
        empty = np.array([i not in stored for i in range(len(self.traces))], np.bool_) & (self.lengths > 0)
        for rows, name in ((self.right, "right"), (~self.right, "other")):
            gone = int((empty & rows).sum())
            if gone:
                said.append(f"the tokens of {gone:,} of {int(rows.sum()):,} {name} traces (an even share)")
        if plan.longest is not None and any(self.lengths[i] > plan.longest for i in stored):
            said.append(f"tokens from number {plan.longest:,} on of longer traces")
        return said


_ROW = (
    "id", "problem", "strategy", "group", "sample", "draft", "length", "correct", "onset", "error", "entropy", "finish",
    "answer", "parent", "at", "reason", "decoded", "block", "offset", "stored",
)  # fmt: skip


def deflate(data: bytes) -> str:
    """zlib, then base64."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")


def _width(trace: Trace) -> int:
    """Alternatives per token; 0 where they are not one row a token."""
    shape = trace.top_ids.shape
    return shape[1] if len(shape) == 2 and shape[0] == len(trace) and shape == trace.top_logprobs.shape else 0


def _top(trace: Trace, end: int, most: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The best ``most`` alternatives of the first ``end`` tokens."""
    k = min(_width(trace), most)
    if k == 0:
        return np.zeros((end, 0), np.int32), np.zeros((end, 0), np.float32)
    return trace.top_ids[:end, :k], trace.top_logprobs[:end, :k]


def _bytes_for(table: _Table) -> int:
    return max(1, math.ceil((len(table.numbers) - 1).bit_length() / 8))


def _mean(values: npt.NDArray[np.floating]) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean(dtype=np.float64)), 4) if known.size else None


def _spread(items: list[T], share: float) -> list[T]:
    """A share of the items, evenly spaced."""
    n = min(len(items), math.floor(len(items) * share + 1e-9))
    return [items[(2 * i + 1) * len(items) // (2 * n)] for i in range(n)]


def _cap(lengths: npt.NDArray[np.int64], tokens: float) -> int:
    """The largest cap under which the capped lengths sum to at most ``tokens``."""
    low, high = 0, int(lengths.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(lengths, middle).sum() <= tokens else (low, middle - 1)
    return low


def _events(trace: Trace) -> Iterator[list[Any]]:
    """[token, name, detail] of a trace's events, whatever their other keys are."""
    for event in trace.events[:EVENTS]:
        at = next((event[key] for key in ("at", "token", "index", "position") if isinstance(event.get(key), int)), None)
        name = next((key for key in ("kind", "event", "name", "type") if event.get(key)), None)
        detail = {
            k: v for k, v in event.items() if v is not None and k not in ("at", "token", "index", "position", name)
        }
        text = ", ".join(f"{key} {_short(value)}" for key, value in detail.items())
        yield [at, str(event[name]) if name else "event", text[:200]]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
