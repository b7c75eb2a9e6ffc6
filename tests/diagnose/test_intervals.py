import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrongturn import stats
from wrongturn.diagnose.intervals import Resamples, exponential, share, student


@pytest.mark.parametrize(
    ("units", "t"), [(2, 12.706), (3, 4.303), (4, 3.182), (6, 2.571), (10, 2.262), (31, 2.042), (10_000, 1.9602)]
)
def test_student_matches_the_printed_table(units, t):
    assert student(units) == pytest.approx(t, rel=0.01)


def test_a_share_of_independent_rows_is_wilsons_interval():
    hits = np.arange(5_000) % 4 == 0
    estimate, wilson = share(hits, np.arange(5_000)), stats.proportion(1_250, 5_000)
    assert (estimate.low, estimate.high) == pytest.approx((wilson.low, wilson.high), abs=1e-4)


def test_copies_of_a_trace_do_not_narrow_a_share():
    hits = np.arange(50) % 3 == 0
    once, thrice = share(hits, np.arange(50)), share(np.repeat(hits, 3), np.repeat(np.arange(50), 3))
    assert (thrice.value, thrice.n) == (once.value, 50)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high), abs=2e-3)


@pytest.mark.parametrize("hit", [0, 1])
def test_a_unanimous_share_is_as_sure_as_its_problems_are_many(hit):
    few, many = (share(np.full(n * 4, hit), np.repeat(np.arange(n), 4)) for n in (5, 500))
    assert few.high - few.low > 0.3
    assert 0 < many.high - many.low < 0.02


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40))
def test_a_share_lies_in_its_interval_in_the_unit_interval(rows):
    estimate = share([hit for hit, _ in rows], [cluster for _, cluster in rows])
    assert estimate.n == len({cluster for _, cluster in rows})
    if estimate.n > 1:
        assert 0 <= estimate.low <= estimate.value + 1e-12 <= estimate.high + 1e-12 <= 1 + 1e-12
    else:
        assert math.isnan(estimate.low)


def correlated(rng, problems=25, samples=4):
    """Outcomes with problem-level chances of mean 0.3."""
    chance = rng.beta(0.9, 2.1, problems)
    return (rng.random((problems, samples)) < chance[:, None]).ravel(), np.repeat(np.arange(problems), samples)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """25 problems of 4 correlated traces: 300 draws, so 95 % is 0.95 +- 0.025; ignoring the problems gives about
    0.8."""
    covered = {"share": 0, "mean": 0, "naive": 0}
    for seed in range(300):
        hits, cluster = correlated(np.random.default_rng(seed))
        estimates = {
            "share": share(hits, cluster),
            "mean": Resamples(25, 400, seed).mean(cluster, hits),
            "naive": stats.proportion(int(hits.sum()), len(hits)),
        }
        for name, estimate in estimates.items():
            covered[name] += estimate.low <= 0.3 <= estimate.high
    assert covered["share"] / 300 > 0.92
    assert covered["mean"] / 300 > 0.92
    assert covered["naive"] / 300 < 0.90


def test_a_mean_agrees_with_the_plain_bootstrap():
    rng = np.random.default_rng(0)
    values, cluster = rng.exponential(size=400), np.repeat(np.arange(100), 4)
    ours, plain = (
        Resamples(100, 4000, 1).mean(cluster, values),
        stats.bootstrap(values, np.mean, clusters=cluster, seed=2),
    )
    assert ours.value == pytest.approx(plain.value)
    assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), abs=0.012)


def test_missing_rows_are_left_out():
    boot = Resamples(3, 200)
    estimate = boot.mean(np.array([0, 0, 1, 2]), [1.0, np.nan, 3.0, np.nan])
    assert (estimate.value, estimate.n) == (2.0, 2)


def test_nothing_gives_nan_and_one_problem_no_interval():
    boot = Resamples(2, 50)
    none = boot.mean(np.zeros(0, np.intp), [])
    assert math.isnan(none.value)
    assert none.n == 0
    single = boot.mean(np.array([1, 1]), [1.0, 2.0])
    assert single.value == 1.5
    assert math.isnan(single.low)
    assert Resamples(0, 10).weights.shape == (10, 0)


@pytest.mark.parametrize(("statistic", "value"), [("mean", 2.0), ("std", 0.5), ("log mean", math.log(3.0))])
def test_contrasts(statistic, value):
    values = np.tile([1.0, 1.0, 2.0, 4.0], 30) - np.tile([0.5, -0.5, 0, 0], 30)  # others: mean 1, std .5; first: 3, 1
    first = np.tile([False, False, True, True], 30)
    estimate = Resamples(30, 200).contrast(np.repeat(np.arange(30), 4), values, first, statistic)
    assert estimate.value == pytest.approx(value)


def test_a_contrast_counts_the_problems_of_the_rarer_kind():
    first = np.zeros(40, bool)
    first[:3] = True
    assert Resamples(40, 50).contrast(np.arange(40), np.arange(40.0), first).n == 3


def test_the_ratio_of_a_logarithm():
    estimate = exponential(stats.Estimate(math.log(2), 0.0, math.log(3), 7))
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == pytest.approx((2, 1, 3, 7))


def test_a_median_and_its_interval():
    rng = np.random.default_rng(4)
    values, cluster = rng.normal(size=900), np.arange(900) % 300
    estimate = Resamples(300, 1000).median(cluster, values)
    assert estimate.value == np.median(values)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 1.2533 / 30, rel=0.3)


class TestAuroc:
    def data(self, seed=0, ties=False):
        rng = np.random.default_rng(seed)
        cluster = np.repeat(np.arange(60), 5)
        labels = rng.random(300) < 0.4
        scores = rng.normal(size=300) + labels + rng.normal(size=60)[cluster]
        return cluster, labels, np.round(scores) if ties else scores

    @pytest.mark.parametrize("ties", [False, True])
    def test_pooled_value_and_interval_agree_with_the_full_bootstrap(self, ties):
        cluster, labels, scores = self.data(1, ties)
        ours = Resamples(60, 2000, 3).auroc(cluster, labels, scores)
        full = stats.bootstrap([labels, scores], stats.auroc, clusters=cluster, n_boot=1000, seed=5)
        assert ours.value == pytest.approx(stats.auroc(labels, scores))
        assert (ours.low, ours.high) == pytest.approx((full.low, full.high), abs=0.02)

    @pytest.mark.parametrize("ties", [False, True])
    def test_within_agrees_with_stats(self, ties):
        cluster, labels, scores = self.data(2, ties)
        ours = Resamples(60, 2000, 3).auroc(cluster, labels, scores, within=cluster)
        theirs = stats.within_auroc(labels, scores, cluster)
        assert (ours.value, ours.n) == (pytest.approx(theirs.value), theirs.n)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)

    def test_one_class_cannot_be_told(self):
        estimate = Resamples(3, 20).auroc(np.arange(3), [True] * 3, [1.0, 2.0, 3.0])
        assert math.isnan(estimate.value)
        assert estimate.n == 0


@pytest.mark.parametrize(("even", "n"), [(True, 40), (False, 40)])
def test_a_band_holds_the_whole_curve(even, n):
    """In about 95 % of 200 tries the truth is inside at every point: distribution functions of uniform draws for the
    even band, means of normal draws of very different spread for the other."""
    grid, whole = np.linspace(0.05, 0.95, 19), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        truth = grid if even else np.zeros(19)
        rows = (rng.random(n)[:, None] <= grid) if even else rng.normal(size=(n, 19)) * np.geomspace(0.1, 10, 19)
        _, low, high = Resamples(n, 400, seed).curve(np.arange(n), rows.astype(float), even)
        whole += bool(np.all((low <= truth) & (truth <= high)))
    assert 0.91 <= whole / 200 <= 1


def test_a_curve_leaves_out_what_is_missing():
    rows = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 2.0]])
    mean, low, high = Resamples(3, 100).curve(np.arange(3), rows)
    assert mean.tolist() == [3.0, 2.0]
    assert (low <= mean).all()
    assert (mean <= high).all()
