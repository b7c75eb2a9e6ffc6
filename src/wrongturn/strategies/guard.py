"""GUARD (arXiv 2604.14528): branch where a step begins more uncertain than the trace's past, keep the calmest."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from wrongturn.strategies.base import Context, Draft
from wrongturn.strategies.conditions import HISTORIES, AnyOf, Spike, Wrote
from wrongturn.strategies.named import Between, Count, OneOf, Share, strategy
from wrongturn.triggers import RULES

BRANCHES = (
    ("momentum", "", 0.0),
    ("inhibitory", "Wait,", 0.6),
    ("counterfactual", "Let me reconsider:", 1.5),
)
"""(name, cue, temperature). The published code's temperatures; a vocabulary without words cannot say the cues, and the
branches then differ by temperature alone."""


@strategy
async def guard(
    ctx: Context,
    q: Share = 0.9,
    width: Annotated[int, Between(1, len(BRANCHES))] = 3,
    horizon: Count = 200,
    compat: Annotated[str, OneOf(RULES)] = "paper",
    history: Annotated[str, OneOf(HISTORIES)] = "boundaries",
    min_history: Count = 1,
    late: Share = 0.2,
    max_triggers: Count = 16,
) -> Draft:
    """Decode; at each entropy spike try ``width`` short continuations of ``horizon`` tokens, go on with the calmest.

    ``compat`` picks the trigger rule: "paper" (strict past, interpolated) or "repo" (the published code, which needs 11
    boundaries before it can fire and 200 tokens left). Once no more than ``late`` of the capacity is left, a hesitation
    marker is replaced by the end of thinking. ``max_triggers`` bounds the branching; it is not part of the method.
    Raises a fatal ``EngineError`` where the engine's logprobs are not raw.
    """
    ctx.require_logprobs(raw=True)
    spike = Spike(q, ctx.boundaries, compat, min_history, history)
    hesitation, stop_thinking = ctx.encode("Wait"), ctx.encode("</think>")
    wait = Wrote(tuple(hesitation)) if len(hesitation) == 1 and stop_thinking else None
    until = spike if wait is None else AnyOf((spike, wait))
    trace, triggers = ctx.start(), 0
    while await ctx.decode(trace, until=until if triggers < max_triggers else wait):
        if wait is not None and trace.ids[-1] in hesitation:
            if ctx.max_tokens - len(trace) <= late * ctx.max_tokens:
                ctx.cut(trace, len(trace) - 1)
                ctx.write(trace, stop_thinking)
            continue
        if compat == "repo" and ctx.max_tokens - len(trace) <= 200:
            triggers = max_triggers
            continue
        branches = await ctx.gather(
            ctx.fork(trace, inject=ctx.encode(cue), max_tokens=horizon, temperature=temperature, reason=name)
            for name, cue, temperature in BRANCHES[:width]
        )
        best = min(branches, key=mean_entropy)
        ctx.log("spike", at=len(trace), entropy=spike_entropy(trace), chosen=best.reason, draft=best.number)
        trace, triggers = best, triggers + 1
    return trace


def spike_entropy(trace: Draft) -> float | None:
    """Entropy (nats) of the distribution that stopped the trace."""
    return float(trace.pending.entropy[0]) if trace.pending is not None else None


def mean_entropy(branch: Draft) -> float:
    """Mean token entropy (nats) of what was decoded since the fork; infinite where nothing was."""
    entropy = branch.branch.entropy
    return float(np.nanmean(entropy)) if not np.all(np.isnan(entropy)) else float("inf")
