"""Strategies side by side: paired per problem, and at equal decoded tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wrongturn import stats
from wrongturn.trace import Trace


def compare(traces: Sequence[Trace], *, baseline: str = "sample", seed: int = 0) -> list[dict[str, Any]]:
    """One row per strategy over the problems that all of them attempted, and to which every answer is graded, votes
    too: ``ungraded`` problems are left out. No row where that leaves none.

    Each row: accuracy (Estimate), mean decoded tokens per problem (all branches), mean ideal prefill tokens, the paired
    difference to ``baseline``, and ``equal_tokens``: the paired difference to self-consistency given the same mean
    number of decoded tokens (:meth:`VoteCurve.at`). None where the strategy spent more than the largest vote that was
    collected; ``beyond_votes`` is then what that vote cost. ``oracle:any`` counts a problem as solved where any
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
    attempted = sorted(set.intersection(*(set(found) for found in chosen.values())))
    problems = [p for p in attempted if _graded([*(found[p] for found in chosen.values()), *votes[p]])]
    if not problems:
        return []
    ungraded = len(attempted) - len(problems)
    right = {name: _bools(found[p].correct for p in problems) for name, found in chosen.items()}
    curve = vote_curve([votes[p] for p in problems]) if all(votes[p] for p in problems) else None
    rows = []
    for name, found in sorted(chosen.items(), key=lambda item: (item[0] != baseline, item[0])):
        tokens = float(np.mean([found[p].usage.decoded for p in problems]))
        rival = beyond = None
        if curve is not None and name != baseline and not name.startswith("self_consistency"):
            rival = curve.at(tokens)
            beyond = float(curve.tokens[-1]) if rival is None else None
        rows.append(
            {
                "strategy": name,
                "accuracy": stats.proportion(int(right[name].sum()), len(problems)).dict(),
                "decoded_tokens": tokens,
                "prompt_tokens": float(np.mean([found[p].usage.ideal for p in problems])),
                "difference": None if name == baseline else stats.difference(right[name], right[baseline]).dict(),
                "equal_tokens": None
                if rival is None
                else stats.paired_bootstrap(right[name].astype(float), rival, seed=seed).dict(),
                "beyond_votes": beyond,
                "answered": float(np.mean([found[p].answer is not None for p in problems])),
                "ungraded": ungraded,
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
                "beyond_votes": None,
                "answered": None,
                "ungraded": ungraded,
            }
        )
    return rows


class VoteCurve:
    """Self-consistency by vote size: ``tokens`` [n] mean decoded tokens, ``right`` [n, problems] success."""

    def __init__(self, tokens: np.ndarray, right: np.ndarray) -> None:
        self.tokens, self.right = tokens, right

    def at(self, tokens: float) -> np.ndarray | None:
        """[problems] success where the mean cost is ``tokens``: a mixture of the two nearest vote sizes.

        None above the largest vote, where nothing is known. Below one sample it is one sample, the least there is: a
        rival that cost more, so that what is gained over it is gained.
        """
        if tokens > self.tokens[-1]:
            return None
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


def _graded(traces: Iterable[Trace]) -> bool:
    return all(trace.correct is not None for trace in traces)


def _bools(values: Any) -> np.ndarray:
    return np.array([bool(v) for v in values])


def outcomes(traces: Iterable[Trace]) -> dict[str, dict[str, int]]:
    """What became of the plain samples (``wrongturn.trace.OUTCOMES``), counted by group."""
    counts: dict[str, Counter[str]] = {}
    for trace in traces:
        if trace.strategy == "sample":
            counts.setdefault(trace.group, Counter())[trace.outcome] += 1
    return {group: dict(counts[group]) for group in sorted(counts)}
