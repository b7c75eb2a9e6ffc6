"""Numbers as they are written, and the graders that need no library."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.tasks import graders, quantity

SYMMETRIC = [graders.exact, graders.numeric, graders.choice]
ANSWERS = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from(["50%", "0.5", "1/2", "\\frac{1}{2}", "$1,000", "1000.0", "(b)", "B", " b. ", "1e3", "−1", "5 km"]),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-42.", -42),
        ("−7", -7),
        ("+3", 3),
        ("007", 7),
        (".5", 0.5),
        ("5.", 5),
        ("18.00", 18),
        ("1,234,567.5", 1234567.5),
        ("1 234 567", 1234567),
        ("10{,}000", 10000),
        ("10\\,000", 10000),
        ("1,00,000", 100000),
        ("$18", 18),
        ("\\$18", 18),
        ("-£5", -5),
        ("€ 5", 5),
        ("3/4", 0.75),
        ("6/3", 2),
        ("1 1/2", 1.5),
        ("-1 1/2", -1.5),
        ("\\frac{3}{4}", 0.75),
        ("-\\dfrac34", -0.75),
        ("1e3", 1000),
        ("3.2\\times 10^{4}", 32000),
        ("3.2 x 10^4", 32000),
        ("x = 7", 7),
        ("5 km/h", 5),
        ("12 apples", 12),
        ("5 m^2", 5),
        ("5\\text{ cm}", 5),
        ("90^\\circ", 90),
        ("about 5", 5),
        ("**5**", 5),
        ("1.5 million", 1500000),
        ("-2 thousand dollars", -2000),
        ("(5)", 5),
        ("\\(5\\)", 5),
    ],
)
def test_numbers_are_read(text: str, value: float) -> None:
    found = quantity.parse(text)
    assert found is not None
    assert found.value == value
    assert isinstance(found.value, int) == float(value).is_integer()


NO_NUMBERS = [
    "",
    " ",
    "abc",
    "5 or 6",
    "3-4",
    "1,5",
    "1.2.3",
    "2 + 3",
    "5x+3",
    "1/0",
    "1e999",
    "9^9",
    "9^{9^9}",
    "1/2/3",
]
NO_NUMBERS += ["5, 6", "(5, 6)", "10:30", "1. Paris"]
NO_NUMBERS += ["x", "9" * 2000, "1e99999999999", "nan", "inf", "3 and 4", "12,34"]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number(text: str) -> None:
    assert quantity.parse(text) is None


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_parsing_never_raises(text: str) -> None:
    for parse in (quantity.parse, quantity.leading):
        found = parse(text)
        assert found is None or math.isfinite(found.value)


@settings(max_examples=60)
@given(st.one_of(st.integers(-(10**15), 10**15), st.floats(-1e12, 1e12)))
def test_a_number_is_read_back(value: float) -> None:
    for written in (f"{value}", f"{value:,}", f"${value:,}", f"{value} units", f"the result = {value}"):
        found = (quantity.leading if "result" in written else quantity.parse)(written)
        assert found is not None
        assert found.value == pytest.approx(value, rel=1e-12)
    again = quantity.parse(str(quantity.Quantity(value)))
    assert again is not None
    assert again.equals(quantity.Quantity(value))


@settings(max_examples=60)
@given(ANSWERS, ANSWERS)
def test_symmetric(a: str, b: str) -> None:
    for grade in SYMMETRIC:
        there, back = grade(a, b), grade(b, a)
        if there is not None and back is not None:
            assert there == back


@settings(max_examples=60)
@given(ANSWERS)
def test_an_answer_equals_itself(answer: str) -> None:
    assert graders.exact(answer, answer)
    assert graders.numeric(answer, answer) in (True, None)
    assert graders.choice(answer, answer) in (True, None)


def test_tolerance() -> None:
    assert graders.numeric("0.3333333", "1/3")
    assert not graders.numeric("0.3333", "1/3")
    assert not graders.numeric("12345678901234567890", "12345678901234567891")  # integers are exact
    assert graders.numeric("0", "0.0")
    assert not graders.numeric("0", "1e-9")


def test_percent() -> None:
    assert graders.numeric("50", "50%")
    assert graders.numeric("0.5", "50%")
    assert graders.numeric("50%", "50 percent")
    assert not graders.numeric("50%", "0.5%")


def test_no_verdict_without_a_reference_that_fits() -> None:
    assert graders.numeric("about the same", "5") is None
    assert graders.choice("none of these", "B") is None
    assert graders.choice("Y", "Y") is None  # no choice is called so
    assert graders.numeric("5", "no idea") is False
    assert graders.choice("B", "no idea") is False


def test_exact_forgives_little() -> None:
    assert graders.exact("New  York", '"new york."')
    assert graders.exact("ﬁve", "Five")  # one ligature
    assert not graders.exact("New York", "York")
    assert not graders.exact("1.0", "1")
