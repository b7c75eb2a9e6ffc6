"""Strategies side by side: paired per problem, and at equal decoded tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wrongturn import stats
from wrongturn.trace import Trace


def compare(traces: Sequence[Trace], *, baseline: str = "sample", seed: int = 0) -> list[dict[str, Any]]:
    """One row per strategy over the problems that all of them attempted.

    Each row: accuracy (Estimate), mean decoded tokens per problem (all branches), mean ideal prefill tokens, the paired
    difference to ``baseline``, and ``equal_tokens``: the paired difference to self-consistency given the same mean
    number of decoded tokens (a mixture of vote sizes n and n + 1). ``oracle:any`` counts a problem as solved where any
    of its self-consistency samples is right: an upper bound that no strategy reaches without knowing the answer.
    """
    chosen: dict[str, dict[str, Trace]] = defaultdict(dict)
    votes: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        if trace.strategy.startswith("resample:"):
            continue
        if trace.usage.decoded and trace.sample == 0:
            chosen[trace.strategy][trace.problem] = trace
        if trace.strategy.startswith("self_consistency"):
            votes[trace.problem].append(trace)
    if baseline not in chosen:
        return []
    problems = sorted(set.intersection(*(set(found) for found in chosen.values())))
    if not problems:
        return []
    right = {name: _bools(found[p].correct for p in problems) for name, found in chosen.items()}
    curve = vote_curve([votes[p] for p in problems]) if all(votes[p] for p in problems) else None
    rows = []
    for name, found in sorted(chosen.items(), key=lambda item: (item[0] != baseline, item[0])):
        tokens = np.array([found[p].usage.decoded for p in problems], float)
        rows.append(
            {
                "strategy": name,
                "accuracy": stats.proportion(int(right[name].sum()), len(problems)).dict(),
                "decoded_tokens": float(tokens.mean()),
                "prompt_tokens": float(np.mean([found[p].usage.ideal for p in problems])),
                "difference": None if name == baseline else stats.difference(right[name], right[baseline]).dict(),
                "equal_tokens": _against_votes(right[name], tokens, curve, seed)
                if name != baseline and not name.startswith("self_consistency")
                else None,
                "answered": float(np.mean([found[p].answer is not None for p in problems])),
            }
        )
    if curve is not None:
        anyone = _bools(any(t.correct for t in votes[p]) for p in problems)
        rows.append(
            {
                "strategy": "oracle:any",
                "accuracy": stats.proportion(int(anyone.sum()), len(problems)).dict(),
                "decoded_tokens": float(curve.tokens[-1]),
                "prompt_tokens": None,
                "difference": stats.difference(anyone, right[baseline]).dict(),
                "equal_tokens": None,
                "answered": None,
            }
        )
    return rows


class VoteCurve:
    """Self-consistency by vote size: ``tokens`` [n] mean decoded tokens, ``right`` [n, problems] success."""

    def __init__(self, tokens: np.ndarray, right: np.ndarray) -> None:
        self.tokens, self.right = tokens, right

    def at(self, tokens: float) -> np.ndarray:
        """[problems] success where the mean cost is ``tokens``: a mixture of the two nearest vote sizes."""
        sizes = np.interp(tokens, self.tokens, np.arange(len(self.tokens)))
        low = int(sizes)
        high = min(low + 1, len(self.tokens) - 1)
        return (1 - (sizes - low)) * self.right[low] + (sizes - low) * self.right[high]


def vote_curve(samples: Sequence[Sequence[Trace]]) -> VoteCurve:
    """Majority votes of the first 1, 2, … samples of each problem (in the order they were drawn)."""
    ordered = [sorted(traces, key=lambda t: t.draft) for traces in samples]
    most = min(len(traces) for traces in ordered)
    right, tokens = np.zeros((most, len(ordered))), np.zeros((most, len(ordered)))
    for j, traces in enumerate(ordered):
        ballots: Counter[str] = Counter()
        for n, trace in enumerate(traces[:most]):
            if trace.answer is not None:
                ballots[trace.answer] += 1
            winner = max(ballots, key=ballots.__getitem__) if ballots else None
            right[n, j] = any(t.answer == winner and t.correct for t in traces[: n + 1])
            tokens[n, j] = sum(len(t) for t in traces[: n + 1])
    return VoteCurve(tokens.mean(axis=1), right)


def _against_votes(right: np.ndarray, tokens: np.ndarray, curve: VoteCurve | None, seed: int) -> dict[str, Any] | None:
    if curve is None:
        return None
    return stats.paired_bootstrap(right.astype(float), curve.at(float(tokens.mean())), seed=seed).dict()


def _bools(values: Any) -> np.ndarray:
    return np.array([bool(v) for v in values])


def outcomes(traces: Iterable[Trace]) -> dict[str, dict[str, int]]:
    """What became of the plain samples (``wrongturn.trace.OUTCOMES``), counted by group."""
    counts: dict[str, Counter[str]] = {}
    for trace in traces:
        if trace.strategy == "sample":
            counts.setdefault(trace.group, Counter())[trace.outcome] += 1
    return {group: dict(counts[group]) for group in sorted(counts)}
