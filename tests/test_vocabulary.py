"""Ids of texts that came without any."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrongturn import vocabulary
from wrongturn.vocabulary import Interned

TEXTS = st.lists(st.text(), max_size=20)


@given(TEXTS)
def test_texts_come_back(texts):
    known = Interned()
    ids = [known.intern(text) for text in texts]
    assert known.pieces(ids) == texts
    assert all(0 <= token < 2**31 for token in ids)


@given(TEXTS, TEXTS)
def test_processes_agree_without_speaking(texts, others):
    one, two = Interned(), Interned()
    for text in others:
        two.intern(text)
    assert [one.intern(text) for text in texts] == [two.intern(text) for text in texts]


def test_two_texts_never_share_an_id(monkeypatch):
    class Same:
        def __init__(self, *_: object, **__: object) -> None: ...
        def digest(self) -> bytes:
            return bytes(4)

    monkeypatch.setattr(vocabulary.hashlib, "blake2b", Same)
    known = Interned()
    ids = [known.intern(text) for text in ("a", "b", "c", "a")]
    assert len(set(ids)) == 3
    assert known.pieces(ids) == ["a", "b", "c", "a"]


def test_a_conversation_is_one_token():
    known = Interned()
    said = [{"role": "user", "content": "How many?\n\n« 7 »"}]
    (token,) = known.prompt(said)
    assert known.messages(token) == said
    assert json.loads(known.pieces([token])[0]) == said


@given(st.lists(st.text(alphabet="ab*\n", max_size=4), max_size=20), st.integers(0, 20))
def test_marked_tokens_are_those_met_so_far(texts, asked):
    known = Interned()
    marked = known.containing(("\n", "*"))
    for i, text in enumerate(texts):
        token = known.intern(text)
        if i >= asked:  # whether they were looked at before makes no difference
            assert np.isin([token], marked).tolist() == ["\n" in text or "*" in text]
    expected = {known.intern(text) for text in texts if "\n" in text or "*" in text}
    assert set(marked) == expected
    assert len(marked) == len(expected)


def test_tokens_of_another_process_are_met():
    there, here = Interned(), Interned()
    ids = [there.intern(text) for text in ("a", "b\n", "")]
    here.meet(ids, ["a", "b\n", ""])
    assert here.pieces(ids) == ["a", "b\n", ""]
    assert here.intern("a") == ids[0]
    assert list(here.containing(("\n",))) == ids[1:2]
    with pytest.raises(ValueError, match="stands for 'a' here, and for 'c' there"):
        here.meet(ids[:1], ["c"])


def test_an_id_nobody_gave_is_refused():
    with pytest.raises(ValueError, match="token id 5 stands for no text"):
        Interned().pieces([5])


def test_nothing_is_no_token():
    assert Interned().encode("") == []
