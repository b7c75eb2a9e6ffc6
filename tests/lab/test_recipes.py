"""What each task is taught with: right by the task's own checker, repeatable, and never from what is held out."""

from __future__ import annotations

import random
import re
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn import tasks
from wrongturn.errors import WrongturnError
from wrongturn.lab import recipes, split
from wrongturn.lab.countdown_examples import SUMS, CountdownRecipe, sums
from wrongturn.lab.data import Example, batches
from wrongturn.lab.graph_examples import BEST, GraphRecipe, listing_drills
from wrongturn.tasks import countdown as cd
from wrongturn.tasks import graphs as gs
from wrongturn.tasks.base import BOS, EOS, PAD, SPECIAL

DFS = "graph_search_dfs"
SMALL: dict[str, recipes.AnyRecipe] = {
    DFS: GraphRecipe(task=DFS, nodes=7, start_nodes=(5, 6), batch=4),
    BEST: GraphRecipe(task=BEST, nodes=7, start_nodes=(5, 6), batch=4),
    "countdown_search": CountdownRecipe(batch=4),
}


def right(task: str, example: Example) -> bool:
    """Whether the task's checker finds nothing wrong with a whole search, and its grader with the answer."""
    known = recipes.own_tokens(task)
    ids = tuple(example.prompt.tolist())
    problem = tasks.Problem("p", task, "".join(known.pieces(ids)), ids, None)
    whole = tasks.get(task)
    checked = whole.check(problem, example.trace)
    assert checked is not None
    return checked.exact and bool(whole.grade(problem, known.answer(example.trace)))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(recipes.RECIPES)), st.integers(0, 10**6), st.floats(0, 1))
def test_every_search_is_right(task: str, seed: int, p: float) -> None:
    recipe = recipes.recipe(task)
    if isinstance(recipe, GraphRecipe):
        recipe = GraphRecipe(task=task, nodes=9, listing=0, listing_end=0, traversal=0, traversal_end=0)
    else:
        recipe = CountdownRecipe(drill=0)
    for example in recipe.examples(np.random.default_rng(seed), p, 6):
        assert right(task, example)
        assert len(example) <= recipe.longest() <= recipe.context


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.integers(0, 10**6), st.integers(1, 15))
def test_batches_depend_on_seed_number_and_progress_alone(task: str, seed: int, number: int) -> None:
    whole = list(batches(SMALL[task], seed, 16, 0.4))
    tail = list(batches(SMALL[task], seed, 16 + number, 0.4))
    assert len(tail) == 16 - number
    for one, other in zip(whole[number:], tail, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(whole[0][0], next(batches(SMALL[task], seed + 1, 16, 0.4))[0])


def test_lists_of_best_first_search_are_in_any_order() -> None:
    """Ascending no more often than by chance: 1/2 of the lists of two, 1/6 of those of three."""
    rising: dict[int, list[bool]] = {2: [], 3: []}
    for example in listing_drills(np.random.default_rng(0), 12, 200, BEST):
        listed = gs.decode(example.trace[1:]).split(")")[:-1]
        for one in listed:
            nodes = [int(v) for v in one.split("(")[1].split(",") if v]
            rising.get(len(nodes), []).append(nodes == sorted(nodes))
    assert 0.4 < np.mean(rising[2]) < 0.6
    assert 0.1 < np.mean(rising[3]) < 0.25


def test_drills_are_of_the_order_asked_for() -> None:
    """A depth-first traversal is not a breadth-first one, and shares of drills are as set."""
    drills = {"listing": 0.0, "traversal": 1.0, "start_nodes": (9, 9)}
    made = {
        task: GraphRecipe(task=task, **drills).examples(np.random.default_rng(0), 0.0, 20)
        for task in (DFS, "graph_search")
    }
    assert all(len(e.prompt) % 4 == 2 for made_of in made.values() for e in made_of)  # "…/source" and no target
    assert [e.trace for e in made[DFS]] != [e.trace for e in made["graph_search"]]


# -- countdown ---------------------------------------------------------------------------------------------------------


def puzzles(examples: list[Example]) -> list[cd.Puzzle]:
    return [cd.parse_prompt("".join(cd.pieces(e.prompt.tolist()))) for e in examples]


def test_puzzles_grow() -> None:
    recipe, rng = CountdownRecipe(numbers=(3, 5), larger=0.8, growth=0.5, drill=0), np.random.default_rng(0)
    sizes = {p: [len(x.numbers) for x in puzzles(recipe.examples(rng, p, 400))] for p in (0.0, 0.25, 1.0)}
    assert set(sizes[0.0]) == {3}
    assert set(sizes[1.0]) == {3, 4, 5}
    assert 0.3 < np.mean(np.array(sizes[0.25]) > 3) < 0.5
    assert 0.72 < np.mean(np.array(sizes[1.0]) > 3) < 0.88
    only = CountdownRecipe.only("C4").examples(rng, 0.0, 40)
    assert {len(x.numbers) for x in puzzles(only)} == {4}


def test_sums_are_true_and_their_results_alone_are_asked_for() -> None:
    for example in sums(np.random.default_rng(0), 20):
        steps = "".join(cd.pieces(example.trace)).split(";")[:-1]
        assert len(steps) == SUMS
        for step in steps:
            a, op, b, c = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", step).groups()  # type: ignore[union-attr]
            assert cd.combine(int(a), op, int(b)) == int(c)
        asked = [i for i in range(len(example.trace)) if i not in example.free]
        assert [cd.VOCAB[example.trace[i]] for i in asked[::3]] == ["="] * SUMS
        assert [cd.VOCAB[example.trace[i]] for i in asked[1::3]] == [step.split("=")[1] for step in steps]
    recipe, rng = CountdownRecipe(drill=0.4, drill_until=0.5), np.random.default_rng(0)
    shares = [np.mean([len(e.prompt) == 1 for e in recipe.examples(rng, p, 500)]) for p in (0.0, 0.25, 0.5, 1.0)]
    assert shares == [pytest.approx(s, abs=0.07) for s in (0.4, 0.2, 0.0, 0.0)]
    assert shares[2:] == [0, 0]


def numbers_of(steps: list[str]) -> cd.Puzzle:
    """The puzzle that steps solve: what they use and do not make themselves."""
    given: list[int] = []
    for step in reversed(steps):
        a, b, c = (int(n) for n in re.split(r"[-+*/=]", step))
        if given:
            given.remove(c)
        given += [a, b]
    return cd.Puzzle(tuple(given), int(steps[-1].split("=")[1]))


def test_a_batch_is_no_longer_than_its_context() -> None:
    recipe = CountdownRecipe(batch=16, context=100)
    assert max(ids.shape[1] for number in range(4) for ids, _ in batches(recipe, 0, 16 * number, 1.0)) <= 100


def test_what_does_not_fit_the_context_is_left_out() -> None:
    recipe = CountdownRecipe(numbers=(3, 3), context=64, detours=0.6, drill=0)
    made = recipe.examples(np.random.default_rng(0), 0.0, 300)
    assert len(made) == 300
    assert max(map(len, made)) <= 64
    assert any(cd.habits(puzzle, e.trace)["backtracking"] for puzzle, e in zip(puzzles(made), made, strict=True))
    with pytest.raises(ValueError, match="a context of 50 tokens is too short for 4 numbers"):
        CountdownRecipe(context=50)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 25), min_size=2, max_size=6), st.integers(10, 100), st.randoms())
def test_a_puzzle_stays_on_its_side_in_any_order(numbers: list[int], target: int, rng: random.Random) -> None:
    other = rng.sample(numbers, len(numbers))
    sides = split.held_out_puzzles([cd.Puzzle(tuple(n), target) for n in (numbers, other)])
    assert sides[0] == sides[1]


def test_one_puzzle_in_eight_is_held_out_and_none_is_trained_on() -> None:
    drawn = [puzzle for puzzle, _ in islice(cd.Distribution(4).puzzles(0), 4000)]
    assert 0.105 < split.held_out_puzzles(drawn).mean() < 0.145
    trained = puzzles(CountdownRecipe().examples(np.random.default_rng(0), 1.0, 500))
    assert not split.held_out_puzzles(trained).any()
    steps = [s for e in sums(np.random.default_rng(0), 60) for s in "".join(cd.pieces(e.trace)).split(";")[:-1]]
    assert steps[::3], "of puzzles of four numbers, three steps each"
    drilled = [numbers_of(steps[i : i + 3]) for i in range(0, len(steps), 3)]
    assert not split.held_out_puzzles(drilled).any()
    fresh = CountdownRecipe().fresh("C3", 40, 1)
    assert split.held_out_puzzles([cd.parse_prompt(p.prompt) for p in fresh]).all()
    assert len({cd.parse_prompt(p.prompt).same for p in CountdownRecipe().fresh("C3", 300, 1)}) == 300
    with pytest.raises(ValueError, match="C2: too few problems are held out"):
        CountdownRecipe().fresh("C2", 100, 1)
    assert [p.prompt for p in CountdownRecipe().fresh("C3", 10, 1)] == [p.prompt for p in fresh[:10]]
    assert all(cd.Countdown().grade(p, p.reference) for p in fresh)


# -- by name -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(recipes.RECIPES))
def test_a_task_by_name(task: str) -> None:
    recipe, words = recipes.recipe(task, 8), recipes.words(task)
    assert (recipe.task, recipe.batch) == (task, 8)
    assert words[: len(SPECIAL)] == SPECIAL
    assert (SPECIAL[PAD], SPECIAL[BOS], SPECIAL[EOS]) == ("<pad>", "<bos>", "<eos>")
    assert [recipes.own_tokens(task).encode(w) for w in words[len(SPECIAL) :]] == [[i] for i in range(3, len(words))]
    assert recipe.weights().shape == (len(words),)
    problem = recipe.fresh(recipe.distributions[0], 1, 1)[0]
    assert (problem.task, problem.group) == (task, recipe.distributions[0])
    assert recipes.only(task, recipe.goal).task == task


@pytest.mark.parametrize("task", sorted(recipes.RECIPES))
def test_what_is_practised_is_not_what_is_tested(task: str) -> None:
    recipe, own = recipes.recipe(task), recipes.own_tokens(task)
    made = list(islice(recipe.practice(recipe.goal, 7), 150))
    if task == "countdown_search":
        out = split.held_out_puzzles([cd.parse_prompt(p.prompt) for p in made])
    else:
        out = split.held_out([gs.parse_prompt(p.prompt_ids) for p in made])
    assert not out.any()
    assert len({p.id for p in made}) == len(made)
    assert all(p.task == task and own.grade(p, p.reference) for p in made)
    assert [p.prompt for p in islice(recipe.practice(recipe.goal, 7), 20)] == [p.prompt for p in made[:20]]
    with pytest.raises(ValueError, match="distribution"):
        recipe.practice("nothing", 7)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(WrongturnError, match=r"task 'count_down' \(did you mean 'countdown_search'\? There are"):
        recipes.recipe("count_down")
    with pytest.raises(WrongturnError, match=r"unknown task 'gsm8k' \(there are graph_search, "):
        recipes.recipe("gsm8k")
    with pytest.raises(ValueError, match="not a countdown distribution: 'G15_5,6'"):
        recipes.only("countdown_search", "G15_5,6")
    with pytest.raises(ValueError, match="unknown graph search 'bfs'"):
        GraphRecipe(task="bfs")
    with pytest.raises(ValueError, match="the order of the prompt is for graph_search"):
        GraphRecipe(task=DFS, order="prompt")
