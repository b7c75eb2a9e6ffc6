"""The signals and draws that torch makes on a device, here on the CPU, against those that NumPy makes."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.signals import FIELDS, SignalConfig, Signals, from_logits

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from wrongturn.engines import _device_signals  # noqa: E402
from wrongturn.engines._device_signals import look  # noqa: E402
from wrongturn.engines._measured import Ask, Seen  # noqa: E402
from wrongturn.engines._measured import look as look_on_host  # noqa: E402

LOGIT = st.floats(-30, 30, width=16) | st.sampled_from([-np.inf, -1000.0, 0.0, 1.0])
ROW = st.lists(LOGIT, min_size=1, max_size=40).filter(lambda row: max(row) > -np.inf)


def ask(n: int, temperature=1.0, top_p=1.0, chance=0.5, nucleus_p=0.9, tie_delta=0.1, top_k=0) -> Ask:
    return Ask(
        *(np.broadcast_to(v, n).astype(float) for v in (temperature, top_p, chance, nucleus_p, tie_delta)), top_k
    )


def wide(seed: int, n: int, vocab: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sharp = rng.choice([0.0, 0.5, 2.0, 5.0, 15.0], size=(n, 1))
    return (rng.normal(size=(n, vocab)) * sharp).astype(np.float32)


def assert_close(seen: Seen, exact: Signals, logits: np.ndarray, config: SignalConfig) -> None:
    signals = Signals(*seen.table)
    for name in ("nll", "entropy", "entropy_low", "entropy_high", "missing", "margin"):
        np.testing.assert_allclose(getattr(signals, name), getattr(exact, name), atol=1e-4, rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(signals.near_tie, exact.near_tie)
    np.testing.assert_array_equal(signals.fork, exact.fork)
    p = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    ordered = np.cumsum(-np.sort(-p / p.sum(1, keepdims=True), 1), 1)
    for row, m in zip(ordered, signals.nucleus_size.astype(int), strict=True):  # forgiving rounding at the edge
        assert row[m - 1] >= config.nucleus_p - 2e-6
        assert m == 1 or row[m - 2] < config.nucleus_p + 2e-6


@settings(max_examples=200, deadline=None)
@given(ROW, st.sampled_from([0.3, 0.9, 1.0]), st.sampled_from([0.0, 0.1, 3.0]))
def test_signals_are_those_of_the_reference(row: list[float], nucleus_p: float, tie_delta: float) -> None:
    logits = np.array([row], np.float32)
    seen = look(torch.from_numpy(logits), ask(1, nucleus_p=nucleus_p, tie_delta=tie_delta))
    config = SignalConfig(nucleus_p, tie_delta)
    assert_close(seen, from_logits(logits, seen.tokens, config), logits, config)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_whole_vocabulary_within_a_thousandth_of_float64(dtype: str) -> None:
    logits = torch.from_numpy(wide(1, 6, 151_936)).to(getattr(torch, dtype))
    seen = look(logits, ask(6, chance=np.linspace(0.1, 1.0, 6)))
    exact = logits.double().numpy()
    assert_close(seen, from_logits(exact, seen.tokens), exact, SignalConfig())
    np.testing.assert_allclose(seen.table[0], from_logits(exact, seen.tokens).nll, atol=1e-3, rtol=0)
    np.testing.assert_allclose(seen.table[1], from_logits(exact, seen.tokens).entropy, atol=1e-3, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.5, 0.01])
def test_draws_are_those_of_the_host(temperature: float, top_p: float) -> None:
    for vocab in (3, 256, 257, 1000):
        logits = np.round(wide(vocab, 40, vocab), 1)  # rounded: some are equal, the nucleus cuts among them
        logits[::3, : vocab // 2] = -np.inf
        asked = ask(40, temperature, top_p, np.random.default_rng(0).uniform(1e-9, 1, 40))
        tokens, expected = look(torch.from_numpy(logits), asked).tokens, look_on_host(logits, asked).tokens
        assert np.mean(tokens == expected) > 0.95  # rounding may decide at an edge
        assert np.isfinite(logits[np.arange(40), tokens]).all()


def test_draws_follow_the_distribution() -> None:
    p = np.array([0.5, 0.0, 0.2, 0.3])
    chance = (np.arange(1000) + 0.5) / 1000
    with np.errstate(divide="ignore"):
        logits = np.tile(np.log(p).astype(np.float32), (1000, 1))
    tokens = look(torch.from_numpy(logits), ask(1000, chance=chance)).tokens
    np.testing.assert_allclose(np.bincount(tokens, minlength=4) / 1000, p, atol=1e-3)
    assert look(torch.from_numpy(logits[:2]), ask(2, chance=[1e-300, 1.0])).tokens.tolist() == [0, 3]


def test_rows_differ_in_what_is_asked_of_them() -> None:
    logits = wide(3, 8, 500)
    asked = ask(8, [0, 1, 0, 1, 0, 1, 2, 1], [1, 0.5] * 4, 0.7, [0.9, 0.5] * 4, [0.1, 1.0] * 4, top_k=5)
    seen, expected = look(torch.from_numpy(logits), asked), look_on_host(logits, asked)
    np.testing.assert_array_equal(seen.tokens, expected.tokens)
    np.testing.assert_allclose(seen.table, expected.table, atol=1e-4)
    sharp = logits.std(1) > 0  # equal ones come in any order
    np.testing.assert_array_equal(seen.top_ids[sharp], expected.top_ids[sharp])
    np.testing.assert_allclose(seen.top_logprobs, expected.top_logprobs, atol=1e-5)


def test_a_row_that_is_no_distribution_is_nan_and_its_neighbours_are_not() -> None:
    logits = wide(0, 3, 400)
    logits[1, 7] = np.nan
    seen = look(torch.from_numpy(logits), ask(3, top_k=2))
    table = seen.table
    assert np.isnan(table[:, 1]).all()
    assert not np.isnan(table[:, [0, 2]]).any()
    assert len(table) == len(FIELDS)


def test_alternatives_there_are_none_of() -> None:
    logits = np.array([[0.0, -np.inf, 1.0]], np.float32)
    seen = look(torch.from_numpy(logits), ask(1, top_k=5))
    assert seen.top_ids.tolist() == [[2, 0, -1, -1, -1]]
    assert np.isnan(seen.top_logprobs[0, 2:]).all()


def test_the_kernel_measures_on_a_gpu_unless_it_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = SimpleNamespace(is_cuda=True, device="cuda", dtype=torch.bfloat16, shape=(1, 5))
    monkeypatch.delenv("WRONGTURN_NO_KERNEL", raising=False)
    monkeypatch.setattr(_device_signals, "plain", lambda *_: "torch")
    for kernel, measured in ((lambda *_: "kernel", "kernel"), (None, "torch")):
        monkeypatch.setattr(_device_signals, "checked_kernel", lambda *_, kernel=kernel: kernel)
        assert _device_signals.measure(logits, None, None) == measured
    monkeypatch.setattr(_device_signals, "checked_kernel", lambda *_: lambda *_: "kernel")
    monkeypatch.setenv("WRONGTURN_NO_KERNEL", "1")
    assert _device_signals.measure(logits, None, None) == "torch"


def test_without_triton_torch_measures_and_a_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "wrongturn.engines._kernel", raising=False)
    _device_signals.checked_kernel.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"is not used on cpu \(ModuleNotFoundError.*triton.*torch makes them"):
        assert _device_signals.checked_kernel(torch.device("cpu"), torch.float32, 10) is None
    _device_signals.checked_kernel.cache_clear()
