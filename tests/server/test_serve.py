"""The server over a real socket: what it answers is what its engine says, and nothing outlives its client."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

import wrongturn
from wrongturn import rescuing, routes
from wrongturn.engines.base import Chunk, Engine, Request, Sampling
from wrongturn.engines.embedded import Embedded
from wrongturn.engines.openai import OpenAI
from wrongturn.engines.scripted import Scripted
from wrongturn.errors import WrongturnError
from wrongturn.server import serve
from wrongturn.server.answered import Spelling, Stops
from wrongturn.server.asked import Limits
from wrongturn.tasks import graphs as gs

PROBLEMS = gs.GraphSearch().problems("G8_2,4", 6, seed=3)
PROMPT = list(PROBLEMS[0].prompt_ids)


@contextmanager
def serving(engine: Engine, **options: Any) -> Iterator[httpx.Client]:
    """A client of a server in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(serve.app(engine, **options), log_level="critical", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=30) as client:
            client.get("/health").raise_for_status()
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with serving(Embedded()) as client:
        yield client


def ask(http: httpx.Client, path: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def stream(http: httpx.Client, path: str = "/v1/completions", **body: Any) -> list[dict[str, Any]]:
    with http.stream("POST", path, json=body | {"stream": True}) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.fixture(scope="module")
def engine() -> Embedded:
    """One that is not served."""
    return Embedded()


# -- completions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "seed"), [(0.0, 0), (1.0, 7), (1.5, 8)])
def test_answers_are_the_engines(http: httpx.Client, engine: Embedded, temperature: float, seed: int) -> None:
    for problem in PROBLEMS[:3]:
        prompt = list(problem.prompt_ids)
        body = {"prompt": prompt, "max_tokens": 150, "temperature": temperature, "seed": seed}
        (choice,) = ask(http, **body, logprobs=3, return_token_ids=True)["choices"]
        prefix = np.array(prompt, np.int32)
        asked = Request(prefix, 150, Sampling(temperature), seed, stop_ids=(gs.EOS,), top_k=3)
        expected = asyncio.run(engine.generate(asked))
        assert choice["token_ids"] == expected.ids.tolist()
        assert choice["prompt_token_ids"] == prompt
        assert choice["text"] == gs.decode(expected.ids)
        assert choice["finish_reason"] == expected.finish
        np.testing.assert_allclose(choice["logprobs"]["token_logprobs"], -expected.signals.nll, atol=1e-5)
        best = [max(top.values()) for top in choice["logprobs"]["top_logprobs"]]
        np.testing.assert_allclose(best, expected.top_logprobs[:, 0], atol=1e-5)


def test_text_is_taken_as_the_ids_it_stands_for(http: httpx.Client) -> None:
    body = {"max_tokens": 20, "temperature": 0, "return_token_ids": True}
    by_text, by_ids = (ask(http, prompt=p, **body)["choices"] for p in (PROBLEMS[0].prompt, PROMPT))
    assert by_text == by_ids


def test_whole_distributions_sum_to_one(http: httpx.Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 20, "logprobs": len(gs.VOCAB), "return_tokens_as_token_ids": True}
    (choice,) = ask(http, **body)["choices"]
    for token, top in zip(choice["logprobs"]["tokens"], choice["logprobs"]["top_logprobs"], strict=True):
        assert token in top
        assert len(top) == len(gs.VOCAB)
        assert sum(map(math.exp, top.values())) == pytest.approx(1.0, abs=1e-5)


def test_prompts_and_samples_are_in_order(http: httpx.Client) -> None:
    prompts = [list(p.prompt_ids) for p in PROBLEMS[:2]]
    body = {"max_tokens": 12, "temperature": 2.0, "return_token_ids": True}
    answer = ask(http, prompt=prompts, n=3, seed=5, **body)
    assert [c["index"] for c in answer["choices"]] == list(range(6))
    for i, prompt in enumerate(prompts):
        for j in range(3):
            (single,) = ask(http, prompt=prompt, seed=5 + j, **body)["choices"]
            assert answer["choices"][3 * i + j]["token_ids"] == single["token_ids"]
    written = sum(len(c["token_ids"]) for c in answer["choices"])
    assert answer["usage"]["prompt_tokens"] == sum(map(len, prompts))
    assert answer["usage"]["completion_tokens"] == written


def test_without_a_seed_samples_differ(http: httpx.Client) -> None:
    answers = [ask(http, prompt=PROMPT, max_tokens=30, temperature=50.0)["choices"][0]["text"] for _ in range(2)]
    assert answers[0] != answers[1]


def test_usage_says_what_the_cache_had() -> None:
    with serving(Embedded()) as http:
        cached = [
            ask(http, prompt=PROMPT, max_tokens=5)["usage"]["prompt_tokens_details"]["cached_tokens"] for _ in "ab"
        ]
    assert cached == [0, len(PROMPT) - 1]


def test_a_stream_is_the_whole_in_pieces(http: httpx.Client) -> None:
    body = {"prompt": [PROMPT, PROMPT[:-2]], "n": 2, "max_tokens": 30, "seed": 3, "logprobs": 2, "stop": ["),", "9"]}
    body |= {"return_token_ids": True, "temperature": 1.3}
    whole = ask(http, **body)
    events = stream(http, **body, stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    for expected in whole["choices"]:
        mine = [e for e in events[:-1] if e["choices"][0]["index"] == expected["index"]]
        pieces = [e["choices"][0] for e in mine]
        assert "".join(p["text"] for p in pieces) == expected["text"]
        assert list(chain.from_iterable(p["token_ids"] for p in pieces)) == expected["token_ids"]
        for part in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert list(chain.from_iterable(p["logprobs"][part] for p in pieces)) == expected["logprobs"][part]
        assert [p["finish_reason"] for p in pieces] == [None] * (len(pieces) - 1) + [expected["finish_reason"]]
        assert [p.get("prompt_token_ids") for p in pieces[:2]] == [expected["prompt_token_ids"], None]
        assert [e["usage"]["completion_tokens"] for e in mine] == list(range(1, len(mine) + 1))


def test_echo_scores_the_prompt(http: httpx.Client) -> None:
    body = {"max_tokens": 25, "temperature": 1.0, "seed": 1, "logprobs": 2, "return_token_ids": True}
    (written,) = ask(http, prompt=PROMPT, **body)["choices"]
    known = PROMPT + written["token_ids"]
    (scored,) = ask(http, prompt=known, max_tokens=0, echo=True, logprobs=2)["choices"]
    logprobs = scored["logprobs"]
    assert scored["text"] == PROBLEMS[0].prompt + written["text"]
    assert len(logprobs["tokens"]) == len(known)
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    tail = logprobs["token_logprobs"][len(PROMPT) :]
    np.testing.assert_allclose(tail, written["logprobs"]["token_logprobs"], atol=1e-5)
    answer = ask(http, prompt=known, max_tokens=1, echo=True, logprobs=2, temperature=0)
    assert answer["usage"]["completion_tokens"] == 1
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == len(known) + 1


def test_stop_tokens_end_an_answer_and_are_not_said(http: httpx.Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 100, "temperature": 0, "return_token_ids": True}
    (choice,) = ask(http, **body, stop_token_ids=[gs.NEXT])["choices"]
    assert choice["token_ids"].index(gs.NEXT) == len(choice["token_ids"]) - 1
    assert choice["text"] == gs.decode(choice["token_ids"][:-1])
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", gs.NEXT)
    (ended,) = ask(http, **body)["choices"]
    assert ended["token_ids"][-1] == gs.EOS
    assert ended["stop_reason"] is None
    (goes_on,) = ask(http, **body, ignore_eos=True)["choices"]
    assert len(goes_on["token_ids"]) == 100


@given(st.text("ab"), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 9)))
def test_text_is_cut_at_the_first_stop_string_however_it_comes(text: str, stops: list[str], sizes: list[int]) -> None:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    pieces.append(text[at:])
    said, found, cutter = "", None, Stops(stops)
    for i, piece in enumerate(pieces):
        released, found = cutter.add(piece, last=i == len(pieces) - 1)
        said += released
        if found:
            break
    ends = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    assert said == (text[: sum(min(ends))] if ends else text)
    assert (found is not None) == bool(ends)


class Bytes:
    """A vocabulary of bytes: ids are 0..255."""

    stop_ids = ()

    def pieces(self, ids: list[int]) -> list[str]:
        texts = [bytes(ids[: i + 1]).decode("utf-8", "replace") for i in range(len(ids))]
        ends = [0]
        for text in texts[:-1]:
            same = [a == b for a, b in zip(text, texts[-1], strict=False)]
            ends.append(max(ends[-1], same.index(False) if False in same else len(same)))
        return [texts[-1][a:b] for a, b in zip(ends, [*ends[1:], len(texts[-1])], strict=True)]


@given(st.text("a é你😀"), st.binary(max_size=3))
def test_characters_of_several_tokens_stay_whole(text: str, rest: bytes) -> None:
    ids = [*text.encode(), *rest]
    spelling = Spelling(Bytes(), before=97)  # type: ignore[arg-type]
    pieces = [spelling.add([i], last=n == len(ids) - 1)[0] for n, i in enumerate(ids)]
    assert "".join(pieces) == bytes(ids).decode("utf-8", "replace")
    if not rest:
        assert "\ufffd" not in "".join(pieces)


# -- chat --------------------------------------------------------------------------------------------------------------


def test_chat_answers_the_last_question(http: httpx.Client) -> None:
    parts = [{"type": "text", "text": PROBLEMS[0].prompt}]
    messages = [{"role": "system", "content": "Search."}, {"role": "user", "content": parts}]
    body = {"messages": messages, "temperature": 0, "logprobs": True, "top_logprobs": 2, "return_token_ids": True}
    answer = ask(http, "/v1/chat/completions", **body)
    (plain,) = ask(http, prompt=PROMPT, max_tokens=200, temperature=0, return_token_ids=True)["choices"]
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": plain["text"]}
    assert (answer["prompt_token_ids"], choice["token_ids"]) == (PROMPT, plain["token_ids"])
    content = choice["logprobs"]["content"]
    assert b"".join(bytes(t["bytes"]) for t in content).decode() == plain["text"]
    assert all(t["top_logprobs"][0]["logprob"] == t["logprob"] for t in content)
    events = stream(http, "/v1/chat/completions", **body)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(e["choices"][0]["delta"]["content"] for e in events) == plain["text"]
    assert list(chain.from_iterable(e["choices"][0]["logprobs"]["content"] for e in events)) == content


def test_chat_goes_on_with_a_begun_answer(http: httpx.Client) -> None:
    user = {"role": "user", "content": PROBLEMS[0].prompt}
    whole = ask(http, "/v1/chat/completions", messages=[user], temperature=0)["choices"][0]["message"]["content"]
    begun = gs.decode(gs.encode(whole)[:9])
    body = {"messages": [user, {"role": "assistant", "content": begun}], "temperature": 0}
    body |= {"continue_final_message": True, "add_generation_prompt": False}
    rest = ask(http, "/v1/chat/completions", **body)["choices"][0]["message"]["content"]
    assert begun + rest == whole


def test_tokenize_and_back(http: httpx.Client) -> None:
    text = PROBLEMS[0].prompt
    counted = ask(http, "/tokenize", prompt=text, return_token_strs=True)
    assert (counted["tokens"], counted["count"], counted["max_model_len"]) == (PROMPT, len(PROMPT), 384)
    assert "".join(counted["token_strs"]) == text
    assert ask(http, "/tokenize", prompt=text, add_special_tokens=False)["tokens"] == PROMPT[1:]
    assert ask(http, "/tokenize", messages=[{"role": "user", "content": text}])["tokens"] == PROMPT
    assert ask(http, "/detokenize", tokens=PROMPT)["prompt"] == text


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"prompt": "hello"}, "prompt", "not graph-search text: 'hello' at character 0"),
        ({"prompt": []}, "prompt", "prompt must be text, token ids, or a list of either, not a list"),
        ({"prompt": [[1], []]}, "prompt", "prompt must be text"),
        ({"prompt": [1, True]}, "prompt", "prompt must be text"),
        ({"prompt": [1, 31]}, "prompt", "token id 31 at position 1 is outside the vocabulary of 31"),
        ({"prompt": [1] * 384}, "prompt", "the context of graph_search holds 384"),
        ({"prompt": [[1]] * 513}, "prompt", "at most 512 prompts at once"),
        ({}, "prompt", "prompt must be text"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens must be a whole number from 1 to 384, not 0"),
        ({"max_tokens": 385}, "max_tokens", "max_tokens must be a whole number from 1 to 384, not 385"),
        ({"max_tokens": "9"}, "max_tokens", 'not "9"'),
        ({"n": 513}, "n", "n must be a whole number from 1 to 512, not 513"),
        ({"logprobs": 32}, "logprobs", "logprobs must be a whole number from 0 to 31, not 32"),
        ({"temperature": -1}, "temperature", "temperature must be a number from 0 to 100, not -1"),
        ({"top_p": 0}, "top_p", "top_p must be a number above 0, up to 1, not 0"),
        ({"stop": [""]}, "stop", "stop must be text, or a list of at most 16 texts"),
        ({"stop_token_ids": ["x"]}, "stop_token_ids", "stop_token_ids must be a list of token ids, not a list"),
        ({"stream": 1}, "stream", "stream must be true or false, not 1"),
        ({"seed": 1.5}, "seed", "seed must be a whole number"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "logit_bias is not served here"),
        ({"stream_options": []}, None, None),
        ({"presence_penalty": 0, "user": "me", "top_k": -1, "suffix": None}, None, None),
    ],
)
def test_what_is_wrong_with_a_request_is_named(
    http: httpx.Client, body: dict[str, Any], field: str | None, message: str | None
) -> None:
    response = http.post("/v1/completions", json=({"prompt": [1]} if body and field != "prompt" else {}) | body)
    if message is None:
        response = http.post("/v1/completions", json={"prompt": [1]} | body)
        assert response.status_code == 200
        return
    said = response.json()["error"]
    assert response.status_code == 400
    assert message in said["message"]
    assert (said["param"], said["type"]) == (field, "invalid_request_error")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]"),
        ({"messages": [{"role": "system", "content": "1"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "1"}], "top_logprobs": 3}, "top_logprobs"),
        ({"messages": [{"role": "user", "content": "1"}], "tools": [{}]}, "tools"),
    ],
)
def test_what_is_wrong_with_a_chat_is_named(http: httpx.Client, body: dict[str, Any], field: str) -> None:
    response = http.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        (b"[1]", 400, "must be a JSON object, not a list"),
        (b'{"prompt": [1], "temperature": NaN}', 400, "NaN is no JSON number"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"prompt": "' + b"1" * 2000 + b'"}', 413, "larger than 1000 bytes"),
    ],
)
def test_bad_bodies(content: bytes, status: int, message: str) -> None:
    with serving(Scripted({(): 2}, 8), limits=Limits(body=1000 if status == 413 else 1 << 20)) as http:
        response = http.post("/v1/completions", content=content, headers={"content-type": "application/json"})
        assert response.status_code == status
        assert message in response.json()["error"]["message"]


def test_only_json_is_read_and_only_where_there_is_something(http: httpx.Client) -> None:
    assert http.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert http.post("/v1/embeddings", json={}).json()["error"]["message"] == "there is no POST /v1/embeddings"
    assert http.get("/v1/completions").status_code == 405


def test_without_a_vocabulary_there_are_ids_only() -> None:
    with serving(Scripted({(): 2}, 8)) as http:
        (choice,) = ask(http, prompt=[1], max_tokens=3, return_token_ids=True, logprobs=1)["choices"]
        assert (choice["token_ids"], choice["text"]) == ([2, 2, 2], "")
        assert choice["logprobs"]["tokens"] == ["token_id:2"] * 3
        for path, body in (("completions", {"prompt": "a"}), ("chat/completions", {"messages": [{}]})):
            assert http.post(f"/v1/{path}", json=body).status_code == 400


def test_a_failing_engine_is_reported_and_survived() -> None:
    def script(sequence: np.ndarray) -> int:
        if len(sequence) > 3:
            raise OSError("a secret")
        return 2

    with serving(Scripted(script, 8)) as http:
        response = http.post("/v1/completions", json={"prompt": [1], "max_tokens": 9})
        assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
        assert "secret" not in response.text
        events = stream(http, prompt=[1], max_tokens=9)
        assert events[-1]["error"]["type"] == "server_error"
        assert ask(http, prompt=[1], max_tokens=2)["usage"]["completion_tokens"] == 2


# -- clients come and go -----------------------------------------------------------------------------------------------

ENDLESS = {"prompt": [1], "max_tokens": 40_000}


def endless() -> Scripted:
    return Scripted({(): 2}, 8, context=50_000, slots=2)


def is_idle(engine: Scripted, seconds: float = 1.0) -> bool:
    """Idle within a second: the endless request takes several."""
    end = time.monotonic() + seconds
    while (engine._jobs or engine._waiting) and time.monotonic() < end:
        time.sleep(0.01)
    return not engine._jobs and not engine._waiting


def test_a_stream_hung_up_on_ends_its_decoding() -> None:
    engine = endless()
    with serving(engine) as http:
        with http.stream("POST", "/v1/completions", json=ENDLESS | {"stream": True, "n": 3}) as response:
            assert next(response.iter_lines()).startswith("data: ")
            assert engine._jobs
        assert is_idle(engine)


def test_a_request_hung_up_on_ends_its_decoding() -> None:
    engine = endless()
    with serving(engine) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/completions", json=ENDLESS, timeout=0.3)
        assert engine.requests
        assert is_idle(engine)


def test_a_request_may_not_take_for_ever() -> None:
    engine = endless()
    with serving(engine, limits=Limits(seconds=0.2)) as http:
        response = http.post("/v1/completions", json=ENDLESS)
        assert (response.status_code, response.json()["error"]["type"]) == (504, "timeout_error")
        assert stream(http, **ENDLESS)[-1]["error"]["message"] == "the request took longer than 0.2 s"
        assert is_idle(engine)


def test_a_key_is_asked_for() -> None:
    with serving(Scripted({(): 2}, 8), key="s3cret") as http:
        for header in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Bearer s3cre\u00e9".encode("latin-1")},
        ):
            response = http.post("/v1/completions", json={"prompt": [1]}, headers=header)
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
            assert "s3cret" not in response.text
        assert http.get("/v1/models").status_code == 401
        assert http.get("/v1/models", headers={"authorization": "Bearer s3cret"}).status_code == 200


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WrongturnError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            serve.serve(Scripted({(): 2}, 8), "127.0.0.1", port, None, print)


def test_the_command_serves_until_interrupted() -> None:
    command = [sys.executable, "-m", "wrongturn", "engine", "serve", "--port", "0"]
    environment = os.environ | {"COLUMNS": "200", "WRONGTURN_API_KEY": "k"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        line = child.stdout.readline()
        address = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
        models = httpx.get(f"{address}/models", headers={"authorization": "Bearer k"}).json()
        assert models["data"][0]["id"] == "graph_search"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
        assert child.stderr.read() == ""


# -- the client that users have ----------------------------------------------------------------------------------------


def test_the_official_client_is_content(http: httpx.Client) -> None:
    import openai  # takes a second

    with openai.OpenAI(base_url=str(http.base_url.join("/v1")), api_key="none", max_retries=0) as client:
        assert [m.id for m in client.models.list()] == ["graph_search"]
        completion = client.completions.create(model="graph_search", prompt=PROMPT, max_tokens=9, logprobs=2, n=2)
        assert [len(c.logprobs.tokens) for c in completion.choices] == [9, 9]
        messages: Any = [{"role": "user", "content": PROBLEMS[0].prompt}]
        whole = client.chat.completions.create(
            model="graph_search", messages=messages, temperature=0, logprobs=True, top_logprobs=5
        )
        events = client.chat.completions.create(model="graph_search", messages=messages, temperature=0, stream=True)
        assert "".join(e.choices[0].delta.content or "" for e in events) == whole.choices[0].message.content
        assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 5
        assert whole.usage.prompt_tokens_details.cached_tokens >= 0
        with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-5' here, only 'graph_search'"):
            client.completions.create(model="gpt-5", prompt=PROMPT)
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="graph_search", prompt=PROMPT, n=-1)
        assert refused.value.param == "n"


def test_our_own_client_is_content(http: httpx.Client, engine: Embedded) -> None:
    """The probe finds what the server does, and traces through it are those of the engine behind it."""
    remote = OpenAI("graph_search", str(http.base_url.join("/v1")), logprobs=31, vocab_size=31)
    prefixes = [np.array(problem.prompt_ids, np.int32) for problem in PROBLEMS[:3]]
    requests = [Request(p, 150, Sampling(1.0), seed=4, stop_ids=(gs.EOS,), start=len(p)) for p in prefixes]

    async def both() -> list[list[Chunk]]:
        try:
            return [await asyncio.gather(*map(e.generate, requests)) for e in (remote, engine)]
        finally:
            await remote.close()

    for there, here in zip(*asyncio.run(both()), strict=True):
        assert (there.ids.tolist(), there.finish) == (here.ids.tolist(), here.finish)
        np.testing.assert_allclose(there.signals.entropy, here.signals.entropy, atol=1e-4)
    found = remote.capabilities.dict()
    known = {"vocab_size": 31, "context": 384, "top_k": 31, "logprobs": "raw", "prefix": True, "token_ids": True}
    known |= dict.fromkeys(("seeds", "echo", "prefix_caching", "streaming", "n"), True)
    assert {name: found[name] for name in known} == known


@pytest.mark.extras
def test_failures_are_rescued_through_a_server(tmp_path: Path) -> None:
    with serving(Embedded("sft")) as http:
        remote = OpenAI("sft", str(http.base_url.join("/v1")), logprobs=31, vocab_size=31)
        asked = wrongturn.tasks.graph_search(nodes=15, hops=(5, 6), n=16, seed=3)
        run = wrongturn.collect(remote, asked, out=tmp_path / "run", samples=2, max_tokens=192, top_k=0)
        found = wrongturn.pipeline.wait(routes.rescued(remote, run, tries=2, blind=True))
    tried = found.tried.outcomes
    assert set(tried.operators) == {
        "retry", "greedy", "retry:temperature=1.5", "lift:where=entropy", "rewind", "rewind:where=random"
    }  # fmt: skip
    assert set(tried.problems) == set(rescuing.failures(run))
    assert tried.cost()[tried.operators.index("rewind")] < tried.cost()[tried.operators.index("retry")]


@pytest.mark.torch
def test_a_checkpoint_is_served(http: httpx.Client) -> None:
    """Another engine behind the same server: transformers on the packaged checkpoint, with its own tokenizer."""
    pytest.importorskip("transformers")
    from wrongturn.engines.embedded import packaged
    from wrongturn.engines.transformers import Transformers

    body = {"max_tokens": 60, "temperature": 0, "return_token_ids": True, "logprobs": 2}
    with serving(Transformers(packaged(), device="cpu")) as other:
        for problem in PROBLEMS[:3]:
            (ours,), (theirs,) = (ask(h, prompt=problem.prompt, **body)["choices"] for h in (http, other))
            for name in ("text", "token_ids", "prompt_token_ids", "finish_reason"):
                assert ours[name] == theirs[name]
            assert ours["logprobs"]["tokens"] == theirs["logprobs"]["tokens"]
            logprobs = [c["logprobs"]["token_logprobs"] for c in (ours, theirs)]
            np.testing.assert_allclose(*logprobs, atol=1e-3)
            events = stream(other, prompt=problem.prompt, **body)
            assert "".join(e["choices"][0]["text"] for e in events) == theirs["text"]
