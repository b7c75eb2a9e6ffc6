import numpy as np
import pytest
from synthetic import crowd, planted, problems_of

from wrongturn.diagnose.intervals import Resamples
from wrongturn.diagnose.predictors import TARGETS, features, predictor_study, slope_at_equal_length
from wrongturn.diagnose.table import tabulate


def study_of(traces, n_boot=300):
    table = tabulate(traces, problems_of(traces))
    studies = predictor_study(table, Resamples(len(table.problems), n_boot))
    return {(study.signal, study.target): study for study in studies}


def test_features_by_hand():
    trace = planted("t", "p", 1, entropy=np.arange(10.0))
    found = features(tabulate([trace, planted("u", "p", 0)], problems_of([trace])))
    assert {name: values[0] for name, values in found.items()} == {
        "entropy_mean": 4.5,
        "entropy_max": 9,
        "entropy_first_half": 2,
        "nll_mean": 4.5,
        "nll_max": 9,
        "margin_min": -0.0,
        "fork_rate": 4.5,
        "length": 10,
    }
    assert found["length"][1] == 0
    assert np.isnan(found["entropy_mean"][1])


def test_difficulty_alone_predicts_between_problems_and_not_within():
    study = study_of(crowd(1, problems=200, failure=0.5, difficulty=0.4))["entropy_mean", "outcome"]
    assert study.pooled.low > 0.55
    assert study.within.low < 0.5 < study.within.high
    assert study.adds.low < 0 < study.adds.high


def test_a_signal_of_the_trace_itself_predicts_within_problems_and_adds_to_length():
    study = study_of(crowd(2, signal=0.5))["entropy_mean", "outcome"]
    assert study.within.low > 0.6
    assert study.adds.low > 0
    assert study.within_length.low < 0.5 < study.within_length.high


def test_a_signal_that_is_only_length_adds_nothing_to_it():
    """Wrong traces are longer, and entropy is length plus noise: it predicts, even within problems, but adds
    nothing."""
    rng = np.random.default_rng(3)
    traces = crowd(3, problems=150, length=0.4)
    for trace in traces:
        trace.signals.entropy[:] = len(trace.ids) / 50 + rng.normal(0, 0.1)
    study = study_of(traces)["entropy_mean", "outcome"]
    assert study.within.low > 0.6
    assert study.adds.low < 0 < study.adds.high


def test_the_slope_is_that_of_least_squares_with_problem_effects():
    rng = np.random.default_rng(0)
    problem = np.repeat(np.arange(40), 5)
    length = rng.normal(50, 10, 200)
    x = 0.03 * length + rng.normal(size=200) + problem
    failed = rng.random(200) < 1 / (1 + np.exp(-(x - problem - 1.5)))
    estimate = slope_at_equal_length(x, length, failed, problem, Resamples(40, 400))
    rate = np.bincount(problem, failed) / 5
    mixed = ((rate > 0) & (rate < 1))[problem]
    dummies = (problem[mixed][:, None] == np.unique(problem[mixed])).astype(float)
    design = np.column_stack((x, length, length**2))[mixed]
    slope = np.linalg.lstsq(np.column_stack((design, dummies)), failed[mixed].astype(float), rcond=None)[0][0]
    within = x[mixed] - (dummies @ (dummies.T @ x[mixed] / dummies.sum(axis=0)))
    assert estimate.value == pytest.approx(slope * within.std(), rel=1e-6)
    assert estimate.n == len(np.unique(problem[mixed]))


def test_the_two_targets_are_kept_apart():
    """Every second trace has a wrong token and a right answer: a process failure that the outcome knows nothing of."""
    traces = []
    for i in range(30):
        for s in range(4):
            wrong = (12,) if s % 2 else ()
            traces.append(planted(f"{i}-{s}", f"p{i}", 3, wrong=wrong, right=s < 2, entropy=1.0 if wrong else 0.1))
    study = study_of(traces)
    assert study["entropy_mean", "process"].pooled.value == 1
    assert study["entropy_mean", "outcome"].pooled.value == 0.5
    assert (study["entropy_mean", "process"].n_failed, study["entropy_mean", "outcome"].n_failed) == (60, 60)


def test_every_signal_has_both_targets_and_the_length_beside_it():
    study = study_of(crowd(5, problems=20))
    assert {target for _, target in study} == set(TARGETS)
    assert len(study) == 16
    for (signal, target), predictor in study.items():
        assert predictor.pooled_length.value == study["length", target].pooled.value
        if signal == "length":
            assert predictor.adds.n == 0


def test_a_constant_signal_says_nothing():
    study = study_of([planted(f"{i}-{s}", f"p{i}", 3, wrong=(5,) * (s % 2)) for i in range(12) for s in range(4)])
    for signal in ("entropy_mean", "length"):
        assert study[signal, "outcome"].pooled.value == 0.5
        assert study[signal, "outcome"].adds.n == 0
