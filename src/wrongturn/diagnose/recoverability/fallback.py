"""Features of failed traces without an ancestor, and without a verifier: what the failures themselves tell.

Per trace (then the mean over a problem's failed ones), from token entropies h of L tokens:

===================== ==============================================================================================
entropy               mean h, in nats
entropy_spread        (sum h)^2 / (L sum h^2), from 1/L (one uncertain token) to 1 (all alike)
entropy_concentration log10(max h / mean h); at most log10 L
peak_entropy          max h, and ``peak``: where it is, from 0 to 1
===================== ==============================================================================================

Per problem, from its failed traces together; NaN where it has one only:

===================== ==============================================================================================
answer_entropy        of their answers, with Miller & Madow's correction, over the log of their number
top_answer            share of the most frequent answer
agreement             area under A(i): mean over pairs of the share of the shorter one that both begin with
branch_entropy        mean h where the first two of them part
tokens_cv             standard deviation of L over its mean
===================== ==============================================================================================

From continuations of a failed trace (``wrongturn locate``), with V(i) the share of right ones after i steps, made to
fall (isotonic regression) and even between cuts, and d its drops: ``spread_bb`` (sum d)^2 / (S sum d^2) over S steps,
``concentration_bb`` log10(max d / mean d). These two know the reference answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.recoverability.designs import Rollout, Spans
from wrongturn.trace import Trace

Array = NDArray[np.float64]

PER_TRACE = ("tokens", "entropy", "entropy_spread", "entropy_concentration", "peak_entropy", "peak")
TOGETHER = ("answer_entropy", "top_answer", "agreement", "branch_entropy", "tokens_cv")
ROLLED = ("spread_bb", "concentration_bb")
SHAPE = ("entropy_spread", "entropy_concentration", "entropy")
"""The three that stand in for the published ones."""
_PAIRS = 32  # traces of a problem compared pairwise: 496 pairs


def of_trace(trace: Trace) -> dict[str, float]:
    """The features of one trace, all NaN but ``tokens`` where its entropies are not known."""
    entropy = np.asarray(trace.signals.entropy, np.float64)
    known = np.flatnonzero(~np.isnan(entropy))
    found: dict[str, float] = dict.fromkeys(PER_TRACE, math.nan) | {"tokens": float(len(trace))}
    h = entropy[known]
    if len(h) and h.max() > 0:
        found |= {
            "entropy_spread": float(h.sum() ** 2 / (len(h) * (h * h).sum())),
            "entropy_concentration": math.log10(h.max() / h.mean()),
        }
    if len(h):
        peak = int(known[h.argmax()])
        found |= {"entropy": float(h.mean()), "peak_entropy": float(h.max())}
        found["peak"] = peak / (len(entropy) - 1) if len(entropy) > 1 else math.nan
    return found


def of_problem(traces: Sequence[Trace]) -> dict[str, float]:
    """What several failed traces of one problem tell together."""
    found: dict[str, float] = dict.fromkeys(TOGETHER, math.nan)
    answers = [trace.answer for trace in traces if trace.answer is not None]
    if len(answers) > 1:
        found |= {"answer_entropy": answer_entropy(answers), "top_answer": _top(answers)}
    if len(traces) < 2:
        return found
    length = np.array([len(trace) for trace in traces], np.float64)
    found["tokens_cv"] = float(length.std(ddof=1) / length.mean())
    texts = [_sequence(trace) for trace in traces[:_PAIRS]]
    shared = [(_common(a, b), min(len(a), len(b))) for a, b in combinations(texts, 2)]
    found["agreement"] = float(np.mean([same / shorter for same, shorter in shared if shorter]))
    ids = [trace.ids for trace in traces[:_PAIRS] if (trace.ids >= 0).all()]
    if len(ids) == len(texts):
        at = min(same for same, _ in shared)
        here = [float(trace.signals.entropy[at]) for trace in traces[:_PAIRS] if at < len(trace)]
        here = [value for value in here if not math.isnan(value)]
        found["branch_entropy"] = float(np.mean(here)) if here else math.nan
    return found


def answer_entropy(answers: Sequence[str]) -> float:
    """Entropy of n answers plus (kinds - 1) / 2n (Miller & Madow 1955), over log n; at most 1."""
    n, counts = len(answers), np.array(list(Counter(answers).values()), np.float64)
    p = counts / n
    return float(min((-(p * np.log(p)).sum() + (len(counts) - 1) / (2 * n)) / math.log(n), 1.0))


def of_rollouts(rollouts: Sequence[Rollout], spans: Spans) -> dict[str, float]:
    """``spread_bb`` and ``concentration_bb`` of a failed trace with these steps; NaN without a cut or a success."""
    found: dict[str, float] = dict.fromkeys(ROLLED, math.nan)
    cuts = sorted({rollout.at for rollout in rollouts})
    if not cuts or len(spans) < 2:
        return found
    right = np.array([sum(r.right for r in rollouts if r.at == cut) for cut in cuts], np.float64)
    tries = np.array([sum(r.at == cut for r in rollouts) for cut in cuts], np.float64)
    value = falling(right / tries, tries)
    length = int(spans[-1, 1])
    places, values = np.append(cuts, length), np.append(value, 0.0)  # the trace itself failed
    at_steps = np.interp(np.append(spans[:, 0], length), places, values)
    drops = np.maximum(-np.diff(at_steps), 0.0)
    if drops.sum() <= 0:
        return found
    found["spread_bb"] = float(drops.sum() ** 2 / (len(drops) * (drops * drops).sum()))
    found["concentration_bb"] = math.log10(float(drops.max() / drops.mean()))
    return found


def falling(values: Array, weights: Array) -> Array:
    """The nearest sequence that never rises (pool adjacent violators; Ayer et al. 1955)."""
    pools: list[list[float]] = []  # mean, weight, members
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append([value, weight, 1])
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            mean, w, n = pools.pop()
            total = pools[-1][1] + w
            pools[-1] = [(pools[-1][0] * pools[-1][1] + mean * w) / total, total, pools[-1][2] + n]
    return np.repeat([pool[0] for pool in pools], [int(pool[2]) for pool in pools])


def _top(answers: Sequence[str]) -> float:
    return Counter(answers).most_common(1)[0][1] / len(answers)


def _sequence(trace: Trace) -> NDArray[np.integer]:
    """Its tokens, or where not all are known the characters of its text."""
    if (trace.ids >= 0).all():
        return trace.ids
    return np.frombuffer(trace.text.encode("utf-32-le"), np.uint32)


def _common(a: NDArray[np.integer], b: NDArray[np.integer]) -> int:
    """Length of the common beginning."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
