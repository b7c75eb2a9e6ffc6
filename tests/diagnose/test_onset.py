import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import WRONG, crowd, planted, problems_of, searches

from wrongturn.diagnose.intervals import Resamples
from wrongturn.diagnose.onset import GRID, POSITIONS, onset_study
from wrongturn.diagnose.table import tabulate


def study_of(traces, problems=None, n_boot=200):
    table = tabulate(traces, problems or problems_of(traces))
    return onset_study(table, Resamples(len(table.problems), n_boot))


def test_positions_by_hand():
    """Five segments of ten tokens; the wrong token is number 13, in the second segment."""
    study = study_of([planted(str(i), f"p{i}", 5, wrong=(13,)) for i in range(4)])
    assert {name: study.curves[name].positions.tolist() for name in POSITIONS} == {
        "token": [0.2] * 4,
        "exact": [0.26] * 4,
        "segment": [0.2] * 4,
    }
    assert study.share_before(0.2).value == 1
    assert study.share_before(0.19).value == 0
    assert study.share_before(0.25, "exact").value == 0
    assert study.median.value == pytest.approx(0.2)
    assert study.after_share.value == pytest.approx(0.8)
    assert study.after_tokens.value == 30
    assert study.after_validity.value == 1
    assert study.single_invalid.value == 1


def test_counts_keep_outcome_and_process_apart():
    traces = [
        planted("good", "p", 3),
        planted("slip", "p", 3, wrong=(5,), right=True),
        planted("lost", "p", 3, wrong=(5, 15)),
        planted("odd", "p", 3, right=False),
        planted("cut", "p", 2, right=False, finish="length"),
    ]
    study = study_of(traces)
    assert (study.n_failed, study.n_onset, study.n_no_onset, study.n_cut, study.n_unknown) == (4 - 1, 1, 2, 1, 0)
    assert study.single_invalid.value == 0
    assert study.invalid_segments.value == pytest.approx(2 / 3)


def planted_positions(traces):
    return np.array([np.argmax(trace.ids == WRONG) / len(trace.ids) for trace in traces if not trace.correct])


@pytest.mark.extras
@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (3, 1)])
def test_planted_onsets_are_found_as_often_as_the_intervals_say(shape):
    """True F from 30 other crowds; of 20 studies at most three may miss it (95 %: four or more in one of sixty
    tries)."""
    many = np.concatenate([planted_positions(crowd(s, position=lambda rng: rng.beta(*shape))) for s in range(100, 130)])
    truth = np.searchsorted(np.sort(many), GRID, side="right") / len(many)
    share, band = 0, 0
    for seed in range(20):
        curve = study_of(crowd(seed, position=lambda rng: rng.beta(*shape))).curves["exact"]
        share += curve.share_30.low <= truth[30] <= curve.share_30.high
        band += bool(np.all((curve.low <= truth + 1e-9) & (truth <= curve.high + 1e-9)))
    assert share >= 17
    assert band >= 17


def brute_null(trace, position, typical):
    """F0 of one failed trace: every candidate token, its position, counted."""
    n, width = len(trace.ids), 10
    tokens = range(min(typical, n))
    place = {
        "exact": lambda u: u / n,
        "token": lambda u: (u - u % width) / n,
        "segment": lambda u: (u // width) / (n // width),
    }[position]
    return np.mean([[place(u) <= r + 1e-12 for r in GRID] for u in tokens], axis=0)


@pytest.mark.parametrize("position", POSITIONS)
def test_the_null_is_a_uniform_token_of_the_first_typical_length(position):
    right = [planted(f"r{i}", f"q{i}", 3) for i in range(3)]  # typical length 30
    wrong = [planted("long", "p1", 8, wrong=(4,)), planted("short", "p2", 2, wrong=(4,))]
    curve = study_of(right + wrong).curves[position]
    expected = np.mean([brute_null(trace, position, 30) for trace in wrong], axis=0)
    np.testing.assert_allclose(curve.null, expected, atol=1e-9)
    assert curve.share_30.base_rate == pytest.approx(expected[30])


def test_long_tails_alone_do_not_beat_the_null():
    """Onsets uniform over a typical length, then a long tail: F(.30) is high, and the null explains all of it."""
    rng = np.random.default_rng(8)
    traces = [planted(f"r{i}", f"p{i % 60}", 4) for i in range(60)]
    for i in range(240):
        at = int(rng.integers(0, 40))
        traces.append(planted(f"w{i}", f"p{i % 60}", 12, wrong=(at - (at % 10 == 9),)))
    curve = study_of(traces, n_boot=1000).curves["exact"]
    assert curve.share_30.low > 0.85
    assert curve.excess_30.low < 0 < curve.excess_30.high


def test_truly_early_onsets_beat_the_null():
    study = study_of(crowd(2, position=lambda rng: rng.uniform(0, 0.25)))
    assert study.token.excess_30.low > 0.3


def test_a_group_without_a_right_answer_has_no_null():
    study = study_of([planted(str(i), f"p{i}", 4, wrong=(3,)) for i in range(12)])
    assert study.share_30.value == 1
    assert np.isnan(study.token.excess_30.value)
    assert study.token.excess_30.n == 0


def test_length_expansion_between_and_within_problems():
    """Hard problems are long and all wrong; in mixed problems lengths do not differ: only the pooled ratio shows it."""
    traces = [planted(f"h{i}", f"h{i}", 9, wrong=(3,)) for i in range(40)]
    for i in range(40):
        traces += [planted(f"a{i}", f"m{i}", 3 + i % 3), planted(f"b{i}", f"m{i}", 3 + i % 3, wrong=(3,))]
    study = study_of(traces)
    assert study.expansion_tokens.low > 1.3
    within = study.expansion_tokens_within
    assert (within.value, within.low, within.high, within.n) == (
        pytest.approx(1),
        pytest.approx(1),
        pytest.approx(1),
        40,
    )


def test_length_expansion_within_problems_by_hand():
    traces = [
        planted("a", "p", 2),
        planted("b", "p", 4, wrong=(3,)),
        planted("c", "q", 3),
        planted("d", "q", 6, wrong=(3,)),
    ]
    study = study_of(traces)
    assert study.expansion_tokens_within.value == pytest.approx(2)
    assert study.expansion_segments_within.value == pytest.approx(2)
    assert study.expansion_tokens.value == pytest.approx(2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(1, 12))
def test_curves_are_distribution_functions(seed, failure, problems):
    study = study_of(crowd(seed, problems=problems, samples=2, failure=failure), n_boot=50)
    for curve in study.curves.values():
        if study.n_onset == 0:
            assert np.isnan(curve.value).all()
            continue
        for line in (curve.value, curve.null, curve.low, curve.high):
            known = line[~np.isnan(line)]
            assert (np.diff(known) >= -1e-9).all()
            assert ((known >= -1e-9) & (known <= 1 + 1e-9)).all()
        assert curve.value[-1] == 1
        assert all(0 <= curve.share_before(r).value <= 1 for r in (0, 0.3, 0.7, 1))


def test_real_searches():
    traces, problems = searches(0, n=60)
    study = study_of(traces, problems)
    assert study.n_onset == sum(trace.correct is False and trace.onset >= 0 for trace in traces)
    assert study.n_no_onset == 0
    with pytest.raises(ValueError, match="r must be"):
        study.share_before(1.5)
