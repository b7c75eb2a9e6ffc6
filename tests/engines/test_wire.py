from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.engines._http import Trouble, message, retry_after
from wrongturn.engines._wire import Reader, align, key, number


def feed(reader: Reader, **choice: Any) -> list[tuple[str, int | None]]:
    data = json.dumps({"choices": [{"index": 0} | choice]}).encode()
    return [(token.text, token.id) for token in reader.feed(data)]


@given(st.lists(st.text(max_size=4), min_size=1, max_size=8), st.data())
def test_pieces_are_the_text_and_no_token_is_lost(tokens: list[str], data: st.DataObject) -> None:
    whole = "".join(tokens)
    text = data.draw(st.one_of(st.just(whole), st.text(max_size=8), st.just(whole[:-1]), st.just("<x>" + whole + "!")))
    pieces = align(tokens, text)
    assert "".join(piece for piece, _ in pieces) == text
    assert [i for _, i in pieces if i >= 0] == list(range(len(tokens)))


@pytest.mark.parametrize(
    ("tokens", "text", "expected"),
    [
        (["a", "b"], "ab", ["a", "b"]),
        (["a", "<end>"], "a", ["a", ""]),
        (["\ufffd", "\ufffd", "x"], "éx", ["", "é", "x"]),
        (["a"], "abc", ["a", "bc"]),  # logprobs shorter than the text
        (["c"], "abc", ["ab", "c"]),
        (["r", "c"], "r</think>c", ["r", "</think>c"]),
    ],
)
def test_what_a_token_says(tokens: list[str], text: str, expected: list[str]) -> None:
    assert [piece for piece, _ in align(tokens, text)] == expected


def test_half_characters_never_reach_the_text() -> None:
    reader = Reader(1)
    assert feed(reader, text="a\ud83d") == [("a", None)]
    assert feed(reader, text="\ude00b") == [("😀b", None)]
    assert feed(reader, text="\udc00") == [("\ufffd", None)]
    entries = [{"token": "?", "logprob": -1.0, "bytes": [0xC3]}, {"token": "?", "logprob": -1.0, "bytes": [0xA9]}]
    assert feed(reader, message={"content": "é"}, logprobs={"content": entries}) == [("", None), ("é", None)]


def test_thinking_that_was_split_off_is_put_back() -> None:
    reader = Reader(1)
    said = [feed(reader, delta=delta)[0][0] for delta in ({"reasoning": "so"}, {"reasoning": " it"}, {"content": "is"})]
    assert said == ["<think>so", " it", "</think>is"]
    whole = feed(Reader(1), message={"reasoning_content": "so it", "content": "is"}, logprobs=None)
    assert whole == [("<think>so it</think>is", None)]


@pytest.mark.parametrize("logprob", [None, "x", float("nan"), 3.0, True, [], -9999.0, float("-inf")])
def test_what_is_no_logprob_is_nan(logprob: Any) -> None:
    reader = Reader(2)
    told = {"tokens": ["a"], "token_logprobs": [logprob], "top_logprobs": [{"b": -0.5, "c": logprob}]}
    (token,) = reader.feed(json.dumps({"choices": [{"text": "a", "logprobs": told}]}).encode())
    assert math.isnan(token.logprob)
    assert ("b", -0.5) in token.top
    assert all(value <= 0 for _, value in token.top)


def test_a_drawn_token_is_no_alternative_unless_it_is_among_the_best() -> None:
    def top(k: int, listed: dict[str, float], vocab: int | None = None) -> list[Any]:
        told = {"tokens": ["x"], "token_logprobs": [-5.0], "top_logprobs": [listed]}
        data = json.dumps({"choices": [{"text": "x", "logprobs": told}]}).encode()
        return [name for name, _ in Reader(k, vocab).feed(data)[0].top]

    assert top(2, {"x": -5.0, "a": -0.5, "b": -1.0}) == ["a", "b"]
    assert top(3, {"x": -0.1, "a": -3.0, "b": -4.0}) == ["x", "a", "b"]
    assert top(3, {"x": -5.0, "a": -0.5}) == ["a"]  # two of the three have the same text
    assert top(3, {"x": -5.0, "a": -0.5}, vocab=2) == ["a", "x"]


def test_a_chunk_sent_twice_counts_once() -> None:
    def events(*, offsets: bool, usage: bool) -> list[bytes]:
        made = []
        for i in range(3):
            told = {"tokens": ["a"], "token_logprobs": [-1.0], "text_offset": [i] if offsets else []}
            event: dict[str, Any] = {"choices": [{"text": "a", "logprobs": told, "finish_reason": None}]}
            if usage:
                event["usage"] = {"completion_tokens": i + 1}
            made.append(json.dumps(event).encode())
        return [made[0], made[1], made[1], made[2], b"[DONE]"]

    for offsets, usage in ((True, False), (False, True)):
        reader = Reader(1)
        assert sum(len(reader.feed(data)) for data in events(offsets=offsets, usage=usage)) == 3
        assert reader.check() == []
    reader = Reader(1)  # without either, the chunks of a word said again look the same: the count decides
    assert sum(len(reader.feed(data)) for data in events(offsets=False, usage=False)) == 4
    assert reader.check() == []
    reader.usage = {"completion_tokens": 3}
    assert reader.check() == [1]
    reader = Reader(1)
    for text in ("a", "b", "c", "c"):
        feed(reader, text=text, finish_reason=None)
    reader.feed(b'{"choices": [], "usage": {"completion_tokens": 1}}')
    reader.feed(b"[DONE]")
    with pytest.raises(Trouble, match="4 tokens came"):
        reader.check()


@pytest.mark.parametrize("data", [b'{"choices": [', b"[1]", b'{"error": {"message": "x"}}', b'{"choices": "\xc3"}'])
def test_what_cannot_be_the_whole_answer_is_trouble(data: bytes) -> None:
    with pytest.raises(Trouble):
        Reader(1).feed(data)


@pytest.mark.parametrize("choices", [None, [], [None], [{"index": 1, "text": "b"}], "x"])
def test_an_event_without_a_choice_is_ignored(choices: Any) -> None:
    assert Reader(1).feed(json.dumps({"choices": choices}).encode()) == []


KEYS = (
    "text logprobs tokens top_logprobs delta token_logprobs content token_ids bytes token logprob reasoning index"
    " finish_reason"
)
ODD = st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers()


@settings(max_examples=60)
@given(st.recursive(ODD, lambda x: st.lists(x) | st.dictionaries(st.sampled_from(KEYS.split()), x), max_leaves=12))
def test_any_json_gives_tokens_or_trouble(event: Any) -> None:
    reader = Reader(2)
    for body in (event, {"choices": [event]}, {"choices": [{"text": "a", "logprobs": event}]}):
        try:
            tokens = reader.feed(json.dumps(body).encode())
        except Trouble:
            continue
        assert all(isinstance(token.text, str) and (token.id is None or 0 <= token.id < 2**31) for token in tokens)
        assert not any(0xD800 <= ord(c) < 0xE000 for token in tokens for c in token.text)


def test_small_things() -> None:
    assert (key("token_id:12"), key("token_id:x"), number(1e-7), number(-2)) == (12, "token_id:x", 0.0, -2.0)
    assert message(b'{"error": {"message": "m"}}') == message(b'{"detail": "m"}') == message(b"m") == "m"
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is retry_after({}) is None
