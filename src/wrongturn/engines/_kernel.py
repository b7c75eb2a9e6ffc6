"""The signals of logits on a GPU in one Triton kernel: most rows are read once, those with a wide nucleus a few times.

One program measures one row. Token i belongs to lane i modulo ``LANES``, and every lane keeps the two largest logits it
has seen. All tokens above the largest of the second ones are then known: some eighty in a vocabulary of 151,936. A
nucleus among them is found without another look at the row. A wider one is closed in by passes over the row that sum
the weights above ``CUTS`` thresholds at once.

Triton is not a dependency: torch's builds for GPUs bring it.
"""

# Triton compiles the kernel; Python's types are not its types.
# pyright: reportMissingImports=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

_FAR = tl.constexpr(700.0)  # as _NEVER in wrongturn.signals
_COLUMNS = tl.constexpr(12)
_LANES, _CUTS, _WARPS = 4096, 16, 16


def measure(
    logits: torch.Tensor, nucleus_p: torch.Tensor, tie_delta: torch.Tensor, lanes: int = _LANES
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What :func:`wrongturn.engines._device_signals.plain` says of logits [n, V] of any floating type and strides."""
    n, vocab = logits.shape
    found = torch.empty((n, _COLUMNS.value), dtype=torch.float32, device=logits.device)
    constants = nucleus_p.float().contiguous(), tie_delta.float().contiguous()
    options = {"num_warps": _WARPS, "enable_fp_fusion": True}  # fusion is about to lose its default, with a warning
    with torch.cuda.device_of(logits):
        _measure[(n,)](logits, *constants, found, vocab, *logits.stride(), LANES=lanes, CUTS=_CUTS, **options)
    return found[:, 9:10], found[:, 10:11], found[:, 11:].long(), found[:, :9]


@triton.jit
def _measure(
    logits, nucleus_p, tie_delta, found, vocab, row_stride, stride, LANES: tl.constexpr, CUTS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    p, delta = tl.load(nucleus_p + row), tl.load(tie_delta + row)
    lane = tl.arange(0, LANES)

    # The first pass. Each lane keeps sums relative to its own largest logit: total of e, and moment of e * ln e.
    # A row that holds a NaN or +inf is found out by ``broken``; whatever else is computed of it is thrown away.
    top = tl.full([LANES], float("-inf"), tl.float32)
    second = tl.full([LANES], float("-inf"), tl.float32)
    total = tl.zeros([LANES], tl.float32)
    moment = tl.zeros([LANES], tl.float32)
    best = tl.zeros([LANES], tl.int32)
    broken = tl.zeros([LANES], tl.int32)
    for first in range(0, vocab, LANES):
        at = first + lane
        x = tl.load(logits + at.to(tl.int64) * stride, mask=at < vocab, other=float("-inf")).to(tl.float32)
        broken += ((x != x) | (x == float("inf"))).to(tl.int32)
        higher = x > top
        apart = x - top  # NaN where both are -inf; no comparison lets it pass
        apart = tl.where(higher, tl.where(apart < _FAR, apart, _FAR), tl.where(apart > -_FAR, apart, -_FAR))
        e = tl.exp(-tl.abs(apart))
        moment = tl.where(higher, (moment - total * apart) * e, moment + e * apart)
        total = tl.where(higher, total * e + 1.0, total + e)
        second = tl.where(higher, top, tl.where(x > second, x, second))
        best = tl.where(higher, at, best)
        top = tl.where(higher, x, top)
    peak = tl.max(top, 0)
    valid = (tl.sum(broken, 0) == 0) & (peak > float("-inf"))
    top -= peak
    weights = tl.where(top > -_FAR, tl.exp(top), 0.0)
    moments = tl.sum(tl.where(weights > 0.0, (moment + total * top) * weights, 0.0), 0)
    sums = tl.sum(tl.where(weights > 0.0, total * weights, 0.0), 0)
    greedy = tl.min(tl.where(top == 0.0, best, vocab), 0)
    unseen = tl.max(second, 0) - peak  # no token above it is missing from top
    rival = tl.maximum(unseen, tl.max(tl.where(best == greedy, float("-inf"), top), 0))
    known = top > unseen

    near = tl.sum((top >= -delta).to(tl.int32), 0)
    if valid & (unseen >= -delta):
        counts = tl.zeros([LANES], tl.int32)
        for first in range(0, vocab, LANES):
            at = first + lane
            x = tl.load(logits + at.to(tl.int64) * stride, mask=at < vocab, other=float("-inf")).to(tl.float32)
            counts += (x - peak >= -delta).to(tl.int32)
        near = tl.sum(counts, 0)

    needed = p * sums
    above = tl.sum(tl.where(known, weights, 0.0), 0)  # weight of the tokens surely in the nucleus, and their number
    size = tl.sum(known.to(tl.int32), 0)
    if (above >= needed) | (unseen < -_FAR):
        bits = tl.where(known, weights, 0.0).to(tl.int32, bitcast=True)
        low = 0
        high = 0x3F800001  # just above the bits of 1.0, the largest weight
        for _ in range(31):
            middle = low + (high - low) // 2
            enough = tl.sum(tl.where(bits >= middle, weights, 0.0), 0) >= tl.minimum(needed, above)
            low = tl.where(enough, middle, low)
            high = tl.where(enough, high, middle)
        least = tl.max(tl.where(bits == low, weights, 0.0), 0)
        lacking = needed - tl.sum(tl.where(bits > low, weights, 0.0), 0)
        equal = tl.maximum(tl.minimum(tl.ceil(lacking / least), tl.sum((bits == low).to(tl.float32), 0)), 1.0)
        size = tl.sum((bits > low).to(tl.int32), 0) + equal.to(tl.int32)
    elif valid:
        # V tokens below (1 - p) sums / V cannot add up to what the nucleus leaves out, so none of them is in it.
        ceiling = unseen
        floor = tl.minimum(tl.log(tl.maximum(1.0 - p, 1e-8) * sums / vocab) - 0.01, ceiling - 1.0)
        inside = 0.0
        count = 0
        passes = 0
        unsettled = passes == 0
        cut = tl.arange(0, CUTS)
        part = tl.arange(0, LANES // 4)
        while unsettled:
            # The nucleus ends in (floor, ceiling]; the last threshold is the floor.
            width = (ceiling - floor) / CUTS
            cuts = tl.where(cut == CUTS - 1, floor, ceiling - width * (cut + 1).to(tl.float32))
            mass = tl.zeros([LANES // 4, CUTS], tl.float32)
            number = tl.zeros([LANES // 4, CUTS], tl.int32)
            heaviest = tl.full([LANES // 4], float("-inf"), tl.float32)
            lightest = tl.full([LANES // 4], float("inf"), tl.float32)
            for first in range(0, vocab, LANES):
                for quarter in tl.static_range(4):  # independent loads, in flight together
                    at = first + quarter * (LANES // 4) + part
                    x = tl.load(logits + at.to(tl.int64) * stride, mask=at < vocab, other=float("-inf"))
                    x = x.to(tl.float32) - peak
                    among = (x > floor) & (x <= ceiling)
                    heaviest = tl.where(among & (x > heaviest), x, heaviest)
                    lightest = tl.where(among & (x < lightest), x, lightest)
                    heavy = among[:, None] & (x[:, None] > cuts[None, :])
                    mass += tl.where(heavy, tl.exp(x)[:, None], 0.0)
                    number += heavy.to(tl.int32)
            masses = tl.sum(mass, 0)
            numbers = tl.sum(number, 0)
            crossing = tl.minimum(tl.sum((above + masses < needed).to(tl.int32), 0), CUTS - 1)
            mass_before = tl.sum(tl.where(cut == crossing - 1, masses, 0.0), 0)
            number_before = tl.sum(tl.where(cut == crossing - 1, numbers, 0), 0)
            inside = tl.sum(tl.where(cut == crossing, masses, 0.0), 0) - mass_before
            count = tl.sum(tl.where(cut == crossing, numbers, 0), 0) - number_before
            above += mass_before
            size += number_before
            ceiling = tl.where(crossing > 0, tl.sum(tl.where(cut == crossing - 1, cuts, 0.0), 0), ceiling)
            floor = tl.sum(tl.where(cut == crossing, cuts, 0.0), 0)
            # Done where the tokens inside weigh the same, as far as float32 tells: all are one logit, or all within
            # (ceiling - floor) nats, which moves no more weight than rounding does.
            passes += 1
            apart = tl.max(heaviest, 0) > tl.min(lightest, 0)
            unsettled = apart & (count > 1) & ((ceiling - floor) * inside > 1e-7 * sums) & (passes < 8)
        some = tl.ceil((needed - above) * count.to(tl.float32) / tl.maximum(inside, 1e-30)).to(tl.int32)
        size += tl.minimum(tl.maximum(some, 1), count)

    nothing = tl.where(valid, 0.0, float("nan"))
    log_sum = tl.log(sums)
    entropy = log_sum - moments / sums
    found += row * _COLUMNS
    tl.store(found, log_sum + nothing)  # of the most probable token
    tl.store(found + 1, entropy + nothing)
    tl.store(found + 2, entropy + nothing)
    tl.store(found + 3, entropy + nothing)
    tl.store(found + 4, nothing)
    tl.store(found + 5, (1.0 - tl.exp(rival)) / sums + nothing)
    tl.store(found + 6, size.to(tl.float32) + nothing)
    tl.store(found + 7, (near - 1).to(tl.float32) + nothing)
    tl.store(found + 8, (near > 1).to(tl.float32) + nothing)
    tl.store(found + 9, peak + nothing)
    tl.store(found + 10, log_sum + nothing)
    tl.store(found + 11, tl.where(valid, greedy, 0).to(tl.float32))
