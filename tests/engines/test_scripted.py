"""The scripted engine, and through it what the embedded engine shares with it: draws, signals, ends, meters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.engines.base import Chunk, Meter, Request, Sampling
from wrongturn.engines.scripted import Scripted, as_logits
from wrongturn.signals import FIELDS, SignalConfig, Signals, from_logits

COIN = {3: 0.5, 4: 0.3, 5: 0.2}


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, np.int32)


def run(engine: Scripted, *requests: Request) -> list[Chunk]:
    async def together() -> list[Chunk]:
        return await asyncio.gather(*map(engine.generate, requests))

    return asyncio.run(together())


def one(script, request: Request, vocab: int = 8) -> Chunk:
    return run(Scripted(script, vocab), request)[0]


# -- scripts -----------------------------------------------------------------------------------------------------------


def test_the_longest_rule_counts() -> None:
    script = {(): 2, (2,): 3, (2, 3): 4, (1, 2, 3): 5}
    assert one(script, Request(ids(1), 5)).ids.tolist() == [2, 3, 5, 2, 3]
    assert one(script, Request(ids(0), 4)).ids.tolist() == [2, 3, 4, 2]


def test_a_function_sees_the_whole_sequence() -> None:
    chunk = one(lambda sequence: len(sequence) % 8, Request(ids(1, 1, 1), 3))
    assert chunk.ids.tolist() == [3, 4, 5]
    assert (chunk.prompt, chunk.reused) == (3, 0)


@pytest.mark.parametrize("bad", [8, {9: 1.0}, {-1: 1.0}, [0.0, 1.0], [float("nan")] * 8, {3: 0.0}])
def test_what_is_no_distribution_is_refused(bad) -> None:
    with pytest.raises(ValueError, match="a script gives a token < 8"):
        as_logits(bad, 8)


def test_an_exception_in_the_script_reaches_its_caller_only() -> None:
    def script(sequence: np.ndarray) -> int:
        if sequence[0] == 7 and len(sequence) == 3:
            raise OSError("gone")
        return 2

    async def both() -> list[Chunk | BaseException]:
        requests = (Request(ids(7), 5), Request(ids(1), 5))
        return await asyncio.gather(*map(engine.generate, requests), return_exceptions=True)

    engine = Scripted(script, 8)
    failed, fine = asyncio.run(both())
    assert isinstance(failed, OSError)
    assert isinstance(fine, Chunk)
    assert fine.ids.tolist() == [2] * 5
    with pytest.raises(LookupError, match=r"no rule for a sequence that ends with \[1\]"):
        one({(5,): 2}, Request(ids(1), 1))


def test_requests_are_listed() -> None:
    engine = Scripted({(): 2}, 8)
    run(engine, Request(ids(1), 1), Request(ids(2), 1))
    assert [r.prefix.tolist() for r in engine.requests] == [[1], [2]]


# -- draws -------------------------------------------------------------------------------------------------------------


def frequencies(script, sampling: Sampling, n: int = 4000) -> np.ndarray:
    return np.bincount(one(script, Request(ids(1), n, sampling)).ids, minlength=8) / n


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), {3: 0.5, 4: 0.3, 5: 0.2}),
        (Sampling(temperature=0.5), {3: 25 / 38, 4: 9 / 38, 5: 4 / 38}),
        (Sampling(temperature=0.0), {3: 1.0}),
        (Sampling(top_p=0.8), {3: 5 / 8, 4: 3 / 8}),
        (Sampling(top_p=0.81), {3: 0.5, 4: 0.3, 5: 0.2}),
        (Sampling(top_p=1e-9), {3: 1.0}),
        (Sampling(temperature=0.5, top_p=0.7), {3: 25 / 34, 4: 9 / 34}),
    ],
)
def test_tokens_are_drawn_as_asked(sampling: Sampling, expected: dict[int, float]) -> None:
    p = np.array([expected.get(token, 0.0) for token in range(8)])
    seen = frequencies({(): COIN}, sampling)
    assert (np.abs(seen - p) <= 4 * np.sqrt(p * (1 - p) / 4000)).all()


def test_a_draw_depends_on_seed_and_completion_position() -> None:
    even = {(): dict.fromkeys(range(8), 0.125)}
    whole = one(even, Request(ids(1, 1), 50, seed=5))
    fork = one(even, Request(np.concatenate((ids(1, 1), whole.ids[:20])), 30, seed=5, start=2))
    np.testing.assert_array_equal(fork.ids, whole.ids[20:])
    assert one(even, Request(ids(1, 1), 50, seed=6)).ids.tolist() != whole.ids.tolist()


def test_draws_of_many_seeds_are_independent() -> None:
    """Consecutive seeds and positions: first and second moments of an 8-sided die, and no correlation along either."""
    even = {(): dict.fromkeys(range(8), 0.125)}
    table = np.stack([c.ids for c in run(Scripted(even, 8), *(Request(ids(1), 64, seed=s) for s in range(64)))])
    centred = (table - 3.5) / np.sqrt(5.25)
    bound = 4 / np.sqrt(centred.size)
    assert abs(centred.mean()) < bound
    assert abs((centred[1:] * centred[:-1]).mean()) < bound
    assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < bound


# -- signals and alternatives ------------------------------------------------------------------------------------------


def test_signals_are_those_of_the_raw_distribution() -> None:
    table = np.random.default_rng(0).normal(0, 3, (8, 8)).astype(np.float32)

    def script(sequence: np.ndarray) -> np.ndarray:
        return table[sequence[-1]]

    requests = [
        Request(ids(s), 40, Sampling(0.7, 0.9), seed=s, top_k=s, signals=SignalConfig(0.5 + s / 20)) for s in range(8)
    ]
    for request, chunk in zip(requests, run(Scripted(script, 8), *requests), strict=True):
        logits = table[np.concatenate((request.prefix, chunk.ids[:-1]))]
        for name, expected in from_logits(logits, chunk.ids, request.signals).dict().items():
            np.testing.assert_allclose(getattr(chunk.signals, name), expected, rtol=0, atol=1e-6, err_msg=name)
        assert chunk.top_ids.shape == chunk.top_logprobs.shape == (40, request.top_k)
        np.testing.assert_array_equal(chunk.top_ids, np.argsort(-logits, 1)[:, : request.top_k])
        logprobs = np.log(np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True))
        np.testing.assert_allclose(
            chunk.top_logprobs, np.sort(logprobs, 1)[:, ::-1][:, : request.top_k], rtol=0, atol=1e-5
        )


def test_alternatives_there_are_none_of_are_padding() -> None:
    chunk = one({(): COIN}, Request(ids(1), 2, top_k=10))
    assert chunk.top_ids[0].tolist() == [3, 4, 5] + [-1] * 7
    np.testing.assert_allclose(chunk.top_logprobs[0, :3], np.log([0.5, 0.3, 0.2]), rtol=1e-6)
    assert np.isnan(chunk.top_logprobs[0, 3:]).all()


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "n", "request_"),
    [
        ("stop", 3, Request(ids(1), 3, stop_ids=(4,), meter=Meter(3))),
        ("length", 3, Request(ids(1), 3, stop_ids=(99, -1), meter=Meter(3))),
        ("length", 7, Request(ids(1), 9)),
        ("budget", 2, Request(ids(1), 3, stop_ids=(4,), meter=Meter(2))),
    ],
)
def test_why_a_trace_ends(finish: str, n: int, request_: Request) -> None:
    (chunk,) = run(Scripted(lambda s: len(s) + 1, 10, context=8), request_)
    assert (chunk.finish, len(chunk.ids)) == (finish, n)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=14),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 5),
)
def test_meters_are_exact(asked: list[tuple[int, int]], first: int, second: int, slots: int) -> None:
    """Whatever shares them: what is counted is what was decoded, the limit is used up if wanted and never passed."""
    meters = [None, Meter(first), Meter(second)]
    engine = Scripted({(): COIN}, 8, slots=slots)
    chunks = run(engine, *(Request(ids(1), n, seed=i, meter=meters[m]) for i, (n, m) in enumerate(asked)))
    for number, meter in enumerate(meters):
        mine = [(n, chunk) for (n, m), chunk in zip(asked, chunks, strict=True) if m == number]
        decoded, wanted = sum(len(chunk.ids) for _, chunk in mine), sum(n for n, _ in mine)
        assert decoded == (wanted if meter is None else min(wanted, meter.limit or 0))
        assert meter is None or meter.spent == decoded
        assert all(chunk.finish == ("length" if len(chunk.ids) == n else "budget") for n, chunk in mine)


# -- stop conditions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrote:
    """Stop after ``token``; keeps a diary. With ``fail``, raises in that method."""

    token: int
    fail: str = ""
    diary: list = field(default_factory=list, compare=False)
    needs_ancestor = False

    def watch(self, rows: int) -> WroteWatch:
        self.diary.append(("watch", rows))
        return WroteWatch(self)


@dataclass
class WroteWatch:
    condition: Wrote
    needs_ancestor = False

    def note(self, what: str, *facts) -> None:
        self.condition.diary.append((what, *facts))
        if what == self.condition.fail:
            raise ZeroDivisionError(what)

    def admit(self, row: int, ids: Sequence[int], signals: Signals) -> None:
        self.note("admit", list(ids), len(signals))

    def step(self, rows: np.ndarray, last: np.ndarray, signals: Signals) -> np.ndarray:
        self.note("step", last.tolist(), signals.shape == rows.shape, bool(np.isnan(signals.nll).all()))
        return last == self.condition.token

    def release(self, row: int) -> None:
        self.note("release")


def test_equal_conditions_share_a_watch() -> None:
    diary: list = []
    a, b = (Request(ids(1, token), 9, until=Wrote(5, diary=diary), start=1) for token in (2, 3))
    chunks = run(Scripted(lambda s: s[-1] + 1, 10), a, b)
    assert [c.ids.tolist() for c in chunks] == [[3, 4, 5], [4, 5]]
    assert [c.finish for c in chunks] == ["until", "until"]
    assert diary[:3] == [("watch", 64), ("admit", [2], 1), ("admit", [3], 1)]
    steps = [entry for entry in diary if entry[0] == "step"]
    assert steps == [("step", last, True, True) for last in ([2, 3], [3, 4], [4, 5], [5])]
    assert [entry[0] for entry in diary].count("release") == 2


def test_a_failing_release_leaves_the_others_their_condition() -> None:
    bad = Wrote(6, fail="release")
    short, long = run(Scripted(lambda s: s[-1] + 1, 12), Request(ids(1), 2, until=bad), Request(ids(1), 9, until=bad))
    assert (short.finish, long.finish, len(long.ids)) == ("length", "until", 5)


def test_a_condition_must_be_hashable() -> None:
    engine = Scripted({(): 2}, 8)
    with pytest.raises(TypeError, match="unhashable"):
        run(engine, Request(ids(1), 2, until=WroteWatch(Wrote(1)), meter=Meter(9)))  # type: ignore[arg-type]
    assert run(engine, Request(ids(1), 2))[0].finish == "length"


def test_pending_is_the_distribution_that_was_not_drawn_from() -> None:
    script = {(): COIN, (3,): {6: 0.75, 7: 0.25}, (4,): 3, (5,): 3}
    chunk = one(script, Request(ids(1), 99, until=Wrote(3)))
    assert chunk.pending is not None
    assert chunk.pending.shape == (1,)
    expected = from_logits(as_logits({6: 0.75, 7: 0.25}, 8), 6)
    for name in FIELDS[1:]:
        assert getattr(chunk.pending, name)[0] == getattr(expected, name)
    assert np.isnan(chunk.pending.nll[0])


def test_a_condition_can_stop_before_the_first_token() -> None:
    chunk = one({(): 2}, Request(ids(1), 9, until=Wrote(1), meter=Meter(5)))
    assert (chunk.finish, len(chunk.ids), chunk.prompt) == ("until", 0, 1)


@pytest.mark.parametrize("where", ["admit", "step", "release"])
def test_a_condition_that_raises_fails_the_requests_that_share_it(where: str) -> None:
    async def mixed() -> list[Chunk | BaseException]:
        bad, good = Wrote(4, fail=where), Wrote(4)
        requests = [Request(ids(1), 9, until=until) for until in (bad, bad, good, None)]
        return await asyncio.gather(*map(engine.generate, requests), return_exceptions=True)

    engine = Scripted(lambda s: s[-1] + 1, 12)
    first, second, good, plain = asyncio.run(mixed())
    if where != "release":  # nobody can be told of that any more
        assert isinstance(first, ZeroDivisionError)
        assert isinstance(second, ZeroDivisionError)
    assert isinstance(good, Chunk)
    assert isinstance(plain, Chunk)
    assert (len(good.ids), len(plain.ids)) == (3, 9)
    (again,) = run(engine, Request(ids(1), 9, until=Wrote(4)))
    assert len(again.ids) == 3


# -- chunks ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_chunks_have_the_size_asked_for(n: int, size: int) -> None:
    async def pieces() -> list[Chunk]:
        return [chunk async for chunk in Scripted({(): COIN}, 8).stream(Request(ids(1), n, chunk=size))]

    sizes = [len(c.ids) for c in asyncio.run(pieces())]
    assert sum(sizes) == n
    assert all(s == size for s in sizes[:-1])
    assert sizes[-1] <= size


def test_a_chunk_says_little_about_itself() -> None:
    assert repr(one({(): 2}, Request(ids(1), 500))) == "Chunk(500 tokens, finish='length', prompt=1, reused=0)"
