"""The kernel in Triton's interpreter, against NumPy in float64. test_kernel.py runs these in a process of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.engines import _device_signals, _kernel
from wrongturn.signals import SignalConfig, Signals, from_logits

LOGIT = st.floats(-30, 30, width=16) | st.sampled_from([-np.inf, -1000.0, 0.0, 1.0])
ROW = st.lists(LOGIT, min_size=1, max_size=40).filter(lambda row: max(row) > -np.inf)


def check(logits: torch.Tensor, config: SignalConfig, lanes: int) -> None:
    constants = torch.full((len(logits), 1), config.nucleus_p), torch.full((len(logits), 1), config.tie_delta)
    peak, log_total, best, table = _kernel.measure(logits, *constants, lanes)
    seen, tokens, wide = Signals(*table.numpy().T), best[:, 0].numpy(), logits.double().numpy()
    exact = from_logits(wide, tokens, config)
    np.testing.assert_array_equal(tokens, wide.argmax(1))
    np.testing.assert_array_equal(peak[:, 0], wide.max(1))
    np.testing.assert_allclose(log_total[:, 0], exact.nll, atol=1e-5)
    for name in ("nll", "entropy", "entropy_low", "entropy_high", "missing", "margin"):
        np.testing.assert_allclose(getattr(seen, name), getattr(exact, name), atol=1e-5, rtol=1e-6, err_msg=name)
    rounded = from_logits(logits.float().numpy(), tokens, config)  # what is within the delta, float32 decides
    np.testing.assert_array_equal(seen.near_tie, rounded.near_tie)
    np.testing.assert_array_equal(seen.fork, rounded.fork)
    p = np.exp(wide - wide.max(1, keepdims=True))
    reached = np.cumsum(-np.sort(-p / p.sum(1, keepdims=True), 1), 1)
    for row, size in zip(reached, seen.nucleus_size.astype(int), strict=True):  # forgiving rounding at the edge
        assert row[size - 1] >= config.nucleus_p - 1e-6
        assert size == 1 or row[size - 2] < config.nucleus_p + 1e-6


@settings(max_examples=150, deadline=None)
@given(
    ROW,
    st.sampled_from([0.3, 0.9, 1.0]),
    st.sampled_from([0.0, 0.1, 3.0]),
    st.sampled_from([4, 8, 64]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_any_row(row: list[float], nucleus_p: float, tie_delta: float, lanes: int, dtype: torch.dtype) -> None:
    check(torch.tensor([row]).to(dtype), SignalConfig(nucleus_p, tie_delta), lanes)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 2.0, 5.0, 15.0]), st.integers(60, 300), st.integers(0, 2))
def test_rows_of_every_sharpness(seed: int, sharpness: float, vocab: int, digits: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(1, vocab)) * sharpness
    check(torch.from_numpy(np.round(logits, digits).astype(np.float32)), SignalConfig(), 32)  # rounded: some are equal


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_whole_vocabulary(dtype: torch.dtype) -> None:
    sharpness = np.array([[2.0], [5.0]])  # one whose nucleus is wide, and one that is read once
    logits = np.random.default_rng(0).normal(size=(2, 151_936)) * sharpness
    check(torch.from_numpy(logits).to(dtype), SignalConfig(), 4096)


@pytest.mark.parametrize("level", [0.0, -7.3, 200.0])
def test_a_whole_row_of_equals(level: float) -> None:
    check(torch.full((1, 300), level), SignalConfig(0.501), 16)


def test_rows_apart_in_memory() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * 3)
    check(logits.T, SignalConfig(), 8)
    check(logits.T[::2, 3::3], SignalConfig(), 8)


def test_a_row_that_is_no_distribution_is_nan_and_its_neighbours_are_not() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 70)).astype(np.float32))
    logits[1, 33], logits[2, 69], logits[3] = np.nan, np.inf, -np.inf
    constants = torch.full((5, 1), 0.9), torch.full((5, 1), 0.1)
    peak, log_total, best, table = _kernel.measure(logits, *constants, 16)
    assert table.isnan().all(1).tolist() == [False, True, True, True, False]
    assert table.isnan().any(1).tolist() == [False, True, True, True, False]
    assert peak.isnan()[:, 0].tolist() == log_total.isnan()[:, 0].tolist() == [False, True, True, True, False]
    assert ((best >= 0) & (best < 70)).all()


def test_constants_differ_by_row() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 90)).astype(np.float32)).expand(3, 90)
    nucleus_p, tie_delta = torch.tensor([[0.2], [0.5], [0.99]]), torch.tensor([[0.0], [1.0], [9.0]])
    table = _kernel.measure(logits, nucleus_p, tie_delta, 16)[3]
    for row, p, delta in zip(table, nucleus_p[:, 0].tolist(), tie_delta[:, 0].tolist(), strict=True):
        alone = from_logits(logits[0].numpy(), np.array(int(logits[0].argmax())), SignalConfig(p, delta))
        np.testing.assert_allclose(row, list(alone.dict().values()), atol=1e-5)


def test_it_is_taken_only_if_it_agrees_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    given = torch.device("cpu"), torch.float32, 300
    assert _device_signals.checked_kernel(*given) is _kernel.measure
    honest = _kernel.measure
    for part, column in ((0, 0), (1, 0), (2, 0), *((3, column) for column in range(9))):

        def wrong(*args: torch.Tensor, part: int = part, column: int = column) -> tuple[torch.Tensor, ...]:
            found = honest(*args)
            found[part][3, column] += 2 if part != 2 else -found[2][3, 0] + (found[2][3, 0] == 0)
            return found

        monkeypatch.setattr(_kernel, "measure", wrong)
        _device_signals.checked_kernel.cache_clear()
        with pytest.warns(RuntimeWarning, match="does not agree with torch"):
            assert _device_signals.checked_kernel(*given) is None
    _device_signals.checked_kernel.cache_clear()
