"""Accuracy by teacher forcing: during a training, cheaply."""

from __future__ import annotations

import numpy as np
import torch

from wrongturn.lab.model import Reasoner
from wrongturn.tasks import graphs as gs


@torch.no_grad()
def exact_trace(model: Reasoner, distribution: str, n: int = 256, seed: int = 1) -> dict[str, float]:
    """Greedy exact-trace accuracy, and token accuracy by what the token decides.

    Greedy decoding writes the gold trace iff every gold token is the arg-max given the gold prefix: one forward pass.
    """
    stream = gs.Distribution.parse(distribution).queries(seed)
    device = model.embed.weight.device
    right = 0
    hits: dict[str, list[float]] = {}
    for begun in range(0, n, 64):
        queries = [next(stream) for _ in range(min(64, n - begun))]
        rows = [(gs.prompt_ids(q), gs.gold(q)) for q in queries]
        longest = max(len(p) + len(t) for p, t in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for r, (prompt, trace) in enumerate(rows):
            ids[r, : len(prompt) + len(trace)] = torch.tensor(prompt + trace)
        best = model(ids[:, :-1].to(device)).argmax(-1).cpu()
        for r, (prompt, trace) in enumerate(rows):
            ok = (best[r, len(prompt) - 1 : len(prompt) + len(trace) - 1] == torch.tensor(trace)).tolist()
            right += all(ok)
            for name, hit in zip(token_roles(trace), ok, strict=True):
                hits.setdefault(name, []).append(hit)
    return {"exact": right / n} | {name: float(np.mean(h)) for name, h in sorted(hits.items())}


def token_roles(trace: list[int]) -> list[str]:
    """What each token of a gold trace decides: node, neighbour, separator, stop, back, path or grammar."""
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
