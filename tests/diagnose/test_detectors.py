import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import crowd, planted, problems_of

from wrongturn.diagnose import detectors
from wrongturn.diagnose.detectors import detector_study, trigger_study
from wrongturn.diagnose.intervals import Resamples
from wrongturn.diagnose.table import tabulate

ENTROPIES = st.lists(st.sampled_from([0.0, 0.1, 0.4, 0.6, 2.0, float("nan")]), max_size=40).map(np.array)


def prepared(traces, n_boot=300):
    table = tabulate(traces, problems_of(traces))
    return table, Resamples(len(table.problems), n_boot)


def triggers_of(traces, **options):
    return {(study.rule, study.q): study for study in trigger_study(*prepared(traces), **options)}


@given(ENTROPIES)
def test_detectors_name_a_token_of_the_trace_or_none(entropy):
    for rule in detectors.DETECTORS.values():
        assert -1 <= rule(entropy) < max(len(entropy), 1)


@given(ENTROPIES)
def test_the_running_quantile_is_numpys(entropy):
    expected = -1
    for t, value in enumerate(entropy):
        past = entropy[:t][~np.isnan(entropy[:t])]
        if len(past) >= 8 and value > np.quantile(past, 0.9) + 1e-12:
            expected = t
            break
    assert detectors.above_running_quantile(entropy) == expected


def test_a_lasting_rise_is_found_where_it_begins():
    rng = np.random.default_rng(0)
    entropy = np.concatenate((rng.exponential(0.02, 30), rng.exponential(0.5, 25)))
    assert abs(detectors.rise(entropy) - 30) <= 2
    assert detectors.highest(entropy) > 30


@given(ENTROPIES.filter(lambda entropy: (~np.isnan(entropy)).any()))
def test_detectors_read_known_tokens_only(entropy):
    """Unknown tokens are no low ones: what is named is what would be named without them."""
    known = np.flatnonzero(~np.isnan(entropy))
    for rule in detectors.DETECTORS.values():
        alone = rule(entropy[known])
        assert rule(entropy) == (known[alone] if alone >= 0 else -1)


def test_unknown_tokens_are_no_rise():
    unknown = np.full(40, np.nan)
    assert detectors.rise(unknown) == -1
    assert detectors.rise(np.append(unknown, 0.5)) == -1
    assert detectors.rise(np.concatenate((unknown, np.full(20, 0.1), np.full(20, 0.6)))) == 60
    assert detectors.rise(np.concatenate((unknown, np.full(20, 0.5)))) != 40


def test_detectors_of_a_planted_spike_and_of_noise():
    spiky, noise = detector_study(*prepared(crowd(1, spike=3.0))), detector_study(*prepared(crowd(1)))
    assert spiky["highest"].exact.low > 0.9
    assert spiky["highest"].lead.value == 0
    for name in ("highest", "rise", "above_running_quantile"):
        assert noise[name].exact.low <= noise[name].exact.base_rate + 0.01
    assert noise["highest"].segment.low < noise["highest"].segment.base_rate < noise["highest"].segment.high
    assert noise["highest"].false_alarm.value == 1  # the maximum always exists: it is no alarm
    assert spiky["above_level"].exact.value > noise["above_level"].exact.value


def test_lead_is_positive_where_the_detector_is_early():
    entropy = np.full(40, 0.1)
    entropy[9] = 2.0
    study = detector_study(*prepared([planted(f"w{i}", f"p{i}", 4, wrong=(24,), entropy=entropy) for i in range(5)]))
    assert study["above_level"].lead.value == 15
    assert study["above_level"].before.value == 1
    assert study["above_level"].segment.value == 0


def boundary_trace(name, starts, wrong=(), **changes):
    """Segments whose first tokens have the given entropies; the first segment's counts for nothing."""
    entropy = np.full(10 * len(starts), 0.1)
    entropy[::10] = starts
    return planted(name, name, len(starts), wrong=wrong, entropy=entropy, **changes)


def test_a_trigger_by_hand():
    """Rule: above the past maximum (q = 1 acts so, .9 nearly). Fires at segments 2 and 4; the onset is in segment 4,
    token 42."""
    lost = [boundary_trace(f"w{i}", [9, 1.0, 2.0, 0.5, 3.0, 0.1], wrong=(42,)) for i in range(10)]
    exact = [boundary_trace(f"r{i}", [9, 1.0, 0.5, 2.0]) for i in range(10)]
    slips = [boundary_trace(f"s{i}", [9, 1.0, 2.0, 3.0, 4.0], wrong=(12,), right=True) for i in range(10)]
    study = triggers_of(lost + exact + slips)["paper", 0.9]
    assert (study.n_lost, study.n_exact, study.n_triggers) == (10, 10, 30)
    assert study.precision.value == pytest.approx(1 / 3)
    assert study.precision.base_rate == pytest.approx(2 * (1 / 4) / 3)  # 2 triggers at 4 places
    assert study.above_chance.value == pytest.approx(1 / 3 - 1 / 6)
    assert study.recall.value == 1
    assert study.in_time.value == 1
    assert study.lead.value == 2  # from the start of segment 4 to the onset
    assert study.false_per_trace.value == 1
    assert study.above_chance.n == 10  # problems with lost traces, not all twenty


def test_a_history_that_must_be_longer_fires_later():
    lost = [boundary_trace(f"w{i}", [9, 1.0, 2.0, 0.5, 3.0, 0.1], wrong=(42,)) for i in range(4)]
    assert triggers_of(lost, min_history=2)["paper", 0.9].n_triggers == 4
    assert triggers_of(lost)["repo", 0.9].n_triggers == 0  # five boundaries: the published code cannot fire
    assert np.isnan(triggers_of(lost)["repo", 0.9].precision.value)


def test_a_trigger_on_noise_is_no_better_than_its_schedule():
    """With little history the rule fires early. Early onsets then make it look good against uniformly random
    triggers; against triggers with its own preference for early boundaries nothing is left."""
    early = crowd(6, problems=250, failure=0.7, position=lambda rng: rng.uniform(0.1, 0.35))
    study = triggers_of(early)["paper", 0.9]
    assert study.above_chance.low > 0
    assert study.above_schedule.low < 0.01
    assert study.above_schedule.value < study.above_chance.value / 3


def test_a_trigger_that_reads_the_onset_beats_both_baselines():
    traces = crowd(7, problems=100, failure=0.5)
    for trace in traces:
        at = np.flatnonzero(trace.ids == 1)
        if len(at):
            trace.signals.entropy[at[0] // 10 * 10] = 4.0
    study = triggers_of(traces)["paper", 0.9]
    assert study.above_chance.low > 0.1
    assert study.above_schedule.low > 0.1


def test_traces_of_one_segment_have_no_boundary():
    study = triggers_of([planted(f"w{i}", f"p{i}", 1, wrong=(3,)) for i in range(3)])["paper", 0.9]
    assert study.n_triggers == 0
    assert study.recall.value == 0
