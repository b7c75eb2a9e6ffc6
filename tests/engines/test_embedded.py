from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from wrongturn.engines.base import Chunk, Meter, Request, Sampling
from wrongturn.engines.embedded import Embedded
from wrongturn.signals import FIELDS, Signals
from wrongturn.tasks import graphs as gs

PROMPTS = [np.array(p.prompt_ids, np.int32) for p in gs.GraphSearch().problems("G8_2,4", 12)]


@pytest.fixture(scope="module")
def engine(folder: Path) -> Embedded:
    return Embedded(folder, slots=16, retained=8)


def request(prompt: int | np.ndarray = 0, max_tokens: int = 40, written: Sequence[int] = (), **kw) -> Request:
    """Continue a prompt of which ``written`` has been decoded already."""
    ids = PROMPTS[prompt] if isinstance(prompt, int) else prompt
    prefix = np.concatenate((ids, np.asarray(written, np.int32)))
    return Request(prefix, max_tokens, **({"start": len(ids), "seed": 1} | kw))


def run(engine: Embedded, *requests: Request) -> list[Chunk]:
    async def together() -> list[Chunk]:
        return await asyncio.gather(*(engine.generate(r) for r in requests))

    return asyncio.run(together())


def assert_same(a: Chunk, b: Chunk) -> None:
    """Equal in every bit: tokens and signals."""
    np.testing.assert_array_equal(a.ids, b.ids)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a.signals, name), getattr(b.signals, name))


def is_idle(engine: Embedded) -> bool:
    return not engine._jobs and not engine._waiting and len(engine._rows.free) == 16 and engine._cache.n == 0


# -- what is guaranteed: the same request, the same trace --------------------------------------------------------------


def test_a_trace_does_not_depend_on_the_company(engine: Embedded, folder: Path) -> None:
    wanted = request(3)
    (alone,) = run(Embedded(folder), wanted)
    few = [request(i, 25 + i, seed=i) for i in (0, 3, 5)]
    many = [request(i % 12, 10 + 3 * i, seed=i, chunk=1 + i % 5, top_k=i % 3) for i in range(40)]
    many += [request(i, 20, alone.ids[: 3 * i]) for i in range(6)]
    for company in (few, many, few[::-1]):
        assert_same(run(engine, *company[:2], wanted, *company[2:])[2], alone)
    assert is_idle(engine)


@pytest.mark.parametrize("retained", [0, 1, 8])
def test_a_fork_continues_as_the_unforked_trace(folder: Path, retained: int) -> None:
    engine = Embedded(folder, retained=retained)
    (whole,) = run(engine, request(2, 60))
    others = [request(i, 5) for i in range(3, 9)]
    for at in (0, 1, 17, 40, 59):
        warm, *_ = run(engine, request(2, 60 - at, whole.ids[:at]), *others)
        cold, *_ = run(Embedded(folder), request(2, 60 - at, whole.ids[:at]), *others)
        for fork in (warm, cold):
            np.testing.assert_array_equal(fork.ids, whole.ids[at:])
            np.testing.assert_array_equal(fork.signals.entropy, whole.signals.entropy[at:])


def test_forks_of_a_running_trace(engine: Embedded) -> None:
    (whole,) = run(engine, request(1, 50))

    async def fork_while_running() -> list[Chunk]:
        running = asyncio.create_task(engine.generate(request(1, 50)))
        while not engine._jobs or engine._cache.fed[0] < len(PROMPTS[1]) + 20:
            await asyncio.sleep(0)
        forks = [engine.generate(request(1, 50 - at, whole.ids[:at])) for at in (5, 15, 20)]
        return [*await asyncio.gather(*forks), await running]

    *forks, running = asyncio.run(fork_while_running())
    assert_same(running, whole)
    for at, fork in zip((5, 15, 20), forks, strict=True):
        np.testing.assert_array_equal(fork.ids, whole.ids[at:])


def test_injected_tokens_are_fed_along_with_the_others(engine: Embedded, folder: Path) -> None:
    (whole,) = run(engine, request(4, 30))
    injected = [*whole.ids[:10], *gs.encode("),7,(1,2,3),9,(4,")]
    forked, _ = run(engine, request(4, 20, injected), request(5, 20))
    (fresh,) = run(Embedded(folder), request(4, 20, injected))
    assert_same(forked, fresh)
    assert forked.reused >= len(PROMPTS[4]) + 9
    assert forked.prompt + forked.reused == len(PROMPTS[4]) + len(injected)


def test_different_seeds_draw_differently(engine: Embedded) -> None:
    hot = Sampling(temperature=100.0)
    traces = run(engine, *(request(0, 30, seed=s, sampling=hot) for s in (0, 1, 2, -1, 2**64)))
    assert len({tuple(t.ids) for t in traces}) == 4  # seeds count modulo 2^64


# -- the prefix cache --------------------------------------------------------------------------------------------------


def test_samples_of_one_prompt_are_prefilled_once(folder: Path) -> None:
    n, engine = len(PROMPTS[0]), Embedded(folder)
    chunks = run(engine, *(request(0, 10, seed=s) for s in range(6)))
    assert sorted((c.prompt, c.reused) for c in chunks) == [(1, n - 1)] * 5 + [(n, 0)]
    (again,) = run(engine, request(0, 10))
    assert (again.prompt, again.reused) == (1, n - 1)


def test_forks_of_a_forgotten_trace_compute_it_once(folder: Path) -> None:
    (whole,) = run(Embedded(folder), request(0, 60))
    forks = [request(0, 4, whole.ids[:at], seed=s) for at in (30, 50, 40) for s in range(3)]
    chunks = run(Embedded(folder), *forks)
    computed = sum(c.prompt for c in chunks)
    assert computed <= len(PROMPTS[0]) + 50 + len(forks)


def test_without_start_anything_cached_is_used(engine: Embedded) -> None:
    (whole,) = run(engine, request(6, 30))
    (fork,) = run(engine, replace(request(6, 5, whole.ids[:20]), start=None))
    assert fork.prompt == 1


def test_one_token_is_enough_of_a_prompt(engine: Embedded) -> None:
    for prompt in ([gs.BOS], [gs.BOS, 5]):
        (chunk,) = run(engine, request(np.array(prompt, np.int32), 5))
        assert len(chunk.ids) == 5
        assert chunk.prompt + chunk.reused == len(prompt)


def test_more_requests_than_slots(folder: Path) -> None:
    engine = Embedded(folder, slots=2, retained=1)
    few = run(engine, *(request(i, 12) for i in range(7)))
    for i, chunk in enumerate(few):
        assert_same(chunk, run(Embedded(folder), request(i, 12))[0])


# -- ends --------------------------------------------------------------------------------------------------------------


def test_greedy_is_the_chain_of_best_tokens(engine: Embedded) -> None:
    (chunk,) = run(engine, request(7, 30, sampling=Sampling(temperature=0.0), top_k=1))
    np.testing.assert_array_equal(chunk.ids, chunk.top_ids[:, 0])
    np.testing.assert_array_equal(chunk.signals.nll, -chunk.top_logprobs[:, 0])


def test_stop_token_is_part_of_the_trace(engine: Embedded) -> None:
    (whole,) = run(engine, request(0, 40))
    stop = int(whole.ids[12])
    (chunk,) = run(engine, request(0, 40, stop_ids=(stop,)))
    assert chunk.finish == "stop"
    assert chunk.ids.tolist() == whole.ids[: whole.ids.tolist().index(stop) + 1].tolist()


def test_a_full_context_ends_a_trace(engine: Embedded) -> None:
    context = engine.capabilities.context
    assert context is not None
    prompt = np.resize(PROMPTS[0], context - 3)
    full, last = run(engine, request(prompt, 10), request(np.resize(prompt, context - 1), 10))
    assert (full.finish, len(full.ids)) == ("length", 3)
    assert (last.finish, len(last.ids)) == ("length", 1)


@dataclass(frozen=True)
class After:
    """Stop where a trace holds ``n`` tokens; raises at ``boom``."""

    n: int
    boom: int = -1
    needs_ancestor = False

    def watch(self, rows: int) -> AfterWatch:
        return AfterWatch(self, np.zeros(rows, int))


@dataclass
class AfterWatch:
    condition: After
    held: np.ndarray

    def admit(self, row: int, ids: Sequence[int], signals: Signals) -> None:
        assert len(ids) == len(signals)
        self.held[row] = len(ids)

    def step(self, rows: np.ndarray, last: np.ndarray, signals: Signals) -> np.ndarray:
        assert np.isnan(signals.nll).all()
        if (self.held[rows] == self.condition.boom).any():
            raise ZeroDivisionError("boom")
        stop = self.held[rows] >= self.condition.n
        self.held[rows] += 1
        return stop

    def release(self, row: int) -> None:
        self.held[row] = -1


def test_until_stops_before_the_draw(engine: Embedded) -> None:
    (whole,) = run(engine, request(0, 30))
    stopped, other, resumed = run(
        engine,
        request(0, 30, until=After(10)),
        request(1, 15),
        request(0, 30, whole.ids[:4], until=After(10), history=whole.signals[:4]),
    )
    assert (stopped.finish, len(stopped.ids), other.finish) == ("until", 10, "length")
    assert stopped.pending is not None
    assert stopped.pending.entropy[0] == whole.signals.entropy[10]
    assert np.isnan(stopped.pending.nll[0])
    np.testing.assert_array_equal(resumed.ids, whole.ids[4:10])


def test_an_exception_in_a_watch_reaches_its_caller_only(engine: Embedded) -> None:
    async def mixed() -> list[Chunk | BaseException]:
        asked = [request(0, 20, until=After(99, boom=7)), request(0, 20, until=After(5)), request(1, 20)]
        return await asyncio.gather(*map(engine.generate, asked), return_exceptions=True)

    failed, stopped, plain = asyncio.run(mixed())
    assert isinstance(failed, ZeroDivisionError)
    assert isinstance(stopped, Chunk)
    assert isinstance(plain, Chunk)
    assert (len(stopped.ids), len(plain.ids)) == (5, 20)
    assert is_idle(engine)


def test_a_meter_is_never_overspent(engine: Embedded) -> None:
    meter = Meter(101)
    chunks = run(engine, *(request(i % 12, 30, meter=meter) for i in range(20)))
    assert meter.spent == sum(len(c.ids) for c in chunks) == 101
    assert {c.finish for c in chunks} == {"length", "budget"} or {c.finish for c in chunks} == {"budget"}
    (empty,) = run(engine, request(0, 30, meter=meter, top_k=3))
    assert (len(empty.ids), empty.finish, empty.top_ids.shape) == (0, "budget", (0, 3))


# -- callers come and go -----------------------------------------------------------------------------------------------


def test_chunks_are_the_whole_in_pieces(engine: Embedded) -> None:
    async def pieces() -> list[Chunk]:
        return [chunk async for chunk in engine.stream(request(0, 20, chunk=8, top_k=4))]

    chunks = asyncio.run(pieces())
    assert [len(c.ids) for c in chunks] == [8, 8, 4]
    assert [c.finish for c in chunks] == [None, None, "length"]
    (whole,) = run(engine, request(0, 20, top_k=4))
    assert_same(Chunk.concat(chunks), whole)
    np.testing.assert_array_equal(Chunk.concat(chunks).top_logprobs, whole.top_logprobs)


def test_closing_a_stream_frees_its_row_at_once(engine: Embedded) -> None:
    async def leave_early() -> int:
        async with aclosing(engine.stream(request(0, 300, chunk=5, meter=meter))) as stream:
            async for _ in stream:
                break
        assert is_idle(engine)
        return meter.spent

    meter = Meter()
    assert asyncio.run(leave_early()) == 5


def test_a_cancelled_caller_frees_its_row(engine: Embedded) -> None:
    async def cancel() -> Chunk:
        tasks = [asyncio.create_task(engine.generate(request(i % 12, 300))) for i in range(20)]
        other = asyncio.create_task(engine.generate(request(3, 40)))
        for _ in range(4):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(d, asyncio.CancelledError) for d in done)
        return await other

    assert_same(asyncio.run(cancel()), run(engine, request(3, 40))[0])
    assert is_idle(engine)


def test_an_event_loop_that_ends_leaves_the_engine_usable(engine: Embedded) -> None:
    async def abandon() -> None:
        task = asyncio.create_task(engine.generate(request(0, 300)))
        await asyncio.sleep(0.01)
        assert not task.done()

    asyncio.run(abandon())
    assert is_idle(engine)
    (first,), (second,) = run(engine, request(0, 10)), run(engine, request(0, 10))
    assert_same(first, second)


def test_a_second_event_loop_at_the_same_time_is_refused(engine: Embedded) -> None:
    async def outer() -> None:
        task = asyncio.create_task(engine.generate(request(0, 300)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(run, engine, request(1, 5))
        task.cancel()

    asyncio.run(outer())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda r: replace(r, prefix=np.array([1, 99, 3], np.int32), start=3), "token id 99 at position 1"),
        (lambda r: replace(r, prefix=np.array([1, -1], np.int32), start=2), "token id -1 at position 1"),
        (lambda r: replace(r, prefix=np.resize(r.prefix, 10_000)), "the prefix has 10000 tokens; the context of"),
        (lambda r: replace(r, prefix=r.prefix[:0], start=0), "the prefix is empty"),
        (lambda r: replace(r, max_tokens=0), "max_tokens must be at least 1, not 0"),
        (lambda r: replace(r, chunk=0), "chunk must be at least 1, not 0"),
        (lambda r: replace(r, start=1000), "start must be a place in the prefix"),
        (lambda r: replace(r, history=Signals.empty(3)), "the history has 3 tokens"),
    ],
)
def test_bad_input_is_refused(engine: Embedded, bad, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(engine, bad(request(0)))
    assert is_idle(engine)


def test_a_folder_without_a_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no graph\.onnx"):
        Embedded(tmp_path)


def test_provenance_names_the_weights(engine: Embedded) -> None:
    stamp = engine.provenance()
    assert stamp["engine"] == "embedded"
    assert len(stamp["weights"]) == 16
    assert stamp["capabilities"]["top_k"] == len(gs.VOCAB)


# -- against transformers ----------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_agrees_with_transformers(engine: Embedded, folder: Path) -> None:
    """Log-probabilities after a prefill, in decoding, and in a fork, within 2e-4 of a plain forward pass."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    vocab = len(gs.VOCAB)
    wholes = run(engine, *(request(i, 50, top_k=vocab) for i in range(12)))
    forks = run(engine, *(request(i, 10, wholes[i].ids[:25], seed=9, top_k=vocab) for i in range(12)))
    for i, (whole, fork) in enumerate(zip(wholes, forks, strict=True)):
        for written, chunk in ((whole.ids[:0], whole), (whole.ids[:25], fork)):
            prefix = np.concatenate((PROMPTS[i], written))
            with torch.no_grad():
                logits = model(torch.tensor(np.concatenate((prefix, chunk.ids))[None])).logits[0]
            expected = torch.log_softmax(logits[len(prefix) - 1 : -1], -1).numpy()
            listed = np.take_along_axis(expected, chunk.top_ids.astype(int), 1)
            np.testing.assert_allclose(chunk.top_logprobs, listed, atol=2e-4, rtol=0)
