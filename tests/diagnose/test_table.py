from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import planted, problems_of, searches

from wrongturn.diagnose.table import UNJUDGED, summaries, tabulate


def table_of(*traces):
    return tabulate(traces, problems_of(traces))


def test_outcome_and_process_are_two_things():
    table = table_of(
        planted("good", "p", 3),
        planted("slip", "p", 3, wrong=(12,), right=True),
        planted("lost", "q", 3, wrong=(12, 25)),
        planted("odd", "q", 3, right=False),  # no wrong token, and a wrong answer
        planted("cut", "q", 2, right=False, finish="length"),
        replace(planted("ungraded", "q", 3, wrong=(0,)), correct=None),
    )
    assert table.failed.tolist() == [False, False, True, True, True, False]
    assert table.wrong_turn.tolist() == [False, True, True, False, False, True]
    assert table.lost.tolist() == [False, False, True, False, False, False]
    assert table.exact.tolist() == [True, False, False, True, False, False]
    assert table.onset.tolist() == [-1, 12, 12, -1, 20, 0]
    assert table.onset_segment.tolist() == [-1, 1, 1, -1, -1, 0]


def test_running_out_of_tokens_is_not_an_invalid_step():
    trace = planted("cut", "p", 2, right=False, finish="length")
    trace.ids = trace.ids[:15]
    table = table_of(trace)
    assert table.error == ("truncated",)
    assert table.valid.tolist()[0] == 1
    assert np.isnan(table.valid[1])


def test_a_trace_no_checker_knows_is_judged_by_its_own_onset():
    trace = planted("t", "p", 3, wrong=(12,))
    trace.onset, trace.error = 14, "judge"
    unknown = planted("u", "p", 3)
    table = tabulate([trace, unknown], {})  # no problem, no check
    assert table.onset.tolist() == [14, UNJUDGED]
    assert table.onset_segment.tolist() == [1, -1]
    assert np.isnan(table.valid).all()
    trace.task = "imported"
    foreign = tabulate([trace], problems_of([trace]))
    assert (foreign.start.tolist(), foreign.stop.tolist(), foreign.onset_segment.tolist()) == ([0], [30], [0])


def test_the_onset_segment_is_the_first_invalid_one():
    traces, problems = searches(1, n=30)
    table = tabulate(traces, problems)
    for i in np.flatnonzero(table.wrong_turn):
        verdicts = table.valid[table.first_segment[i] : table.first_segment[i + 1]]
        assert table.onset_segment[i] == np.argmax(verdicts == 0)
        assert table.onset[i] == traces[i].onset
    assert table.wrong_turn.sum() > 30


def test_empty_traces_and_no_traces():
    assert len(tabulate([], {})) == 0
    empty = planted("e", "p", 0, right=False)
    table = table_of(empty, planted("t", "p", 2, wrong=(3,)))
    assert table.segments.tolist() == [0, 2]
    assert table.onset_segment.tolist() == [-1, 0]


NUMBERS = st.lists(st.floats(0, 10) | st.just(float("nan")), max_size=30)


@given(NUMBERS, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8))
def test_summaries_are_those_of_each_span(values, spans):
    values = np.array(values, float)
    spans = [sorted(min(edge, len(values)) for edge in span) for span in spans]
    start, stop = (np.array([span[k] for span in spans], np.intp) for k in (0, 1))
    found = summaries(values, start, stop)
    for i, (a, b) in enumerate(spans):
        part = values[a:b][~np.isnan(values[a:b])]
        for name in ("mean", "std", "max", "min"):
            expected = getattr(np, name)(part) if len(part) else np.nan
            assert found[name][i] == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_an_infinite_value_stays_in_its_span():
    """A token of probability zero: the mean and maximum of its span are infinite, those of the others theirs."""
    values = np.array([1, 2, np.inf, 1, 1, 2, 3, 4.0])
    found = summaries(values, np.array([0, 3, 5, 5, 0]), np.array([3, 5, 8, 5, 8]))
    np.testing.assert_array_equal(found["mean"], [np.inf, 1, 3, np.nan, np.inf])
    np.testing.assert_array_equal(found["max"], [np.inf, 1, 4, np.nan, np.inf])
    np.testing.assert_array_equal(found["min"], [1, 1, 2, np.nan, 1])
    np.testing.assert_allclose(found["std"], [np.nan, 0, np.sqrt(2 / 3), np.nan, np.nan])


def test_large_values_cost_the_later_spans_no_digits():
    values = np.concatenate((np.full(9, 9999.0), [1e-5, 3e-5]))
    found = summaries(values, np.array([9]), np.array([11]))
    assert found["mean"][0] == pytest.approx(2e-5, rel=1e-12)
    assert found["std"][0] == pytest.approx(1e-5, rel=1e-9)
