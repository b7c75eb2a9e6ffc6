"""Searches for an onset, on traces whose value at every cut is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.diagnose.recoverability.bisection import bisection
from wrongturn.diagnose.recoverability.designs import Design, Onset, Plan, Rollout, curve, omega
from wrongturn.diagnose.recoverability.posterior import Posterior, Tally
from wrongturn.diagnose.recoverability.worlds import World, even


def ends(make: Callable[[np.random.Generator], tuple[World, int]], plan: Callable[[], Plan], n: int, seed: int = 0):
    """(onset found, true onset) of n traces."""
    rng = np.random.default_rng(seed)
    return [(world.search(plan(), rng), onset) for world, onset in (make(rng) for _ in range(n))]


def falling(steps: int, high: float, low: float) -> Callable[[np.random.Generator], tuple[World, int]]:
    def make(rng: np.random.Generator) -> tuple[World, int]:
        onset = int(rng.integers(steps))
        return World.of_step(steps, onset, high, low), onset

    return make


def sharp(rng: np.random.Generator) -> tuple[World, int]:
    """Most continuations repeat the trace; those that leave it at the onset are mostly right."""
    onset = int(rng.integers(14))
    leave, rescue = np.full(14, 0.02), np.full(14, 0.03)
    leave[onset], rescue[onset], rescue[:onset] = 0.25, 0.6, 0.15
    return World(leave, rescue), onset


def hits(found: list[tuple[Onset, int]], within: int = 0) -> float:
    return float(np.mean([o.step is not None and abs(o.step - t) <= within for o, t in found]))


def spent(found: list[tuple[Onset, int]]) -> float:
    return float(np.mean([o.rollouts for o, _ in found]))


def test_the_rates_of_the_notes() -> None:
    """64 steps, .6 falling to .03: 97 % with 39 rollouts in the notes; OmegaPRM's rule with 4 tries: 64 % with 24."""
    ours = ends(falling(64, 0.6, 0.03), lambda: bisection(even(64), 160, confirm=0, share=False), 40)
    theirs = ends(falling(64, 0.6, 0.03), lambda: omega(even(64), 4), 60)
    assert hits(ours) >= 0.88
    assert spent(ours) <= 48
    assert 0.45 <= hits(theirs) <= 0.82


def test_more_tries_make_the_any_success_rule_worse() -> None:
    few, many = (ends(falling(64, 0.6, 0.03), lambda k=k: omega(even(64), k), 60) for k in (4, 16))
    assert hits(many) < hits(few) - 0.15


def test_where_rollouts_leave_tells_more_than_where_they_were_cut() -> None:
    shared, alone = (ends(sharp, lambda s=s: bisection(even(14), 32, confirm=0, share=s), 50) for s in (True, False))
    rule = ends(sharp, lambda: omega(even(14), 16), 50)
    assert hits(shared) > hits(alone) + 0.2
    assert hits(shared) >= hits(rule)
    assert spent(shared) <= 0.5 * spent(rule)


def test_found_is_seldom_wrong_and_intervals_hold_the_onset() -> None:
    for make in (falling(14, 0.6, 0.02), sharp):
        found = ends(make, lambda: bisection(even(14), 64), 50)
        named = [(o, t) for o, t in found if o.status == "found"]
        assert len(named) >= 15
        assert hits(named, within=1) >= 0.9
        told = [o.steps[0] <= t <= o.steps[1] for o, t in found if o.steps is not None]
        assert np.mean(told) >= 0.88
        assert all(o.p <= 0.05 and o.drop.low < o.drop.value <= o.drop.high for o, _ in named)


def test_no_drop_is_not_found() -> None:
    flat = ends(lambda rng: (World.of_values(np.full(14, 0.02)), -9), lambda: bisection(even(14), 64), 40)
    slow = ends(lambda rng: (World.of_values(np.linspace(0.8, 0.05, 14)), -9), lambda: bisection(even(14), 64), 40)
    assert np.mean([o.status == "found" for o, _ in flat]) <= 0.05
    assert np.mean([o.status == "found" for o, _ in slow]) <= 0.35  # a slow fall has steep places


def test_a_dead_trace_costs_the_root_and_says_so() -> None:
    onset = World.of_values(np.zeros(10)).search(bisection(even(10)), np.random.default_rng(0))
    assert (onset.status, onset.step, onset.rollouts) == ("cannot be told", None, 16)
    assert onset.reason == "no live prefix: 0 of 16 continuations from the start are right (V < 0.17)"
    assert onset.steps is None
    assert math.isnan(onset.p)


def test_a_value_that_comes_back_does_not_fit() -> None:
    values = np.array([0.9] * 4 + [0.0] * 5 + [0.9] * 5 + [0.0])
    rng = np.random.default_rng(0)
    rollouts = [r for at in range(15) for r in World.of_values(values).rollouts(at, 8, rng)]
    tally = Tally.of(rollouts, np.arange(16), share=False)
    assert Posterior.of(tally, share=False).misfit(tally) < 0.05
    once = [r for at in range(15) for r in World.of_step(15, 6, 0.9, 0.0).rollouts(at, 8, rng)]
    tally = Tally.of(once, np.arange(16), share=False)
    assert Posterior.of(tally, share=False).misfit(tally) > 0.05


def test_refines_to_tokens_of_the_step() -> None:
    world = World.of_step(40, 22, 0.9, 0.001)
    rng = np.random.default_rng(0)
    found = [world.search(bisection(even(8, 5), 96), rng) for _ in range(12)]
    assert np.mean([o.step == 4 for o in found]) >= 0.9
    assert np.mean([o.tokens is not None and o.tokens[0] <= 22 <= o.tokens[1] for o in found]) >= 0.85
    assert np.median([o.tokens[1] - o.tokens[0] for o in found if o.tokens]) <= 2


def test_one_step_is_its_own_onset() -> None:
    onset = World.of_values([0.8, 0.8]).search(bisection(even(1, 2)), np.random.default_rng(1))
    assert onset.step == 0
    assert onset.steps == (0, 0)


def test_the_curve_picks_the_likeliest_step() -> None:
    plan = Design(curve(even(4), 5))
    for right in (4, 5, 0, 1):
        assert plan.ask is not None
        plan.tell([Rollout(plan.ask.at, plan.ask.at, k < right) for k in range(5)])
    assert plan.onset is not None
    assert (plan.onset.step, plan.onset.rollouts) == (1, 20)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 80), st.integers(0, 10**6), st.booleans())
def test_a_search_ends_within_its_budget_and_names_a_place_in_the_trace(
    steps: int, width: int, budget: int, seed: int, share: bool
) -> None:
    rng = np.random.default_rng(seed)
    world = World(rng.random(steps * width), rng.random(steps * width) ** 3)
    onset = world.search(bisection(even(steps, width), budget, share=share), rng)
    assert 1 <= onset.rollouts <= budget
    if onset.step is not None:
        assert onset.steps is not None
        assert 0 <= onset.steps[0] <= onset.steps[1] < steps
        assert onset.token is not None
        assert onset.step * width <= onset.token < (onset.step + 1) * width


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10), st.integers(0, 10**6))
def test_the_world_is_worth_what_it_says(length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = World(rng.random(length), rng.random(length))
    at = int(rng.integers(length))
    rollouts = world.rollouts(at, 2000, rng)
    assert np.mean([r.right for r in rollouts]) == pytest.approx(world.values[at], abs=0.06)
    assert all(at <= r.left <= length for r in rollouts)


def test_what_a_design_refuses() -> None:
    design = Design(omega(even(4), 2))
    with pytest.raises(ValueError, match="no continuation of the first 0 tokens"):
        design.tell([Rollout(3, 3, True)])
    design.tell([])
    assert design.onset is not None
    assert design.onset.reason == "nothing came of 2 continuations from token 0"
    with pytest.raises(ValueError, match="asks for nothing"):
        design.tell([Rollout(0, 0, True)])
    for spans in (np.zeros((0, 2)), [[0, 2], [3, 4]], [[0, 0]], [[1, 2]]):
        with pytest.raises(ValueError, match="spans"):
            Design(omega(np.array(spans), 2))


def test_counts_say_who_stayed() -> None:
    tally = Tally.of(
        [Rollout(0, 5, True), Rollout(2, 2, False), Rollout(0, 0, False), Rollout(2, 6, False)], np.array([1, 3, 6])
    )
    assert tally.earlier == (0, 1)
    assert tally.right.tolist() == [0, 1, 0]
    assert tally.wrong.tolist() == [1, 0, 1]
    assert tally.stayed.tolist() == [2, 1]


def test_where_nothing_leaves_at_the_onset_the_drop_is_not_known() -> None:
    design = Design(bisection(even(2), 64, confirm=4))
    bisecting = True
    while design.ask is not None:
        at, tries = design.ask.at, design.ask.tries
        # while it searches, rollouts from the start depart at once and are right; later ones all repeat the trace
        bisecting = bisecting and tries == 2
        design.tell([Rollout(at, 0 if bisecting and at == 0 else 2, bisecting and at == 0) for _ in range(tries)])
    assert design.onset is not None
    assert design.onset.status == "interval"
    assert math.isnan(design.onset.p)
    assert math.isnan(design.onset.drop.value)
    assert design.onset.reason == "no fresh continuation left the trace at the onset, or none went past it"
