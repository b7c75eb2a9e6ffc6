"""Exact signals and the draw on the device that holds the logits: only tokens, signals and alternatives leave it.

On a GPU one kernel measures the signals (:mod:`wrongturn.engines._kernel`) if it agrees with torch; if not, and on any
other device, torch does. Nothing is sorted. The smallest weight in a nucleus is found by bisection over the bits of a
float (non-negative floats order as their bits do), 31 sums over the row; whole tokens of that weight are then counted
out. Sums are float32, as :func:`wrongturn.signals.from_logits` has them for everything but float64.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from wrongturn.engines._measured import Ask, Seen
from wrongturn.signals import FIELDS

_NEVER = -700.0  # as in wrongturn.signals
_BLOCK = 256  # tokens summed up before a draw looks inside

Measured = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Measure = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Measured]


def look(logits: torch.Tensor, ask: Ask) -> Seen:
    """Measure logits [n, V] on any device and draw from them; see :class:`~wrongturn.engines._measured.Seen`."""
    # One copy to the device and one back. Token ids below 2^24 are exact in float32.
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    constants = np.stack([ask.temperature, ask.top_p, ask.chance, ask.nucleus_p, ask.tie_delta])[:, :, None]
    given = torch.from_numpy(constants).to(logits.device, wide)
    temperature, top_p, chance, nucleus_p, tie_delta = given
    peak, log_total, greedy, table = measure(logits, nucleus_p.float(), tie_delta.float())
    tokens = greedy
    if (ask.temperature > 0).any():
        shifted = logits.float() - peak
        weights = (shifted / torch.where(temperature > 0, temperature, 1.0).float()).exp()
        if (ask.top_p < 1).any():
            weights = torch.where(top_p < 1, _nucleus(weights, top_p.float()), weights)
        tokens = torch.where(temperature > 0, _draw(weights, chance, wide), greedy)
    table[:, 0] = (log_total - (logits.gather(1, tokens).float() - peak))[:, 0] + table[:, 4]
    parts = [table, tokens.float()]
    k = min(ask.top_k, logits.shape[1])
    if k:
        values, ids = logits.topk(k, 1)
        parts += [ids.float(), values.float() - peak - log_total]
    found = torch.cat(parts, 1).cpu().numpy()
    width = len(FIELDS)
    top_ids, top_logprobs = (
        np.full((len(found), ask.top_k), -1, np.int32),
        np.full((len(found), ask.top_k), np.nan, "f4"),
    )
    if k:
        listed = found[:, width + 1 + k :] > _NEVER
        top_ids[:, :k][listed] = found[:, width + 1 : width + 1 + k][listed]
        top_logprobs[:, :k][listed] = found[:, width + 1 + k :][listed]
    signals = np.ascontiguousarray(found[:, :width].T)
    return Seen(found[:, width].astype(np.int32), signals, top_ids, top_logprobs)


def measure(logits: torch.Tensor, nucleus_p: torch.Tensor, tie_delta: torch.Tensor) -> Measured:
    """Logits [n, V] measured: their largest, the log of the sum of their weights relative to it, the first such token
    (all [n, 1]) and that token's signals [n, 9].

    ``nucleus_p`` and ``tie_delta`` are [n, 1].
    Another token's nll is the log-sum less its logit relative to the largest.
    """
    fast = None
    if logits.is_cuda and os.environ.get("WRONGTURN_NO_KERNEL") != "1":
        fast = checked_kernel(logits.device, logits.dtype, logits.shape[1])
    return (fast or plain)(logits, nucleus_p, tie_delta)


@cache
def checked_kernel(device: torch.device, dtype: torch.dtype, vocab: int) -> Measure | None:
    """The kernel for such logits, if it says of some random rows what :func:`plain` says; else None and a warning."""
    try:
        from wrongturn.engines import _kernel

        rows = np.random.default_rng(0).normal(size=(7, vocab)) * np.array([[0, 0.5, 2, 5, 15, 2, 2]]).T
        rows[5, : vocab // 2] = -np.inf
        rows[6, vocab // 2] = np.nan
        logits = torch.from_numpy(rows).to(device, dtype)
        constants = torch.full((7, 1), 0.9, device=device), torch.full((7, 1), 0.1, device=device)
        if _agree(_kernel.measure(logits, *constants), plain(logits, *constants), logits):
            return _kernel.measure
        why = "it does not agree with torch"
    except Exception as error:  # a compiler or a driver may raise anything
        why = f"{type(error).__name__}: {error}".splitlines()[0]
    said = f"the kernel for signals is not used on {device} ({why}); torch makes them, more slowly"
    warnings.warn(said, RuntimeWarning, stacklevel=2)
    return None


def _agree(ours: Measured, theirs: Measured, logits: torch.Tensor) -> bool:
    """Whether two measured ``logits`` alike: within 1e-3, and as far as sums of float32 decide a nucleus."""
    best = [logits.float().gather(1, measured[2]) for measured in (ours, theirs)]
    valid = ~theirs[0].isnan()
    tables = [torch.cat([measured[0], measured[1], measured[3]], 1) for measured in (ours, theirs)]
    sizes = [table[:, 8].clone() for table in tables]
    for table in tables:
        table[:, 8] = 0.0
    return bool(
        torch.equal(best[0][valid], best[1][valid])
        and torch.allclose(*tables, rtol=1e-5, atol=1e-3, equal_nan=True)
        and torch.allclose(*sizes, rtol=1e-3, atol=1.0, equal_nan=True)
    )


def plain(logits: torch.Tensor, nucleus_p: torch.Tensor, tie_delta: torch.Tensor) -> Measured:
    """:func:`measure` by torch alone."""
    shifted = logits.float()
    peak = shifted.amax(1, keepdim=True)
    shifted = shifted - peak
    best = shifted.argmax(1, keepdim=True)
    known = shifted.clamp(min=_NEVER)  # keeps 0 * -inf out of the entropy
    weights = known.exp()
    total = weights.sum(1, keepdim=True)
    log_total = total.log()
    entropy = log_total - (weights * known).sum(1, keepdim=True) / total
    near = (shifted >= -tie_delta).sum(1, keepdim=True) - 1
    second = weights.scatter(1, best, 0.0).amax(1, keepdim=True)
    _, heavier, equal = _edge(weights, nucleus_p * total)
    unknown = entropy - entropy  # 0, or NaN where the row is no distribution
    columns = [log_total, entropy, entropy, entropy, unknown, (1.0 - second) / total, heavier + equal, near, near > 0]
    return peak, log_total, best, torch.cat([column + unknown for column in columns], 1)


def _edge(weights: torch.Tensor, needed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where the nucleus that adds up to ``needed`` [n, 1] ends.

    Its smallest weight t, the number of tokens heavier than t, and how many of weight t it takes, all [n, 1].
    """
    bits = weights.view(torch.int32)
    low = torch.zeros_like(needed, dtype=torch.int32)
    high = torch.full_like(low, 0x3F800001)  # just above the bits of 1.0, the largest weight
    for _ in range(31):
        middle = low + (high - low) // 2
        enough = torch.where(bits >= middle, weights, 0.0).sum(1, keepdim=True) >= needed
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    least, heavier = low.view(torch.float32), bits > low
    lacking = needed - torch.where(heavier, weights, 0.0).sum(1, keepdim=True)
    equal = torch.minimum((lacking / least).ceil().clamp(min=1), (bits == low).sum(1, keepdim=True))
    return least, heavier.sum(1, keepdim=True), equal


def _nucleus(weights: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """``weights`` [n, V] without the tokens outside each row's nucleus; of equal ones the first are in it."""
    least, _, taken = _edge(weights, top_p * weights.sum(1, keepdim=True))
    equal = weights == least
    return torch.where((weights > least) | (equal & (equal.cumsum(1) <= taken)), weights, 0.0)


def _draw(weights: torch.Tensor, chance: torch.Tensor, wide: torch.dtype) -> torch.Tensor:
    """Where the cumulative sum of ``weights`` [n, V] reaches ``chance`` [n, 1] of it: first by blocks, then in one."""
    weights = torch.nn.functional.pad(weights, (0, -weights.shape[1] % _BLOCK))
    blocks = weights.view(len(weights), -1, _BLOCK)
    reached = blocks.sum(2, dtype=wide).cumsum(1)
    wanted = chance * reached[:, -1:]
    block = (reached < wanted).sum(1, keepdim=True).clamp(max=reached.shape[1] - 1)
    before = torch.where(block > 0, reached.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, _BLOCK))[:, 0]
    token = (before + inside.to(wide).cumsum(1) < wanted).sum(1, keepdim=True)
    last = torch.where(inside > 0, torch.arange(_BLOCK, device=weights.device), 0).amax(1, keepdim=True)
    return block * _BLOCK + torch.minimum(token, last)  # rounding must not draw a token of weight 0
