"""What a training is fed: right, drawn as the task draws, resumable, never from the classes held out for testing."""

from __future__ import annotations

import random
from itertools import islice, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.lab import draw, split
from wrongturn.lab import graph_examples as ge
from wrongturn.lab.data import GROUP, batches
from wrongturn.lab.graph_examples import GraphRecipe
from wrongturn.tasks import graphs as gs

RECIPE = GraphRecipe(nodes=6, start_nodes=(4, 5), batch=4)


def renamed(query: gs.Query, rng: random.Random) -> gs.Query:
    """The same graph with other names and its edges in another order."""
    names = rng.sample(range(gs.LABELS), gs.LABELS)
    edges = [(names[u], names[v]) for u, v in query.edges]
    return gs.Query(tuple(rng.sample(edges, len(edges))), names[query.target], names[query.source])


def hashes(*queries: gs.Query) -> list[int]:
    return split.shape_hash(split.adjacency_of(queries)).tolist()


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["G6_1,3", "G15_2,4", "G20_5,6"]))
def test_isomorphic_graphs_are_on_the_same_side(seed: int, name: str) -> None:
    query = next(gs.Distribution.parse(name).queries(seed))
    other = renamed(query, random.Random(seed))
    assert hashes(query) == hashes(other)
    assert split.held_out([query])[0] == split.held_out([other])[0]


def test_hashes_tell_small_graphs_apart() -> None:
    """All digraphs on 4 nodes: one hash for each isomorphism class, nearly always another."""
    pairs = list(permutations(range(4), 2))
    matrices = np.array([[(code >> i) & 1 for i in range(12)] for code in range(1, 1 << 12)], bool)
    adjacency = np.zeros((len(matrices), 4, 4), bool)
    adjacency[:, [u for u, _ in pairs], [v for _, v in pairs]] = matrices
    index = {pair: i for i, pair in enumerate(pairs)}
    renamings = [[index[p[u], p[v]] for u, v in pairs] for p in permutations(range(4))]
    powers = 1 << np.arange(12)
    canonical = np.min([matrices[:, order] @ powers for order in renamings], axis=0)
    found = split.shape_hash(adjacency)
    assert len(np.unique(canonical)) == 217  # 218 digraphs of 4 nodes, less the empty one
    by_class = {int(c): {int(h) for h in found[canonical == c]} for c in np.unique(canonical)}
    assert all(len(h) == 1 for h in by_class.values())
    assert len(np.unique(found)) >= 210


def test_drawn_graphs_are_those_of_the_task() -> None:
    """Means over many graphs of what a search sees, against the plain generator; and the gold trace is the same."""
    rng = np.random.default_rng(0)
    made = ge.searches(rng, 15, (2, 4), 1500)
    stream = gs.Distribution.parse("G15_2,4").queries(0)
    plain = [next(stream) for _ in range(1500)]
    seen: list[gs.Query] = []
    for example in made:
        query = gs.parse_prompt(example.prompt.tolist())
        assert gs.gold(query) == example.trace
        seen.append(query)
    assert not split.held_out(seen).any()
    assert 0.08 < split.held_out(plain).mean() < 0.17
    for measure in (
        lambda q: len(q.edges),
        lambda q: len({v for e in q.edges for v in e}),
        lambda q: gs.distances(q.neighbours(), q.source)[q.target],
        lambda q: len(gs.gold(q)),
        lambda q: q.source,
        lambda q: q.target,
        lambda q: q.edges.index(min(q.edges)) / len(q.edges),
    ):
        a, b = ([measure(q) for q in qs] for qs in (seen, plain))
        error = np.sqrt(np.var(a) / len(a) + np.var(b) / len(b))
        assert abs(np.mean(a) - np.mean(b)) < 4.5 * error


def test_path_lengths_are_uniform() -> None:
    made = ge.searches(np.random.default_rng(1), 15, (2, 6), 1000)
    queries = [gs.parse_prompt(example.prompt.tolist()) for example in made]
    lengths = [gs.distances(q.neighbours(), q.source)[q.target] for q in queries]
    assert min(np.bincount(lengths)[2:]) > 150


def test_impossible_lengths_are_named() -> None:
    with pytest.raises(ValueError, match="graphs of 3 nodes with shortest paths of 5 edges"):
        draw.graphs(np.random.default_rng(0), 3, 2, np.array([5, 5]))


def test_drills_are_right() -> None:
    rng = np.random.default_rng(0)
    for example in ge.listing_drills(rng, 8, 30):
        assert example.prompt[-1] == gs.SLASH
        assert all(example.trace[i + 1] == gs.LIST for i in example.free)
        query = gs.parse_prompt([*example.prompt.tolist(), 3, gs.COMMA, 3])
        listed = {example.trace[i] - gs.FIRST_LABEL for i in example.free}
        assert listed == set(query.neighbours())
        for i in example.free:
            node = example.trace[i] - gs.FIRST_LABEL
            closed = example.trace.index(gs.NEXT, i)
            assert example.trace[i : closed + 1] == gs.listing(node, query.neighbours()[node])
    for example in ge.traversal_drills(rng, 8, 30):
        # given its last node as the target, a traversal is a search but for where it stopped
        last = example.trace[example.trace.index(gs.FOUND) + 1]
        query = gs.parse_prompt([*example.prompt.tolist(), gs.COMMA, last])
        assert gs.check(query, example.trace).error in (None, "late_stop", "early_stop")


def test_lists_in_the_order_of_the_prompt() -> None:
    """Every list of every kind of example has the node's neighbours as the prompt names them."""
    recipe = GraphRecipe(nodes=8, start_nodes=(8, 8), listing=0.4, traversal=0.3, order="prompt")
    other = 0
    for example in recipe.examples(np.random.default_rng(0), 0.0, 60):
        prompt = example.prompt.tolist()
        edges = [(u, v) for u, v in zip(prompt[1::4], prompt[3::4], strict=False)][: prompt.index(gs.SLASH) // 4]
        searched = example.trace[: example.trace.index(gs.FOUND) + 1] if gs.FOUND in example.trace else example.trace
        lists = gs.decode(searched[1:]).split(")")[:-1]
        for node, listed in (one.lstrip(",").split(",(") for one in lists):
            there = [str(v - gs.FIRST_LABEL) for u, v in edges if u == int(node) + gs.FIRST_LABEL]
            assert [v for v in listed.split(",") if v] == there
            other += there != sorted(there, key=int)
    assert other > 50
    for query in islice(gs.Distribution.parse("G8_2,3").queries(0), 50):
        assert GraphRecipe().gold(query) == gs.gold(query)
    with pytest.raises(ValueError, match="unknown order of neighbours 'descending'"):
        GraphRecipe(order="descending")


def test_batches_weigh_the_trace_alone() -> None:
    ids, weights = next(batches(RECIPE, 0, 0, 1.0))
    assert ids.shape == weights.shape
    for row, weight in zip(ids, weights, strict=True):
        opening = row.tolist().index(gs.OPEN)
        assert not weight[:opening].any()
        assert not weight[row == gs.PAD].any()
        labels = (row >= gs.FIRST_LABEL) & (row < gs.FIRST_LABEL + gs.LABELS) & (np.arange(len(row)) > opening)
        assert set(weight[labels].tolist()) <= {0.0, RECIPE.label_weight}


def test_batches_depend_on_their_number_alone() -> None:
    whole = list(batches(RECIPE, 0, 0, 0.5))
    tail = list(islice(batches(RECIPE, 0, 5, 0.5), GROUP))
    assert len(whole) == GROUP
    assert len(tail) == GROUP - 5
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(whole[5:], tail, strict=True))


def test_a_recipe_for_one_distribution() -> None:
    for name, hops in (("G9_3,4", {3, 4}), ("G7_5,6", {5, 6}), ("G5_1,4", {1, 2, 3, 4})):
        recipe = GraphRecipe.only(name)
        made = recipe.examples(np.random.default_rng(0), 0.0, 60)
        queries = [gs.parse_prompt(example.prompt.tolist()) for example in made]
        assert {gs.distances(q.neighbours(), q.source)[q.target] for q in queries} == hops
        assert max(map(len, made)) <= recipe.longest()
