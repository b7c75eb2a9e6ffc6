"""Depth-first and best-first searches: what is written is right, wrong tokens are named, right ones let by."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn import tasks
from wrongturn.tasks import graph_orders as go
from wrongturn.tasks import graphs as gs


@st.composite
def queries(draw: st.DrawFn) -> gs.Query:
    name = draw(st.sampled_from(("G6_1,3", "G15_2,4", "G20_5,6")))
    return next(gs.Distribution.parse(name).queries(draw(st.integers(0, 10**6))))


def depth_first(query: gs.Query) -> list[int]:
    """Expanded nodes in order, by recursion: written without the automaton."""
    adjacent, expanded = query.neighbours(), []

    def visit(u: int) -> bool:
        expanded.append(u)
        if query.target in adjacent[u]:
            return True
        return any(visit(v) for v in adjacent[u] if v not in expanded)

    visit(query.source)
    return expanded


@settings(max_examples=40)
@given(queries(), st.sampled_from(sorted(go.ORDERS)), st.integers(0, 10**6))
def test_what_is_written_is_right(query: gs.Query, order: str, seed: int) -> None:
    trace = go.write(query, order, random.Random(seed))
    checked = gs.check(query, trace, go.ORDERS[order])
    assert checked.exact
    assert all(segment.error is None for segment in checked.segments)
    assert go.grade(query, gs.answer(trace))


@settings(max_examples=40)
@given(queries())
def test_depth_first_expands_as_recursion_does(query: gs.Query) -> None:
    trace = go.write(query, "dfs", random.Random(0))
    expanded = [trace[i - 1] - gs.FIRST_LABEL for i, token in enumerate(trace) if token == gs.LIST]
    assert expanded == depth_first(query)


@settings(max_examples=40)
@given(queries(), st.data())
def test_a_wrong_token_is_caught_and_a_right_one_can_be_gone_on_from(query: gs.Query, data: st.DataObject) -> None:
    """At every place of a best-first trace, another token is either caught there or begins another right trace."""
    trace = go.write(query, "best", random.Random(0))
    i = data.draw(st.integers(0, len(trace) - 1))
    token = data.draw(st.integers(gs.EOS, len(gs.VOCAB) - 1).filter(lambda t: t != trace[i]))
    cut = gs.check(query, [*trace[:i], token], go.BestFirst)
    if cut.index == i:
        return
    found = any(go.write(query, "best", random.Random(seed))[: i + 1] == [*trace[:i], token] for seed in range(4000))
    assert found


@settings(max_examples=40)
@given(queries(), st.data())
def test_every_mutation_of_the_unique_trace_is_caught(query: gs.Query, data: st.DataObject) -> None:
    trace = go.write(query, "dfs", random.Random(0))
    i = data.draw(st.integers(0, len(trace) - 1))
    token = data.draw(st.integers(gs.EOS, len(gs.VOCAB) - 1).filter(lambda t: t != trace[i]))
    checked = gs.check(query, [*trace[:i], token, *trace[i + 1 :]], go.DepthFirst)
    assert checked.index == i
    assert checked.error in go.ERRORS


def test_ties_are_broken_in_more_than_one_way() -> None:
    query = next(gs.Distribution.parse("G15_2,4").queries(3))
    assert len({tuple(go.write(query, "best", random.Random(seed))) for seed in range(50)}) > 10


def test_out_of_turn() -> None:
    query = gs.parse_prompt(gs.encode("0,1|0,2|1,3|2,4|4,5/0,5"))
    assert gs.check(query, gs.encode("<0,(1,2),2"), go.DepthFirst).error == "order"
    assert gs.check(query, gs.encode("<0,(1,2),1,(3),2"), go.DepthFirst).error == "order"
    assert gs.check(query, gs.encode("<0,(2,1),1"), go.BestFirst).error == "truncated"
    assert gs.check(query, gs.encode("<0,(2,1),2,(4),1,(3),3"), go.BestFirst).error == "order"


def test_the_task_by_name() -> None:
    task = tasks.get("graph_search_dfs")
    assert isinstance(task, go.OrderedSearch)
    problem = task.problems("G15_2,4", 1, 5)[0]
    assert problem.task == "graph_search_dfs"
    assert task.grade(problem, problem.reference)
    assert not task.grade(problem, "1,x")
    with pytest.raises(ValueError, match="unknown order 'bfs'"):
        go.OrderedSearch("bfs")
