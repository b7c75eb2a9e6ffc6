import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import searches

from wrongturn import tasks
from wrongturn.diagnose import blank_lines, segments
from wrongturn.diagnose.segments import spans


@given(st.lists(st.booleans(), max_size=60))
def test_spans_tile_the_trace_and_end_after_each_boundary(marks):
    found = spans(marks)
    assert [i for start, stop in found for i in range(start, stop)] == list(range(len(marks)))
    assert all(start < stop for start, stop in found)
    assert {stop - 1 for _, stop in found} == {i for i, mark in enumerate(marks) if mark} | (
        {len(marks) - 1} & {*range(len(marks))}
    )


def test_spans_of_nothing():
    assert spans([]).shape == (0, 2)


def test_segments_of_a_search_are_those_its_checker_judges():
    traces, problems = searches(3, n=10)
    for trace in traces:
        task = tasks.get(trace.task)
        judged = task.check(problems[trace.problem], trace.ids).segments
        assert segments(task, trace).tolist() == [[part.start, part.stop] for part in judged]


@pytest.mark.parametrize(
    ("pieces", "ends"),
    [
        (["A", ".\n\n", "B"], [1]),  # one token for the sentence's end and the blank line
        (["A", ".", "\n\n", "B"], [2]),
        (["A", "\n", "\n", "B"], [2]),  # the blank line is completed by the second newline
        (["A", ".\n\n", "\n", "\n\n", "B", "\n\n"], [1, 5]),  # a run of newlines is one boundary
        (["A", "\n", "  \t", "\n", "B"], [3]),  # a line of spaces is blank
        (["A", "\r\n\r\n", "B"], [1]),
        (["A", "**:\n\n", "- B", "\n- C"], [1]),  # any vocabulary, any punctuation
        (["A", "\n", "B", "\n"], []),  # line breaks are not blank lines
        (["\n\n", "A", "\n\n"], [2]),  # nothing was said before the first
        (["A\n\nB", "C"], []),  # the text does not *end* in a blank line
        ([], []),
    ],
)
def test_blank_lines(pieces, ends):
    assert np.flatnonzero(blank_lines(pieces)).tolist() == ends


@given(st.lists(st.text(alphabet="a. \n", max_size=4), max_size=30), st.integers(0, 30))
def test_blank_lines_see_only_the_past(pieces, cut):
    assert blank_lines(pieces)[:cut].tolist() == blank_lines(pieces[:cut]).tolist()


@given(st.lists(st.text(alphabet="a.\n", min_size=1, max_size=3), max_size=30))
def test_blank_lines_do_not_depend_on_the_tokens(pieces):
    """Where single characters end a step, so does any tokenisation that has a token end there."""
    text = "".join(pieces)
    single = {i + 1 for i in np.flatnonzero(blank_lines(text))}
    ends = np.cumsum([len(piece) for piece in pieces]).tolist()
    merged = {ends[i] for i in np.flatnonzero(blank_lines(pieces))}
    assert single & set(ends) <= merged
