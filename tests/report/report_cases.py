"""Made-up runs to write reports of: correct searches, some of them corrupted and judged by the real checker."""

from __future__ import annotations

import random

import numpy as np

from wrongturn.signals import Signals
from wrongturn.tasks import graphs
from wrongturn.trace import Lineage, Problem, Trace, Usage

TASK = graphs.GraphSearch()
GROUPS = ("G10_2,3", "G15_2,4", "G20_4,6")


def problems(n: int, seed: int = 0) -> list[Problem]:
    per = -(-n // len(GROUPS))
    return [p for group in GROUPS for p in TASK.problems(group, per, seed)][:n]


def signals(rng: np.random.Generator, n: int, onset: int | None = None) -> tuple[np.ndarray, Signals]:
    """Mostly sure, now and then not, and unsure at the onset. Also the chance of the chosen token."""
    entropy = rng.gamma(0.25, 0.35, n)
    if onset is not None and 0 <= onset < n:
        entropy[onset] = rng.uniform(0.6, 1.4)
        entropy[onset:] *= 1.5
    p = np.clip(1.0 - entropy / 2.2, 0.05, 0.9999)
    margin = np.clip(2 * p - 1, 0.0, 1.0)
    fork = (margin < 0.15).astype(float)
    known = {"nll": -np.log(p), "entropy": entropy, "entropy_low": entropy, "entropy_high": entropy}
    return p, Signals.from_dict({**known, "margin": margin, "missing": 0 * p, "near_tie": fork, "fork": fork})


def trace(problem: Problem, ids: list[int], name: str, rng: np.random.Generator, **more) -> Trace:
    """A trace of these tokens, checked and graded, with made-up signals and three alternatives a token."""
    check = TASK.check(problem, ids)
    n = len(ids)
    p, known = signals(rng, n, check.index)
    top = np.stack([ids, rng.integers(3, 31, n), rng.integers(3, 31, n)], axis=1).astype(np.int32)
    rest = rng.uniform(0.5, 1.0, n)
    chances = np.stack([p, (1 - p) * rest, (1 - p) * (1 - rest)], axis=1)
    answer = TASK.answer(ids)
    given = dict(usage=Usage(kept=n), provenance={"engine": "embedded", "model": "graph-small-1", "seed": 7})
    return Trace(
        id=name,
        problem=problem.id,
        task=problem.task,
        prompt_ids=np.array(problem.prompt_ids, np.int32),
        ids=np.array(ids, np.int32),
        signals=known,
        finish="stop" if ids and ids[-1] == graphs.EOS else "length",
        group=problem.group,
        answer=answer,
        correct=TASK.grade(problem, answer),
        onset=check.index,
        error=check.error,
        top_ids=top,
        top_logprobs=np.log(np.maximum(chances, 1e-9)).astype(np.float32),
        **{**given, **more},
    )


def corrupted(problem: Problem, rng: random.Random) -> list[int]:
    """The correct completion with one node name replaced, somewhere early more often than late."""
    ids = graphs.gold(graphs.parse_prompt(problem.prompt_ids))
    names = [i for i, token in enumerate(ids) if graphs.FIRST_LABEL <= token < graphs.FIRST_LABEL + graphs.LABELS]
    at = names[int(len(names) * rng.random() ** 1.5)]
    ids[at] = graphs.FIRST_LABEL + (ids[at] - graphs.FIRST_LABEL + rng.randint(1, 19)) % graphs.LABELS
    if rng.random() < 0.7:  # what follows goes wrong with it
        for i in names:
            if i > at and rng.random() < 0.15:
                ids[i] = graphs.FIRST_LABEL + rng.randrange(graphs.LABELS)
    return ids[: at + rng.randint(1, 40)] if rng.random() < 0.05 else ids


def run(n_problems: int, samples: int = 1, seed: int = 0) -> tuple[list[Trace], dict[str, Problem]]:
    """Samples of problems, about a third corrupted; every tenth of those has a fork that was rescued by guard."""
    rng, draws = random.Random(seed), np.random.default_rng(seed)
    asked, traces = problems(n_problems, seed), []
    for problem in asked:
        gold = graphs.gold(graphs.parse_prompt(problem.prompt_ids))
        for sample in range(samples):
            ids = corrupted(problem, rng) if rng.random() < 0.35 else gold
            made = trace(problem, ids, f"{problem.id}-{sample}", draws, sample=sample)
            traces.append(made)
            if made.correct is False and made.onset > 4 and rng.random() < 0.1:
                ends = np.flatnonzero(TASK.boundaries(made.ids[: made.onset]))
                at = int(ends[-1]) + 1 if len(ends) else 0
                child = trace(problem, gold, f"{made.id}-guard", draws, sample=sample, strategy="guard:q=0.9")
                child.lineage = Lineage(made.id, at, "counterfactual")
                child.events = [{"event": "spike", "at": at, "entropy": 0.91, "chosen": "counterfactual", "draft": 3}]
                traces.append(child)
    return traces, {problem.id: problem for problem in asked}


def long_trace(n: int, seed: int = 0) -> tuple[Trace, Problem]:
    """One search, written down again and again until it has ``n`` tokens."""
    problem = problems(1, seed)[0]
    gold = graphs.gold(graphs.parse_prompt(problem.prompt_ids))[:-1]
    ids = (gold * (n // len(gold) + 1))[:n]
    return trace(problem, ids, "long", np.random.default_rng(seed)), problem


def estimate(value: float, spread: float = 0.04, n: int = 600) -> dict:
    return {"value": value, "low": value - spread, "high": value + spread, "base_rate": None, "n": n}


def study() -> dict:
    """A whole diagnosis, as JSON gives it."""
    x = np.linspace(0, 1, 101)
    y = x**0.8
    offsets = np.arange(-12, 13)
    bump = 0.12 + 0.8 * np.exp(-(offsets**2) / 2) + 0.08 * (offsets > 0)
    return {
        "problems": 600,
        "traces": 600,
        "accuracy": {"G10_2,3": estimate(0.93), "G15_2,4": estimate(0.74), "G20_4,6": estimate(0.39), "all": estimate(412 / 600)},
        "exact": {"G10_2,3": estimate(0.9), "G15_2,4": estimate(0.68), "G20_4,6": estimate(0.29), "all": estimate(0.62)},
        "error_classes": {
            "G10_2,3": {"skip_nbr": 9, "halluc_nbr": 4, "revisit": 2},
            "G15_2,4": {"skip_nbr": 31, "halluc_nbr": 11, "revisit": 9, "fifo": 7, "backtrack_node": 4},
            "G20_4,6": {"skip_nbr": 52, "halluc_nbr": 31, "revisit": 22, "fifo": 18, "backtrack_node": 9, "missing_nbr": 7, "truncated": 3},
        },
        "onset": {
            "median": estimate(0.41, 0.05, 188),
            "share_30": estimate(0.38, 0.07, 188),
            "null_30": 0.29,
            "curve": {"x": x.tolist(), "y": y.tolist(), "low": np.clip(y - 0.06, 0, 1).tolist(), "high": np.clip(y + 0.06, 0, 1).tolist()},
            "null": {"x": x.tolist(), "y": (x**1.05).tolist()},
        },
        "entropy": {
            "aligned": {
                "offsets": offsets.tolist(),
                "mean": bump.tolist(),
                "low": (bump - 0.05).tolist(),
                "high": (bump + 0.05).tolist(),
                "control": (0.14 + 0 * offsets).tolist(),
            }
        },
        "claims": [
            {
                "name": "early_onset",
                "text": "More than 85 % of failures begin in the first 30 % of the trace.",
                "published": "> 85 %",
                "verdict": "does not hold",
                "estimate": estimate(0.38, 0.07, 188),
                "n": 188,
                "detail": "Share of lost traces whose first wrong token stands at or before 0.30 of their length.",
            },
            {
                "name": "entropy_spike",
                "text": "Entropy spikes where a failure begins.",
                "published": "local spike",
                "verdict": "holds",
                "estimate": estimate(0.66, 0.08, 188),
                "n": 188,
                "detail": "Mean entropy at the onset less that at matched positions of right traces, in nats.",
            },
            {
                "name": "recoverable",
                "text": "More than a fifth of lost traces can be continued to a right answer from before the onset.",
                "published": 0.2,
                "verdict": "cannot be told",
                "estimate": estimate(0.23, 0.08, 96),
                "n": 96,
                "detail": None,
            },
        ],
        "predictors": [{"name": "entropy_max, first 32 tokens", "estimate": estimate(0.68, 0.05)}, {"name": "length", "estimate": estimate(0.61, 0.05)}],
        "recovery": None,
    }


def comparison() -> list[dict]:
    def row(name: str, accuracy: float, tokens: float, gain: float | None) -> dict:
        difference = None if gain is None else estimate(gain, 0.031)
        return {"strategy": name, "accuracy": estimate(accuracy, 0.037), "decoded_tokens": tokens, "difference": difference, "budget": 1200}

    return [
        row("sample", 0.687, 148.2, None),
        row("self_consistency:n=8", 0.712, 1186.4, 0.025),
        row("guard:q=0.9", 0.735, 512.9, 0.048),
        row("particles:n=8", 0.668, 1190.0, -0.019),
    ]


def meta() -> dict:
    return {
        "engine": "embedded",
        "model": "graph-small-1",
        "seed": 7,
        "versions": {"wrongturn": "0.1.0", "numpy": "2.4.6"},
        "command": "wrongturn report runs/first --strategies sample,guard",
        "created": "2026-11-22 05:30 UTC",
    }
