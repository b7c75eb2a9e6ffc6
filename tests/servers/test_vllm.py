"""vLLM, serving the packaged reasoner, against the embedded engine: the same tokens, the same distributions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import wrongturn as wt
from wrongturn.engines.base import Chunk, Engine, Meter, Request, Sampling
from wrongturn.engines.embedded import Embedded
from wrongturn.engines.openai import OpenAI
from wrongturn.server import serve
from wrongturn.strategies.conditions import Spike
from wrongturn.tasks import graphs as gs

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

VOCABULARY = len(gs.VOCAB)
PROBLEMS = [p for name in ("G15_2,4", "G15_5,6", "G20_5,6") for p in gs.GraphSearch().problems(name, 20, seed=11)]


def greedy(problem: wt.Problem) -> Request:
    prefix = np.array(problem.prompt_ids, np.int32)
    return Request(prefix, 192, Sampling(0.0), stop_ids=(gs.EOS,), start=len(prefix))


def answers(engine: Engine, requests: Sequence[Request]) -> list[Chunk]:
    async def together() -> list[Chunk]:
        try:
            return await asyncio.gather(*map(engine.generate, requests))
        finally:
            await engine.close()

    return asyncio.run(together())


@pytest.fixture(scope="module")
def remote(vllm: str) -> Callable[..., OpenAI]:
    """A client that asks for so many alternatives per token."""
    return lambda k=VOCABULARY: OpenAI("graph_search", vllm, logprobs=k, vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def expected() -> list[Chunk]:
    return answers(Embedded(), [greedy(p) for p in PROBLEMS])


def worst(pairs: Sequence[tuple[Chunk, Chunk]], difference: Callable[[Any, Any], np.ndarray]) -> float:
    """The largest difference of two traces' signals."""
    return max(float(difference(a.signals, b.signals).max()) for a, b in pairs)


def test_greedy_traces_are_token_identical(remote: Callable[..., OpenAI], expected: list[Chunk]) -> None:
    found = answers(remote(), [greedy(p) for p in PROBLEMS])
    assert [c.ids.tolist() for c in found] == [c.ids.tolist() for c in expected]
    assert [c.finish for c in found] == [c.finish for c in expected]
    pairs = list(zip(found, expected, strict=True))
    nll = worst(pairs, lambda a, b: abs(a.nll - b.nll))
    entropy = worst(pairs, lambda a, b: abs(a.entropy - b.entropy))
    print(
        f"{len(pairs)} greedy traces, {sum(len(c.ids) for c in found)} tokens: nll ±{nll:.1e}, entropy ±{entropy:.1e}"
    )
    assert nll < 1e-3
    assert entropy < 1e-3
    assert all(np.all(c.signals.missing < 1e-5) for c in found)


def test_entropy_of_few_alternatives_is_within_its_bounds(remote: Callable[..., OpenAI], expected: list[Chunk]) -> None:
    found = answers(remote(5), [greedy(p) for p in PROBLEMS])
    assert [c.ids.tolist() for c in found] == [c.ids.tolist() for c in expected]
    pairs = list(zip(found, expected, strict=True))
    assert worst(pairs, lambda a, b: a.entropy_low - b.entropy) < 1e-4
    assert worst(pairs, lambda a, b: b.entropy - a.entropy_high) < 1e-4
    assert worst(pairs, lambda a, b: abs(a.nll - b.nll)) < 1e-3
    assert worst(pairs, lambda a, b: a.entropy_high - a.entropy_low) > 0.01  # and they are bounds, not the value


def test_a_fork_goes_on_as_the_whole_did(remote: Callable[..., OpenAI], expected: list[Chunk]) -> None:
    """Continued from token ids, wherever cut: also within an expansion, which text would not survive."""
    wanted, requests = [], []
    for problem, whole in zip(PROBLEMS[:12], expected, strict=False):
        for share in (0.1, 0.5, 0.9):
            at = int(share * len(whole.ids))
            request = greedy(problem)
            requests.append(
                replace(request, prefix=np.concatenate((request.prefix, whole.ids[:at])), max_tokens=192 - at)
            )
            wanted.append(whole.ids[at:].tolist())
    found = answers(remote(), requests)
    assert [c.ids.tolist() for c in found] == wanted
    assert max(c.reused for c in found) >= 32  # a block of the prefix cache at least
    assert all(c.prompt + c.reused == len(r.prefix) for c, r in zip(found, requests, strict=True))


def test_a_watch_on_the_stream_stops_where_it_stops_in_our_own_loop(
    remote: Callable[..., OpenAI], expected: list[Chunk]
) -> None:
    spike = Spike(0.9, gs.GraphSearch().boundary_ids)
    requests = [replace(greedy(p), until=spike, chunk=4) for p in PROBLEMS[:20]]
    meter = Meter()
    here = answers(Embedded(), requests)
    there = answers(remote(), [replace(r, meter=meter) for r in requests])
    assert {c.finish for c in here} == {"stop", "until"}
    for ours, theirs in zip(here, there, strict=True):
        assert (theirs.ids.tolist(), theirs.finish) == (ours.ids.tolist(), ours.finish)
        if ours.pending is not None:
            assert theirs.pending is not None
            np.testing.assert_allclose(theirs.pending.entropy, ours.pending.entropy, atol=1e-3)
    stopped = sum(c.finish == "until" for c in there)
    dropped = meter.spent - sum(len(c.ids) for c in there)
    assert stopped <= dropped <= 4 * stopped  # the token it ends before, and what came in one event with it


def test_samples_are_reproducible_and_drawn_from_the_distribution(remote: Callable[..., OpenAI]) -> None:
    request = replace(greedy(PROBLEMS[0]), sampling=Sampling(1.0), max_tokens=24)
    first, second = (answers(remote(), [replace(request, seed=s) for s in range(40)]) for _ in "ab")
    assert [c.ids.tolist() for c in first] == [c.ids.tolist() for c in second]
    nll = np.concatenate([c.signals.nll for c in first])
    entropy = np.concatenate([c.signals.entropy for c in first])
    spread = np.std(nll - entropy) / np.sqrt(len(nll))
    assert abs(np.mean(nll) - np.mean(entropy)) < 4 * max(spread, 1e-4)  # the mean surprise is the entropy


def test_guard_runs_through_it(remote: Callable[..., OpenAI]) -> None:
    traces = wt.solve(remote(), PROBLEMS[40:], strategy="guard:q=0.8", seed=2)
    assert [t.problem for t in traces] == [p.id for p in PROBLEMS[40:]]
    assert any(event["event"] == "spike" for t in traces for event in t.events)
    for trace in traces:
        assert trace.provenance["engine"] == "openai"
        assert trace.usage.decoded >= len(trace) - trace.usage.injected > 0
        assert np.isfinite(trace.signals.entropy).sum() >= len(trace) - trace.usage.injected
    assert sum(t.usage.dropped for t in traces) > 0
    assert sum(t.usage.reused for t in traces) > 0


def test_a_collection_is_resumed_and_not_repeated(remote: Callable[..., OpenAI], tmp_path: Path) -> None:
    engine = remote()
    run = wt.collect(engine, PROBLEMS[:10], samples=2, out=tmp_path / "run")
    again = wt.collect(remote(), PROBLEMS[:10], samples=2, out=tmp_path / "run")
    assert len(run.done()) == len(again.done()) == 20
    assert {t.outcome for t in again.traces()} <= {"right", "wrong", "truncated", "unparsed"}
    assert all(t.onset is not None for t in again.traces())


def test_the_probe_finds_what_is_known_of_it(remote: Callable[..., OpenAI]) -> None:
    engine = remote()
    asyncio.run(engine.ready())
    found = engine.capabilities.dict()
    assert engine.report is not None
    print(engine.report.dict())
    known = {"vocab_size": VOCABULARY, "context": 384, "top_k": VOCABULARY, "logprobs": "raw", "prefix": True}
    known |= {"token_ids": True, "seeds": True, "prefix_caching": True, "streaming": True, "n": True, "echo": True}
    assert {name: found[name] for name in known} == known


def test_our_own_server_speaks_as_it_does(vllm: str) -> None:
    """The same requests to both give the same JSON, but for names, times and rounding, and fields only vLLM has."""
    prompt = list(PROBLEMS[0].prompt_ids)
    chat = {"messages": [{"role": "user", "content": PROBLEMS[0].prompt}], "logprobs": True, "top_logprobs": 2}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"prompt": prompt, "logprobs": 3}),
        ("/v1/completions", {"prompt": PROBLEMS[0].prompt, "logprobs": 0}),
        ("/v1/completions", {"prompt": [prompt, prompt[:-2]], "stop": [","]}),
        ("/v1/completions", {"prompt": prompt, "stop_token_ids": [gs.LIST], "logprobs": 1}),
        ("/v1/completions", {"prompt": PROBLEMS[0].prompt, "echo": True, "logprobs": 2, "return_token_ids": False}),
        ("/v1/chat/completions", chat),
        ("/tokenize", {"prompt": PROBLEMS[0].prompt}),
        ("/tokenize", {"messages": chat["messages"]}),
    ]

    async def ours(path: str, body: dict[str, Any]) -> Any:
        transport = httpx.ASGITransport(serve.app(Embedded()))
        async with httpx.AsyncClient(transport=transport, base_url="http://ours") as client:
            return (await client.post(path, json=body)).json()

    root = vllm.removesuffix("/v1")
    for path, body in bodies:
        if path != "/tokenize":
            body = {"max_tokens": 8, "temperature": 0, "return_token_ids": True} | body
        theirs = httpx.post(root + path, json=body, timeout=60).json()
        same(asyncio.run(ours(path, body)), theirs, path)


VARIES = {"id", "created", "model", "cached_tokens"}
SPECIAL = {f"token_id:{i}": name for i, name in enumerate(gs.VOCAB[: gs.FIRST_LABEL])}  # vLLM gives them a text


def same(ours: Any, theirs: Any, where: str) -> None:
    """Every field of ours is in theirs, with the same value; lists are as long, numbers as good as equal."""
    if isinstance(ours, dict):
        for name, value in ours.items():
            if name not in VARIES:
                known = SPECIAL.get(name, name)
                assert known in theirs, f"{where}: vLLM has no {known}"
                same(value, theirs[known], f"{where}.{name}")
    elif where.endswith("text_offset"):  # vLLM counts the begin token's name, which is not in the text
        assert [b - a for a, b in zip(ours, theirs, strict=True)][1:] == [theirs[-1] - ours[-1]] * (len(ours) - 1)
    elif isinstance(ours, list) and (ours or not where.endswith("bytes")):  # a token without text has no bytes here
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{where}[{i}]")
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, abs=1e-3), where
    elif not isinstance(ours, list):
        assert SPECIAL.get(ours, ours) == theirs, where


@pytest.mark.parametrize("k", [0, 5, VOCABULARY])
def test_tokens_per_second(remote: Callable[..., OpenAI], k: int) -> None:
    """A figure, not a bound: how fast 60 at once go, by what is asked of every token."""
    engine = remote(k)
    asyncio.run(engine.ready())
    begun = time.perf_counter()
    found = answers(engine, [greedy(p) for p in PROBLEMS])
    seconds = time.perf_counter() - begun
    tokens = sum(len(c.ids) for c in found)
    print(f"logprobs={k}: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} a second")
    assert tokens > 50 * len(PROBLEMS)
