"""Made-up runs to write reports of: correct searches, some of them corrupted and judged by the real checker."""

from __future__ import annotations

import random

import numpy as np

from wrongturn.diagnose import plan
from wrongturn.diagnose import study as diagnose
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
    given = {"usage": Usage(kept=n), "provenance": {"engine": "embedded", "model": "graph-small-1", "seed": 7}}
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


def study(traces: list[Trace], problems: dict[str, Problem]) -> dict:
    """The diagnosis of the plain samples, as JSON gives it, with made-up resamples of a few failures."""
    plain = [t for t in traces if t.strategy == "sample"]
    made, draws = [], np.random.default_rng(0)
    for cut in plan(plain, problems, per_trace=2, max_traces=12):
        parent = next(t for t in plain if t.id == cut.parent)
        problem = problems[parent.problem]
        for k in range(cut.samples):
            luck = draws.random() < (0.6 if cut.condition == "before_onset" else 0.3)
            ids = graphs.gold(graphs.parse_prompt(problem.prompt_ids)) if luck else parent.ids.tolist()
            child = trace(problem, ids, f"{cut.parent}~{cut.condition}/{k}", draws)
            child.lineage = Lineage(cut.parent, cut.at, cut.condition)
            made.append(child)
    return diagnose(plain, problems, recovery=made, n_boot=200).dict()


def comparison() -> list[dict]:
    def row(name: str, accuracy: float, tokens: float, gain: float | None, equal: float | None = None) -> dict:
        return {
            "strategy": name,
            "accuracy": estimate(accuracy, 0.037),
            "decoded_tokens": tokens,
            "prompt_tokens": 61.0,
            "difference": None if gain is None else estimate(gain, 0.031),
            "equal_tokens": None if equal is None else estimate(equal, 0.033),
            "answered": 0.98,
        }

    return [
        row("sample", 0.687, 48.2, None, 0.0),
        row("guard", 0.735, 112.9, 0.048, 0.021),
        row("particles:n=8", 0.668, 390.0, -0.019, -0.052),
        row("self_consistency:n=8", 0.742, 386.4, 0.055),
        row("oracle:any", 0.912, 386.4, 0.225),
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
