"""Answers out of replies: thinking, boxes, marked lines, letters, programs; never an error, whatever the text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.tasks import extract

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
    "piece", ["\\", "<answer>", "<|im_end|>", "```python\n", "<think>", "#### \t", "\\boxed{", "answer is *"]
)
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (200_000 // len(piece)) + "x"
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
        ("We have x = 3", None),
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
