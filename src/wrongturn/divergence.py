"""How the next-token distributions of two models differ along a text: a specialist S, and the ancestor A it was trained
from (or any model of the same vocabulary).

All are at the decoding temperature and in nats, but for ``variance``. What is not known is NaN, never 0.

========= ==========================================================================================================
delta     log pS(x) - log pA(x) of the taken token x (path deformation)
coverage  log of the mass A gives its 20 likeliest tokens, over the mass S gives them; 1e-8 is added to both
demotion  J = max(0, delta) + max(0, coverage)
pressure  what J is on average over x ~ pS: known before the token is drawn
kl        KL(pS || pA)
variance  Var of log pS(y) over y ~ pS, of the temperature-1 log pS: d2 log Z / d(1/temperature)2 of S
========= ==========================================================================================================

The definitions are those of Islah et al. (arXiv 2606.05145) and their published code; ``pressure`` is ours.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

F32 = NDArray[np.float32]
Array = NDArray[np.float64]

TOP = 20
"""Tokens of the ancestor that make its coverage."""

_ADDED = 1e-8
_ROUNDING = 1e-7  # what float32 log-probabilities lose in a sum
_BLOCK = 1 << 17  # elements worked on at once: a few such arrays stay in a core's cache
_TABLE = 1 << 22  # entries of the table that finds one list's tokens in another's
_SCRATCH = threading.local()


@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """One float32 array [n] per quantity, one entry per token; NaN is unknown. Infinite where A rules a token out."""

    delta: F32
    coverage: F32
    pressure: F32
    kl: F32
    variance: F32

    @property
    def demotion(self) -> F32:
        """J: how much likelier the taken token and unlikelier the ancestor's favourites are than under the ancestor."""
        return np.maximum(self.delta, 0.0) + np.maximum(self.coverage, 0.0)

    def __len__(self) -> int:
        return self.delta.shape[-1]

    def __getitem__(self, tokens: slice | Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Divergence:
        """The given tokens, as views where NumPy gives views."""
        index = tokens if isinstance(tokens, slice) else np.asarray(tokens)
        return Divergence(*(getattr(self, name)[..., index] for name in FIELDS))

    def dict(self) -> dict[str, F32]:
        """Field name -> array, in the order of ``FIELDS``; the arrays are not copied."""
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def empty(cls, n: int) -> Divergence:
        """That of ``n`` tokens of which nothing is known: all NaN."""
        return cls(*np.full((len(FIELDS), n), np.nan, np.float32))

    @classmethod
    def concat(cls, parts: Sequence[Divergence]) -> Divergence:
        """Join along the token axis. No parts give zero tokens."""
        if not parts:
            return cls.empty(0)
        return cls(*(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in FIELDS))


FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Divergence))


class Lists(NamedTuple):
    """The k likeliest tokens of n distributions of temperature 1, as servers and traces give them.

    ``ids`` and ``logprobs`` [n, k] (nats; padded with -1 and NaN) must be the top k: a sampled token from further down
    does not belong there. ``nll`` [n] is that of the taken token, NaN where unknown.
    """

    ids: NDArray[np.integer]
    logprobs: NDArray[np.floating]
    nll: NDArray[np.floating]


def from_logits(
    specialist: ArrayLike,
    ancestor: ArrayLike,
    chosen: ArrayLike | None = None,
    *,
    temperature: float = 1.0,
    top: int = TOP,
) -> Divergence:
    """Exact, from the whole distributions.

    Args:
        specialist, ancestor: ``[n, V]`` logits (temperature 1); ``-inf`` is a banned token.
        chosen: ``[n]``, the taken tokens; without them ``delta`` is NaN.
        temperature: of decoding, above 0.
        top: how many of the ancestor's tokens make its coverage.

    Returns:
        Divergence [n], computed in float64. A row that is no distribution is NaN.

    Raises:
        ValueError: shapes do not match, a token is outside the vocabulary, or a temperature is not above 0.
    """
    rows, others = np.asarray(specialist), np.asarray(ancestor)
    if rows.ndim != 2 or rows.shape != others.shape or rows.shape[1] == 0:
        raise ValueError(f"logits of specialist and ancestor [n, V] do not match: {rows.shape} and {others.shape}")
    n, vocab = rows.shape
    _check(temperature, top)
    if chosen is not None:
        chosen = np.asarray(chosen)
        if chosen.shape != (n,) or (n and not (chosen.min() >= 0 and chosen.max() < vocab)):
            raise ValueError(f"chosen must be {n} tokens in [0, {vocab})")
    out = np.full((len(FIELDS), n), np.nan, np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        for block in _blocks(n, vocab):
            taken = None if chosen is None else chosen[block]
            _fill_exact(rows[block], others[block], taken, temperature, min(top, vocab), out[:, block])
    return Divergence(*out)


def from_lists(
    specialist: Lists, ancestor: Lists, vocab: int, *, temperature: float = 1.0, top: int = TOP
) -> Divergence:
    """From the likeliest tokens of both: each list is completed by an even tail, and all is exact for the result.

    A token that is not listed so gets (1 - listed mass) / (V - listed tokens), which in a top k is never above the
    least likely listed one; it is capped there. Lists of the whole vocabulary give what :func:`from_logits` gives.
    ``delta`` rests on the nlls alone. ``coverage`` and ``pressure`` are NaN where the ancestor lists fewer than ``top``
    tokens (and not all), everything is where a list is empty.

    Raises:
        ValueError: shapes do not match, an id is outside the vocabulary, a log-probability is positive, or a
            temperature is not above 0.
    """
    out = np.empty((len(FIELDS), len(specialist.nll)), np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        for block, s, a in _completed(specialist, ancestor, vocab, temperature, top):
            _fill_lists(s, a, vocab, top, temperature, out[:, block])
    return Divergence(*out)


def bounds(
    specialist: Lists, ancestor: Lists, vocab: int, *, temperature: float = 1.0, top: int = TOP
) -> tuple[Divergence, Divergence]:
    """The least and the most that ``delta`` and ``coverage`` (and so ``demotion``) can be, given the lists; else NaN.

    An unlisted token has 0 < p <= min(smallest listed, mass that is not listed). Arguments as :func:`from_lists`.
    """
    low, high = Divergence.empty(len(specialist.nll)), Divergence.empty(len(specialist.nll))
    with np.errstate(invalid="ignore", divide="ignore"):
        for block, s, a in _completed(specialist, ancestor, vocab, temperature, top):
            gap = s.taken - a.taken
            low.delta[block], high.delta[block] = gap - s.most + a.least, gap - s.least + a.most
            head = slice(min(top, a.ids.shape[1]))
            favourites = a.ids[:, head]
            place = _places(favourites, s.ids, vocab)
            known = np.where(place >= 0, np.exp(np.take_along_axis(s.powers, np.maximum(place, 0), axis=1)), 0.0)
            known, mass = known.sum(axis=1), np.exp(a.powers[:, head]).sum(axis=1)
            most = known + s.heaviest(np.count_nonzero((place < 0) & (favourites >= 0), axis=1))
            listed = _enough(a, top, vocab)
            for side, z_a, under_s, z_s in ((low, a.most, most, s.least), (high, a.least, known, s.most)):
                ratio = _log_ratio(mass * np.exp(-z_a), np.minimum(under_s * np.exp(-z_s), 1.0))
                side.coverage[block] = np.where(listed, ratio, np.nan)
    return low, high


def _fill_exact(
    specialist: NDArray, ancestor: NDArray, chosen: NDArray | None, temperature: float, top: int, out: F32
) -> None:
    """Fill ``out[5, n]`` from two ``[n, V]``."""
    s, p = _normalised(specialist, temperature)
    a, q = _normalised(ancestor, temperature)
    if chosen is not None:
        at = np.arange(len(s)), chosen
        out[0] = s[at] - a[at]
    first = np.argpartition(q, -top, axis=1)[:, -top:]
    out[1] = _log_ratio(*(np.take_along_axis(part, first, axis=1).sum(axis=1) for part in (q, p)))
    s[p == 0.0] = 0.0  # what S rules out adds nothing to its expectations
    gap = s - a
    gap[p == 0.0] = 0.0
    weighted = p * gap
    out[3] = np.maximum(weighted.sum(axis=1), 0.0)
    out[2] = np.maximum(weighted, 0.0, out=weighted).sum(axis=1) + np.maximum(out[1], 0.0)
    s -= (p * s).sum(axis=1, keepdims=True)
    out[4] = temperature**2 * (p * s * s).sum(axis=1)


def _normalised(logits: NDArray, temperature: float) -> tuple[Array, Array]:
    """Log-probabilities and probabilities ``[n, V]`` at a temperature."""
    scaled = logits.astype(np.float64)
    if temperature != 1.0:
        scaled /= temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    p = np.exp(scaled)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    scaled -= np.log(total)
    return scaled, p


@dataclass(frozen=True, slots=True, eq=False)
class _Even:
    """Lists [n, k] completed by an even tail of ``others`` tokens [n]. ``powers`` are 1/T log p, not normalised.

    ``ids`` are -1 where nothing is listed, best first. ``taken`` and ``rest`` are the powers of the taken and of an
    unlisted token, ``log_z`` is the log of the sum of all; ``least`` and ``most`` bound it whatever the tail.
    ``missing`` is the mass of the tail at temperature 1, ``cap`` the most that one of its tokens can have.
    """

    ids: NDArray[np.integer]
    powers: Array
    taken: Array
    rest: Array
    others: Array
    log_z: Array
    least: Array
    most: Array
    missing: Array
    cap: Array
    beta: float

    @classmethod
    def of(cls, lists: Lists, block: slice, vocab: int, beta: float) -> _Even:
        ids, logs = lists.ids[block], lists.logprobs[block].astype(np.float64)
        listed = (ids >= 0) & (logs > -np.inf)
        ids, logs = np.where(listed, ids, -1), np.where(listed, logs, -np.inf)
        if (logs[:, 1:] > logs[:, :-1]).any():
            order = np.argsort(-logs, axis=1, kind="stable")
            ids, logs = np.take_along_axis(ids, order, axis=1), np.take_along_axis(logs, order, axis=1)
        count = np.count_nonzero(listed, axis=1)
        others = (vocab - count).astype(np.float64)
        p = np.exp(logs)
        last = np.where(count > 0, logs[np.arange(len(logs)), count - 1], np.nan)
        missing = np.where(others > 0, np.maximum(1.0 - p.sum(axis=1), _ROUNDING), 0.0)
        rest, cap = np.minimum(np.log(missing / np.maximum(others, 1.0)), last), np.minimum(np.exp(last), missing)
        head = p.sum(axis=1) if beta == 1.0 else np.exp(beta * logs).sum(axis=1)
        even, uneven = others * np.exp(beta * rest), _uneven(missing, np.exp(last), beta)
        z, least, most = (np.log(head + tail) for tail in (even, np.minimum(even, uneven), np.maximum(even, uneven)))
        taken = -beta * lists.nll[block].astype(np.float64)
        return cls(ids, beta * logs, taken, beta * rest, others, z, least, most, missing, cap, beta)

    def heaviest(self, tokens: NDArray[np.integer]) -> Array:
        """[n] the most that so many unlisted tokens can add to the sum of all powers."""
        share = self.missing / np.maximum(tokens, 1) if self.beta < 1.0 else self.missing
        most = tokens * np.minimum(self.cap, share) ** self.beta
        return np.minimum(most, self.missing) if self.beta == 1.0 else most


def _uneven(missing: Array, cap: Array, beta: float) -> Array:
    """Sum of p ** beta over a tail of that mass in as few tokens as a cap on each allows."""
    whole = np.floor(missing / cap)
    return whole * cap**beta + np.maximum(missing - whole * cap, 0.0) ** beta


def _fill_lists(s: _Even, a: _Even, vocab: int, top: int, temperature: float, out: F32) -> None:
    """Fill ``out[5, n]``: listed by S; listed by A alone; listed by neither."""
    log_p, log_q = s.powers - s.log_z[:, None], a.powers - a.log_z[:, None]
    rest_p, rest_q = s.rest - s.log_z, a.rest - a.log_z
    in_a, in_s = _places(s.ids, a.ids, vocab), _places(a.ids, s.ids, vocab)
    p = np.exp(log_p)
    gap = log_p - np.where(in_a >= 0, np.take_along_axis(log_q, np.maximum(in_a, 0), axis=1), rest_q[:, None])
    gap[s.ids < 0] = 0.0
    weighted = p * gap
    alone = (in_s < 0) & (a.ids >= 0)
    u = np.exp(rest_p)
    lone_gap = np.where(alone & (s.others > 0)[:, None], rest_p[:, None] - log_q, 0.0)
    neither = s.others - np.count_nonzero(alone, axis=1)
    last_gap = np.where(neither > 0, rest_p - rest_q, 0.0)

    out[0] = (s.taken - s.log_z) - (a.taken - a.log_z)
    head = slice(min(top, a.ids.shape[1]))
    under_s = np.where(
        in_s[:, head] >= 0, np.exp(np.take_along_axis(log_p, np.maximum(in_s[:, head], 0), axis=1)), u[:, None]
    )
    under_s[a.ids[:, head] < 0] = 0.0
    coverage = _log_ratio(np.exp(log_q[:, head]).sum(axis=1), under_s.sum(axis=1))
    out[1] = np.where(_enough(a, top, vocab), coverage, np.nan)
    out[3] = np.maximum(weighted.sum(axis=1) + u * (lone_gap.sum(axis=1) + neither * last_gap), 0.0)
    upward = np.maximum(lone_gap, 0.0).sum(axis=1) + neither * np.maximum(last_gap, 0.0)
    out[2] = np.maximum(weighted, 0.0).sum(axis=1) + u * upward + np.maximum(out[1], 0.0)
    tail = np.where(s.others > 0, rest_p, 0.0)
    log_p[s.ids < 0] = 0.0
    mean = (p * log_p).sum(axis=1) + s.others * u * tail
    spread = (p * (log_p - mean[:, None]) ** 2).sum(axis=1) + s.others * u * (tail - mean) ** 2
    out[4] = temperature**2 * spread
    out[:, (s.ids < 0).all(axis=1) | (a.ids < 0).all(axis=1)] = np.nan


def _enough(a: _Even, top: int, vocab: int) -> NDArray[np.bool_]:
    """Whether A lists its ``top`` likeliest tokens."""
    return np.count_nonzero(a.ids >= 0, axis=1) >= min(top, vocab)


def _places(ids: NDArray[np.integer], of: NDArray[np.integer], vocab: int) -> NDArray[np.intp]:
    """[n, k] the column of each id in the same row of ``of`` [n, m]; -1 where it is not there.

    A table has the column of every token; it is never cleared, as an old entry points at a column of another id.
    """
    found = np.empty(ids.shape, np.intp)
    step = max(1, _TABLE // (vocab + 1))
    table = _table(min(step, len(ids)) * (vocab + 1))
    columns = np.arange(of.shape[1], dtype=np.int32)
    for start in range(0, len(ids), step):
        rows = slice(start, start + step)
        wanted, there = ids[rows], of[rows]
        base = np.arange(len(wanted), dtype=np.int64)[:, None] * (vocab + 1)
        table[base + np.where(there >= 0, there, vocab)] = columns
        column = np.minimum(table[base + np.where(wanted >= 0, wanted, vocab)], len(columns) - 1)
        same = (np.take_along_axis(there, column, axis=1) == wanted) & (wanted >= 0)
        found[rows] = np.where(same, column, -1)
    return found


def _table(size: int) -> NDArray[np.int32]:
    """Scratch of this thread, kept: to get it anew for every trace would take longer than using it."""
    table = getattr(_SCRATCH, "table", None)
    if table is None or len(table) < size:
        table = _SCRATCH.table = np.zeros(size, np.int32)
    return table


def _log_ratio(q: Array, p: Array) -> Array:
    return np.log((q + _ADDED) / (p + _ADDED))


def _check(temperature: float, top: int) -> None:
    if not temperature > 0.0:
        raise ValueError(f"the temperature of a divergence must be above 0, not {temperature}")
    if top < 1:
        raise ValueError(f"top must be at least 1 token, not {top}")


def _completed(
    specialist: Lists, ancestor: Lists, vocab: int, temperature: float, top: int
) -> Iterator[tuple[slice, _Even, _Even]]:
    """Blocks of rows of both, once everything fits."""
    _check(temperature, top)
    n = len(specialist.nll)
    for who, lists in (("specialist", specialist), ("ancestor", ancestor)):
        shapes = lists.ids.shape, lists.logprobs.shape, lists.nll.shape
        if len(shapes[0]) != 2 or shapes[0] != shapes[1] or (n,) != shapes[2] or n != shapes[0][0] or not shapes[0][1]:
            raise ValueError(f"lists of the {who} must be ids and logprobs [{n}, k] and nll [{n}], not {shapes}")
        if n and lists.ids.max() >= vocab:
            raise ValueError(f"token {lists.ids.max()} of the {who} is outside the vocabulary of {vocab}")
        if (lists.logprobs > 1e-3).any():
            raise ValueError(f"log-probabilities of the {who} must be <= 0; are these logits?")
    for block in _blocks(n, max(specialist.ids.shape[1], ancestor.ids.shape[1])):
        s, a = (_Even.of(lists, block, vocab, 1.0 / temperature) for lists in (specialist, ancestor))
        yield block, s, a


def _blocks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(width, 1))
    return (slice(start, start + step) for start in range(0, rows, step))
