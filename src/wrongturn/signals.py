"""Per-token uncertainty signals: from logits or top-k log-probabilities to plain arrays, and windows over them.

A signal is a number a decoder could have known when it wrote a token. All entropies and log-probabilities are in nats.
What could not be measured is NaN, never 0, so that an average can tell "certain" from "unknown".

Definitions, for next-token probabilities p_1 >= p_2 >= ... and log-probabilities l_i = ln p_i:

============= =====================================================================================================
nll           -ln p of the token that was chosen
entropy       -sum p_i ln p_i
entropy_low   lower bound on the entropy over the whole vocabulary
entropy_high  upper bound on it
missing       probability mass of the tokens that were not listed
margin        p_1 - p_2
nucleus_size  smallest m with p_1 + ... + p_m >= nucleus_p
near_tie      number of rivals: how many l_i >= l_1 - tie_delta, without the best one
fork          1 if there is a rival, else 0
============= =====================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NEVER = -700.0  # nats; exp() of less underflows, and some servers write -9999 for "probability zero"
_ROUNDING = 1e-6  # missing mass below this is what float32 log-probabilities lose in a sum
_BLOCK = 1 << 17  # elements worked on at once: a few such arrays stay in a core's cache
_SORTED = 1024  # up to this vocabulary, sorting every row is cheapest


@dataclass(frozen=True, slots=True)
class SignalConfig:
    """The two constants in the definitions; stored with the data, since signals under different ones do not compare."""

    nucleus_p: float = 0.9
    tie_delta: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.nucleus_p <= 1.0:
            raise ValueError(f"nucleus_p must be in (0, 1], got {self.nucleus_p}")
        if not self.tie_delta >= 0.0:
            raise ValueError(f"tie_delta must be >= 0 nats, got {self.tie_delta}")


_DEFAULT = SignalConfig()


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """One float32 array per signal, all of one shape; the last axis is the token axis. Missing values are NaN."""

    nll: NDArray[np.float32]
    entropy: NDArray[np.float32]
    entropy_low: NDArray[np.float32]
    entropy_high: NDArray[np.float32]
    missing: NDArray[np.float32]
    margin: NDArray[np.float32]
    nucleus_size: NDArray[np.float32]
    near_tie: NDArray[np.float32]
    fork: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.nll.shape

    def __len__(self) -> int:
        """Number of tokens (length of the last axis)."""
        return self.nll.shape[-1]

    def __getitem__(self, tokens: slice | Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]) -> Signals:
        """The given tokens (last axis), as views where NumPy gives views."""
        index = tokens if isinstance(tokens, slice) else np.asarray(tokens)
        return Signals(*(getattr(self, name)[..., index] for name in FIELDS))

    def dict(self) -> dict[str, NDArray[np.float32]]:
        """Field name -> array, in the order of ``FIELDS``; the arrays are not copied."""
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def empty(cls, n: int) -> Signals:
        """Signals of ``n`` tokens of which nothing is known: all NaN."""
        return cls(*np.full((len(FIELDS), n), np.nan, dtype=np.float32))

    @classmethod
    def concat(cls, parts: Sequence[Signals]) -> Signals:
        """Join along the token axis. No parts give zero tokens."""
        if not parts:
            return cls.empty(0)
        return cls(*(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in FIELDS))

    @classmethod
    def from_dict(cls, arrays: Mapping[str, ArrayLike]) -> Signals:
        """The inverse of :meth:`dict`; also takes lists with ``None`` (JSON). Absent fields become NaN.

        Raises:
            ValueError: a field is not a signal, or the shapes differ.
        """
        unknown = sorted(set(arrays) - set(FIELDS))
        if unknown:
            raise ValueError(f"not signals: {', '.join(unknown)} (known: {', '.join(FIELDS)})")
        given = {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}
        shapes = {array.shape for array in given.values()}
        if len(shapes) > 1:
            raise ValueError(f"signals must share one shape, got {sorted(shapes)}")
        absent = np.full(shapes.pop() if shapes else 0, np.nan, dtype=np.float32)
        return cls(*(given.get(name, absent) for name in FIELDS))


FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Signals))


def from_logits(logits: ArrayLike, chosen: ArrayLike, config: SignalConfig = _DEFAULT) -> Signals:
    """Exact signals from the whole distribution.

    Args:
        logits: ``[..., V]``, unnormalised log-probabilities; ``-inf`` is a banned token. float64 is computed in
            float64, everything else in float32.
        chosen: ``[...]``, index of the token that was taken. A banned one has an infinite nll.

    Returns:
        Signals ``[...]`` with ``entropy == entropy_low == entropy_high`` and ``missing == 0``. A row that is no
        distribution (a NaN, a ``+inf``, everything banned) is NaN in every field.

    Raises:
        ValueError: shapes do not match, or a chosen index is outside the vocabulary.
    """
    logits = np.asarray(logits)
    if logits.dtype != np.float64:
        logits = logits.astype(np.float32, copy=False)
    chosen = np.asarray(chosen)
    if logits.ndim == 0 or logits.shape[:-1] != chosen.shape or logits.shape[-1] == 0:
        raise ValueError(f"logits [..., V] and chosen [...] do not match: {logits.shape} and {chosen.shape}")
    if chosen.dtype.kind not in "iu" and chosen.size:
        raise ValueError(f"chosen must hold token indices, got dtype {chosen.dtype}")
    n, vocab = chosen.size, logits.shape[-1]
    rows, picks = logits.reshape(n, vocab), chosen.reshape(n)
    if n and not (picks.min() >= 0 and picks.max() < vocab):
        raise ValueError(f"chosen must be in [0, {vocab}), got [{picks.min()}, {picks.max()}]")
    out = np.empty((len(FIELDS), n), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        for block in _blocks(n, vocab):
            _fill_exact(rows[block], picks[block], config, out[:, block])
    return Signals(*out.reshape(len(FIELDS), *chosen.shape))


def from_topk(
    logprobs: ArrayLike, chosen_logprob: ArrayLike, vocab_size: int | None = None, config: SignalConfig = _DEFAULT
) -> Signals:
    """Signals from the k most probable tokens, as servers return them.

    Args:
        logprobs: ``[..., k]`` log-probabilities (nats) of the k most probable tokens, in any order, padded with NaN or
            ``-inf``. They must be the top k: a sampled token from further down does not belong in the list, or the
            bounds do not hold.
        chosen_logprob: ``[...]`` log-probability of the token that was taken; NaN where unknown.
        vocab_size: V; without it (``None``) there is no upper bound on the entropy.

    With n tokens listed, ``missing`` r = 1 - sum p_i:

    - ``entropy`` is that of the listed tokens renormalised to 1 (what published top-k pipelines report).
    - ``entropy_low``/``entropy_high`` bound the entropy H of the whole vocabulary by H_n = -sum p_i ln p_i plus the
      entropy of a tail of mass r over V - n tokens, none above p_n. That is largest for an even tail, r ln((V-n)/r)
      (which never exceeds p_n if the list is a top k), and by concavity smallest for the most uneven one: as many
      tokens at p_n as fit in r, and one with the rest. Both are attained, so no better bounds exist.
    - ``margin``, ``nucleus_size``, ``near_tie``, ``fork`` use the p_i as they are: they equal the exact ones wherever
      the list decides them. If it ends too early, ``nucleus_size`` is n + 1 ("more than n") and ``near_tie`` is n - 1
      ("at least"). From a single token with mass missing, entropy and margin are NaN, and so are near_tie and fork
      unless r is too small for a rival.

    Rows with nothing listed are NaN in every field but nll. All work is in float64.

    Raises:
        ValueError: shapes do not match, a log-probability is positive, or ``vocab_size`` < 1.
    """
    lists, picks = np.asarray(logprobs, dtype=np.float64), np.asarray(chosen_logprob, dtype=np.float64)
    if lists.ndim == 0 or lists.shape[:-1] != picks.shape:
        raise ValueError(f"logprobs [..., k] and chosen_logprob [...] do not match: {lists.shape} and {picks.shape}")
    if vocab_size is not None and vocab_size < 1:
        raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
    if (lists > 1e-3).any() or (picks > 1e-3).any():
        raise ValueError("log-probabilities must be <= 0; are these logits?")
    n, k = picks.size, lists.shape[-1]
    rows = lists.reshape(n, k)
    out = np.empty((len(FIELDS), n), dtype=np.float32)
    out[0] = -picks.reshape(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        for block in _blocks(n, k):
            _fill_topk(rows[block], vocab_size, config, out[1:, block])
    return Signals(*out.reshape(len(FIELDS), *picks.shape))


def _blocks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(width, 1))
    return (slice(start, start + step) for start in range(0, rows, step))


def _fill_exact(
    logits: NDArray[np.floating], chosen: NDArray[np.integer], config: SignalConfig, out: NDArray[np.float32]
) -> None:
    """Fill ``out[9, n]`` from ``logits[n, V]``."""
    n, vocab = logits.shape
    small = vocab <= _SORTED
    # Sorted, the peak is free; either way one NaN in a row makes its peak NaN, and with it all that follows.
    ordered = np.sort(logits, axis=1) if small else logits
    peak = ordered[:, -1:] if small else logits.max(axis=1, keepdims=True)
    shifted = ordered - peak
    np.maximum(shifted, _NEVER, out=shifted)  # keeps 0 * -inf out of the entropy
    weights = np.exp(shifted)
    total = np.add.reduce(weights, axis=1)
    log_total = np.log(total)
    near = np.count_nonzero(shifted >= -config.tie_delta, axis=1) - 1
    np.multiply(weights, shifted, out=shifted)
    entropy = log_total - np.add.reduce(shifted, axis=1) / total  # pairwise sums: einsum and dot lose digits here
    unknown = entropy - entropy  # 0, or NaN where the row is no distribution
    second, nucleus = (_rank_sorted if small else _rank_large)(weights, total, config.nucleus_p)

    out[0] = log_total - (logits[np.arange(n), chosen] - peak[:, 0])
    out[1:4] = entropy
    out[4] = unknown
    out[5] = (1.0 - second) / total
    out[6] = nucleus + unknown
    out[7] = near + unknown
    out[8] = (near > 0) + unknown


def _rank_sorted(
    weights: NDArray[np.floating], total: NDArray[np.floating], nucleus_p: float
) -> tuple[NDArray[np.floating] | float, NDArray[np.integer]]:
    """Second largest weight and nucleus size of each row of ``weights[n, V]``, sorted upwards."""
    reached = np.add.accumulate(weights[:, ::-1], axis=1)
    needed = np.minimum(nucleus_p * total, reached[:, -1])  # rounding must not put it out of reach
    nucleus = np.count_nonzero(reached < needed[:, None], axis=1) + 1
    return weights[:, -2] if weights.shape[1] > 1 else 0.0, nucleus


def _rank_large(
    weights: NDArray[np.floating], total: NDArray[np.floating], nucleus_p: float
) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """The same for unsorted rows too long to sort, where few tokens matter.

    V tokens below (1 - nucleus_p) total / V cannot add up to what the nucleus leaves out, so none of them is in it.
    """
    n, vocab = weights.shape
    nucleus = np.ones(n, dtype=np.intp)
    for row in range(n):
        heavy = weights[row][weights[row] >= (1.0 - nucleus_p) * total[row] / vocab]
        heavy[::-1].sort()
        reached = np.cumsum(heavy, dtype=np.float64)
        if reached.size:  # empty where the row is NaN
            nucleus[row] += np.searchsorted(reached, min(nucleus_p * total[row], reached[-1]))
    weights[np.arange(n), weights.argmax(axis=1)] = 0.0
    return weights.max(axis=1), nucleus


def _fill_topk(
    logprobs: NDArray[np.float64], vocab: int | None, config: SignalConfig, out: NDArray[np.float32]
) -> None:
    """Fill ``out[8, n]`` (every field but nll) from ``logprobs[n, k]``."""
    n, k = logprobs.shape
    listed = logprobs > _NEVER
    ranked = np.full((n, max(k, 2)), -np.inf)
    np.copyto(ranked[:, :k], logprobs, where=listed)
    ranked = np.sort(ranked, axis=1)[:, ::-1]
    count = np.count_nonzero(listed, axis=1)
    p = np.exp(ranked)
    mass = p.sum(axis=1)
    head = np.maximum(-(p * np.maximum(ranked, _NEVER)).sum(axis=1), 0.0)
    missing = np.clip(1.0 - mass, 0.0, 1.0)
    if vocab is not None:
        missing[count >= vocab] = 0.0

    last = ranked[np.arange(n), count - 1]
    p_last = np.exp(last)
    whole = np.floor(missing / p_last)
    low = head - whole * p_last * last + _plogp(missing - whole * p_last)
    if vocab is None:
        high = np.full(n, np.nan)
    else:
        high = head + _plogp(missing) + missing * np.log(np.maximum(vocab - count, 1))

    alone = (count == 1) & (missing > _ROUNDING)
    rival = ~alone | (missing < p[:, 0] * math.exp(-config.tie_delta))  # rivals are known, or there can be none
    near = np.where(rival, np.count_nonzero(ranked >= ranked[:, :1] - config.tie_delta, axis=1) - 1.0, np.nan)
    nucleus = np.count_nonzero(np.cumsum(p, axis=1) < config.nucleus_p, axis=1) + 1

    out[0] = np.where(alone, np.nan, np.maximum(np.log(mass) + head / mass, 0.0))
    out[1] = np.fmin(low, high)
    out[2] = high
    out[3] = missing
    out[4] = np.where(alone, np.nan, p[:, 0] - p[:, 1])
    out[5] = np.minimum(nucleus, count + (missing > _ROUNDING))
    out[6] = near
    out[7] = np.where(near > 0, 1.0, near)
    out[:, count == 0] = np.nan


def _plogp(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-p ln p, and 0 at (or, by rounding, below) 0."""
    return -p * np.log(np.where(p > 0.0, p, 1.0)) * (p > 0.0)


_SUMMARIES = {
    "entropy": ("mean", "max", "min", "std"),
    "margin": ("mean", "max", "min", "std"),
    "nll": ("mean", "max", "min", "std"),
    "nucleus_size": ("mean", "max"),
    "near_tie": ("mean", "max"),
    "fork": ("rate",),  # its mean
}


def prefix_edges(*lengths: float) -> list[tuple[float, float]]:
    """Windows that are the first ``lengths`` tokens: ``prefix_edges(128, 256)`` is ``[(0, 128), (0, 256)]``."""
    return [(0.0, float(length)) for length in lengths]


def windows(
    signals: Signals, edges: Sequence[tuple[float, float]], relative: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Summaries of token windows of one trace.

    Args:
        signals: of one trace, shape ``[T]``.
        edges: W half-open windows ``(start, stop)``: token i is inside if start <= i < stop. ``math.inf`` is the end.
        relative: the edges are fractions of T; adjacent windows still share no token and leave none out.

    Returns:
        Name -> ``[W]`` float64: ``{entropy,margin,nll}_{mean,max,min,std}`` (population std),
        ``{nucleus_size,near_tie}_{mean,max}`` and ``fork_rate``. NaN tokens are left out; a window without any known
        token is NaN.

    Raises:
        ValueError: the signals are not one trace, or a window has NaN or decreasing edges.
    """
    if len(signals.shape) != 1:
        raise ValueError(f"windows are of one trace, shape [T]; got {signals.shape}")
    data = np.stack([getattr(signals, name) for name in _SUMMARIES]).astype(np.float64)
    table = np.full((4, len(data), len(edges)), np.nan)
    with np.errstate(invalid="ignore"):
        for w, (start, stop) in enumerate(edges):
            if not start <= stop:
                raise ValueError(f"a window needs start <= stop, got ({start}, {stop})")
            first, last = (_first_token(edge, len(signals), relative) for edge in (start, stop))
            part = data[:, first:last]
            if part.size:
                table[:, :, w] = _summary(part)
    return {
        f"{name}_{kind}": row
        for i, (name, kinds) in enumerate(_SUMMARIES.items())
        for kind, row in zip(kinds, table[:, i], strict=False)
    }


def _first_token(edge: float, n: int, relative: bool) -> int:
    """Index of the first token at or after an edge, in 0..n, forgiving the rounding of fractions such as 0.07 * 100."""
    if edge <= 0 or math.isinf(edge):
        return 0 if edge <= 0 else n
    return min(math.ceil(edge * (n if relative else 1) - 1e-9), n)


def _summary(part: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Mean, max, min and population std along the last axis of ``[F, T]``, NaN left out; all-NaN rows give NaN."""
    known = ~np.isnan(part)
    count = known.sum(axis=1)
    count = np.where(count > 0, count, np.nan)
    mean = np.where(known, part, 0.0).sum(axis=1) / count
    deviation = np.where(known, part - mean[:, None], 0.0)
    std = np.sqrt((deviation**2).sum(axis=1) / count)
    return mean, np.fmax.reduce(part, axis=1), np.fmin.reduce(part, axis=1), std
