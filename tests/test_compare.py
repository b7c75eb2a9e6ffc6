"""The comparison: paired, at equal tokens, and blind to the order in which a vote's winner is stored."""

from __future__ import annotations

import numpy as np
import pytest

from made_traces import made
from wrongturn.compare import compare, outcomes, vote_curve
from wrongturn.signals import Signals
from wrongturn.trace import Trace, Usage


def trace(
    problem: str, strategy: str, answer: str, right: bool | None, *, draft: int = 0, tokens: int = 10, cost: int = 0
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
    for tokens, right in ((25, 0.5), (30, 1), (1, 0)):  # cheaper than one sample: one sample
        found = curve.at(tokens)
        assert found is not None
        assert found[0] == pytest.approx(right)
    assert curve.at(30.1) is None  # no such votes were collected


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


def test_dearer_than_any_vote_is_not_at_equal_tokens() -> None:
    traces = []
    for i in range(40):
        traces += [trace(f"p{i}", "sample", "x", False, cost=10), *ballots(f"p{i}", "xax", "a")]
        traces += [trace(f"p{i}", "guard", "a", True, cost=100), trace(f"p{i}", "greedy", "a", True, cost=4)]
    rows = {row["strategy"]: row for row in compare(traces)}
    assert rows["guard"]["equal_tokens"] is None
    assert rows["guard"]["beyond_votes"] == 30
    assert rows["greedy"]["equal_tokens"]["value"] == 1  # against one sample, which costs more than it did
    assert {row["beyond_votes"] for name, row in rows.items() if name != "guard"} == {None}


def without_references(traces: list[Trace]) -> list[Trace]:
    for t in traces:
        t.correct = None
    return traces


def test_ungraded_is_not_wrong() -> None:
    traces = []
    for i in range(40):
        p = f"p{i}"
        made = [trace(p, "sample", "a", True, cost=10), trace(p, "guard", "a", True, cost=25), *ballots(p, "aaa", "a")]
        traces += made if i < 10 else without_references(made)
    rows = compare(traces)
    assert [row["accuracy"]["value"] for row in rows] == [1, 1, 1, 1]
    assert {row["accuracy"]["n"] for row in rows} == {10}
    assert {row["ungraded"] for row in rows} == {30}
    assert compare(without_references(traces)) == []


@pytest.mark.parametrize("strategy", ["sample", "guard", "self_consistency:n=3"])
def test_a_problem_counts_where_every_answer_is_graded(strategy: str) -> None:
    traces = []
    for p in ("p0", "p1"):
        traces += [trace(p, "sample", "a", True, cost=5), trace(p, "guard", "a", True, cost=5), *ballots(p, "aaa", "a")]
    next(t for t in reversed(traces) if t.strategy == strategy).correct = None
    assert {(row["accuracy"]["n"], row["ungraded"]) for row in compare(traces)} == {(1, 1)}


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
