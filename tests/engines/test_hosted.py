"""Models behind a hosted API: no logprobs, whole answers, hidden thoughts, bills; the transport is a function."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

import wrongturn
from wrongturn import Problem
from wrongturn.cli_probe import probe as command
from wrongturn.engines._http import Patience, Server
from wrongturn.engines.base import Capabilities, Chunk, Meter, Request, Sampling
from wrongturn.engines.openai import OpenAI
from wrongturn.errors import EngineError
from wrongturn.strategies.conditions import Wrote

REST = {"token": "?", "logprob": -3.0}
KEY, USAGE = "sk-SECRET-0123456789", {"prompt_tokens": 20, "completion_tokens": 1500}
Answer = Callable[[Mapping[str, Any]], httpx.Response]
Hosted = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Hosted:
    """Put a function of a request's body in the place of every server; the bodies it is asked with."""

    def host(answer: Answer, endpoint: str = "/v1/chat/completions", model: str = "m") -> list[dict[str, Any]]:
        bodies: list[dict[str, Any]] = []

        async def handle(asked: httpx.Request) -> httpx.Response:
            await asyncio.sleep(0.001)  # so that requests are under way at once
            if asked.url.path == "/v1/models":
                return httpx.Response(200, json={"data": [{"id": model}]})
            if asked.url.path == "/v1/completions" != endpoint:
                return refused("This is a chat model and not supported in the v1/completions endpoint.", 404)
            if asked.url.path != endpoint:
                return httpx.Response(404, json={"detail": "Not Found"})
            bodies.append(json.loads(asked.content) | {"headers": asked.headers})
            return answer(bodies[-1])

        def options(self: Server) -> dict[str, Any]:
            return {"headers": self._headers(), "auth": self._auth, "transport": httpx.MockTransport(handle)}

        monkeypatch.setattr(Server, "_options", options)
        return bodies

    return host


class _Body(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self.content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.content


def stream(*events: Mapping[str, Any]) -> httpx.Response:
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Body(body.encode()))


def said(*texts: str, usage: Mapping[str, Any] = USAGE) -> httpx.Response:
    """A streamed chat answer of several texts."""
    events = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return stream(*events, end, {"choices": [], "usage": usage})


def whole(tokens: list[str], usage: Mapping[str, Any], listed: bool = True) -> httpx.Response:
    """A chat answer in one piece; ``listed``: with the logprob of every token."""
    content = [{"token": t, "logprob": -0.1, "top_logprobs": [{"token": t, "logprob": -0.1}, REST]} for t in tokens]
    choice = {"index": 0, "message": {"content": "".join(tokens)}, "finish_reason": "stop"}
    choices = [choice | ({"logprobs": {"content": content}} if listed else {})]
    return httpx.Response(200, json={"choices": choices, "usage": usage})


def refused(message: str, status: int = 400, code: str | None = None) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "code": code}})


def engine(streaming: bool = True, listed: bool = False, **options: Any) -> OpenAI:
    known = Capabilities(logprobs="raw" if listed else "none", top_k=int(listed), prefix=True, streaming=streaming)
    given = {"base_url": "http://x/v1", "api_key": KEY, "mode": "chat", "capabilities": known} | options
    return OpenAI("m", retries=Patience(2, 0.001, 0.001), **given)


def generate(engine: OpenAI, times: int = 1, **options: Any) -> list[Chunk]:
    async def work() -> list[Chunk]:
        prompt = np.array(await engine.prompt([{"role": "user", "content": "What?"}]), np.int32)
        return await asyncio.gather(*(engine.generate(Request(prompt, 4096, **options)) for _ in range(times)))

    return asyncio.run(work())


def asked(n: int = 1) -> list[Problem]:
    return [Problem(f"p{i}", "numeric", f"What {i}?", reference="42") for i in range(n)]


# -- the ledger --------------------------------------------------------------------------------------------------------


def test_what_the_server_counts_is_charged_where_it_lists_no_tokens(hosted: Hosted) -> None:
    hosted(lambda body: said("Let me think about it. ", "The answer is 42."))
    meter = Meter()
    (chunk,) = generate(engine(), meter=meter)
    assert (len(chunk.ids), chunk.unlisted, meter.spent) == (2, 1498, 1500)
    (trace,) = wrongturn.solve(engine(), asked(), strategy="self_consistency:n=4", max_tokens=4096)
    assert (trace.usage.decoded, trace.answer) == (6000, "42")


def test_hidden_thoughts_are_charged_and_belong_to_the_answer(hosted: Hosted) -> None:
    hosted(lambda body: whole(["So", " 42", "."], USAGE))
    meter = Meter()
    (chunk,) = generate(engine(streaming=False, listed=True), meter=meter)
    assert (len(chunk.ids), chunk.unlisted, meter.spent) == (3, 1497, 1500)
    assert Chunk.concat([chunk, chunk]).unlisted == 2994
    assert (chunk[:3].unlisted, chunk[:2].unlisted) == (1497, 0)  # of a part nobody knows


@pytest.mark.parametrize("usage", [{}, {"completion_tokens": 0}, {"completion_tokens": None}])
def test_without_a_count_what_came_is_counted(hosted: Hosted, usage: Mapping[str, Any]) -> None:
    hosted(lambda body: said("a ", "b", usage=usage))
    meter = Meter()
    (chunk,) = generate(engine(), meter=meter)
    assert (chunk.unlisted, meter.spent) == (0, 2)


def test_a_whole_answer_is_charged_whole_where_a_condition_cuts_it(hosted: Hosted) -> None:
    hosted(lambda body: whole(["a"] * 5 + ["Wait"] + ["b"] * 494, {"completion_tokens": 500}))
    meter, model = Meter(), engine(streaming=False, listed=True)
    wait = model.vocabulary.intern("Wait")  # type: ignore[union-attr]
    (chunk,) = generate(model, meter=meter, until=Wrote((wait,)))
    assert (len(chunk.ids), chunk.finish, chunk.unlisted, meter.spent) == (6, "until", 0, 500)


def test_whole_answers_at_once_exceed_a_budget_and_are_all_charged(hosted: Hosted) -> None:
    bodies = hosted(lambda body: whole(["a"] * 500, {"completion_tokens": 500}))
    meter = Meter(600)
    chunks = generate(engine(streaming=False, listed=True), 3, meter=meter)
    assert [len(bodies), meter.spent] == [3, 1500]
    assert sorted((len(chunk.ids), chunk.finish) for chunk in chunks) == [
        (0, "budget"), (100, "budget"), (500, "stop")
    ]  # fmt: skip
    generate(engine(streaming=False, listed=True), meter=meter)
    assert len(bodies) == 3  # nothing is left to ask for


def test_an_event_of_many_tokens_is_charged_whole_where_a_condition_cuts_it(hosted: Hosted) -> None:
    content = [{"token": t, "logprob": -0.1, "top_logprobs": []} for t in ("a", "Wait", "b", "c", "d")]
    choice = {"index": 0, "delta": {"content": "aWaitbcd"}, "logprobs": {"content": content}}
    hosted(lambda body: stream({"choices": [choice]}))
    model = engine(listed=True)
    until = Wrote((model.vocabulary.intern("Wait"),))  # type: ignore[union-attr]
    for meter, spent in ((Meter(), 5), (Meter(4), 4)):  # a stream left early stops at the budget
        (chunk,) = generate(model, meter=meter, until=until)
        assert (len(chunk.ids), chunk.finish, meter.spent) == (2, "until", spent)


def test_a_limit_that_hidden_thoughts_reach_is_the_limit(hosted: Hosted) -> None:
    usage = {"completion_tokens": 4096}
    event = {"choices": [{"index": 0, "delta": {"content": "So"}, "finish_reason": "length"}], "usage": usage}
    hosted(lambda body: stream(event))
    assert generate(engine(), meter=Meter(4096))[0].finish == "length"
    hosted(lambda body: stream(event | {"usage": {"completion_tokens": body["max_tokens"]}}))
    assert generate(engine(), meter=Meter(100))[0].finish == "budget"


# -- the key -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [0, 190])  # a message that is cut must not end in half a key
@pytest.mark.parametrize("how", ["stream", "whole", "plain", "handed out"])
def test_no_error_holds_the_key(hosted: Hosted, how: str, far: int, tmp_path: Path) -> None:
    def answer(body: Mapping[str, Any]) -> httpx.Response:
        echo = "x" * far + body["headers"]["authorization"]
        told = {"error": {"message": echo}}
        if how == "plain":
            return httpx.Response(500, text=echo)
        if how == "whole":
            return httpx.Response(200, json=told)
        begun = [{"choices": [{"index": 0, "delta": {"content": "a"}}]}]
        return stream(*(begun if how == "handed out" else []), told)

    hosted(answer)
    basic = base64.b64encode(f"me:{KEY}".encode()).decode()
    for url in ("http://x/v1", f"http://me:{KEY}@x/v1"):
        for known in (Capabilities(logprobs="none", prefix=False), None):  # None: it is probed
            with pytest.raises(EngineError) as failed:
                generate(engine(base_url=url, capabilities=known), chunk=1 if how == "handed out" else None)
            assert not any(secret in str(failed.value) for secret in ("sk-", KEY[:9], basic[:9]))
    if far == 0:
        run = wrongturn.collect(engine(), asked(), out=tmp_path / "run")
        assert len(run.failures()) == 1
        assert not any(b"sk-" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


# -- bills -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code"), [(402, None), (429, "insufficient_quota")])
def test_an_account_without_credit_is_said_once(hosted: Hosted, status: int, code: str | None, tmp_path: Path) -> None:
    bodies = hosted(lambda body: refused("Insufficient balance.", status, code))
    with pytest.raises(EngineError, match=f"answered {status}: .*is there credit left") as failed:
        wrongturn.collect(engine(concurrency=4), asked(100), out=tmp_path / "run")
    assert failed.value.fatal
    assert len(bodies) <= 4


def test_a_context_that_only_the_server_knows_is_named_as_the_reason(hosted: Hosted, tmp_path: Path) -> None:
    said = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."
    hosted(lambda body: refused(said, 400, "context_length_exceeded"))
    run = wrongturn.collect(engine(), asked(2), out=tmp_path / "run")
    assert [failure.reason for failure in run.failures()] == ["context"] * 2


def test_what_was_decoded_unseen_is_kept_with_the_answer_and_fills_its_limit(hosted: Hosted, tmp_path: Path) -> None:
    hosted(lambda body: said("The answer ", "is 42."))
    run = wrongturn.collect(engine(), asked(1), out=tmp_path / "run", strategy="self_consistency:n=4")
    chosen = next(trace for trace in run.traces() if trace.strategy == "self_consistency:n=4")
    assert (chosen.usage.kept, chosen.usage.dropped) == (1500, 4500)


def test_a_rate_limit_is_still_waited_for(hosted: Hosted) -> None:
    bodies = hosted(lambda body: said("42") if len(bodies) > 1 else refused("slow down", 429, "rate_limit_exceeded"))
    assert generate(engine())[0].finish == "stop"


# -- models with a temperature of their own ----------------------------------------------------------------------------


def thinker(body: Mapping[str, Any], listed: bool) -> httpx.Response:
    """Answers as hosted reasoning models do; ``listed``: but for the logprobs it tells in whole answers."""
    if body.get("logprobs") is not None and not listed:
        return refused("You are not allowed to request logprobs from this model", 403)
    if "max_tokens" in body:
        return refused("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    if body.get("temperature", 1) != 1 or "top_p" in body:
        return refused("'temperature' does not support 0.0 with this model. Only the default (1) is supported.")
    if body["max_completion_tokens"] < 200:
        return refused("Could not finish the message because max_tokens or model output limit was reached.")
    texts, usage = ["4", "2"], {"prompt_tokens": 3, "completion_tokens": 150}
    return said(*texts, usage=usage) if body.get("stream") else whole(texts, usage, listed)


@pytest.mark.parametrize(("listed", "logprobs"), [(False, "none"), (True, "raw")])
def test_a_model_that_takes_no_temperature(hosted: Hosted, listed: bool, logprobs: str) -> None:
    bodies = hosted(lambda body: thinker(body, listed))
    model = engine(capabilities=None, mode="auto")
    meter = Meter()
    (chunk,) = generate(model, meter=meter)
    assert (meter.spent, chunk.finish) == (150, "stop")
    assert "temperature" not in bodies[-1]
    assert model.report is not None
    told = model.report.dict()
    assert (told["temperature"], told["logprobs"], told["endpoint"]) == ("own", logprobs, "chat/completions")
    assert len(bodies) <= 30
    for sampling in (Sampling(0.0), Sampling(1.0, 0.9)):
        with pytest.raises(EngineError, match="takes no temperature and no top_p") as failed:
            generate(model, sampling=sampling)
        assert failed.value.fatal


def test_every_way_that_was_refused_is_named(hosted: Hosted) -> None:
    hosted(lambda body: refused("'messages' must be sung"))
    with pytest.raises(EngineError) as failed:
        generate(engine(capabilities=None, mode="auto"))
    assert str(failed.value) == (
        "http://x/v1 refuses every request: answered 404: This is a chat model and not supported in the v1/completions"
        " endpoint.; answered 400: 'messages' must be sung"
    )


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://localhost:80a0/v1", "http://localhost:99999/v1", "localhost:8000", "http://"])
def test_an_address_that_is_none_is_said_in_a_line(url: str) -> None:
    app = Typer()
    app.command()(command)
    problem = CliRunner().invoke(app, [url]).exception
    assert isinstance(problem, ValueError)  # which the command line prints
    assert str(problem) == f"base URL {url!r}: expected http(s)://HOST[:PORT]/v1"


def test_an_address_that_is_none_keeps_its_password() -> None:
    with pytest.raises(ValueError, match="base URL") as failed:
        OpenAI("m", f"http://me:{KEY}/x@host/v1")
    assert "SECRET" not in str(failed.value)
