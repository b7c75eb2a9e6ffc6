"""GUARD's two trigger rules (guard.md §5.3, §7.9) pinned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrongturn.diagnose import detectors
from wrongturn.triggers import fires, replay, threshold

VALUES = st.lists(st.floats(0, 5, width=32), max_size=30)
QUANTILES = st.sampled_from([0.0, 0.5, 0.7, 0.9, 0.95, 1.0])


def test_ten_rising_values_fire_in_paper_mode_after_the_minimum_history_and_never_in_repo_mode():
    rising = np.arange(10.0)
    assert replay(rising, 0.9, "paper", min_history=4).tolist() == [False] * 4 + [True] * 6
    assert not replay(rising, 0.9, "repo").any()


@pytest.mark.parametrize("n", range(11, 21))
def test_repo_mode_fires_only_on_a_new_strict_maximum_for_eleven_to_twenty_values(n):
    past = np.random.default_rng(n).permutation(np.linspace(0, 1, n - 1))
    assert fires(1.0 + 1e-9, past, 0.9, "repo")
    assert not fires(1.0, past, 0.9, "repo")
    assert not fires(np.partition(past, -2)[-2] + 1e-9, past, 0.9, "repo")


@pytest.mark.parametrize("n", range(5, 11))
def test_repo_mode_is_blind_up_to_ten_values(n):
    assert not fires(99.0, np.zeros(n - 1), 0.9, "repo")


def test_the_highest_quantile_never_fires_in_repo_mode_and_does_not_crash():
    assert not replay(np.arange(40.0), 1.0, "repo").any()
    assert replay(np.arange(40.0), 1.0, "paper")[1:].all()


@given(VALUES.filter(len), QUANTILES)
def test_paper_threshold_is_numpys_quantile_and_repo_threshold_an_order_statistic(values, q):
    assert threshold(values, q, "paper") == pytest.approx(np.quantile(values, q), abs=1e-6)
    assert threshold(values, q, "repo") == sorted(values)[min(int(np.floor(len(values) * q)), len(values) - 1)]


@given(st.lists(VALUES, min_size=1, max_size=6), QUANTILES, st.sampled_from(["paper", "repo"]), st.integers(1, 6))
def test_replaying_many_traces_is_replaying_each(rows, q, rule, min_history):
    padded = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    together = detectors.replay(padded, q, rule, min_history)
    for i, row in enumerate(rows):
        assert together[i, : len(row)].tolist() == replay(row, q, rule, min_history).tolist()
        assert not together[i, len(row) :].any()


def test_a_wrong_rule_or_quantile_is_refused():
    with pytest.raises(ValueError, match="rule"):
        threshold([1.0], 0.9, "blog")
    with pytest.raises(ValueError, match="q must be"):
        threshold([1.0], 1.1)
