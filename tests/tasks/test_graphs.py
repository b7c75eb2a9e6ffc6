"""Graph search: the published example, the generator, the checker that names every wrong token, and the grader."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrongturn import tasks
from wrongturn.tasks import graphs as gs

BLOG_PROMPT = "1,3|2,4|1,2|0,1|0,2|3,4/0,4"
BLOG_TRACE = "<0,(1,2),1,(2,3),2,(4)-4,2,0>0,2,4"

DISTRIBUTIONS = ("G6_1,3", "G15_2,4", "G20_2,4", "G15_5,6", "G20_5,6")


@st.composite
def queries(draw: st.DrawFn) -> gs.Query:
    name = draw(st.sampled_from(DISTRIBUTIONS))
    return next(gs.Distribution.parse(name).queries(draw(st.integers(0, 10**6))))


def ids(text: str) -> list[int]:
    return [*gs.encode(text), gs.EOS]


def test_published_example() -> None:
    query = gs.parse_prompt(gs.encode(BLOG_PROMPT))
    assert gs.decode(gs.gold(query)) == BLOG_TRACE
    assert gs.check(query, ids("<0,(1, 2),1,(2, 3),2,(4) - 4,2,0>0,2,4")).exact


def test_vocabulary_is_what_models_were_trained_on() -> None:
    assert len(gs.VOCAB) == 31
    assert gs.VOCAB[gs.COMMA] == ","
    assert [gs.VOCAB[i] for i in (gs.BAR, gs.SLASH, gs.OPEN, gs.LIST, gs.NEXT, gs.FOUND, gs.DONE)] == [
        "|",
        "/",
        "<",
        ",(",
        "),",
        ")-",
        ">",
    ]


@given(queries())
def test_gold_is_exact_and_graded_right(query: gs.Query) -> None:
    trace = gs.gold(query)
    checked = gs.check(query, trace)
    assert checked.exact
    assert all(segment.error is None for segment in checked.segments)
    assert gs.grade(query, gs.answer(trace))
    spans = [(s.start, s.stop) for s in checked.segments]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(trace)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


@given(queries())
def test_text_round_trip(query: gs.Query) -> None:
    prompt, trace = gs.prompt_ids(query), gs.gold(query)
    assert [gs.BOS, *gs.encode(gs.decode(prompt))] == prompt
    assert [*gs.encode(gs.decode(trace)), gs.EOS] == trace
    assert gs.parse_prompt(prompt) == query
    assert "".join(gs.pieces(trace)) == gs.decode(trace)


@given(queries(), st.data())
def test_every_single_token_mutation_is_caught_at_its_own_index(query: gs.Query, data: st.DataObject) -> None:
    trace = gs.gold(query)
    i = data.draw(st.integers(0, len(trace) - 1))
    token = data.draw(st.integers(gs.EOS, len(gs.VOCAB) - 1).filter(lambda t: t != trace[i]))
    checked = gs.check(query, [*trace[:i], token, *trace[i + 1 :]])
    assert checked.index == i
    assert checked.error in gs.ERRORS
    hit = next(segment for segment in checked.segments if segment.start <= i < segment.stop)
    assert hit.error == checked.error


@given(queries(), st.data())
def test_truncation_is_an_error_at_the_end(query: gs.Query, data: st.DataObject) -> None:
    trace = gs.gold(query)
    n = data.draw(st.integers(0, len(trace) - 1))
    checked = gs.check(query, trace[:n])
    assert (checked.index, checked.error) == (n, "truncated")


@given(queries(), st.lists(st.integers(0, 30), max_size=120))
def test_any_token_sequence_is_checked_without_failing(query: gs.Query, junk: list[int]) -> None:
    checked = gs.check(query, junk)
    assert not checked.exact
    assert 0 <= checked.index <= len(junk)
    gs.answer(junk)


# Traces of the published graph whose last token is the offending one, and its class.
WRONG = [
    ("0", "syntax"),
    ("<0,(1,2,", "halluc_nbr"),
    ("<0,(1,3", "halluc_nbr"),
    ("<0,(1),", "missing_nbr"),
    ("<0,(2", "skip_nbr"),
    ("<0,(1,1", "dup_nbr"),
    ("<0,(1,2),3", "not_in_queue"),
    ("<0,(1,2),2", "fifo"),
    ("<0,(1,2),0", "revisit"),
    ("<0,(1,2)-", "early_stop"),
    ("<0,(1,2),1,(2,3),2,(4),", "late_stop"),
    ("<0,(1,2),1,(2,3),2,(4)-4,1", "backtrack_node"),
    ("<0,(1,2),1,(2,3),2,(4)-4>", "backtrack_short"),
    ("<0,(1,2),1,(2,3),2,(4)-4,2,0,", "backtrack_long"),
    ("<0,(1,2),1,(2,3),2,(4)-4,2,0>0,1", "path_node"),
    ("<0,(1,2),1,(2,3),2,(4)-4,2,0>0,2,4,", "path_long"),
]


@pytest.mark.parametrize(("text", "error"), WRONG)
def test_error_classes(text: str, error: str) -> None:
    checked = gs.check(gs.parse_prompt(gs.encode(BLOG_PROMPT)), gs.encode(text))
    assert (checked.index, checked.error) == (len(gs.encode(text)) - 1, error)


def test_short_path_ends_early() -> None:
    checked = gs.check(gs.parse_prompt(gs.encode(BLOG_PROMPT)), ids("<0,(1,2),1,(2,3),2,(4)-4,2,0>0,2"))
    assert checked.error == "path_short"


def test_all_classes_are_documented_and_reachable() -> None:
    assert {error for _, error in WRONG} | {"path_short", "truncated"} == set(gs.ERRORS)


def test_process_and_outcome_are_apart() -> None:
    query = gs.parse_prompt(gs.encode(BLOG_PROMPT))
    slip = ids("<0,(1,2),2,(4)-4,2,0>0,2,4")  # expands 2 before 1: wrong search, right path
    assert gs.check(query, slip).error == "fifo"
    assert gs.grade(query, gs.answer(slip))


def test_segments_are_judged_on_what_the_trace_wrote() -> None:
    query = gs.parse_prompt(gs.encode(BLOG_PROMPT))
    checked = gs.check(query, ids("<0,(1,2),2,(4)-4,2,0>0,2,4"))
    assert [s.error for s in checked.segments] == [None, "fifo", None, None]
    assert [s.kind for s in checked.segments] == ["expand", "expand", "backtrack", "path"]


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("0,2,4", True),
        ("0,1,2,4", False),
        ("0,4", False),
        ("2,4", False),
        ("0,2", False),
        (None, False),
        ("0,,4", False),
    ],
)
def test_grading(path: str | None, right: bool) -> None:
    assert gs.grade(gs.parse_prompt(gs.encode(BLOG_PROMPT)), path) is right


def test_any_shortest_path_is_right() -> None:
    query = gs.Query(((0, 1), (0, 2), (1, 3), (2, 3)), 0, 3)
    assert gs.grade(query, "0,1,3")
    assert gs.grade(query, "0,2,3")


@given(st.sampled_from(DISTRIBUTIONS), st.integers(0, 1000))
def test_queries_follow_their_distribution(name: str, seed: int) -> None:
    distribution = gs.Distribution.parse(name)
    query = next(distribution.queries(seed))
    far = gs.distances(query.neighbours(), query.source)[query.target]
    assert distribution.hops[0] <= far <= distribution.hops[1]
    assert len(set(query.edges)) == len(query.edges)
    assert all(u != v for u, v in query.edges)
    assert len({n for edge in query.edges for n in edge}) <= distribution.nodes


def test_same_seed_same_problems() -> None:
    a, b = tasks.graph_search(n=5, seed=3), tasks.graph_search(n=8, seed=3)
    assert a == b[:5]
    assert a != tasks.graph_search(n=5, seed=4)


def test_every_length_is_drawn_equally_often() -> None:
    rng = random.Random(0)
    far = []
    for _ in range(600):
        query = gs.random_query(rng, 15, (2, 4))
        far.append(gs.distances(query.neighbours(), query.source)[query.target])
    counts = np.bincount(far)[2:]
    assert np.all(np.abs(counts - 200) < 50)


@pytest.mark.parametrize("text", ["1,3|x", "20,1", "1,3\n", "Wait,"])
def test_foreign_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not graph-search text"):
        gs.encode(text)


@pytest.mark.parametrize("text", ["1,3", "1,3/0", "/0,1", "1,3|/0,4"])
def test_prompts_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a graph-search prompt"):
        gs.parse_prompt(gs.encode(text))


@pytest.mark.parametrize("name", ["G15", "G15_4,2", "G21_2,4", "G1_1,1", "H15_2,4", "G6_2,6"])
def test_impossible_distributions_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        gs.Distribution.parse(name)


def test_boundaries() -> None:
    text = ids(BLOG_TRACE)
    ends = tasks.get("graph_search").boundaries(text)
    assert [gs.VOCAB[t] for t in np.asarray(text)[ends]] == ["),", "),", ")-", ">", "<eos>"]


def test_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown task 'chess'"):
        tasks.get("chess")


def test_what_has_no_answer_is_no_error_of_ours() -> None:
    nowhere = gs.parse_prompt(gs.encode("1,2|2,3/5,3"))
    with pytest.raises(ValueError, match="no path from 5 to 3"):
        gs.gold(nowhere)
    assert not gs.grade(nowhere, "5,3")
    assert gs.grade(gs.parse_prompt(gs.encode("1,2/5,5")), "5")


def test_an_edge_that_is_named_twice_is_one() -> None:
    query = gs.parse_prompt(gs.encode("1,2|1,2|2,3/1,3"))
    assert gs.decode(gs.gold(query)) == "<1,(2),2,(3)-3,2,1>1,2,3"
    assert gs.check(query, gs.gold(query)).exact


def test_paths_that_are_not_to_be_found_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gs, "TRIES", 200)
    with pytest.raises(ValueError, match="graphs of 20 nodes with shortest paths of 18 edges are too rare to draw"):
        next(gs.Distribution.parse("G20_18,18").queries(0))
