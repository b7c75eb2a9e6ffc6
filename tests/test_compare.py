"""The comparison: paired, at equal tokens, and blind to the order in which a vote's winner is stored."""

from __future__ import annotations

import numpy as np
import pytest

from made_traces import made
from wrongturn.compare import compare, outcomes, vote_curve
from wrongturn.signals import Signals
from wrongturn.trace import Trace, Usage


def trace(
    problem: str, strategy: str, answer: str, right: bool, *, draft: int = 0, tokens: int = 10, cost: int = 0
) -> Trace:
    return Trace(
        id=f"{problem}/{strategy}/0" + (f"+{draft}" if not cost else ""),
        problem=problem,
        task="graph_search",
        prompt_ids=np.zeros(1, np.int32),
        ids=np.zeros(tokens, np.int32),
        signals=Signals.empty(tokens),
        finish="stop",
        strategy=strategy,
        draft=draft,
        answer=answer,
        correct=right,
        usage=Usage(kept=cost),
    )


def ballots(problem: str, answers: str, truth: str) -> list[Trace]:
    """Self-consistency over one-letter answers; the winner is stored first and carries the bill, as in a run."""
    winner = max(answers, key=lambda a: (answers.count(a), -answers.index(a)))
    chosen = answers.index(winner)
    order = sorted(range(len(answers)), key=lambda i: i != chosen)
    name = "self_consistency:n=3"
    return [
        trace(problem, name, answers[i], answers[i] == truth, draft=i, cost=10 * len(answers) if i == chosen else 0)
        for i in order
    ]


def test_votes_are_counted_in_the_order_they_were_drawn() -> None:
    # The first sample is wrong and the majority right: a curve that read the winner first would call n=1 right.
    curve = vote_curve([ballots("p", "xaa", "a")])
    assert curve.right[:, 0].tolist() == [0, 0, 1]
    assert curve.tokens.tolist() == [10, 20, 30]


def test_curve_interpolates_between_vote_sizes() -> None:
    curve = vote_curve([ballots("p", "xaa", "a")])
    assert curve.at(25)[0] == pytest.approx(0.5)
    assert curve.at(1000)[0] == 1
    assert curve.at(1)[0] == 0


def test_rows() -> None:
    traces = []
    for i in range(40):
        p = f"p{i}"
        traces += [trace(p, "sample", "a" if i < 20 else "x", i < 20, cost=10), *ballots(p, "xaa", "a")]
        traces += [trace(p, "guard", "a", True, cost=25)]
    rows = {row["strategy"]: row for row in compare(traces)}
    assert list(rows) == ["sample", "guard", "self_consistency:n=3", "oracle:any"]
    assert rows["sample"]["accuracy"]["value"] == 0.5
    assert rows["sample"]["difference"] is None
    assert rows["guard"]["difference"]["value"] == 0.5
    assert rows["guard"]["difference"]["low"] > 0.3
    assert rows["guard"]["decoded_tokens"] == 25
    assert rows["guard"]["equal_tokens"]["value"] == pytest.approx(0.5)  # half of the problems voted with n=2, half n=3
    assert rows["self_consistency:n=3"]["decoded_tokens"] == 30
    assert rows["oracle:any"]["accuracy"]["n"] == 40


def test_only_problems_that_all_attempted_count() -> None:
    traces = [trace(f"p{i}", "sample", "a", True, cost=5) for i in range(4)]
    traces += [trace("p0", "guard", "a", False, cost=5)]
    rows = {row["strategy"]: row for row in compare(traces)}
    assert rows["sample"]["accuracy"]["n"] == rows["guard"]["accuracy"]["n"] == 1


def test_nothing_to_compare() -> None:
    assert compare([]) == []


def test_outcomes_are_counted_by_group_over_plain_samples() -> None:
    right = made(0, group="a", answer="1", correct=True)
    cut = made(0, group="a", answer=None, correct=False, finish="length")
    mute = made(0, group="b", answer=None, correct=False)
    other = made(0, group="b", answer="1", correct=False, strategy="guard")
    assert outcomes([right, cut, mute, other]) == {"a": {"right": 1, "truncated": 1}, "b": {"unparsed": 1}}
