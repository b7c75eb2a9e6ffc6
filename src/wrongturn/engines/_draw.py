"""The draw of a token from a distribution, and the distribution's most probable tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wrongturn.signals import Signals
from wrongturn.trace import Ids

Floats = npt.NDArray[np.float32]

_SORTED = 1024  # up to this vocabulary, sorting all of it is cheapest


def alternatives(logits: Floats, ids: Ids, signals: Signals, k: int) -> tuple[Ids, Floats]:
    """The k most probable of ``logits`` [n, V] and their log-probabilities [n, k]; -1 and NaN where there are no k."""
    top_ids, top_logprobs = no_alternatives(len(ids), k)
    if k and len(ids):
        order = best(logits, k)
        chosen = np.take_along_axis(logits, ids[:, None], 1)
        listed = np.take_along_axis(logits, order, 1) - chosen - signals.nll[:, None]
        possible, known = listed > -np.inf, order.shape[1]
        top_ids[:, :known][possible], top_logprobs[:, :known][possible] = order[possible], listed[possible]
    return top_ids, top_logprobs


def best(logits: Floats, k: int) -> npt.NDArray[np.intp]:
    """Indices [n, min(k, V)] of the largest of each row, largest first; of equals, the first comes first."""
    vocab = logits.shape[1]
    if vocab <= _SORTED or 4 * k >= vocab:
        return np.argsort(-logits, axis=1, kind="stable")[:, :k]
    order = np.empty((len(logits), k), np.intp)
    for row, found in zip(logits, order, strict=True):
        (listed,) = np.nonzero(~(row < np.partition(row, vocab - k)[vocab - k]))  # a NaN is listed, and comes last
        found[:] = listed[np.argsort(-row[listed], kind="stable")[:k]]
    return order


def no_alternatives(n: int, k: int) -> tuple[Ids, Floats]:
    """``top_ids`` and ``top_logprobs`` [n, k] of tokens nothing is known about."""
    return np.full((n, k), -1, np.int32), np.full((n, k), np.nan, np.float32)


# -- the draw ----------------------------------------------------------------------------------------------------------

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def _hash(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's mixing function."""
    for shift, factor in _MIX:
        z = (z ^ (z >> shift)) * factor
    return z ^ (z >> np.uint64(31))


def uniform(seed: int, positions: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Numbers ``positions`` of the stream of ``seed``, in (0, 1]: a hash of the two, so there is no state to share.

    Seeds may be any integers and count modulo 2^64.
    """
    key = _hash(np.array([seed % 2**64], np.uint64) + _GOLDEN)
    bits = _hash(key + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return ((bits >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53


def draw(
    logits: Floats,
    temperature: npt.NDArray[np.float64],
    top_p: npt.NDArray[np.float64],
    chance: npt.NDArray[np.float64],
) -> Ids:
    """One token per row of ``logits`` [n, V]: where the cumulative distribution, in token order, reaches ``chance``.

    Temperature 0 takes the most probable token, the first of several. Nucleus: the most probable tokens *after*
    temperature that reach ``top_p``.
    """
    greedy = temperature == 0
    if greedy.all():
        return logits.argmax(axis=1).astype(np.int32)
    shifted = logits - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted / np.where(greedy, 1.0, temperature)[:, None])
    cut = top_p < 1
    if cut.any():
        weights[cut] = _nucleus(weights[cut], top_p[cut])
    reached = weights.cumsum(axis=1)
    tokens = (reached < chance[:, None] * reached[:, -1:]).sum(axis=1)  # chance > 0, so never a token of weight 0
    if greedy.any():
        tokens[greedy] = logits[greedy].argmax(axis=1)
    return tokens.astype(np.int32)


def _nucleus(weights: npt.NDArray[np.float64], top_p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``weights`` [n, V] without the tokens outside each row's nucleus."""
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, 1)
    before = ranked.cumsum(axis=1) - ranked
    ranked[before >= top_p[:, None] * ranked.sum(axis=1, keepdims=True)] = 0.0
    kept = np.empty_like(weights)
    np.put_along_axis(kept, order, ranked, 1)
    return kept
