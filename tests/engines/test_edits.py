"""Edits: what is drawn with one, that signals do not see it, and who refuses it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.engines import Ban, Capabilities, Edit, Mix, Request, Sampling
from wrongturn.engines import open as open_engine
from wrongturn.engines._draw import uniform
from wrongturn.engines._measured import Measured
from wrongturn.engines.base import Chunk
from wrongturn.engines.scripted import Scripted
from wrongturn.errors import EngineError
from wrongturn.signals import FIELDS

VOCAB = 7
LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=VOCAB, max_size=VOCAB)


def probabilities(logits: np.ndarray) -> np.ndarray:
    p = np.exp(np.asarray(logits, np.float64))
    return p / p.sum(axis=-1, keepdims=True)


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, np.int32)


def specialist(sequence: np.ndarray) -> np.ndarray:
    return np.random.default_rng(sequence[-2:].tolist()).normal(size=VOCAB) * 2


def ancestor(sequence: np.ndarray) -> np.ndarray:
    return np.random.default_rng([7, *sequence[-2:].tolist()]).normal(size=VOCAB) * 2


def engine(measured: bool = False) -> Scripted:
    pair = Scripted(specialist, VOCAB, ancestor=ancestor, context=64, slots=8)
    if measured:
        pair._rows = Measured(8, VOCAB, 64)
    return pair


def play(engine: Scripted, *requests: Request) -> list[Chunk]:
    async def together() -> list[Chunk]:
        return await asyncio.gather(*map(engine.generate, requests))

    return asyncio.run(together())


# -- by hand -----------------------------------------------------------------------------------------------------------


@given(LOGITS, LOGITS, st.floats(0, 3))
def test_a_path_mix_is_a_geometric_mean(s: list[float], a: list[float], weight: float) -> None:
    pair = np.array([s], np.float32), np.array([a], np.float32)
    expected = probabilities(pair[0]) ** weight * probabilities(pair[1]) ** (1 - weight)
    mixed = probabilities(Mix(weight)(*pair))
    np.testing.assert_allclose(mixed, expected / expected.sum(), rtol=1e-4, atol=1e-9)


@given(LOGITS, LOGITS, st.floats(0, 1))
def test_a_coverage_mix_is_an_arithmetic_mean(s: list[float], a: list[float], weight: float) -> None:
    pair = np.array([s], np.float32), np.array([a], np.float32)
    expected = weight * probabilities(pair[0]) + (1 - weight) * probabilities(pair[1])
    np.testing.assert_allclose(probabilities(Mix(weight, "coverage")(*pair)), expected, rtol=1e-4, atol=1e-9)


@given(LOGITS, st.sets(st.integers(0, VOCAB - 1), max_size=VOCAB - 1))
def test_a_ban_renormalises_the_rest(s: list[float], banned: set[int]) -> None:
    logits = np.array([s], np.float32)
    expected = probabilities(logits)
    expected[:, list(banned)] = 0
    np.testing.assert_allclose(
        probabilities(Ban(tuple(banned))(logits, None)), expected / expected.sum(), rtol=1e-5, atol=1e-12
    )


def test_what_one_of_the_two_rules_out() -> None:
    """A geometric mean has no place for it, an arithmetic one has."""
    s, a = np.array([[0, 0, -np.inf]], np.float32), np.array([[0, -np.inf, 0]], np.float32)
    for weight in (0.5, 1.5):
        np.testing.assert_allclose(probabilities(Mix(weight)(s, a)), [[1, 0, 0]])
    np.testing.assert_allclose(probabilities(Mix(0.5, "coverage")(s, a)), [[0.5, 0.25, 0.25]])
    np.testing.assert_array_equal(Mix(1.0)(s, a), s)
    np.testing.assert_array_equal(Mix(0.0)(s, a), a)


@pytest.mark.parametrize(
    ("weight", "kind", "said"),
    [
        (-0.1, "path", "the weight of a path mix must be a number >= 0, not -0.1"),
        (float("nan"), "path", "not nan"),
        (float("inf"), "path", "not inf"),
        (1.1, "coverage", r"must be in \[0, 1\], not 1.1"),
        (0.5, "sum", "must be one of path, coverage, not 'sum'"),
    ],
)
def test_a_mix_that_makes_no_sense(weight: float, kind: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Mix(weight, kind)


# -- in an engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measured", [False, True])
@settings(max_examples=6)
@given(data=st.data())
def test_signals_of_an_edited_row_are_the_models_own(measured: bool, data: st.DataObject) -> None:
    edits = st.sampled_from([None, Mix(0.7), Mix(0.0), Mix(1.6), Mix(0.3, "coverage"), Ban((2, 3))])
    samplings = st.builds(Sampling, st.sampled_from([0.0, 0.6, 1.0]), st.sampled_from([1.0, 0.8]))
    requests = [
        Request(ids(1 + i % 5), 12, data.draw(samplings), seed=i, start=1, top_k=VOCAB, edit=data.draw(edits))
        for i in range(data.draw(st.integers(1, 12)))
    ]
    pair = engine(measured)
    for request, chunk in zip(requests, play(pair, *requests), strict=True):
        whole = np.concatenate((request.prefix, chunk.ids))
        scored = asyncio.run(pair.score(whole, 1, top_k=VOCAB))
        for name in FIELDS:
            np.testing.assert_allclose(getattr(chunk.signals, name), getattr(scored.signals, name), atol=1e-5)
        np.testing.assert_array_equal(chunk.top_ids, scored.top_ids)
        np.testing.assert_allclose(chunk.top_logprobs, scored.top_logprobs, atol=1e-5)
        if isinstance(request.edit, Ban):
            assert not np.isin(chunk.ids, request.edit.tokens).any()
        (alone,) = play(engine(measured), request)
        np.testing.assert_array_equal(alone.ids, chunk.ids)


@pytest.mark.parametrize("edit", [Ban((0, 4)), Mix(0.4), Mix(1.5), Mix(0.4, "coverage")])
@pytest.mark.parametrize("measured", [False, True])
def test_tokens_are_drawn_from_the_edited_distribution(edit: Edit, measured: bool) -> None:
    drawn = play(engine(measured), *(Request(ids(3), 1, Sampling(0.8), seed=i, edit=edit) for i in range(150)))
    reached = np.cumsum(
        probabilities(edit(*(np.array([model(ids(3))], "f4") for model in (specialist, ancestor))) / 0.8)
    )
    chances = [float(uniform(i, np.zeros(1, np.intp))[0]) for i in range(150)]
    assert [int(chunk.ids[0]) for chunk in drawn] == np.searchsorted(reached, chances).tolist()


def test_all_banned_is_one_line_and_harms_nobody_else() -> None:
    pair = engine()

    async def together() -> list[Chunk | BaseException]:
        asked = [Request(ids(1), 5, edit=edit) for edit in (Ban(tuple(range(VOCAB))), Ban((VOCAB,)), None, Ban((1,)))]
        return await asyncio.gather(*map(pair.generate, asked), return_exceptions=True)

    every, outside, plain, some = asyncio.run(together())
    assert isinstance(every, ValueError)
    assert str(every) == "all 7 tokens are banned: there must be one left to draw"
    assert isinstance(outside, ValueError)
    assert str(outside) == "token id 7 is banned, which is outside the vocabulary of 7"
    assert isinstance(plain, Chunk)
    assert isinstance(some, Chunk)
    assert (len(plain.ids), len(some.ids), len(pair._rows.free)) == (5, 5, 8)


def test_a_row_left_without_a_token_ends_alone() -> None:
    """After a 1 only a 2 is possible: whoever bans it comes to an end there, the others that ban it do not."""
    pair = Scripted({(): {1: 0.5, 3: 0.5}, (1,): 2, (3,): 3}, 5)

    async def together() -> list[Chunk | BaseException]:
        asked = [Request(ids(token), 6, edit=Ban((2,))) for token in (1, 3)]
        return await asyncio.gather(*map(pair.generate, asked), return_exceptions=True)

    stuck, other = asyncio.run(together())
    assert isinstance(stuck, ValueError)
    assert "leaves no token to draw" in str(stuck)
    assert isinstance(other, Chunk)
    assert other.ids.tolist() == [3] * 6


@dataclass(frozen=True)
class Counted:
    """Counts how often it is asked, and for how many rows."""

    calls: list = None  # type: ignore[assignment]
    needs_ancestor = False

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counted)

    def __call__(self, logits: np.ndarray, ancestor: np.ndarray | None) -> np.ndarray:
        assert ancestor is None
        self.calls.append(len(logits))
        return logits


def test_equal_edits_are_applied_at_once() -> None:
    calls: list[int] = []
    play(engine(), *(Request(ids(1 + i), 3, edit=Counted(calls)) for i in range(4)), Request(ids(1), 3))
    assert calls == [4, 4, 4]


# -- who refuses -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parted:
    """A stop condition that watches the ancestor."""

    needs_logprobs = True
    needs_ancestor = True


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"edit": Mix()}, "the edit Mix needs an ancestor: scripted was opened without one"),
        ({"until": Parted()}, "the stop condition Parted needs an ancestor: scripted was opened without one"),
    ],
)
def test_without_an_ancestor_what_needs_one_is_refused(asked: dict, said: str) -> None:
    with pytest.raises(EngineError, match=said) as refused:
        play(Scripted({(): 1}, 3), Request(ids(1), 2, **asked))
    assert refused.value.fatal


def test_an_engine_that_cannot_edit_or_score_says_so() -> None:
    pytest.importorskip("httpx")
    from wrongturn.engines.openai import OpenAI

    remote = OpenAI("m", "http://127.0.0.1:9/v1", "k", capabilities=Capabilities(token_ids=True), mode="completions")
    with pytest.raises(EngineError, match="the engine openai draws from the model's own distribution: no edits"):
        remote.check(Request(ids(1), 1, edit=Ban((1,))))
    with pytest.raises(EngineError, match="the engine openai cannot score given tokens") as refused:
        asyncio.run(remote.score(ids(1, 2), 1))
    assert refused.value.fatal


@pytest.mark.parametrize("spec", ["openai:m", "vllm:m"])
def test_an_ancestor_for_an_engine_that_takes_none(spec: str) -> None:
    with pytest.raises(ValueError, match=f"engine '{spec}' takes no ancestor"):
        open_engine(spec, ancestor="x")
