"""Features of failed traces: hand-made demotion, entropies, answers and continuations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from made_traces import made
from wrongturn.diagnose.recoverability import fallback, features
from wrongturn.diagnose.recoverability.designs import Rollout
from wrongturn.diagnose.recoverability.features import Features, correlation_with_length, without_length
from wrongturn.divergence import Divergence
from wrongturn.signals import Signals


def diverging(demotion: list[float], variance: list[float] | None = None) -> Divergence:
    """A divergence of this J and V."""
    n = len(demotion)
    found = Divergence.empty(n)
    found.delta[:], found.coverage[:] = demotion, -1.0
    found.variance[:] = 1.0 if variance is None else variance
    return found


def test_no_demotion() -> None:
    found = features.of_trace(diverging([0.0] * 50, [0.0] * 50))
    assert found["spread"] == 0
    assert found["concentration"] == found["dispersion"] == -8


@pytest.mark.parametrize("length", [10, 100, 1000])
def test_a_single_spike(length: int) -> None:
    demotion = np.zeros(length)
    demotion[length // 2] = 3.0
    found = features.of_trace(diverging(demotion.tolist()))
    assert found["spread"] == pytest.approx(1 / length)
    assert found["concentration"] == pytest.approx(math.log10(length))
    assert found["concentration_share"] == pytest.approx(0)
    assert found["junction"] == pytest.approx(length // 2 / (length - 1))


def test_even_demotion_is_not_concentrated_however_long() -> None:
    short, long = (features.of_trace(diverging([0.5] * n)) for n in (10, 1000))
    assert short["concentration"] == pytest.approx(long["concentration"]) == pytest.approx(0)
    assert long["concentration_share"] == pytest.approx(-3)


def test_spread_counts_above_each_threshold() -> None:
    found = features.of_trace(diverging([0.0, 1e-4, 5e-3, 0.5, -2.0]))
    assert [found[name] for name in ("spread", "spread_1e-3", "spread_1e-2")] == [0.6, 0.4, 0.2]


def test_dispersion_is_of_the_window_around_the_junction() -> None:
    demotion, variance = np.zeros(100), np.full(100, 100.0)
    demotion[50], variance[42:59] = 1.0, 0.1
    assert features.of_trace(diverging(demotion.tolist(), variance.tolist()))["dispersion"] == pytest.approx(-1)
    demotion[50], demotion[2], variance[:11] = 0.0, 1.0, 10.0
    assert features.of_trace(diverging(demotion.tolist(), variance.tolist()))["dispersion"] == pytest.approx(1)


def test_unknown_tokens_are_left_out() -> None:
    found = features.of_trace(diverging([math.nan, 0.0, 0.0, 2.0, math.nan]))
    assert found["spread"] == pytest.approx(1 / 3)
    assert found["concentration"] == pytest.approx(math.log10(3))
    unknown = features.of_trace(Divergence.empty(7))
    assert unknown.pop("tokens") == 7
    assert np.isnan(list(unknown.values())).all()


def test_length_is_taken_out_of_concentration() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(10, 3000, 200)
    concentration = 0.8 * np.log10(tokens) + rng.normal(size=200) * 0.1
    free = without_length(concentration, tokens)
    assert np.corrcoef(free, np.log10(tokens))[0, 1] == pytest.approx(0, abs=1e-9)
    assert free.std() == pytest.approx(0.1, rel=0.2)
    assert without_length([1.0, 2.0, math.nan], [5, 5, 5]).tolist() == pytest.approx([-0.5, 0.5, math.nan], nan_ok=True)


def test_rows_become_means_over_a_problems_traces() -> None:
    traces = [{"a": 1.0, "b": 2.0}, {"a": 3.0}, {"a": 5.0, "b": 8.0}]
    rows = features.rows(traces, ["q", "p", "q"], {"p": "G", "q": "H"}, ["a", "b"])
    assert (rows.problems, rows.groups, rows.failed.tolist()) == (("p", "q"), ("G", "H"), [1, 2])
    assert rows.mean().tolist() == [[3.0, pytest.approx(math.nan, nan_ok=True)], [3.0, 5.0]]
    assert rows.mean(np.array([True, True, False]))[1].tolist() == [1.0, 2.0]


def test_correlation_with_length() -> None:
    n = 40
    tokens = np.arange(1.0, n + 1)
    noise = np.random.default_rng(0).permutation(n)
    table = Features(
        tuple(map(str, range(n))), ("",) * n, ("tokens", "grows", "noise", "flat"),
        np.column_stack((tokens, tokens**3, noise, np.ones(n))), np.ones(n, np.intp),
    )  # fmt: skip
    found = correlation_with_length(table)
    assert set(found) == {"grows", "noise", "flat"}
    assert found["grows"].value == pytest.approx(1)
    assert found["noise"].low < 0 < found["noise"].high
    assert math.isnan(found["flat"].value)


def uncertain(entropy: list[float], **changed):
    signals = Signals.empty(len(entropy))
    signals.entropy[:] = entropy
    return made(0, len(entropy), signals=signals, **changed)


def test_entropy_of_a_trace() -> None:
    even, spike = (fallback.of_trace(uncertain(h)) for h in ([0.5] * 20, [0.0] * 15 + [2.0] + [0.0] * 4))
    assert even["entropy_spread"] == pytest.approx(1)
    assert even["entropy_concentration"] == pytest.approx(0)
    assert spike["entropy_spread"] == pytest.approx(1 / 20)
    assert spike["entropy_concentration"] == pytest.approx(math.log10(20))
    assert (spike["peak_entropy"], spike["peak"]) == (2.0, 15 / 19)
    assert math.isnan(fallback.of_trace(uncertain([math.nan] * 5))["entropy"])


def test_answer_entropy() -> None:
    assert fallback.answer_entropy(["a"] * 8) == 0
    assert fallback.answer_entropy([*"abcdefgh"]) == 1
    half = fallback.answer_entropy([*"aaaabbbb"])
    assert half == pytest.approx((math.log(2) + 1 / 16) / math.log(8))


def test_traces_of_a_problem_together() -> None:
    first = [1, 2, 3, 4, 5, 6, 7, 8]
    traces = [
        uncertain([0.1, 0.2, 0.9, *[0.1] * (n - 3)], ids=np.array(ids, np.int32), answer=answer)
        for n, ids, answer in ((8, first, "x"), (8, first, "x"), (4, [1, 2, 9, 9], "y"))
    ]
    found = fallback.of_problem(traces)
    assert found["top_answer"] == pytest.approx(2 / 3)
    assert found["agreement"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found["branch_entropy"] == pytest.approx(0.9)
    assert found["tokens_cv"] == pytest.approx(np.std([8, 8, 4], ddof=1) / np.mean([8, 8, 4]))
    alone = fallback.of_problem(traces[:1])
    assert np.isnan(list(alone.values())).all()


def test_imported_traces_agree_by_their_text() -> None:
    ids = np.full(3, -1, np.int32)
    traces = [uncertain([0.1] * 3, ids=ids, text=text) for text in ("abcd", "abxx")]
    found = fallback.of_problem(traces)
    assert found["agreement"] == pytest.approx(0.5)
    assert math.isnan(found["branch_entropy"])


def test_where_continuations_stop_being_right() -> None:
    spans = np.array([(i, i + 1) for i in range(10)])
    sharp = [Rollout(at, at, at <= 4) for at in range(10) for _ in range(4)]
    slow = [Rollout(at, at, k < 10 - at) for at in range(10) for k in range(10)]
    for rollouts, spread in ((sharp, 1 / 10), (slow, 1.0)):
        found = fallback.of_rollouts(rollouts, spans)
        assert found["spread_bb"] == pytest.approx(spread)
        assert found["concentration_bb"] == pytest.approx(-math.log10(spread))
    hopeless = fallback.of_rollouts([Rollout(0, 0, False)] * 8, spans)
    assert np.isnan(list(hopeless.values())).all()


def test_falling_is_the_nearest_sequence_that_never_rises() -> None:
    values, weights = np.array([0.5, 0.9, 0.2, 0.4, 0.0]), np.array([1.0, 3.0, 2.0, 2.0, 1.0])
    assert fallback.falling(values, weights).tolist() == pytest.approx([0.8, 0.8, 0.3, 0.3, 0.0])
