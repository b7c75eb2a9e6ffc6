"""What rows keep of wide distributions, and the most probable tokens without a whole sort. No torch."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.engines._draw import best
from wrongturn.engines._measured import Measured
from wrongturn.engines.base import Chunk, Request, Sampling
from wrongturn.engines.scripted import Scripted
from wrongturn.signals import FIELDS, SignalConfig


def model(sequence: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(sequence[-3:].tolist())
    return np.round(rng.normal(size=40) * 3, 1)  # rounded: some are equal


def play(measured: bool, requests: list[Request]) -> list[Chunk]:
    engine = Scripted(model, 40, context=64, slots=3)
    if measured:
        engine._rows = Measured(3, 40, 64)

    async def together() -> list[Chunk]:
        return await asyncio.gather(*map(engine.generate, requests))

    return asyncio.run(together())


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_measured_at_once_is_as_measured_at_the_end(data: st.DataObject) -> None:
    requests = [
        Request(
            np.array([1 + i], np.int32),
            data.draw(st.integers(1, 20)),
            Sampling(data.draw(st.sampled_from([0.0, 0.5, 1.0])), data.draw(st.sampled_from([1.0, 0.8]))),
            seed=i,
            top_k=data.draw(st.sampled_from([0, 1, 5, 60])),
            chunk=data.draw(st.sampled_from([None, 3])),
            signals=data.draw(st.sampled_from([SignalConfig(), SignalConfig(0.5, 1.0)])),
        )
        for i in range(data.draw(st.integers(1, 6)))
    ]
    for kept, measured in zip(play(False, requests), play(True, requests), strict=True):
        np.testing.assert_array_equal(measured.ids, kept.ids)
        np.testing.assert_array_equal(measured.top_ids, kept.top_ids)
        np.testing.assert_allclose(measured.top_logprobs, kept.top_logprobs, atol=1e-6)
        for name in FIELDS:
            np.testing.assert_allclose(getattr(measured.signals, name), getattr(kept.signals, name), atol=1e-6)


@pytest.mark.parametrize("vocab", [5, 1024, 3000])
@pytest.mark.parametrize("k", [1, 4, 20, 800])
def test_best_is_the_beginning_of_a_stable_sort(vocab: int, k: int) -> None:
    rows = np.random.default_rng(k).integers(0, 300, (6, vocab)).astype(np.float32)  # many are equal
    rows[1] = 0
    rows[2, : vocab // 2] = -np.inf
    np.testing.assert_array_equal(best(rows, k), np.argsort(-rows, axis=1, kind="stable")[:, :k])


def test_hidden_states_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="the engine scripted does not tell hidden states"):
        play(False, [Request(np.array([1], np.int32), 1, hidden=(0,))])
