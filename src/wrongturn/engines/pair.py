"""A model and its ancestor along given tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from wrongturn.divergence import Divergence, Lists, from_lists
from wrongturn.engines.base import Engine
from wrongturn.errors import EngineError
from wrongturn.trace import Ids, Trace

EXACT = 4096
"""Vocabularies up to this are compared whole, larger ones by their ``LISTED`` most probable tokens."""
LISTED = 100
_BATCH = 32


async def diverge(specialist: Engine, ancestor: Engine, prefix: Ids, start: int, temperature: float) -> Divergence:
    """How two engines of one vocabulary differ at ``prefix[start:]``, at a temperature above 0: one prefill by each."""
    vocab = specialist.capabilities.vocab_size
    if vocab is None:
        raise EngineError(f"{specialist.name}:{specialist.model} does not say how large its vocabulary is", fatal=True)
    k = vocab if vocab <= EXACT else LISTED
    ours, theirs = await asyncio.gather(*(engine.score(prefix, start, top_k=k) for engine in (specialist, ancestor)))
    listed = [Lists(said.top_ids, said.top_logprobs, said.signals.nll) for said in (ours, theirs)]
    return from_lists(listed[0], listed[1], vocab, temperature=temperature)


async def divergences(
    specialist: Engine,
    ancestor: Engine,
    traces: Sequence[Trace],
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    *,
    temperature: float,
) -> dict[str, Divergence]:
    """:func:`diverge` along the completions of finished traces, by trace id."""
    found: dict[str, Divergence] = {}
    for first in range(0, len(traces), _BATCH):
        part = traces[first : first + _BATCH]
        whole = [(np.concatenate((trace.prompt_ids, trace.ids)), len(trace.prompt_ids)) for trace in part]
        scored = await asyncio.gather(*(diverge(specialist, ancestor, *known, temperature) for known in whole))
        found |= {trace.id: known for trace, known in zip(part, scored, strict=True)}
        progress("scoring", len(found), len(traces))
    return found
