"""Traces whose truth is known because it was planted: a toy task whose checker reads it off the ids, and corrupted
searches."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from wrongturn.signals import Signals
from wrongturn.tasks import graph_search
from wrongturn.tasks.base import Check, Segment
from wrongturn.tasks.graphs import FIRST_LABEL, LABELS, GraphSearch, gold, parse_prompt
from wrongturn.trace import Lineage, Problem, Trace, Usage

FILL, WRONG, STEP, END = 0, 1, 2, 3


class Planted:
    """Steps end with STEP, the trace with END; WRONG is a wrong token and makes its segment invalid."""

    name = "planted"
    stop_ids = (END,)
    boundary_ids = (STEP, END)

    def boundaries(self, ids):
        return np.isin(np.asarray(ids), self.boundary_ids)

    def check(self, problem, ids):
        ids, segments, start = list(ids), [], 0
        for i, token in enumerate(ids):
            if token in self.boundary_ids:
                error = "wrong" if WRONG in ids[start : i + 1] else None
                segments.append(Segment(start, i + 1, "step", error))
                start = i + 1
        if start < len(ids):
            segments.append(Segment(start, len(ids), "unfinished", "wrong" if WRONG in ids[start:] else "truncated"))
        if WRONG in ids:
            return Check(ids.index(WRONG), "wrong", tuple(segments))
        finished = bool(ids) and ids[-1] == END
        return Check(-1 if finished else len(ids), None if finished else "truncated", tuple(segments))


def planted(name, problem, steps, *, wrong=(), right=None, entropy=0.1, group="g", width=10, finish="stop", **changes):
    """``steps`` segments of ``width`` tokens, WRONG at the token indices ``wrong``; right unless it has one."""
    ids = np.array(([FILL] * (width - 1) + [STEP]) * steps, np.int32)
    if len(ids) and finish == "stop":
        ids[-1] = END
    ids[list(wrong)] = WRONG
    values = np.zeros(len(ids), np.float32) + np.asarray(entropy, np.float32)
    return Trace(
        id=name,
        problem=problem,
        task="planted",
        prompt_ids=np.zeros(1, np.int32),
        ids=ids,
        signals=Signals.from_dict({key: values.copy() for key in ("entropy", "nll", "margin", "fork")}),
        finish=finish,
        group=group,
        correct=not len(wrong) if right is None else right,
        **changes,
    )


def problems_of(traces):
    """A problem for every planted trace."""
    return {trace.problem: Problem(trace.problem, trace.task, "", (0,)) for trace in traces}


def child(parent, at, condition, right, number, decoded=5):
    """A graded continuation of ``parent``."""
    return replace(
        parent,
        id=f"{parent.id}/{condition}/{number}",
        correct=right,
        lineage=Lineage(parent.id, at, condition),
        usage=Usage(kept=decoded),
    )


def crowd(seed, problems=80, samples=4, failure=0.4, position=None, signal=0.0, spike=0.0, difficulty=0.0, length=0.0):
    """Random planted traces.

    ``failure``: chance of a wrong answer, shifted per problem by +-``difficulty``; ``position``: rng -> onset as a
    share of the trace. Entropies are noise; ``signal`` raises those of a wrong trace, ``spike`` that of the onset
    token, and ``difficulty`` those of a hard problem. ``length`` lengthens wrong traces by that share.
    """
    rng = np.random.default_rng(seed)
    position = position or (lambda rng: rng.uniform(0, 1))
    traces = []
    for p in range(problems):
        hard = rng.choice([-1.0, 1.0])
        for s in range(samples):
            wrong = rng.random() < failure + hard * difficulty
            steps = int(rng.integers(4, 9))
            if wrong:
                steps = round(steps * (1 + length))
            tokens = steps * 10
            entropy = rng.exponential(0.2, tokens) * (1 + difficulty * (1 + hard))
            at = ()
            if wrong:
                entropy *= 1 + signal
                at = (min(int(position(rng) * tokens), tokens - 2),)
                at = tuple(i - (i % 10 == 9) for i in at)  # leave the step token in place
                entropy[list(at)] += spike
            traces.append(planted(f"{p}-{s}", f"p{p}", steps, wrong=at, entropy=entropy, sample=s))
    return traces


def searches(seed, n=40, samples=4, failure=0.5, distribution=(15, (2, 4))):
    """Graph searches: gold traces, some with one token replaced at random and graded as they then are."""
    task, rng, noise = GraphSearch(), random.Random(seed), np.random.default_rng(seed)
    problems = graph_search(*distribution, n, seed)
    traces = []
    for problem in problems:
        truth = gold(parse_prompt(problem.prompt_ids))
        for s in range(samples):
            ids, at = list(truth), None
            if rng.random() < failure:
                at = rng.choice([i for i, token in enumerate(ids) if FIRST_LABEL <= token < FIRST_LABEL + LABELS])
                ids[at] = rng.choice([t for t in range(FIRST_LABEL, FIRST_LABEL + LABELS) if t != ids[at]])
            check, answer = task.check(problem, ids), task.answer(ids)
            values = noise.exponential(0.1, len(ids)).astype(np.float32)
            traces.append(
                Trace(
                    id=f"{problem.id}#{s}",
                    problem=problem.id,
                    task=task.name,
                    prompt_ids=np.asarray(problem.prompt_ids, np.int32),
                    ids=np.asarray(ids, np.int32),
                    signals=Signals.from_dict({"entropy": values, "nll": values, "margin": 1 - values, "fork": values}),
                    finish="stop",
                    group=problem.group,
                    sample=s,
                    answer=answer,
                    correct=task.grade(problem, answer),
                    onset=check.index,
                    error=check.error,
                )
            )
    return traces, {problem.id: problem for problem in problems}
