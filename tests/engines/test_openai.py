from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from misbehaving import EOS, FAULTS, KEY, MODEL, SIZE, WORDS, Manners, Server

from wrongturn import engines
from wrongturn.engines._http import Patience
from wrongturn.engines._words import Served
from wrongturn.engines.base import Capabilities, Chunk, Meter, Request, Sampling
from wrongturn.engines.openai import OpenAI
from wrongturn.engines.pool import Pool
from wrongturn.errors import EngineError
from wrongturn.signals import FIELDS, Signals, from_logits
from wrongturn.strategies.conditions import Spike, Wrote

T = TypeVar("T")

QUESTION = [{"role": "user", "content": " w5 w7"}]
IDS, TEXT, CHAT = Manners(), Manners(ids=False, chat=False, tokenize=False), Manners(ids=False, completions=False)
TIERS = {"ids": IDS, "text": TEXT, "chat": CHAT}
KNOWN = Capabilities(top_k=20, token_ids=True, streaming=True)
HASTY = Patience(8, 0.001, 0.01)


def open_engine(server: Server, **options: Any) -> OpenAI:
    return OpenAI(MODEL, server.url, KEY, **({"retries": HASTY, "vocab_size": SIZE} | options))


def known(server: Server, tier: str = "ids", **options: Any) -> OpenAI:
    """An engine that need not ask what the server can do."""
    capabilities = Capabilities(top_k=20, token_ids=tier == "ids", streaming=True)
    return open_engine(server, capabilities=capabilities, mode="chat" if tier == "chat" else "completions", **options)


def request(prompt: Any = (5, 7), max_tokens: int = 12, **kw: Any) -> Request:
    return Request(np.array(prompt, np.int32), max_tokens, **({"seed": 3, "start": len(prompt)} | kw))


def run(work: Awaitable[T]) -> T:
    async def whole() -> T:
        return await work

    return asyncio.run(whole())


async def answer(engine: OpenAI, n: int = 12, **kw: Any) -> tuple[list[int], Chunk]:
    prompt = list(await engine.prompt(QUESTION))
    return prompt, await engine.generate(request(prompt, n, **kw))


def said(engine: OpenAI, chunk: Chunk) -> str:
    assert engine.vocabulary is not None
    return "".join(engine.vocabulary.pieces(chunk.ids))


def words(ids: list[int]) -> str:
    return "".join(WORDS[i] for i in ids)


def exact(server: Server, prompt: list[int], ids: list[int]) -> Signals:
    """The signals of the toy model's own distributions."""
    logits = [server.toy.logprobs(tuple((prompt + ids[:i])[-2:])) for i in range(len(ids))]
    return from_logits(np.array(logits), np.array(ids))


# -- what comes of a request -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", TIERS)
def test_tokens_signals_and_counts_in_every_tier(tier: str) -> None:
    with Server(TIERS[tier]) as server:
        engine = open_engine(server)
        _, chunk = run(answer(engine, top_k=3))
        prompt, ids = server.drawn(server.bodies[-1])
        assert said(engine, chunk) == words(ids)
        assert (len(chunk.ids), chunk.prompt) == (len(ids), len(prompt))
        assert chunk.finish == ("stop" if ids[-1] == EOS else "length")
        truth = exact(server, prompt, ids)
        np.testing.assert_allclose(chunk.signals.nll, truth.nll, atol=1e-4)
        assert (chunk.signals.entropy_low <= truth.entropy + 1e-4).all()
        assert (chunk.signals.entropy_high >= truth.entropy - 1e-4).all()
        assert (chunk.signals.missing > 0.001).all()  # 20 of 40 are not all
        assert chunk.top_ids.shape == (len(ids), 3)
        first = engine.vocabulary.pieces(chunk.top_ids[:, 0])  # type: ignore[union-attr]
        best = [server.toy.complete(prompt + ids[:i], 1, 0.0, None)[0] for i in range(len(ids))]
        assert first == [WORDS[i] for i in best]


@pytest.mark.parametrize("tier", TIERS)
def test_a_prefix_is_continued(tier: str) -> None:
    with Server(TIERS[tier]) as server:
        engine = open_engine(server)

        async def both() -> tuple[Chunk, Chunk]:
            prompt, whole = await answer(engine, sampling=Sampling(0.0))
            prefix = [*prompt, *whole.ids[:5].tolist()]
            rest = await engine.generate(request(prefix, 7, start=len(prompt), sampling=Sampling(0.0)))
            return whole, rest

        whole, rest = run(both())
        np.testing.assert_array_equal(rest.ids, whole.ids[5:])
        np.testing.assert_allclose(rest.signals.nll, whole.signals.nll[5:], atol=1e-5)


def test_the_end_token_is_part_of_a_trace_as_with_the_embedded_engine() -> None:
    with Server() as server:
        engine = known(server)
        ended = next(s for s in range(200) if server.toy.complete([5, 7], 30, 1.0, s)[-1] == EOS)
        chunk = run(engine.generate(request(max_tokens=30, seed=ended, stop_ids=(EOS,))))
        assert chunk.ids.tolist() == server.toy.complete([5, 7], 30, 1.0, ended)
        assert chunk.finish == "stop"
        assert server.bodies[-1]["stop_token_ids"] == [EOS]


def test_a_stop_token_that_the_server_does_not_know_ends_the_completion() -> None:
    with Server(Manners(token_time=0.02)) as server:
        ids = server.toy.complete([5, 7], 12, 1.0, 3)
        chunk = run(known(server).generate(request(stop_ids=(ids[4],))))
        assert (chunk.ids.tolist(), chunk.finish) == (ids[:5], "stop")
        assert wait_for(lambda: server.closed == [0])


def test_thinking_is_part_of_the_text() -> None:
    with Server(Manners(ids=False, completions=False, thinks=True)) as server:
        engine = known(server, "chat")
        _, chunk = run(answer(engine))
        ids = server.drawn(server.bodies[-1])[1]
        assert said(engine, chunk) == f"<think>{words(ids[:3])}</think>{words(ids[3:])}"
        assert not np.isnan(chunk.signals.nll).any()


def test_cached_tokens_are_not_counted_as_computed() -> None:
    with Server(Manners(cached=True)) as server:
        chunk = run(known(server).generate(request([5, 7, 8, 9])))
        assert (chunk.prompt, chunk.reused) == (2, 2)


def test_a_whole_answer_where_streams_lack_logprobs() -> None:
    with Server(Manners(streams=False)) as server:
        engine = open_engine(server)
        _, chunk = run(answer(engine))
        assert engine.capabilities.streaming is False
        assert "stream" not in server.bodies[-1]
        assert not np.isnan(chunk.signals.nll).any()


def test_without_logprobs_signals_are_nan_and_tokens_are_not_lost() -> None:
    with Server(Manners(ids=False, chat=False, logprobs=False)) as server:
        engine = open_engine(server)
        _, chunk = run(answer(engine))
        assert engine.capabilities.logprobs == "none"
        assert said(engine, chunk) == words(server.drawn(server.bodies[-1])[1])
        assert all(np.isnan(getattr(chunk.signals, name)).all() for name in FIELDS)


@pytest.mark.parametrize("fault", ["absent", "null", "nan", "short"])
@pytest.mark.parametrize("tier", TIERS)
def test_missing_logprobs_lose_no_token(tier: str, fault: str) -> None:
    manners = replace(TIERS[tier], fault=lambda n, body: fault)
    with Server(manners) as server:
        engine = known(server, tier)
        chunk = run(engine.generate(request(engine.vocabulary.prompt(QUESTION) if tier != "ids" else (5, 7))))  # type: ignore[union-attr]
        ids = server.drawn(server.bodies[-1])[1]
        assert tier == "ids" or said(engine, chunk) == words(ids)
        assert tier != "ids" or chunk.ids.tolist() == ids
        assert len(chunk.ids) == len(ids) - (ids[-1] == EOS and len(chunk.ids) != len(ids))  # which has no text
        assert np.isnan(chunk.signals.entropy).all()


@pytest.mark.torch
def test_a_local_tokenizer_on_a_server_of_texts(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with Server(TEXT) as server:
        engine = open_engine(server, tokenizer=str(toy_tokenizer(tmp_path)))
        chunk = run(answer(engine))[1]
        assert server.bodies[-1]["prompt"] == " w5 w7"
        ids = server.drawn(server.bodies[-1])[1]
        assert said(engine, chunk) == words(ids)
        assert chunk.ids.tolist()[:-1] == ids[:-1]
        assert engine.identity()["tokenizer"] == str(tmp_path / "tokenizer.json")
        assert engine.capabilities.vocab_size is None  # texts that are no token have ids of their own


def toy_tokenizer(folder: Path) -> Path:
    """The toy model's words as a tokenizer file."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    words = {word or "<end>": i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel({**words, "<unk>": SIZE, "a": SIZE + 1}, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" w\d+| é| 漢|\n"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


# -- conditions and budgets, on the stream -----------------------------------------------------------------------------


def test_a_spike_drops_the_token_and_closes_the_request() -> None:
    with Server(Manners(token_time=0.002)) as server:
        engine = known(server)
        ids = server.toy.complete([5, 7], 60, 1.0, 3)
        truth = exact(server, [5, 7], ids)
        boundaries = tuple(sorted(set(ids[1:20])))
        until = Spike(0.9, boundaries)
        chunk = run(engine.generate(request(max_tokens=60, until=until)))
        at = len(chunk.ids)
        assert chunk.finish == "until"
        assert chunk.ids.tolist() == ids[:at]
        assert chunk.pending is not None
        assert math.isnan(chunk.pending.nll[0])
        assert chunk.pending.entropy[0] == pytest.approx(truth.entropy[at], abs=0.2)
        assert wait_for(lambda: server.closed == [0])
        on = run(engine.generate(request([5, 7, *chunk.ids], 60, start=2, history=chunk.signals, until=until.again())))
        assert len(on.ids) >= 1


def test_a_condition_on_what_was_written() -> None:
    with Server() as server:
        ids = server.toy.complete([5, 7], 12, 1.0, 3)
        chunk = run(known(server).generate(request(until=Wrote((ids[3],)))))
        assert (chunk.ids.tolist(), chunk.finish) == (ids[: ids.index(ids[3]) + 1], "until")


def test_a_meter_is_never_overspent() -> None:
    with Server() as server:
        engine, meter = known(server), Meter(50)

        async def many() -> list[Chunk]:
            return await asyncio.gather(*(engine.generate(request(seed=s, meter=meter)) for s in range(8)))

        chunks = run(many())
        assert meter.spent == 50
        assert all(body["max_tokens"] <= 12 for body in server.bodies)
        assert sum(len(chunk.ids) for chunk in chunks) == 50
        assert {chunk.finish for chunk in chunks} <= {"length", "budget", "stop"}
        last = run(engine.generate(request(meter=meter)))
        assert (len(last.ids), last.finish) == (0, "budget")
        meter = Meter(5)
        assert run(engine.generate(request(meter=meter))).finish == "budget"
        assert server.bodies[-1]["max_tokens"] == 5


def test_tokens_of_thrown_away_attempts_are_counted() -> None:
    with Server(Manners(fault=lambda n, body: "cut" if n == 0 else None)) as server:
        meter = Meter(100)
        chunk = run(known(server).generate(request(meter=meter)))
        assert chunk.ids.tolist() == server.toy.complete([5, 7], 12, 1.0, 3)
        assert 12 < meter.spent <= 18


# -- streams -----------------------------------------------------------------------------------------------------------


def collect(engine: OpenAI | Pool, wanted: Request) -> list[Chunk]:
    async def whole() -> list[Chunk]:
        return [chunk async for chunk in engine.stream(wanted)]

    return asyncio.run(whole())


def test_chunks_as_they_come() -> None:
    with Server() as server:
        chunks = collect(known(server), request(chunk=5))
        assert [len(chunk.ids) for chunk in chunks] == [5, 5, 2]
        assert np.concatenate([c.ids for c in chunks]).tolist() == server.toy.complete([5, 7], 12, 1.0, 3)


def test_a_cut_after_chunks_were_handed_out_goes_on_from_there() -> None:
    with Server(Manners(fault=lambda n, body: "cut" if n == 0 else None)) as server:
        chunks = collect(known(server), request(chunk=2, sampling=Sampling(0.0)))
        assert np.concatenate([c.ids for c in chunks]).tolist() == server.toy.complete([5, 7], 12, 0.0, 3)
        assert len(server.bodies[1]["prompt"]) > 2
        assert server.bodies[1]["seed"] != server.bodies[0]["seed"]  # else the rest is drawn as the beginning was
    with Server(Manners(fault=lambda n, body: "cut")) as server:
        engine = open_engine(server, capabilities=Capabilities(prefix=False), mode="chat")
        with pytest.raises(EngineError, match="cannot be continued") as failed:
            collect(engine, request(engine.vocabulary.prompt(QUESTION), chunk=1))  # type: ignore[union-attr]
        assert not failed.value.fatal


def wait_for(condition: Callable[[], bool]) -> bool:
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("how", ["cancel", "leave"])
def test_the_server_sees_that_nobody_waits_any_more(how: str) -> None:
    with Server(Manners(token_time=0.02)) as server:
        engine = known(server)
        seed = next(s for s in range(1000) if len(server.toy.complete([5, 7], 100, 1.0, s)) == 100)
        endless = request(max_tokens=100, seed=seed, chunk=1)

        async def cancelled() -> None:
            task = asyncio.create_task(engine.generate(endless))
            while not server.bodies:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        async def left() -> None:
            async with aclosing(engine.stream(endless)) as chunks:
                await anext(chunks)

        asyncio.run(cancelled() if how == "cancel" else left())
        assert wait_for(lambda: server.closed == [0])


def test_one_engine_in_several_loops_and_no_more_requests_at_once_than_allowed() -> None:
    with Server(Manners(token_time=0.001)) as server:
        engine = known(server, concurrency=4)

        async def many() -> list[Chunk]:
            return await asyncio.gather(*(engine.generate(request(seed=s)) for s in range(12)))

        first, second = asyncio.run(many()), asyncio.run(many())
        assert [c.ids.tolist() for c in first] == [c.ids.tolist() for c in second]
        assert server.busiest == 4


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_no_token(fault: str) -> None:
    with Server(Manners(fault=lambda n, body: fault if n < 2 else None)) as server:
        engine = known(server, timeout=0.3 if fault == "hang" else 20.0)
        chunk = run(engine.generate(request()))
        assert chunk.ids.tolist() == server.toy.complete([5, 7], 12, 1.0, 3)
        assert server.faults[fault] == (2 if len(server.bodies) > 1 else 1)
        seeds = {body["seed"] for body in server.bodies}
        assert seeds == {3}


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("tier", TIERS)
def test_a_chunk_sent_twice_is_one_chunk(tier: str, usage: bool) -> None:
    with Server(replace(TIERS[tier], usage=usage, fault=lambda n, body: "twice")) as server:
        engine, meter = known(server, tier), Meter(100)
        prompt = engine.vocabulary.prompt(QUESTION) if engine.vocabulary is not None else [5, 7]
        chunk = run(engine.generate(request(prompt, seed=1, meter=meter)))
        ids = server.drawn(server.bodies[-1])[1]
        assert len(ids) == 12  # in a chat without counts, only the limit tells
        assert len(chunk.ids) == meter.spent == 12
        assert chunk.ids.tolist() == ids if tier == "ids" else said(engine, chunk) == words(ids)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("429", "rate limited"), ("503", "server error"), ("cut", "connection"), ("json", "bad response"),
     ("hang", "timeout")],
)  # fmt: skip
def test_a_fault_that_does_not_pass_is_an_error_with_a_reason(fault: str, reason: str) -> None:
    with Server(Manners(fault=lambda n, body: fault)) as server:
        engine = known(server, timeout=0.2 if fault == "hang" else 20.0, retries=Patience(2, 0.001))
        with pytest.raises(EngineError) as failed:
            run(engine.generate(request()))
        assert (failed.value.reason, failed.value.fatal, len(server.bodies)) == (reason, False, 3)


def test_a_server_that_asks_to_wait_is_waited_for() -> None:
    with Server(Manners(fault=lambda n, body: "429 wait" if n == 0 else None)) as server:
        engine, start = known(server, concurrency=1), time.monotonic()

        async def two() -> list[Chunk]:
            return await asyncio.gather(*(engine.generate(request(seed=s)) for s in range(2)))

        asyncio.run(two())
        assert time.monotonic() - start >= 0.3
        assert [body["seed"] for body in server.bodies] in ([0, 1, 0], [0, 0, 1])
        assert server.times[1] - server.times[0] >= 0.3  # nor did the other one knock meanwhile


def test_words_are_asked_for_again_after_a_restart() -> None:
    with Server() as server:
        vocabulary = Served(known(server).server, MODEL, Patience(9, 0.05, 0.1))
        away = threading.Thread(target=server.restart, args=(0.2,))
        away.start()
        time.sleep(0.1)  # it is away now
        assert vocabulary.pieces(vocabulary.encode(" w5 w7")) == [" w5", " w7"]
        away.join()


def test_words_that_no_patience_gets_are_an_error_of_one_line() -> None:
    with Server(Manners(tokenize=False)) as server, pytest.raises(EngineError, match="/tokenize: answered 404"):
        Served(known(server).server, MODEL, Patience(0)).encode(" w5")


def test_a_restart_is_survived() -> None:
    with Server(Manners(token_time=0.01)) as server:
        engine = known(server, retries=Patience(8, 0.1, 0.5))

        async def through() -> list[Chunk]:
            await engine.generate(request())
            work = [asyncio.create_task(engine.generate(request(seed=s))) for s in range(6)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.restart, 0.1)
            return await asyncio.gather(*work)

        chunks = asyncio.run(through())
        assert [c.ids.tolist() for c in chunks] == [server.toy.complete([5, 7], 12, 1.0, s) for s in range(6)]


# -- refusals ----------------------------------------------------------------------------------------------------------


def fails(engine: OpenAI, times: int = 20) -> list[EngineError]:
    async def many() -> list[Any]:
        work = (engine.generate(request()) for _ in range(times))
        return await asyncio.gather(*work, return_exceptions=True)

    errors = asyncio.run(many())
    assert all(isinstance(error, EngineError) and error.fatal for error in errors)
    return errors


@pytest.mark.parametrize("capabilities", [None, KNOWN])
def test_a_wrong_key_is_not_repeated_and_never_printed(capabilities: Capabilities | None) -> None:
    with Server() as server:
        engine = OpenAI(MODEL, server.url, "sk-wrong-0987654321", capabilities=capabilities, concurrency=2)
        for error in fails(engine):
            assert "401" in str(error)
            assert "sk-wrong" not in str(error)
            assert "OPENAI_API_KEY" in str(error)


@pytest.mark.parametrize("capabilities", [None, KNOWN])
def test_an_unknown_model_names_those_there_are(capabilities: Capabilities | None) -> None:
    with Server() as server:
        engine = OpenAI("nonesuch", server.url, KEY, capabilities=capabilities, concurrency=1)
        for error in fails(engine):
            assert "has no model 'nonesuch'; it has toy" in str(error)
        assert len(server.bodies) == 0


def test_no_server_is_said_at_once() -> None:
    with Server() as server:
        url = server.url
    start = time.monotonic()
    for error in fails(OpenAI(MODEL, url, KEY)):
        assert "no server answers at" in str(error)
    assert time.monotonic() - start < 5


def test_a_chat_that_is_not_continued_refuses_a_prefix() -> None:
    with Server(Manners(ids=False, completions=False, prefill=False)) as server:
        engine = open_engine(server)
        prompt, whole = run(answer(engine))
        assert engine.capabilities.prefix is False
        with pytest.raises(EngineError, match="does not continue an answer") as failed:
            run(engine.generate(request([*prompt, *whole.ids], 5, start=1)))
        assert failed.value.fatal


def test_a_refused_request_concerns_only_itself() -> None:
    with Server() as server:
        engine = known(server, logprobs=30)
        engine.capabilities = Capabilities(top_k=30, token_ids=True)
        with pytest.raises(EngineError, match="greater than max allowed: 20") as failed:
            run(engine.generate(request()))
        assert (failed.value.fatal, len(server.bodies)) == (False, 1)
        engine.capabilities = Capabilities(top_k=20, token_ids=True, context=10)
        with pytest.raises(EngineError, match="context") as failed:
            run(engine.generate(request(range(10))))
        assert failed.value.reason == "context"


def test_where_the_key_must_not_be() -> None:
    with Server() as server:
        engine = known(server)
        chunk = run(engine.generate(request()))
        told = json.dumps(engine.provenance()) + repr(chunk) + repr(engine) + repr(engine.identity())
        assert KEY not in told
        assert engine.identity() == {"engine": "openai", "model": MODEL}
        assert engine.provenance()["base_url"] == server.url
    extra = {
        "min_p": 0.3,
        "max_completion_tokens": 9,
        "extra_headers": {"X": KEY},
        "tools": [{"server": {"apiKey": KEY}}],
    }
    engine = OpenAI(MODEL, f"http://me:{KEY}@127.0.0.1:1/v1", KEY, extra=extra)
    assert KEY not in json.dumps(engine.provenance())
    assert engine.provenance()["extra"] == {
        "min_p": 0.3,
        "max_completion_tokens": 9,
        "extra_headers": "***",
        "tools": [{"server": {"apiKey": "***"}}],
    }
    with pytest.raises(EngineError) as failed:
        OpenAI(MODEL, "http://x/v1", "sk-geheim-ß")
    assert "geheim" not in str(failed.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"mode": "telepathy"}, "mode must be"), ({"concurrency": 0}, "concurrency"), ({"timeout": 0.0}, "timeout"),
     ({"base_url": "localhost:8000"}, "expected http"), ({"logprobs": -1}, "logprobs")],
)  # fmt: skip
def test_bad_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OpenAI(MODEL, **({"base_url": "http://x/v1", "api_key": KEY} | options))


def test_addresses_and_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert OpenAI(MODEL).server.url == "http://localhost:8000/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere:1234")
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    engine = OpenAI(MODEL)
    assert engine.server.url == "http://elsewhere:1234/v1"
    assert engine.server._headers() == {"Authorization": f"Bearer {KEY}"}


# -- several servers ---------------------------------------------------------------------------------------------------


def test_a_pool_shares_the_work_and_survives_the_loss_of_a_server() -> None:
    with Server() as one, Server() as two:
        pool = Pool([known(one, retries=Patience(1, 0.001)), known(two, retries=Patience(1, 0.001))])
        assert isinstance(engines.open(f"openai:{MODEL}", base_url=[one.url, two.url], api_key=KEY), Pool)

        async def many(n: int) -> list[Chunk]:
            return await asyncio.gather(*(pool.generate(request([5, 7 + s % 9], seed=s)) for s in range(n)))

        chunks = asyncio.run(many(40))
        assert [c.ids.tolist() for c in chunks] == [one.toy.complete([5, 7 + s % 9], 12, 1.0, s) for s in range(40)]
        assert min(len(one.bodies), len(two.bodies)) >= 4
        prompts = [{body["prompt"][1] for body in server.bodies} for server in (one, two)]
        assert len(prompts[0] & prompts[1]) < 9  # a prompt goes where it went before, as long as that is not too busy
        one._call(one._shut())
        chunks = asyncio.run(many(20))
        assert [c.ids.tolist() for c in chunks] == [two.toy.complete([5, 7 + s % 9], 12, 1.0, s) for s in range(20)]
        assert len(collect(pool, request(chunk=3))) == 5  # the last of them empty: only then it was known


def test_a_pool_wants_servers_that_agree() -> None:
    with Server() as one, Server(Manners(raw=False)) as two:
        with pytest.raises(EngineError, match="differ in logprobs: processed, raw"):
            asyncio.run(Pool([open_engine(one), open_engine(two)]).ready())
        with pytest.raises(ValueError, match="same model"):
            Pool([open_engine(one), OpenAI("other", two.url, KEY)])
