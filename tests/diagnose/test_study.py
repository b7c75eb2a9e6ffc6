import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic import child, crowd, planted, problems_of, searches

from wrongturn.diagnose import Study, plan, study
from wrongturn.signals import Signals

KEYS = (
    "problems",
    "traces",
    "accuracy",
    "exact",
    "outcomes",
    "error_classes",
    "finishes",
    "onset",
    "entropy",
    "entropy_onset",
    "trigger",
    "predictors",
    "recovery",
    "claims",
)


def diagnose(traces, problems=None, **options):
    return study(traces, problems_of(traces) if problems is None else problems, n_boot=100, **options)


def undecided(found):
    return {claim.verdict for claim in found.claims} == {"cannot be told"}


def test_counts_by_group():
    traces = [
        planted("a", "p", 3, group="easy"),
        planted("b", "p", 3, group="easy", wrong=(12,), right=True),
        planted("c", "q", 3, group="easy", wrong=(12,)),
        planted("d", "r", 3, group="hard", right=False, finish="length"),
        planted("e", "r", 3, group="hard", right=False),
    ]
    found = diagnose(traces)
    assert (found.problems, found.traces) == (3, 5)
    assert {name: estimate.value for name, estimate in found.accuracy.items()} == {
        "easy": pytest.approx(2 / 3),
        "hard": 0,
    }
    assert {name: estimate.value for name, estimate in found.exact.items()} == {
        "easy": pytest.approx(1 / 3),
        "hard": 0.5,
    }
    assert found.outcomes["easy"] == {
        "process_ok_answer_right": 1,
        "process_ok_answer_wrong": 0,
        "process_wrong_answer_right": 1,
        "process_wrong_answer_wrong": 1,
    }
    assert found.error_classes == {"easy": {"wrong": 2}, "hard": {"truncated": 1}}
    assert found.finishes == {"easy": {"stop": 3}, "hard": {"length": 1, "stop": 1}}


def test_no_traces():
    found = diagnose([])
    assert (found.problems, found.traces, found.onset.n_failed) == (0, 0, 0)
    assert undecided(found)
    assert (
        json.loads(json.dumps(found.dict(), allow_nan=False))["onset"]["curves"]["token"]["share_30"]["value"] is None
    )


def test_one_trace():
    for trace in (planted("a", "p", 3), planted("a", "p", 3, wrong=(12,)), planted("a", "p", 0, right=False)):
        found = diagnose([trace])
        assert undecided(found)
        json.dumps(found.dict(), allow_nan=False)


def test_all_right():
    found = diagnose(crowd(0, problems=20, failure=0.0))
    assert found.accuracy["g"].value == 1
    assert found.accuracy["g"].low > 0.7
    assert undecided(found)


def test_all_wrong():
    found = diagnose(crowd(0, problems=20, failure=1.0))
    assert found.accuracy["g"].value == 0
    assert found.onset.n_onset == 80
    assert found.claim("entropy_predicts_failure").verdict == "cannot be told"
    json.dumps(found.dict(), allow_nan=False)


def test_ungraded_traces_and_traces_without_signals():
    traces = [replace(trace, correct=None) for trace in crowd(0, problems=20)]
    found = diagnose(traces)
    assert found.onset.n_failed == 0
    assert found.exact["g"].n == 20  # the process is known without a grade
    assert found.accuracy["g"].n == 0
    blind = [replace(trace, signals=Signals.empty(len(trace.ids))) for trace in crowd(0, problems=20)]
    found = diagnose(blind)
    assert found.onset.n_onset > 0
    assert found.entropy.n_invalid == 0
    assert found.entropy_onset["highest"].n == 0
    assert found.claim("entropy_spike_at_onset").verdict == "cannot be told"
    json.dumps(found.dict(), allow_nan=False)


def test_injected_tokens_without_signals_are_left_out():
    traces = crowd(1, problems=20, spike=2.0)
    for trace in traces:
        for values in trace.signals.dict().values():
            values[2:5] = np.nan
    found = diagnose(traces)
    assert np.isfinite(found.entropy.spike.value)
    json.dumps(found.dict(), allow_nan=False)


def test_traces_nobody_can_check():
    traces = [replace(trace, task="imported", onset=None) for trace in crowd(0, problems=20)]
    found = diagnose(traces, {})
    assert found.onset.n_unknown == found.onset.n_failed > 0
    assert found.exact["g"].n == 0
    assert np.isfinite(next(p for p in found.predictors if p.signal == "entropy_mean").pooled.value)
    assert found.claim("early_onset").verdict == "cannot be told"


def test_a_study_is_its_traces_and_seed():
    traces = crowd(2, problems=15)
    first, again, other = (json.dumps(diagnose(traces, seed=seed).dict()) for seed in (3, 3, 4))
    assert first == again != other


def test_the_order_of_traces_does_not_matter():
    traces = crowd(2, problems=15)
    forward, backward = (diagnose(list(order)) for order in (traces, reversed(traces)))
    assert forward.onset.share_30 == backward.onset.share_30
    for one, two in zip(forward.claims, backward.claims, strict=True):
        if one.name != "onset_spike_beats_control":  # its controls are drawn at random
            assert one.estimate.value == pytest.approx(two.estimate.value, nan_ok=True)


def test_searches_with_everything():
    traces, problems = searches(0, n=40)
    by_id = {trace.id: trace for trace in traces}
    children = [
        child(by_id[cut.parent], cut.at, cut.condition, (cut.at + k) % 3 == 0, k)
        for cut in plan(traces, problems, max_traces=20)
        for k in range(cut.samples)
    ]
    found = diagnose(traces, problems, recovery=children)
    assert found.recovery is not None
    assert set(found.recovery.conditions) >= {"before_onset", "restart"}
    assert sum(found.outcomes["G15_2,4"].values()) == len(traces)
    plain = json.loads(json.dumps(found.dict(), allow_nan=False))
    assert tuple(plain) == KEYS == tuple(field.name for field in dataclasses.fields(Study))
    assert len(plain["onset"]["curves"]["token"]["r"]) == 101
    assert set(plain["claims"][0]) == {"name", "text", "published", "verdict", "estimate", "n", "detail"}
    assert {claim["verdict"] for claim in plain["claims"]} <= {"holds", "does not hold", "cannot be told"}


def test_an_unknown_claim_is_named():
    with pytest.raises(ValueError, match="early_onset"):
        diagnose([]).claim("late_onset")
