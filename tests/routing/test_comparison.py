"""Routers compared: nothing is found where nothing is, what is planted is found, and nobody spends more than others."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from made_outcomes import Table, base_of, outcomes_of, planted

from wrongturn.diagnose.intervals import Resamples
from wrongturn.errors import WrongturnError
from wrongturn.routing import Kinds, compare, deploy, largest_budget, play
from wrongturn.routing.playing import aligned, subsets_of

QUICK = Kinds(penalties=(10.0,), margins=(0.05, 0.0))


def null_world(seed: int, problems: int = 40) -> tuple[Table, object]:
    """Problems differ, operators do not; features tell how hard a problem is, and nothing else."""
    rng = np.random.default_rng(4_000_000 + seed)
    hard = rng.beta(0.7, 1.5, problems)
    found = outcomes_of(np.repeat(hard[:, None], 3, axis=1), seed=seed)
    values = np.stack([hard + rng.normal(0, 0.1, problems), rng.normal(size=problems)], axis=1)
    return Table(found.problems, ("spread", "entropy"), values), found


@pytest.mark.parametrize("worlds", [20, pytest.param(200, marks=pytest.mark.extras)])
def test_no_router_beats_retry_where_no_operator_does(worlds: int) -> None:
    covered = {"router": 0, "best fixed": 0, "logistic": 0}
    boot = Resamples(40, 400)
    for seed in range(worlds):
        played = play(*null_world(seed), budget=40, folds=2, repeats=1, kinds=QUICK, orders=4, votes=False, seed=seed)
        for name in covered:
            away = (played.value(name) - played.value("retry"))[0]
            estimate = boot.mean(played.outcomes.clusters, away)
            covered[name] += estimate.low <= 0 <= estimate.high
    assert min(covered.values()) >= 0.9 * worlds, covered


@pytest.fixture(scope="module")
def found():
    return compare(*planted(90), budget=45, repeats=2, kinds=QUICK, orders=8, n_boot=300)


def test_a_planted_difference_is_found(found) -> None:
    row = found["router"].failures
    assert row.minus_retry.low > 0.2
    assert row.minus_best_fixed.low > 0.05
    assert row.minus_best_plan.low > 0.0
    assert found["logistic"].failures.minus_best_fixed.low > 0.1
    assert found.shuffled.p < 0.05
    assert found.shuffled.high < row.rescued.value
    assert found["oracle"].failures.rescued.value >= found["best fixed"].failures.rescued.value
    assert found["random"].failures.rescued.value < found["best fixed"].failures.rescued.value
    assert set(found.kinds) <= {"linear", "threshold"}


def test_everybody_has_the_same_tokens(found) -> None:
    for row in (*found.rows, *found.operators):
        assert row.decoded_tokens == pytest.approx(found.budget, rel=0.05)
        assert row.short < 0.1
        assert sum(row.plans.values()) == pytest.approx(1)


def test_running_out_of_tries_is_said() -> None:
    outcomes = planted(30)[1]
    tokens = outcomes.tokens.copy()
    tokens[:, 1] /= 4  # of "dense" there are four tries a half, for a twelfth of the budget each
    cheap = replace(outcomes, tokens=tokens)
    assert largest_budget(cheap) < 40 < largest_budget(outcomes)
    found = compare(None, cheap, budget=60, repeats=1, orders=4, n_boot=50)
    assert found["dense"].short > 0.9
    assert found["retry"].short < 0.2
    assert "tries ran out before the budget" in found.caveats["short"]
    few = compare(None, cheap, budget=largest_budget(cheap), repeats=1, orders=4, n_boot=50)
    assert few["dense"].short <= 0.2
    assert found.dict()["caveats"] == found.caveats


def test_figures_as_json(found) -> None:
    told = json.loads(json.dumps(found.dict()))
    rows = {row["router"]: row for row in told["comparison"]}
    assert {"retry", "best fixed", "random", "logistic", "bandit", "router", "oracle"} <= rows.keys()
    assert rows["retry"]["minus_retry"] is None
    router = rows["router"]
    assert router["low"] <= router["rescued"] <= router["high"]
    assert router["minus_retry"].keys() == {"value", "low", "high", "n"}
    assert router["subsets"].keys() == {"steerable", "published on select", "published"}
    assert (told["failures"], told["left_out"], router["n"]) == (90, 0, 90)
    assert "selection" in told["caveats"]["published"]


def test_the_published_rule_and_a_threshold_are_there_where_they_can_be() -> None:
    rng = np.random.default_rng(1)
    spread = rng.normal(size=60)
    rates = np.full((60, 5), 0.1)
    rates[spread > 0, 1] = 0.8
    names = ("retry", "dense", "steer", "lift", "steer:where=random")
    outcomes = outcomes_of(rates, operators=names)
    values = np.stack([spread, rng.normal(0, 0.1, 60), rng.normal(0, 0.1, 60)], axis=1)
    features = Table(outcomes.problems, ("spread", "concentration", "entropy"), values)
    kinds = Kinds(published={"spread": "dense", "concentration": "lift"}, penalties=(10.0,))
    played = play(features, outcomes, budget=40, repeats=1, kinds=kinds, votes=False, orders=4)
    assert played.value("published").mean() > played.value("retry").mean() + 0.15
    assert "threshold" in played.shares
    assert "published" not in play(None, outcomes, budget=40, repeats=1, votes=False, orders=4).shares


def test_subsets_are_told_from_other_tries_than_are_scored() -> None:
    """Nothing works better than retry: the published subset says otherwise, the same thresholds on other tries not."""
    rates = np.repeat(np.random.default_rng(6).beta(0.7, 1.5, 800)[:, None], 3, axis=1)
    whole = outcomes_of(rates, tries=12)
    select, score = whole.halves()
    ahead = score.counts().rates.mean(axis=1) - score.counts().rates[:, 0]
    subsets = subsets_of(select.counts(), whole.counts(), whole.operators)
    assert ahead[subsets["published"]].mean() > 0.03
    assert abs(ahead[subsets["published on select"]].mean()) < 0.015
    assert subsets["steerable"].mean() < 0.1 < 0.3 < subsets["published on select"].mean()


def test_features_may_be_missing_but_not_of_others() -> None:
    features, outcomes = planted(40)
    some = Table(features.problems[:30], features.names, features.values[:30])
    assert compare(some, outcomes, budget=40, repeats=1, kinds=QUICK, orders=4, n_boot=50).failures == 40
    names, values = aligned(Table(("p1", "p0"), ("a", "b", "a"), np.arange(6.0).reshape(2, 3)), ("p0", "p2"))
    assert names == ("a", "b")
    np.testing.assert_array_equal(values, [[3, 4], [np.nan, np.nan]])
    with pytest.raises(WrongturnError, match="features are of other problems"):
        compare(Table(("x",), ("a",), np.zeros((1, 1))), outcomes, budget=40)
    with pytest.raises(WrongturnError, match="9 of 9 problems have two tries"):
        compare(features, outcomes.take(range(9)), budget=40)
    with pytest.raises(WrongturnError, match="above 0, not -1"):
        compare(features, outcomes, budget=-1)
    assert 40 < largest_budget(outcomes) < 4 * 30


def test_without_a_grader() -> None:
    features, outcomes = planted(80, tries=16)
    found = deploy(
        features,
        blind=outcomes,
        known=(features, outcomes),
        base=base_of(outcomes, np.full(80, 0.25), samples=6),
        samples=4,
        budget=120,
        repeats=2,
        kinds=QUICK,
        orders=8,
        n_boot=300,
    )
    assert found.problems == 100
    arms = {arm.arm: arm for arm in found.arms}
    assert arms["samples alone"].decoded_tokens == pytest.approx(80)
    assert arms["router"].accuracy.value > arms["retry"].accuracy.value > 0
    assert arms["router"].minus_retry.low > 0.1
    assert arms["router"].minus_known.high < 0  # guessing has its price
    even = [arms[name].decoded_tokens for name in ("retry", "router", "failures known")]
    assert max(even) / min(even) < 1.1
    assert found.recall.value > 0.8 > found.in_vain.value + 0.2
    assert found.untried == 0
    assert json.loads(json.dumps(found.dict()))["arms"][0]["minus_known"]["value"] < 0
    base = base_of(outcomes, np.full(80, 0.25), 6)
    with pytest.raises(WrongturnError, match="needs 7 graded samples"):
        deploy(features, base, outcomes, (features, outcomes), samples=7, budget=60)
