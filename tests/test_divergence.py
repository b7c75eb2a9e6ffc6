"""Divergence of two models: exact, from lists, and how far lists can be trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.divergence import FIELDS, Divergence, Lists, bounds, from_lists, from_logits

V = 31


def two(seed: int, n: int = 40, sharp: float = 3.0, vocab: int = V) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a specialist and of an ancestor like it, and tokens drawn at random."""
    rng = np.random.default_rng(seed)
    specialist = rng.normal(size=(n, vocab)) * sharp
    return specialist, specialist + rng.normal(size=(n, vocab)), rng.integers(0, vocab, n)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def listed(logits: np.ndarray, chosen: np.ndarray, k: int) -> Lists:
    logs = log_softmax(logits)
    ids = np.argsort(-logs, axis=1)[:, :k]
    top = np.take_along_axis(logs, ids, axis=1)
    return Lists(ids.astype(np.int32), top.astype(np.float32), -logs[np.arange(len(logs)), chosen])


def assert_close(found: Divergence, expected: Divergence, atol: float = 1e-5) -> None:
    for name, values in expected.dict().items():
        np.testing.assert_allclose(getattr(found, name), values, atol=atol, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_variance_is_the_curvature_of_log_z(temperature: float) -> None:
    specialist, ancestor, _ = two(1)
    beta, step = 1 / temperature, 1e-3
    log_z = [np.log(np.exp(b * log_softmax(specialist)).sum(axis=1)) for b in (beta - step, beta, beta + step)]
    curvature = (log_z[0] - 2 * log_z[1] + log_z[2]) / step**2
    found = from_logits(specialist, ancestor, temperature=temperature)
    np.testing.assert_allclose(found.variance, curvature, rtol=1e-4, atol=1e-4)


def test_a_model_does_not_diverge_from_itself() -> None:
    specialist, _, chosen = two(2)
    found = from_logits(specialist, specialist + 5.0, chosen)
    for name in ("delta", "coverage", "pressure", "kl", "demotion"):
        np.testing.assert_allclose(getattr(found, name), 0.0, atol=1e-6, err_msg=name)
    same = listed(specialist, chosen, 8)
    again = from_lists(same, same, V, top=8)
    for name in ("delta", "coverage", "pressure", "kl"):
        np.testing.assert_allclose(getattr(again, name), 0.0, atol=1e-6, err_msg=name)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), sharp=st.floats(0.1, 8.0), temperature=st.sampled_from([0.6, 1.0, 1.5]))
def test_pressure_is_the_expectation_of_demotion(seed: int, sharp: float, temperature: float) -> None:
    specialist, ancestor, _ = two(seed, n=5, sharp=sharp)
    each = [from_logits(specialist, ancestor, np.full(5, x), temperature=temperature) for x in range(V)]
    p = np.exp(log_softmax(specialist / temperature)).T
    found = each[0]
    for name, values in (("pressure", [d.demotion for d in each]), ("kl", [d.delta for d in each])):
        np.testing.assert_allclose(getattr(found, name), (p * values).sum(axis=0), atol=2e-5, err_msg=name)
    assert (found.kl >= 0).all()
    assert (found.pressure >= 0).all()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), sharp=st.floats(0.1, 8.0), temperature=st.sampled_from([0.6, 1.0, 1.5]))
def test_lists_of_everything_are_exact(seed: int, sharp: float, temperature: float) -> None:
    specialist, ancestor, chosen = two(seed, n=10, sharp=sharp)
    found = from_lists(listed(specialist, chosen, V), listed(ancestor, chosen, V), V, temperature=temperature)
    assert_close(found, from_logits(specialist, ancestor, chosen, temperature=temperature), atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sharp=st.floats(0.1, 8.0),
    k=st.integers(1, V),
    m=st.integers(20, V),
    temperature=st.sampled_from([0.6, 1.0, 1.5]),
)
def test_bounds_hold_the_exact_values(seed: int, sharp: float, k: int, m: int, temperature: float) -> None:
    specialist, ancestor, chosen = two(seed, n=10, sharp=sharp)
    lists = listed(specialist, chosen, k), listed(ancestor, chosen, m)
    exact = from_logits(specialist, ancestor, chosen, temperature=temperature)
    found = from_lists(*lists, V, temperature=temperature)
    low, high = bounds(*lists, V, temperature=temperature)
    for name in ("delta", "coverage", "demotion"):
        for values in (getattr(exact, name), getattr(found, name)):
            assert (getattr(low, name) <= values + 1e-4).all(), name
            assert (getattr(high, name) >= values - 1e-4).all(), name
    assert (found.kl >= 0).all()
    assert (found.pressure >= 0).all()
    assert np.isnan(low.kl).all()


def test_longer_lists_are_nearer() -> None:
    specialist, ancestor, chosen = two(3, n=300)
    exact = from_logits(specialist, ancestor, chosen)
    off = []
    for k in (3, 10, 25):
        found = from_lists(listed(specialist, chosen, k), listed(ancestor, chosen, 25), V)
        off.append([float(np.abs(getattr(found, name) - getattr(exact, name)).mean()) for name in FIELDS[1:]])
    assert (np.diff(off, axis=0) < 0).all()
    assert max(off[-1]) < 0.01


def test_the_order_of_a_list_does_not_matter_and_padding_is_no_token() -> None:
    specialist, ancestor, chosen = two(4)
    s, a = listed(specialist, chosen, 10), listed(ancestor, chosen, 25)
    mixed = np.random.default_rng(0).permutation(10)
    padded = Lists(
        np.pad(s.ids[:, mixed], ((0, 0), (0, 3)), constant_values=-1),
        np.pad(s.logprobs[:, mixed], ((0, 0), (0, 3)), constant_values=np.nan),
        s.nll,
    )
    assert_close(from_lists(padded, a, V), from_lists(s, a, V))


def test_what_a_list_does_not_tell_is_nan() -> None:
    specialist, ancestor, chosen = two(5)
    short = from_lists(listed(specialist, chosen, 10), listed(ancestor, chosen, 19), V)
    assert np.isnan(short.coverage).all()
    assert np.isnan(short.pressure).all()
    assert np.isfinite(short.kl).all()
    s, a = listed(specialist, chosen, 10), listed(ancestor, chosen, 25)
    s.nll[3], s.ids[4] = np.nan, -1
    found = from_lists(s, a, V)
    assert np.isnan(found.delta).nonzero()[0].tolist() == [3, 4]
    assert np.isnan(found.kl).nonzero()[0].tolist() == [4]


def test_banned_tokens() -> None:
    specialist, ancestor, chosen = two(6, n=4)
    specialist[0, 7] = ancestor[1, 7] = specialist[2, 7] = ancestor[2, 7] = -np.inf
    ancestor[3] = np.nan
    chosen[:] = 7
    found = from_logits(specialist, ancestor, chosen)
    assert found.delta[0] == -np.inf
    assert found.delta[1] == found.kl[1] == found.pressure[1] == np.inf
    assert np.isnan(found.delta[2])
    assert np.isfinite([found.kl[0], found.kl[2], found.variance[0], found.pressure[0]]).all()
    assert np.isnan([getattr(found, name)[3] for name in ("delta", "coverage", "pressure", "kl")]).all()


def test_parts() -> None:
    specialist, ancestor, chosen = two(7)
    whole = from_logits(specialist, ancestor, chosen)
    assert_close(Divergence.concat([whole[:11], whole[11:]]), whole, atol=0)
    assert_close(whole[[3, 1]], from_logits(specialist[[3, 1]], ancestor[[3, 1]], chosen[[3, 1]]))
    assert len(Divergence.concat([])) == 0
    assert np.isnan(Divergence.empty(3).demotion).all()
    assert np.isnan(from_logits(specialist, ancestor).delta).all()
    big = two(8, n=3, vocab=50_000)
    assert_close(
        from_logits(*big), Divergence.concat([from_logits(*(part[i : i + 1] for part in big)) for i in range(3)])
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ancestor": np.zeros((40, 30))}, "do not match"),
        ({"chosen": np.full(40, V)}, "in \\[0, 31\\)"),
        ({"temperature": 0.0}, "above 0, not 0.0"),
        ({"top": 0}, "at least 1"),
    ],
)
def test_refused_logits(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = dict(zip(("specialist", "ancestor", "chosen"), two(9), strict=True))
    with pytest.raises(ValueError, match=message):
        from_logits(**given | change)


def test_refused_lists() -> None:
    specialist, ancestor, chosen = two(10)
    s, a = listed(specialist, chosen, 10), listed(ancestor, chosen, 25)
    with pytest.raises(ValueError, match="lists of the ancestor must be"):
        from_lists(s, a._replace(nll=a.nll[:3]), V)
    with pytest.raises(ValueError, match="of the specialist is outside the vocabulary of 5"):
        from_lists(s, a, 5)
    with pytest.raises(ValueError, match="are these logits"):
        from_lists(s._replace(logprobs=s.logprobs + 9), a, V)
