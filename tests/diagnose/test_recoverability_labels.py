"""Labels: the split one is rarely wrong where nothing works, the published rule mostly is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.diagnose.recoverability.labels import (
    BEYOND,
    RESAMPLE,
    STEERABLE,
    UNTOLD,
    Counts,
    fisher,
    label,
    null_rate,
    split,
)

OPERATORS = ("retry", "sparse", "random", "local", "dense")


def drawn(rate: float, tries: int, problems: int, best: float | None = None, seed: int = 0) -> tuple[Counts, Counts]:
    rng = np.random.default_rng(seed)
    rates = np.full((problems, len(OPERATORS)), rate)
    rates[:, -1] = rate if best is None else best
    halves = tries // 2, tries - tries // 2
    return tuple(Counts(rng.binomial(n, rates), np.full(rates.shape, n)) for n in halves)  # type: ignore[return-value]


def steerable(select: Counts, score: Counts, compat: str | None = None) -> float:
    return float(np.mean([row.label == STEERABLE for row in label(select, score, OPERATORS, compat=compat)]))


def one(select: list[tuple[int, int]], score: list[tuple[int, int]]) -> tuple[Counts, Counts]:
    return tuple(Counts(*(np.array([column]) for column in zip(*half, strict=True))) for half in (select, score))  # type: ignore[return-value]


@pytest.mark.parametrize(("rate", "tries"), [(0.1, 3), (0.1, 10), (0.3, 16)])
def test_nothing_works_and_the_naive_label_does_not_notice(rate: float, tries: int) -> None:
    tables = drawn(rate, tries, 400)
    assert 0.4 <= steerable(*tables, compat="naive") <= 0.8
    assert steerable(*tables) <= 0.06


@pytest.mark.parametrize("tries", [32, 128])
def test_the_null_rate_stays_small_with_many_tries(tries: int) -> None:
    assert steerable(*drawn(0.4, tries, 400)) <= 0.06


def test_what_works_is_found_and_named() -> None:
    found = label(*drawn(0.1, 32, 100, best=0.7), OPERATORS)
    hits = [row for row in found if row.label == STEERABLE]
    assert len(hits) >= 80
    assert all(row.operator == "dense" for row in hits)
    assert sum("dense" in row.rescuers for row in found) >= 80


def test_published_rates_of_the_naive_rule() -> None:
    """Simulated in the notes: 40 % at a rate of .05 with 3 tries, 61 % at .3; 62 to 71 % with 10 tries."""
    for rate, tries, expected in ((0.05, 3, 0.40), (0.3, 3, 0.61), (0.1, 10, 0.67)):
        assert steerable(*drawn(rate, tries, 1500), compat="naive") == pytest.approx(expected, abs=0.05)


def test_dealing_anew_gives_the_null_rate_of_both() -> None:
    tables = drawn(0.2, 12, 60, best=0.8)
    naive = null_rate(*tables, compat="naive", draws=20)
    assert 0.4 < naive.value < 0.9
    assert null_rate(*tables, draws=20).value <= 0.06
    assert naive.n == 60
    assert null_rate(*tables, draws=3, seed=4) == null_rate(*tables, draws=3, seed=4)
    empty = Counts(np.zeros((0, 2)), np.zeros((0, 2)))
    assert math.isnan(null_rate(empty, empty).value)


def test_each_label_and_its_reason() -> None:
    names = ("retry", "dense")
    cases = [
        ([(0, 8), (7, 8)], [(0, 8), (7, 8)], STEERABLE, ""),
        ([(3, 8), (3, 8)], [(3, 8), (3, 8)], RESAMPLE, "no operator beats it"),
        ([(0, 8), (0, 8)], [(0, 8), (0, 8)], BEYOND, "no success in 32 tries"),
        ([(0, 2), (0, 2)], [(0, 2), (0, 2)], UNTOLD, "leave room for a rate of 0.53"),
        ([(0, 4), (2, 4)], [(0, 4), (1, 4)], UNTOLD, "p = 0.5 on the score half"),
        ([(0, 4), (0, 4)], [(0, 4), (2, 4)], UNTOLD, "none stood out on the select half"),
        ([(0, 0), (2, 4)], [(0, 0), (2, 4)], UNTOLD, "retry was not tried"),
        ([(1, 4), (0, 0)], [(1, 4), (0, 0)], UNTOLD, "no other operator was tried"),
    ]
    for select, score, expected, reason in cases:
        [found] = label(*one(select, score), names)
        assert (found.label, reason in found.reason) == (expected, True), found


def test_an_operator_tried_once_neither_hides_what_is_beyond_reach_nor_is_chosen() -> None:
    names, once = ("retry", "ban", "greedy"), ("greedy",)
    never = one([(0, 6), (0, 6), (0, 0)], [(0, 6), (0, 6), (0, 1)])
    [found] = label(*never, names, once=once)
    assert (found.label, "below 0.22" in found.reason) == (BEYOND, True), found
    assert label(*never, names)[0].label == UNTOLD  # a single try of one that might do better the next time
    [found] = label(*one([(0, 32), (0, 32), (0, 0)], [(0, 32), (0, 32), (1, 1)]), names, once=once)
    assert (found.label, found.operator) == (UNTOLD, None)
    assert found.reason == "greedy succeeded and retry never did, but a single try cannot both choose and test"
    assert found.cells[2].p == pytest.approx(1 / 33)  # as if it were another draw of retry's
    assert found.rescuers == ()  # of two tests
    [found] = label(*one([(0, 60), (0, 0), (0, 0)], [(0, 60), (0, 0), (1, 1)]), names, once=once)
    assert found.rescuers == ("greedy",)
    assert label(*one([(0, 6), (0, 0), (0, 0)], [(0, 6), (0, 0), (0, 1)]), names, once=once)[0].label == BEYOND


def test_the_null_rate_of_problems_that_are_one_has_their_interval() -> None:
    tables = drawn(0.2, 12, 60, best=0.8)
    alone, paired = (null_rate(*tables, compat="naive", draws=5, clusters=c) for c in (None, np.arange(60) // 2))
    assert (alone.value, alone.n, paired.n) == (paired.value, 60, 30)
    assert paired.high - paired.low > alone.high - alone.low


def test_a_cell_holds_both_halves_and_what_cannot_be_told_is_nan() -> None:
    [found] = label(*one([(1, 8), (6, 8), (0, 0)], [(0, 8), (7, 8), (0, 0)]), ("retry", "dense", "local"))
    retry, dense, local = found.cells
    assert (dense.select, dense.score) == ((6, 8), (7, 8))
    assert dense.rate.low < dense.rate.value == 7 / 8 < dense.rate.high
    assert dense.p == pytest.approx(fisher(7, 8, 0, 8)) == dense.holm  # the only test there is
    assert all(math.isnan(x) for x in (retry.p, retry.holm, local.p, local.holm, local.rate.value))
    assert found.p == dense.p
    assert found.rescuers == ("dense",)


def test_fisher_is_exact() -> None:
    assert fisher(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert fisher(0, 5, 3, 5) == pytest.approx(1.0)
    assert math.isnan(fisher(0, 0, 1, 3))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.integers(1, 4), st.integers(0, 4), st.integers(1, 4))
def test_fisher_counts_the_ways_to_deal_the_successes(a: int, n: int, b: int, m: int) -> None:
    a, b = min(a, n), min(b, m)
    deals = list(itertools.combinations(range(n + m), a + b))
    as_many = sum(sum(place < n for place in deal) >= a for deal in deals)
    assert fisher(a, n, b, m) == pytest.approx(as_many / len(deals))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 9), st.integers(0, 3), st.integers(0, 10**6))
def test_split_shares_out_every_try_once(tries: int, missing: int, seed: int) -> None:
    outcomes = np.random.default_rng(seed).integers(0, 2, (2, 3, tries)).astype(float)
    outcomes[:, :, :missing] = np.nan
    select, score = split(outcomes, seed)
    both = select + score
    assert np.array_equal(both.tries, (~np.isnan(outcomes)).sum(axis=2))
    assert np.array_equal(both.successes, np.nansum(outcomes, axis=2))
    assert ((score.tries - select.tries) == both.tries % 2).all()


def test_bad_tables_are_named() -> None:
    good = Counts(np.zeros((1, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="problem 0, operator 1: 3 of 2 is no number"):
        Counts(np.array([[0, 3]]), np.array([[1, 2]]))
    with pytest.raises(ValueError, match="shapes"):
        Counts(np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="no operator is called 'retry'"):
        label(good, good, ("a", "b"))
    with pytest.raises(ValueError, match="3 operators"):
        label(good, good, OPERATORS[:3])
    with pytest.raises(ValueError, match="compat must be one of"):
        label(good, good, ("retry", "b"), compat="other")
    with pytest.raises(ValueError, match="1, 0 and NaN"):
        split(np.full((1, 1, 1), 2.0))
