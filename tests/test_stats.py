"""Statistics against published worked examples, brute-force definitions, and small seeded coverage simulations."""

import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wrongturn.stats import (
    Estimate,
    auroc,
    average_precision,
    average_precision_bootstrap,
    bootstrap,
    difference,
    holm,
    mcnemar,
    paired_bootstrap,
    proportion,
    within_auroc,
)

NOTHING = np.zeros(0)


def paired(both, only_a, only_b, neither):
    a = [1] * (both + only_a) + [0] * (only_b + neither)
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return np.array(a, dtype=bool), np.array(b, dtype=bool)


# --- Estimate ---------------------------------------------------------------------------------------------------------


def test_an_estimate_reads_well_and_is_json():
    estimate = Estimate(0.84, 0.798, 0.8812, 200)
    assert str(estimate) == "0.84 [0.80, 0.88] n=200"
    assert str(Estimate(-0.001, -0.2, 0.2, 7, 0.5)) == "0.00 [-0.20, 0.20] n=7 base=0.50"
    assert estimate.dict() == {"value": 0.84, "low": 0.798, "high": 0.8812, "base_rate": None, "n": 200}
    json.dumps(bootstrap(np.arange(5, dtype=np.float32), np.mean).dict(), allow_nan=False)
    assert Estimate(math.nan, -math.inf, math.inf, 0).dict() == dict.fromkeys(["value", "low", "high", "base_rate"]) | {
        "n": 0
    }


# --- proportions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_table_of_newcombe_1998(successes, n, low, high):
    estimate = proportion(successes, n)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.5, 0.999))
def test_wilson_inverts_the_score_test(successes, failures, level):
    n = successes + failures
    assume(n > 0)
    estimate = proportion(successes, n, level)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    widest = proportion(successes, n, 0.9995)
    assert widest.low <= estimate.low <= estimate.high <= widest.high
    mirror = proportion(failures, n, level)
    assert (1 - mirror.high, 1 - mirror.low) == pytest.approx((estimate.low, estimate.high), abs=1e-12)
    ends = [abs(estimate.value - p) / math.sqrt(p * (1 - p) / n) for p in (estimate.low, estimate.high) if 0 < p < 1]
    assert ends == pytest.approx([ends[0]] * len(ends), rel=1e-6)  # both limits are rejected at the same z


def test_wilson_coverage():
    rng = np.random.default_rng(0)
    intervals = [proportion(k, 40) for k in range(41)]
    for p in (0.05, 0.3, 0.5, 0.9):
        covered = [intervals[k].low <= p <= intervals[k].high for k in rng.binomial(40, p, 4000)]
        assert 0.92 <= np.mean(covered) <= 0.985


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe 1998, method 10
        ((1, 1, 7, 12), -0.507, -0.026),  # Bentur et al. in Fagerland, Lydersen & Laake 2017, chapter 8
    ],
)
def test_difference_gives_published_limits(table, low, high):
    estimate = difference(*paired(*table))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=6e-4)
    assert estimate.n == sum(table)


@given(st.tuples(*[st.integers(0, 30)] * 4))
def test_difference_is_antisymmetric_and_brackets(table):
    assume(sum(table) > 0)
    a, b = paired(*table)
    estimate, swapped, negated = difference(a, b), difference(b, a), difference(~b, ~a)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.value == pytest.approx(a.mean() - b.mean())
    for other in (swapped, negated):
        sign = -1 if other is swapped else 1
        limits = sorted([sign * other.low, sign * other.high])
        assert limits == pytest.approx([estimate.low, estimate.high], abs=1e-12)


def test_difference_coverage_and_gain_from_pairing():
    rng = np.random.default_rng(1)
    shared, n, covered, widths = 0.7, 60, [], []
    for _ in range(1500):
        common = rng.random(n) < shared  # most problems come out the same under both strategies
        luck = rng.random(n)
        a, b = np.where(common, luck < 0.5, rng.random(n) < 0.6), np.where(common, luck < 0.5, rng.random(n) < 0.3)
        estimate = difference(a, b)
        covered.append(estimate.low <= 0.09 <= estimate.high)
        widths.append(estimate.high - estimate.low)
    assert 0.93 <= np.mean(covered) <= 0.985
    assert np.mean(widths) < 0.9 * 2 * 1.96 * math.sqrt(2 * 0.25 / n)


def test_proportions_of_nothing_and_of_nonsense():
    for estimate in (proportion(0, 0), difference([], [])):
        assert estimate.n == 0
        assert np.isnan([estimate.value, estimate.low, estimate.high]).all()
    for call in (
        lambda: proportion(3, 2),
        lambda: proportion(-1, 2),
        lambda: proportion(1, 2, level=95),
        lambda: difference([1, 0], [1]),
        lambda: difference([0.5], [1]),
        lambda: difference([[1]], [[1]]),
        lambda: mcnemar([2], [1]),
    ):
        with pytest.raises(ValueError):
            call()


# --- McNemar ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_counts_splits_at_least_as_uneven(only_a, only_b):
    m = only_a + only_b
    weights = {k: math.comb(m, k) / 2**m for k in range(m + 1)}
    uneven = abs(only_a - only_b)
    exact = sum(w for k, w in weights.items() if abs(m - 2 * k) >= uneven)
    observed = sum(w for k, w in weights.items() if abs(m - 2 * k) == uneven)
    a, b = paired(3, only_a, only_b, 2)
    assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(exact)
    assert mcnemar(a, b, mid_p=True) == pytest.approx(exact - observed / 2)


def test_mcnemar_published_empty_and_large():
    a, b = paired(1, 1, 7, 12)
    assert mcnemar(a, b) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(a, b, mid_p=True) == pytest.approx(0.0391, abs=5e-5)
    assert math.isnan(mcnemar([], []))
    assert mcnemar([1, 0], [1, 0]) == 1
    assert mcnemar(*paired(0, 5200, 4800, 0)) == pytest.approx(6.6e-5, rel=0.05)  # normal approximation: z = 3.99


# --- bootstrap --------------------------------------------------------------------------------------------------------


def test_the_vectorised_path_is_the_loop():
    values = np.random.default_rng(0).normal(size=50)
    other = values**2
    clusters = np.random.default_rng(1).integers(0, 12, 50)
    for labels in (None, np.repeat(np.arange(10), 5), clusters):
        fast = bootstrap(values, np.median, clusters=labels, n_boot=200, seed=3)
        assert bootstrap(values, lambda x: np.median(x), clusters=labels, n_boot=200, seed=3) == fast
        both = bootstrap([values, other], lambda x, y, axis=-1: (x - y).mean(axis), clusters=labels, n_boot=200)
        assert both.value == pytest.approx(np.mean(values - other))
        single = bootstrap(values - other, np.mean, clusters=labels, n_boot=200)
        assert (both.low, both.high) == pytest.approx((single.low, single.high))  # the same rows of both arrays


def test_bootstrap_is_the_definition():
    values = np.array([1.0, 5.0, 11.0])
    means = sorted(np.mean(draw) for draw in product(values, repeat=3))  # all 27 resamples
    estimate = bootstrap(values, np.mean, n_boot=40000, level=0.8)
    assert estimate.value == pytest.approx(np.mean(values))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])), abs=0.7)
    assert means[0] <= estimate.low < estimate.value < estimate.high <= means[-1]


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1], [3, 3, 3], [1, 4, 2, 6]])
def test_whole_clusters_are_resampled_from_any_row_order(sizes):
    labels = np.repeat(np.array(list("abcdef"))[: len(sizes)], sizes)
    order = np.random.default_rng(0).permutation(len(labels))
    labels = labels[order]
    row_sets = []

    def record(rows):
        row_sets.append(rows)
        return 0.0

    bootstrap(np.arange(len(labels)), record, clusters=labels, n_boot=300)
    seen = np.zeros(len(sizes))
    for rows in row_sets[1:]:
        counts = np.bincount(rows, minlength=len(labels))
        drawn = [set(counts[labels == label].tolist()) for label in np.unique(labels)]
        assert all(len(times) == 1 for times in drawn)  # every row of a cluster as often as the others
        times = [t.pop() for t in drawn]
        assert sum(times) == len(sizes)
        seen += times
    assert seen / 300 == pytest.approx(np.ones(len(sizes)), abs=0.25)


def test_bootstrap_coverage_and_the_need_for_clusters():
    rng = np.random.default_rng(2)
    covered = {"rows": [], "clusters": []}
    clusters = np.repeat(np.arange(40), 5)
    for seed in range(300):
        values = rng.normal(size=40)[clusters] + rng.normal(size=200)
        for kind, labels in (("rows", None), ("clusters", clusters)):
            estimate = bootstrap(values, np.mean, clusters=labels, n_boot=300, seed=seed)
            covered[kind].append(estimate.low <= 0 <= estimate.high)
    assert 0.89 <= np.mean(covered["clusters"]) <= 0.98
    assert np.mean(covered["rows"]) < 0.8


def test_paired_bootstrap_coverage():
    rng = np.random.default_rng(4)
    covered = []
    for seed in range(300):
        difficulty = 3 * rng.normal(size=60)
        a, b = difficulty + rng.normal(size=60) + 0.5, difficulty + rng.normal(size=60)
        estimate = paired_bootstrap(a, b, n_boot=300, seed=seed)
        covered.append(estimate.low <= 0.5 <= estimate.high)
        assert estimate.value == pytest.approx(a.mean() - b.mean())
        assert estimate.high - estimate.low < 1.1  # an unpaired interval would be about 2.2 wide
    assert 0.9 <= np.mean(covered) <= 0.98


def test_seeds_repeat_and_differ():
    values = np.random.default_rng(0).normal(size=30)
    same = [bootstrap(values, np.mean, seed=5) for _ in range(2)]
    assert same[0] == same[1] != bootstrap(values, np.mean, seed=6)
    labels = values > 0
    draws = [average_precision_bootstrap(labels, values**2, 50, seed) for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert within_auroc(labels, values**2, np.arange(30) // 5) == within_auroc(labels, values**2, np.arange(30) // 5)


def test_bootstrap_edge_cases():
    for estimate in (bootstrap(NOTHING, np.mean), bootstrap([[], []], np.mean), paired_bootstrap([], [])):
        assert estimate.n == 0
        assert math.isnan(estimate.value)
    equal = bootstrap([2.0] * 9, np.mean)
    assert (equal.value, equal.low, equal.high, equal.n) == (2, 2, 2, 9)
    one = bootstrap([1.0, 3.0], np.mean, clusters=["p", "p"])
    assert (one.value, one.n) == (2, 1)
    assert math.isnan(one.low)
    rare = bootstrap([[1, 0, 0], [3.0, 2.0, 1.0]], lambda y, s: average_precision(y, s), n_boot=100)
    assert rare.high <= 1  # resamples without a positive are left out, not counted as NaN
    assert rare.low > 0
    never = bootstrap([1.0, 2.0], lambda x: math.nan)
    assert math.isnan(never.low)
    for call in (
        lambda: bootstrap(np.zeros((2, 2)), np.mean),
        lambda: bootstrap([[1.0, 2.0], [1.0]], np.mean),
        lambda: bootstrap([1.0, 2.0], np.mean, clusters=[1]),
        lambda: bootstrap([1.0, 2.0], np.mean, level=1.0),
        lambda: paired_bootstrap([1.0, 2.0], [1.0]),
        lambda: paired_bootstrap([1.0, 2.0], 1.0),
    ):
        with pytest.raises(ValueError):
            call()


# --- ranking ----------------------------------------------------------------------------------------------------------

RANKING = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=25)


def brute_average_precision(labels, scores):
    total, area, recall = sum(labels), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        area += (sum(chosen) / total - recall) * sum(chosen) / len(chosen)
        recall = sum(chosen) / total
    return area


def brute_wins(labels, scores, groups):
    rows = list(zip(labels, scores, groups, strict=True))
    pairs = [(s, t) for y, s, g in rows for z, t, h in rows if y and not z and g == h]
    return sum((s > t) + 0.5 * (s == t) for s, t in pairs), len(pairs)


@given(RANKING, st.randoms(use_true_random=False))
def test_average_precision_is_the_definition_in_any_order(rows, random):
    labels, scores = map(list, zip(*rows, strict=True))
    value = average_precision(labels, scores)
    if not any(labels):
        assert math.isnan(value)
        return
    assert value == pytest.approx(brute_average_precision(labels, scores), abs=1e-12)
    random.shuffle(rows)
    shuffled, moved = zip(*rows, strict=True)
    assert average_precision(shuffled, np.exp(moved)) == pytest.approx(value, abs=1e-12)
    assert sum(labels) / len(labels) <= average_precision(labels, labels) == 1


@given(RANKING, st.integers(0, 3), st.booleans())
def test_average_precision_bootstrap_is_average_precision_of_resampled_rows(rows, seed, clustered):
    labels, scores = map(np.array, zip(*rows, strict=True))
    n = len(labels)
    clusters = np.arange(n) % 4 if clustered else None
    values = average_precision_bootstrap(labels, scores, 8, seed, clusters)
    units = len(np.unique(clusters)) if clustered else n
    draws = np.random.default_rng(seed).integers(0, units, (8, units))
    for value, draw in zip(values, draws, strict=True):
        chosen = np.concatenate([np.flatnonzero(np.arange(n) % 4 == c) for c in draw]) if clustered else draw
        if labels[chosen].any():
            assert value == pytest.approx(brute_average_precision(labels[chosen].tolist(), scores[chosen].tolist()))
        else:
            assert math.isnan(value)


def test_average_precision_bootstrap_in_blocks_and_paired():
    rng = np.random.default_rng(0)
    labels = rng.random(3000) < 0.3
    good, poor = labels + rng.normal(size=3000), labels + 5 * rng.normal(size=3000)
    better, worse = (average_precision_bootstrap(labels, s, 500, seed=1) for s in (good, poor))
    assert better.shape == (500,)  # more than one block
    assert np.std(better) < 0.03
    assert abs(better.mean() - average_precision(labels, good)) < 0.01
    again = average_precision_bootstrap(labels, 2 * good - 7, 500, seed=1)
    assert np.array_equal(again, better)  # the same resamples: the score decides nothing about the draws
    assert (better - worse).min() > 0
    assert np.isnan(average_precision_bootstrap([], [], 5)).tolist() == [True] * 5


@given(RANKING, st.randoms(use_true_random=False))
def test_auroc_is_the_definition_in_any_order(rows, random):
    labels, scores = map(list, zip(*rows, strict=True))
    wins, pairs = brute_wins(labels, scores, [0] * len(rows))
    value = auroc(labels, scores)
    if pairs == 0:
        assert math.isnan(value)
        return
    assert value == pytest.approx(wins / pairs, abs=1e-12)
    assert auroc(labels, [-s for s in scores]) == pytest.approx(1 - value, abs=1e-12)
    random.shuffle(rows)
    assert auroc(*zip(*rows, strict=True)) == pytest.approx(value, abs=1e-12)


@given(RANKING, st.data())
def test_within_auroc_is_the_definition(rows, data):
    labels, scores = map(list, zip(*rows, strict=True))
    groups = data.draw(st.lists(st.sampled_from("abcd"), min_size=len(rows), max_size=len(rows)))
    estimate = within_auroc(labels, scores, groups, n_boot=50)
    wins, pairs = brute_wins(labels, scores, groups)
    mixed = sum(len({y for y, g in zip(labels, groups, strict=True) if g == name}) == 2 for name in set(groups))
    assert estimate.n == mixed
    assert estimate.base_rate == 0.5
    if pairs == 0:
        assert math.isnan(estimate.value)
        return
    assert estimate.value == pytest.approx(wins / pairs, abs=1e-12)
    if mixed > 1:
        assert 0 <= estimate.low <= estimate.high <= 1
    alone = within_auroc(labels, scores, ["x"] * len(rows), n_boot=10)
    assert alone.value == pytest.approx(auroc(labels, scores), abs=1e-12, nan_ok=True)


def test_within_auroc_gives_nothing_for_telling_problems_apart():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 6)
    difficulty = rng.normal(size=200)[groups]
    labels = rng.random(1200) < 1 / (1 + np.exp(-2 * difficulty))
    estimate = within_auroc(labels, difficulty + 0.1 * rng.normal(size=1200), groups)
    assert auroc(labels, difficulty) > 0.75
    assert estimate.low < 0.5 < estimate.high
    assert 0.02 < estimate.high - estimate.low < 0.2
    honest = within_auroc(labels, labels + rng.normal(size=1200), groups)
    assert honest.low < 0.76 < honest.high  # Phi(1/sqrt 2)


@pytest.mark.parametrize("score", [average_precision, auroc, average_precision_bootstrap])
def test_rankings_refuse(score):
    for labels, scores in [([1, 0], [math.nan, 1]), ([1, 2], [0.1, 0.2]), ([1, 0, 1], [0.1, 0.2]), ([[1]], [[1.0]])]:
        with pytest.raises(ValueError):
            score(labels, scores)


def test_rankings_of_nothing():
    assert math.isnan(average_precision([], []))
    assert math.isnan(auroc([], []))
    assert within_auroc([], [], []).n == 0
    assert auroc([1, 0, 1], [2.0, 2.0, 2.0]) == 0.5
    assert average_precision([1, 0, 1, 0], [2.0] * 4) == 0.5
    with pytest.raises(ValueError):
        within_auroc([1, 0], [0.1, 0.2], [1])


# --- Holm -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p, alpha):
    adjusted = holm(p)
    tests = sorted((x, i) for i, x in enumerate(p) if not math.isnan(x))
    rejected = set()
    for step, (x, i) in enumerate(tests):
        if x * (len(tests) - step) > alpha:
            break
        rejected.add(i)
    assert {i for i, x in enumerate(adjusted) if x <= alpha} == rejected
    assert np.isnan(adjusted).tolist() == [math.isnan(x) for x in p]
    known = [i for _, i in tests]
    assert all(p[i] <= adjusted[i] <= 1 for i in known)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    for bad in ([1.2], [-0.1], 0.5):
        with pytest.raises(ValueError):
            holm(bad)
