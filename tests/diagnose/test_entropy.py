import numpy as np
import pytest
from synthetic import FILL, STEP, WRONG, crowd, planted, problems_of

from wrongturn.diagnose.entropy import OFFSETS, entropy_study
from wrongturn.diagnose.intervals import Resamples
from wrongturn.diagnose.table import tabulate

ZERO = int(np.flatnonzero(OFFSETS == 0)[0])


def study_of(traces, n_boot=300):
    table = tabulate(traces, problems_of(traces))
    return entropy_study(table, Resamples(len(table.problems), n_boot))


def excludes_zero(estimate):
    return estimate.low > 0 or estimate.high < 0


def test_segment_entropies_by_hand():
    """Three segments at 1, 3 and 2 nats; the second is invalid. A right trace of the same problem at 1 nat."""
    traces = []
    for i in range(12):
        traces.append(planted(f"w{i}", f"p{i}", 3, wrong=(14,), entropy=np.repeat([1.0, 3.0, 2.0], 10)))
        traces.append(planted(f"r{i}", f"p{i}", 2, entropy=np.repeat(1.0, 20)))
    study = study_of(traces)
    assert (study.n_invalid, study.n_valid) == (12, 48)
    assert study.mean_invalid.value == pytest.approx(3)
    assert study.mean_valid.value == pytest.approx((1 + 2 + 1 + 1) / 4)
    assert study.mean_difference.value == pytest.approx(3 - 1.25)
    assert study.mean_within.value == pytest.approx(3 - 1.5)
    assert study.spread_difference.value == pytest.approx(0 - np.std([1, 2, 1, 1]))
    assert study.auroc.value == 1
    assert study.auroc_within.value == 1
    assert study.spike.value == pytest.approx(2)  # the second segment against the first


def test_hard_problems_look_like_wrong_steps_until_the_trace_is_its_own_control():
    """Entropy depends on the problem only, and hard problems fail more: pooled, invalid segments are more uncertain;
    inside a trace they are not."""
    study = study_of(crowd(3, problems=150, failure=0.5, difficulty=0.4))
    assert study.mean_difference.low > 0
    assert study.auroc.low > 0.5
    assert not excludes_zero(study.mean_within)
    assert study.auroc_within.low < 0.5 < study.auroc_within.high


def test_noise_shows_nothing():
    study = study_of(crowd(11))
    for estimate in (
        study.mean_difference,
        study.mean_within,
        study.spread_within,
        study.spike,
        study.spike_over_control,
    ):
        assert not excludes_zero(estimate)
    assert not excludes_zero(study.peak_before_excess)
    assert study.highest_so_far.low < study.highest_so_far.base_rate < study.highest_so_far.high
    assert study.rank_at_onset.low < 0.5 < study.rank_at_onset.high


def test_a_spike_at_the_onset_is_found_there_and_only_there():
    study = study_of(crowd(4, spike=3.0))
    aligned = study.aligned
    assert np.argmax(aligned.onset) == ZERO
    assert aligned.onset_low[ZERO] > aligned.control_high[ZERO]
    assert study.spike_over_control.low > 2.5
    assert study.spike.low > 0
    assert study.highest_so_far.low > 0.9
    assert study.peak_at.low > 0.9
    assert study.peak_before_excess.high < 0
    beside = np.abs(OFFSETS) > 1
    assert (aligned.onset_low[beside] < aligned.control_high[beside]).all()


def test_a_control_is_the_same_kind_of_decision():
    """Tokens after a STEP are uncertain everywhere, and all onsets stand there. Against all tokens that would look
    like a spike; against the same decision in right traces it is nothing."""
    traces = []
    for i in range(60):
        entropy = np.tile([1.0] + [0.1] * 9, 4) + np.random.default_rng(i).normal(0, 0.01, 40)
        traces.append(planted(f"w{i}", f"p{i}", 4, wrong=(20,), entropy=entropy))
        traces.append(planted(f"r{i}", f"p{i}", 4, entropy=entropy))
    study = study_of(traces)
    assert study.aligned.matched == 1
    assert study.aligned.control[ZERO] == pytest.approx(1, abs=0.05)
    assert abs(study.spike_over_control.value) < 0.02
    assert study.aligned.onset[ZERO] > study.aligned.onset[ZERO + 1] + 0.5


def test_onsets_without_a_like_decision_have_no_control():
    traces = [planted(f"w{i}", f"p{i}", 3, wrong=(14, 15)) for i in range(12)]
    for trace in traces:
        trace.ids[13] = 9  # a token that right traces never write
    study = study_of([*traces, *(planted(f"r{i}", f"p{i}", 3) for i in range(12))])
    assert study.aligned.matched == 0
    assert study.aligned.n_control == 0
    assert study.spike_over_control.n == 0
    assert {FILL, STEP, WRONG} == {0, 2, 1}


@pytest.mark.parametrize(("peak", "field"), [(5, "peak_before"), (14, "peak_at"), (27, "peak_after")])
def test_where_the_maximum_is(peak, field):
    entropy = np.full(30, 0.1)
    entropy[peak] = 2.0
    study = study_of([planted(f"w{i}", f"p{i}", 3, wrong=(14,), entropy=entropy) for i in range(12)])
    shares = {name: getattr(study, name) for name in ("peak_before", "peak_at", "peak_after")}
    assert {name: share.value for name, share in shares.items()} == {name: float(name == field) for name in shares}
    assert shares["peak_before"].base_rate == pytest.approx(14 / 30)
    assert shares["peak_at"].base_rate == pytest.approx(1 / 30)
    assert shares["peak_after"].base_rate == pytest.approx(15 / 30)
