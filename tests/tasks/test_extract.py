"""Answers out of replies: thinking, boxes, marked lines, letters, programs; never an error, whatever the text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.tasks import TextTask, extract, get
from wrongturn.trace import Problem

EXTRACTORS = [
    extract.short,
    extract.number,
    extract.maths,
    extract.choice,
    extract.tagged,
    extract.program,
    extract.boxed,
    extract.marked,
    extract.pattern(r"x(\d)?"),
]
PARTS = (
    *("<think>", "</think>", "\\boxed{", "\\fbox {", "{", "}", "\\{", "\\}", "\\\\", "#### ", "$", "**", "\n", " "),
    *("final answer is ", "Final Answer: ", "the answer is ", "<answer>", "</answer>", "```python\n", "\n```\n", "```"),
    *("(B)", "A ", "1,234", "-5 %", "\\frac{1}{2}", "9", "e", "=", "I think ", "<|im_end|>", "\ud800", "\0", "٣"),
)
MESSY = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=8)), max_size=25).map("".join)
BALANCED = st.recursive(
    st.text(st.sampled_from("ab1 +-^_\\,"), max_size=6).map(lambda s: s.replace("\\", "\\{")),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"),
    max_leaves=12,
)


@settings(max_examples=50)
@given(MESSY)
def test_no_text_raises(text: str) -> None:
    for extractor in EXTRACTORS:
        answer = extractor(text)
        assert answer is None or (isinstance(answer, str) and (answer or extractor is EXTRACTORS[-1]))


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_no_text_raises_either(text: str) -> None:
    for extractor in EXTRACTORS:
        extractor(text)


@settings(max_examples=50)
@given(BALANCED.filter(str.strip), st.text(st.sampled_from("ab $\n"), max_size=9))
def test_what_is_boxed_comes_back(content: str, around: str) -> None:
    assert extract.boxed(f"{around}\\boxed{{{content}}}{around}") == content.strip()


@settings(max_examples=50)
@given(BALANCED.filter(str.strip), MESSY)
def test_the_thinking_does_not_count(content: str, thought: str) -> None:
    thought = thought.replace("think", "")
    for opened in ("<think>", ""):
        reply = f"{opened}{thought}\\boxed{{7}}</think>So \\boxed{{{content}}}."
        assert extract.boxed(extract.outside(reply)) == content.strip()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\\boxed{1} or \\boxed{2}", "2"),
        ("\\boxed{1} or \\boxed{2", "1"),  # the last complete one
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\left\\{x : x > {0}\\right\\}}", "\\left\\{x : x > {0}\\right\\}"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\fbox {3}", "3"),
        ("\\\\boxed{3}", "3"),  # escaped once too often
        ("\\boxed{ }", None),
        ("\\boxed{4} and \\boxed{}", "4"),
        ("\\boxed 4", None),
        ("a } too many, \\boxed{6}", "6"),
        ("a { too many, \\boxed{6}", "6"),
        ("\\boxed{\\}", None),
    ],
)
def test_boxes(text: str, found: str | None) -> None:
    assert extract.boxed(text) == found


def test_boxes_may_be_many() -> None:
    assert extract.boxed("\\boxed{1}" + "\\boxed{" * 200_000) == "1"


@pytest.mark.parametrize(
    "piece",
    [
        *("\\", "<answer>", "<|im_end|>", "```python\n", "<think>", "#### \t", "#### 1", "\\boxed{", "answer is *"),
        *("answer is \\[ ", "answer: the best ", "answer is a, ", "answer is (", "answer is 1 or ", '"', "$"),
        "answer is a" + " " * 200_000,
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    text = piece * -(-200_000 // len(piece)) + "x"
    began = time.process_time()
    for extractor in EXTRACTORS:
        extractor(text)
    assert time.process_time() - began < 5  # backtracking over it takes minutes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a", ""),
        ("before <think>a</think> after", "before  after"),
        ("<think>a</think>b<think>c", "b"),
        ("<THINKING>a</THINKING>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>b<|return|>", "b"),
        ("b<|im_end|>\n</s>", "b"),
    ],
)
def test_outside(text: str, shown: str) -> None:
    assert extract.outside(text) == shown


def test_a_passing_thought_is_no_answer_but_a_box_is() -> None:
    assert extract.number("<think>the answer is 4, or is it") is None
    assert extract.number("<think>so \\boxed{4}. Let me check") == "4"
    assert extract.choice("<think>Final answer: B? No") is None
    assert extract.maths("<think>\\boxed{4}</think>") == "4"  # nothing stands outside
    assert extract.maths("<think>\\boxed{4}</think>It is 5, I would say. Or not.") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It costs $5.\n#### 1,234", "1234"),
        ("#### 1\n#### 2", "2"),
        ("#### Step 3: add", None),
        ("**Final Answer:** $42$", "42"),
        ("Final answer:\n\n**42**", "42"),
        ("The final answer is 12 + 5 = 17.", "17"),
        ("The answer is 5 apples, since he ate two.", "5"),
        ("The answer is between 5 and 6", None),
        ("the answer is approximately 3.50 dollars", "3.5"),
        ("I count 5 and then 6.\nSo 7", None),  # no last number of a text that ends anyhow
        ("\\boxed{\\$1{,}000}", "1000"),
        ("\\boxed{x}", None),
        ("42", "42"),
        ("50%", "50%"),
        ("Final answer: 41\nNo. Final answer: 42", "42"),
        ("Final answer: -3", "-3"),
        # what an answer is wrapped in
        ("Final answer: \\(18\\)", "18"),
        ("Final answer: \\[18\\]", "18"),
        ("Final answer:\n\\[\n18\n\\]", "18"),
        ("Final answer:\n$$\n18\n$$\nas asked", "18"),
        ('Answer: "18"', "18"),
        ("The answer is (5)", "5"),
        ("The answer is *5*.", "5"),
        ("The answer is \\(5\\) apples.", "5"),
        ("\\boxed{(5)}", "5"),
        ("#### 18 apples", "18"),
        ("#### 18 km/h", "18"),
        ("#### 50 percent", "50%"),
        ("#### 1. Count the apples\nTwo.", None),
        ("#### 2 Ways to count", None),
        ("#### 3 ways to count the apples", None),
        ("Final Answer: The final answer is $5$. I hope it is correct.", "5"),
        ("Final answer: So the correct answer is 5.", "5"),
        ("Final answer: 42 (this final answer is exact)", "42"),
        # the number that is stated, not another one
        ("Final answer: 5 (n = 4)", "5"),
        ("The answer is 5, where x = 7", "5"),
        ("The answer is x = 5, where n = 7", "5"),
        ("The answer is 5 when n = 4.", "5"),
        ("The answer is 12 + 5 = 17, so x = 3.", "17"),
        ("The answer is 2(3 + 4) = 14.", "14"),
        ("The answer is 3 apples + 4 apples = 7 apples.", "7"),
        ("The answer is 20% of 50 = 10.", "10"),
        ("The total is x, so the answer is: the total for 5 days = 50", "50"),
        ("The answer is f(1, 2) = 0.5", "0.5"),
        ("The answer is 5. 3 of them are red.", "5"),
        ("Final answer: 1.5 million", "1500000"),
        ("Final answer: $3.3 billion dollars", "3300000000"),
        ("Final answer: 10:30", None),
        ("The answer is 5\\pi", None),
        ("The answer is 5 \\pm 1", None),
        ("The answer is 2^{10}", None),
        # one answer, not several
        ("Final answer: 5, 6", None),
        ("Final answer: 5,6", None),
        ("Final answer: 5 or 6", None),
        ("Final answer: \\(5\\) or \\(6\\)", None),
        ("Final answer: 50% or 60%", None),
        ("Final answer: 5 to 7", None),
        ("Final answer: 5–7", None),
        ("Final answer: 5 apples or 6 apples", None),
        ("Final answer: 5 (even) or 6 (odd)", None),
        ("Final answer: 5 or 5 or 6", None),
        ("Final answer: x = 5, y = 6", None),
        ("Final answer: x = 5 or x = -5", None),
        ("Final answer: 5 (n = 4) or 6", None),
        ("Final answer: 2 hours and 30 minutes", None),
        ("Final answer: 2 and a half", None),
        ("Final answer: 1/2, or 0.5", "0.5"),  # the same twice
        ("Final answer: 1,000 or so", "1000"),
        ("Final answer: 5 m/s^2", "5"),
        ("Final answer: 5, not six", "5"),
        ("Final answer: 5 – since 2 + 3 = 5", "5"),
        ("Final answer: 5 - x", None),
        ("Final answer: 3 x 4", None),
        ("Final answer: 7 a.m. or 8 a.m.", None),
        ("Final answer: 5 apples. The answer is a number from 1 to 7.", "5"),
        ("Final answer: 90^\\circ", "90"),
        ("Final answer: 3/4 of it, and that is all", "0.75"),
    ],
)
def test_numbers(text: str, found: str | None) -> None:
    assert extract.number(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Final Answer: B", "B"),
        ("**Final answer: (c)**", "C"),
        ("The correct answer is option D.", "D"),
        ("The answer is A because", "A"),
        ("The answer is a matter of taste", None),
        ("The answer is A matter of taste", None),
        ("The answer is I think", None),
        ("$\\boxed{\\text{E}}$", "E"),
        ("\\boxed{B. Paris}", "B"),
        ("thinking...\n(B)", "B"),
        ("thinking...\n**D.**", "D"),
        ("A is wrong, B is right", None),
        ("Final answer: Because", None),
        ("Final answer: D'Alembert", None),
        ("c", "C"),
        ("Final answer: b", "B"),
        ("Final answer: **b**", "B"),
        ("Final answer: b.", "B"),
        ("Final answer: b. Paris", "B"),
        ("Final answer: a", "A"),
        ("\\boxed{b}", "B"),
        ("Final answer: \\(B\\)", "B"),
        ("Final answer: '\\text{B}'", "B"),
        ("Answer: Option B", "B"),
        ("The answer is choice b because", "B"),
        ("The correct option is B", "B"),
        ("The best choice is **(c)**.\nSo much for that.", "C"),
        ("Final Answer: The final answer is $B$. I hope it is correct.", "B"),
        ("Final answer: The correct option is B", "B"),
        ("Final answer: A is the only one that fits", "A"),
        ("Final answer: A, I think", "A"),
        ("Final answer: B, a city", "B"),
        ("Final answer: B. A and C are wrong", "B"),
        ("Final answer: **A** great choice", "A"),
        ("thinking...\nOption B", "B"),
        ("The answer is c = 5", None),
        ("Final answer: A, B", None),
        ("Final answer: A/B", None),
        ("Final answer: A and C", None),
        ("Final answer: A and A", "A"),
        ("Final answer: (A) or (B)", None),
        ("Final answer: A (Rome) or B (Paris)", None),
        ("Final answer: A, A or B", None),
        ("Final answer: option a or option b", None),
        ("Final answer: A–C", None),
        ("\\boxed{A, B}", None),
        ("\\boxed{\\text{A} \\text{ and } \\text{B}}", None),
        ("Final answer: not B", None),
        ("Final answer: B12", None),
    ],
)
def test_choices(text: str, found: str | None) -> None:
    assert extract.choice(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Final answer: Paris.", "Paris"),
        ("Paris", "Paris"),
        ("The answer is Paris.", "Paris"),
        ("It may be Paris.\nOr Rome", None),
        ("x" * 500, None),
        ("so \\boxed{Par", None),
        ('Final answer: "Paris".', "Paris"),
        ("\\boxed{\\text{Paris}}", "Paris"),
        ("Final answer: \\(Y\\)", "Y"),
        ("Final Answer: The final answer is $5$. I hope it is correct.", "5"),
        ("Final Answer: The final answer is Paris. I hope it is correct.", "Paris"),
        ('"a" or "b"', '"a" or "b"'),
    ],
)
def test_short_answers(text: str, found: str | None) -> None:
    assert extract.short(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Final answer: $x^2 + 1$.", "x^2 + 1"),
        ("The answer is $\\sqrt2$.", "\\sqrt2"),
        ("The answer is unclear", None),
        ("$\\frac12$", "\\frac12"),
        ("$x^2 + 1$.", "x^2 + 1"),
        ("\\[ x^2 + 1 \\]", "x^2 + 1"),
        ("x squared", None),
        ("We have x = 3", None),
        ("Final answer: \\(x^2 + 1\\)", "x^2 + 1"),
        ("Final Answer: The final answer is $x^2$. I hope it is correct.", "x^2"),
        ("Final answer: (1, 2)", "(1, 2)"),
        ("\\boxed{(1,2]}", "(1,2]"),
    ],
)
def test_mathematics(text: str, found: str | None) -> None:
    assert extract.maths(text) == found


def test_tags_may_hold_several_lines() -> None:
    assert extract.tagged("<answer>no</answer> <answer>\n1 2\n3 4\n</answer>") == "1 2\n3 4"
    assert extract.tagged("<answer>unfinished\nand so on") is None


def test_programs() -> None:
    fenced = "Try\n```\nold\n```\nthen\n```python\nprint(1)\n```\nand output\n```\n1\n```"
    assert extract.program(fenced) == "print(1)\n"
    assert extract.program("```\nx = 1\n```") == "x = 1\n"
    assert extract.program("```python\nprint(1)\n") is None  # cut short
    assert extract.program("<think>\n```python\na\n```\n</think>\n```py\nb\n```") == "b\n"
    assert extract.program("```cpp\nint x;\n```") is None
    assert extract.program("```\nunclosed\n```python\nb\n```") == "b\n"


def test_patterns() -> None:
    assert extract.pattern(r"=> (\w+)")("=> a, => b") == "b"
    assert extract.pattern(r"\d+")("1 22") == "22"
    assert extract.pattern(r"\d+")("none") is None


STATED = (
    *(
        "Final answer: {}",
        "**Final Answer:** {}.",
        "Answer: {}",
        "The answer is {}",
        "So the correct answer is {}.",
    ),
    *("Final Answer: The final answer is {}. I hope it is correct.", "\\boxed{{{}}}", "<think>?</think>\\fbox{{{}}}"),
)
WRAPPED = (
    "{}",
    "**{}**",
    "*{}*",
    "`{}`",
    "${}$",
    "\\({}\\)",
    "\\[{}\\]",
    '"{}"',
    "“{}”",
    "\\text{{{}}}",
    "$\\text{{{}}}$",
)
HEDGED = ("{}, {}", "{} or {}", "{} and {}", "{} to {}", "{}, or {}", "{}; {}", "{} & {}", "**{}** or **{}**")
PICKED = {
    "numeric": st.one_of(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6).map(lambda n: n / 8)).map(str),
    "choice": st.sampled_from("ABCDEFGHIJ"),
    "exact": st.sampled_from(["Paris", "Y", "n", "New York", "7"]),
}


def right(name: str, reference: str, reply: str) -> bool | None:
    task = get(name)
    assert isinstance(task, TextTask)
    return task.grade(Problem("p", name, "?", reference=reference), task.answer_text(reply))


@settings(max_examples=80)
@given(st.data(), st.sampled_from(sorted(PICKED)), st.sampled_from(STATED), st.sampled_from(WRAPPED))
def test_how_an_answer_is_wrapped_does_not_count(data: st.DataObject, name: str, stated: str, wrapped: str) -> None:
    reference = data.draw(PICKED[name])
    written = reference.lower() if name == "choice" and data.draw(st.booleans()) else reference
    assert right(name, reference, stated.format(wrapped.format(written))) is True


@settings(max_examples=80)
@given(
    st.data(),
    st.sampled_from(["numeric", "choice"]),
    st.sampled_from(STATED),
    st.sampled_from(WRAPPED),
    st.sampled_from(HEDGED),
)
def test_two_different_answers_are_never_right(data: st.DataObject, name: str, stated: str, wrapped: str, hedged: str):
    one, other = data.draw(
        st.lists(PICKED[name], min_size=2, max_size=2, unique_by=float if name == "numeric" else str)
    )
    reply = stated.format(wrapped.format(hedged.format(one, other)))
    assert not any(right(name, reference, reply) for reference in (one, other))
