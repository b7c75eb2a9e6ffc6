"""Rules: the published one does what was published, the fitted ones find what is planted and spend what they may."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_outcomes import OPERATORS, outcomes_of, planted

from wrongturn.diagnose.recoverability.outcomes import Base, Outcomes
from wrongturn.routing.choosing import Kinds, choose, lessons_of, picked
from wrongturn.routing.rules import Fixed, Lessons, Linear, Reference, Standardised, Threshold
from wrongturn.routing.spending import all_plans, spend

NAMES = ("spread", "concentration", "dispersion")
PAIRS = {"spread": "dense", "concentration": "steer", "dispersion": "lift"}


def lessons(features: np.ndarray, value: np.ndarray | None = None, names=NAMES) -> Lessons:
    plans = (("retry",), ("dense",), ("steer",), ("retry", "dense"))
    value = np.zeros((len(features), 4)) if value is None else value
    return Lessons(names, features, plans, value, np.arange(len(features)))


def test_three_items_map_to_their_operators_and_constant_columns_to_the_fallback() -> None:
    rule = Standardised.fit(lessons(np.eye(3)), PAIRS, "random")
    assert [rule.plans[i] for i in rule.pick(np.eye(3))] == [("dense",), ("steer",), ("lift",)]
    flat = Standardised.fit(lessons(np.ones((3, 3))), PAIRS, "random")
    assert [flat.plans[i] for i in flat.pick(np.ones((3, 3)))] == [("random",)] * 3
    # a batch of one is measured against the reference
    assert [rule.plans[i] for i in rule.pick([[0.0, 1.0, math.nan]])] == [("steer",)]
    assert [rule.plans[i] for i in rule.pick([[math.nan] * 3])] == [("random",)]
    with pytest.raises(ValueError, match="1 features"):
        Standardised(Reference(("a",), (0.0,), (1.0,)), ("x", "y"), "random")
    with pytest.raises(ValueError, match="3 features"):
        rule.pick(np.eye(2))
    with pytest.raises(ValueError, match="of the same problems"):
        lessons(np.eye(3), np.zeros((2, 4)))


def test_a_fixed_rule_is_the_best_of_one_or_two_operators() -> None:
    value = np.tile([0.1, 0.5, 0.2, 0.6], (6, 1))
    taught = lessons(np.zeros((6, 3)), value)
    assert Fixed.fit(taught).plan == ("dense",)
    assert Fixed.fit(taught, most=2).plan == ("retry", "dense")


def test_a_threshold_finds_the_cut() -> None:
    x = np.linspace(0, 1, 40)[:, None]
    value = np.stack([x[:, 0] <= 0.6, x[:, 0] > 0.6, x[:, 0] * 0, x[:, 0] * 0], axis=1).astype(float)
    rule = Threshold.fit(lessons(x, value, ("entropy",)), "entropy")
    assert (rule.below, rule.above) == (("retry",), ("dense",))
    assert rule.plans[rule.pick([[0.3]])[0]] == ("retry",)
    assert rule.plans[rule.pick([[0.9]])[0]] == ("dense",)


def test_a_linear_rule_deviates_only_for_more_than_its_margin() -> None:
    features, found = planted(80)
    spent = spend(found, all_plans(OPERATORS), 60)
    taught = lessons_of(found, spent, features.names, features.values)
    eager, never = Linear.fit(taught, penalty=1.0), Linear.fit(taught, penalty=1.0, margin=2.0)
    works = np.where(features.values[:, 0] > 0, "dense", "steer")
    chosen = [eager.plans[i] for i in eager.pick(features.values)]
    assert np.mean([name in plan for name, plan in zip(works, chosen, strict=True)]) > 0.95
    assert {never.plans[i] for i in never.pick(features.values)} == {Fixed.fit(taught, most=2).plan}
    assert taught.value[np.arange(80), picked(eager, taught)].mean() > taught.value.mean(axis=0).max() + 0.1


def test_the_simplest_rule_wins_where_nothing_is_to_be_learned() -> None:
    rng = np.random.default_rng(5)
    features = rng.normal(size=(60, 2))
    value = np.tile([0.9, 0.1, 0.1, 0.85], (60, 1)) + rng.normal(0, 0.02, (60, 4))
    rule = choose(lessons(features, value, ("a", "b")))
    assert isinstance(rule, Fixed)
    assert rule.plan == ("retry",)
    few = choose(lessons(features[:5], value[:5], ("a", "b")))
    assert isinstance(few, Fixed)
    assert Kinds().standardised(lessons(np.eye(3))) is None  # there is no "lift" among its plans


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(0, 10**6))
def test_the_budget_is_spent_and_more_of_it_never_hurts(budget: int, seed: int) -> None:
    found = outcomes_of(np.random.default_rng(seed).random((4, 3)), tries=5, seed=seed)
    plans = all_plans(OPERATORS)
    spent, more = (spend(found, plans, b, orders=6, votes=False, seed=1) for b in (budget, budget + 20))
    assert (spent.tokens < budget + 30).all()  # no order begins a try beyond it
    even = spend(found, plans, budget, orders=200, votes=False, seed=1)  # standard error: about 0.7 tokens
    assert even.tokens[even.short == 0] == pytest.approx(budget, abs=3.5)
    assert (spent.rescued <= more.rescued).all()
    assert ((spent.short == 0) | (spent.short == 1) | (spent.tokens > 0)).all()
    assert ((spent.rescued >= 0) & (spent.rescued <= 1)).all()


def test_spending_by_hand() -> None:
    right = np.array([[[1.0, 0.0], [0.0, np.nan]]])
    tokens = np.array([[[10.0, 10.0], [5.0, np.nan]]])
    found = Outcomes(("p",), ("g",), ("a", "b"), right, tokens, np.array([[[7, 1], [1, -1]]]))
    plans = (("a",), ("b",), ("b", "a"))
    spent = spend(found, plans, 15, orders=400)
    assert spent.once[0].tolist() == [0.5, 0.0, 0.25]
    assert spent.tokens[0].tolist() == [15, 5, 15]
    assert spent.short[0].tolist() == [0, 1, 0]
    assert spent.rescued[0] == pytest.approx([0.75, 0, 0.5], abs=0.1)
    everything = spend(found, plans, 100)
    assert everything.rescued[0].tolist() == [1, 0, 1]
    assert everything.voted[0].tolist()[1:] == [0, 0]  # one vote for 7, two for 1
    base = Base(("p",), ("g",), np.array([[1.0, 1.0]]), np.zeros((1, 2)), np.array([[7, 7]]))
    assert spend(found, plans, 100, base=base).voted[0].tolist() == [1, 1, 1]
    nothing = spend(found, plans, 0.01)
    assert nothing.rescued.tolist() == nothing.tokens.tolist() == nothing.voted.tolist() == [[0, 0, 0]]
    untried = spend(found.take([0]).halves()[0], (("a",), ("b",)), 100)
    assert not np.isnan(untried.rescued[0, 1])  # the single try of "b" is in both halves
