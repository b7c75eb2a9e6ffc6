"""What the fast writers write is what the tasks' automata call right."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.lab import draw, traces
from wrongturn.lab.draw import Adjacent
from wrongturn.tasks import graph_orders as go
from wrongturn.tasks import graphs as gs
from wrongturn.tasks.graph_check import Search

AUTOMATA: dict[str, type[Search]] = {"graph_search": Search, "graph_search_dfs": go.DepthFirst}
AUTOMATA["graph_search_best"] = go.BestFirst


def adjacency(query: gs.Query) -> Adjacent:
    edges = sorted(query.edges)
    return [v for _, v in edges], [bisect_left(edges, (u, -1)) for u in range(gs.LABELS + 1)]


@st.composite
def queries(draw: st.DrawFn) -> gs.Query:
    name = draw(st.sampled_from(("G4_1,2", "G6_1,3", "G15_2,4", "G20_2,4", "G20_5,6")))
    return next(gs.Distribution.parse(name).queries(draw(st.integers(0, 10**6))))


@settings(max_examples=100)
@given(queries(), st.sampled_from(sorted(AUTOMATA)), st.integers(0, 10**6))
def test_the_automaton_finds_every_trace_right(query: gs.Query, task: str, seed: int) -> None:
    trace = traces.WRITERS[task](adjacency(query), query.source, query.target, random.Random(seed))
    checked = gs.check(query, trace, AUTOMATA[task])
    assert checked.exact
    assert all(segment.error is None for segment in checked.segments)


@settings(max_examples=100)
@given(queries())
def test_the_unique_traces_are_the_tasks(query: gs.Query) -> None:
    ends = query.source, query.target
    assert traces.bfs(adjacency(query), *ends) == gs.gold(query)
    assert traces.dfs(adjacency(query), *ends) == go.write(query, "dfs", random.Random(0))


@settings(max_examples=100)
@given(queries(), st.sampled_from(sorted(AUTOMATA)), st.integers(0, 10**6))
def test_a_traversal_is_a_search_whose_target_never_came(query: gs.Query, task: str, seed: int) -> None:
    """Its expansions are right for a target that no list has, reach everything, and the trace back is right as well."""
    trace = traces.WRITERS[task](adjacency(query), query.source, None, random.Random(seed))
    stop = trace.index(gs.FOUND)
    absent = gs.Query(query.edges, query.source, gs.LABELS)
    assert gs.check(absent, [*trace[:stop], gs.NEXT], AUTOMATA[task]).index == stop + 1
    expanded = [trace[i - 1] - gs.FIRST_LABEL for i, token in enumerate(trace) if token == gs.LIST]
    reached = gs.distances(query.neighbours(), query.source)
    assert sorted(expanded) == sorted(reached)
    last = trace[stop + 1] - gs.FIRST_LABEL
    assert last == expanded[-1]
    if last != query.source:  # an earlier list than the last may have named it: the stop was late, the rest is right
        checked = gs.check(gs.Query(query.edges, query.source, last), trace, AUTOMATA[task])
        assert {segment.error for segment in checked.segments} <= {None, "late_stop", "early_stop"}


def test_best_first_breaks_ties_as_the_task_does() -> None:
    """On a graph with ties and a list of three: every trace as often as the task writes it.

    The statistic is chi-square with one degree of freedom less than there are traces; 4.5 deviations are allowed.
    """
    query = gs.parse_prompt(gs.encode("0,1|0,2|0,3|1,4|2,5|2,4|3,6|3,1|5,7/0,7"))
    ours, theirs = random.Random(1), random.Random(2)
    n = 8_000
    mine = Counter(tuple(traces.best(adjacency(query), 0, 7, ours)) for _ in range(n))
    task = Counter(tuple(go.write(query, "best", theirs)) for _ in range(n))
    every = set(mine) | set(task)
    assert len(every) > 20
    assert min(min(mine[t], task[t]) for t in every) > 10
    statistic = sum((mine[t] - task[t]) ** 2 / (mine[t] + task[t]) for t in every)
    freedom = len(every) - 1
    assert abs(statistic - freedom) < 4.5 * np.sqrt(2 * freedom)


def test_a_target_out_of_reach_is_refused() -> None:
    query = gs.parse_prompt(gs.encode("0,1|2,3/0,3"))
    for write in traces.WRITERS.values():
        with pytest.raises(ValueError, match="no path to 3"):
            write(adjacency(query), 0, 3, random.Random(0))


def test_the_adjacency_of_drawn_graphs() -> None:
    drawn = draw.graphs(np.random.default_rng(0), 12, 40, np.full(40, 3))
    for prompt, adjacent in zip(drawn.prompts(), drawn.adjacent(), strict=True):
        query = gs.parse_prompt(prompt.tolist())
        ends, begin = adjacency(query)
        assert (adjacent[0][: begin[-1]], adjacent[1]) == (ends, begin)
