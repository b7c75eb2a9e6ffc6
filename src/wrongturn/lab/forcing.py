"""Accuracy by teacher forcing: during a training of a search whose right trace is unique, cheaply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import torch

from wrongturn.lab.model import Reasoner
from wrongturn.tasks import graphs as gs

Gold = Callable[[gs.Query], list[int]]
"""The one right trace of a query."""


def exact_trace(
    model: Reasoner, distribution: str, n: int = 256, seed: int = 1, gold: Gold = gs.gold
) -> dict[str, float]:
    """:func:`forced` on ``n`` queries of a distribution."""
    return forced(model, list(islice(gs.Distribution.parse(distribution).queries(seed), n)), gold)


def token_roles(trace: list[int]) -> list[str]:
    """What each token of a gold trace decides: node, neighbour, separator, close, back, path or grammar."""
    roles, phase = [], "node"
    for token in trace:
        label = gs.FIRST_LABEL <= token < gs.FIRST_LABEL + gs.LABELS
        if label:
            roles.append(phase)
        elif phase == "neighbour" and token in (gs.COMMA, gs.NEXT, gs.FOUND):
            roles.append("separator" if token == gs.COMMA else "close")
        else:
            roles.append("grammar")
        phase = {gs.LIST: "neighbour", gs.NEXT: "node", gs.FOUND: "back", gs.DONE: "path"}.get(token, phase)
    return roles


@torch.no_grad()
def forced(
    model: Reasoner,
    queries: Sequence[gs.Query],
    gold: Gold = gs.gold,
    roles: Callable[[list[int]], list[str]] = token_roles,
) -> dict[str, float]:
    """Greedy exact-trace accuracy, and token accuracy by what the token decides (``roles`` names it for each).

    Greedy decoding writes the gold trace iff every gold token is the arg-max given the gold prefix: one forward pass.
    """
    device = model.embed.weight.device
    right = 0
    hits: dict[str, list[float]] = {}
    for begun in range(0, len(queries), 64):
        rows = [(gs.prompt_ids(q), gold(q)) for q in queries[begun : begun + 64]]
        longest = max(len(p) + len(t) for p, t in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for r, (prompt, trace) in enumerate(rows):
            ids[r, : len(prompt) + len(trace)] = torch.tensor(prompt + trace)
        best = model(ids[:, :-1].to(device)).argmax(-1).cpu()
        for r, (prompt, trace) in enumerate(rows):
            ok = (best[r, len(prompt) - 1 : len(prompt) + len(trace) - 1] == torch.tensor(trace)).tolist()
            right += all(ok)
            for name, hit in zip(roles(trace), ok, strict=True):
                hits.setdefault(name, []).append(hit)
    return {"exact": right / len(queries)} | {name: float(np.mean(h)) for name, h in sorted(hits.items())}
