from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from misbehaving import KEY, MODEL, Manners, Server
from typer import Typer
from typer.testing import CliRunner

from wrongturn.cli_probe import probe as command
from wrongturn.engines._http import Patience
from wrongturn.engines.openai import OpenAI
from wrongturn.engines.probe import ProbeReport
from wrongturn.errors import EngineError, WrongturnError

NO_IDS = {"ids": False, "tokenize": False}


def report(manners: Manners, **options: Any) -> ProbeReport:
    with Server(manners) as server:
        engine = OpenAI(MODEL, server.url, KEY, retries=Patience(3, 0.001, 0.01), timeout=1.0, **options)
        asyncio.run(engine.ready())
        assert engine.report is not None
        assert len({json.dumps(body) for body in server.bodies}) <= 40  # the others are repetitions
        assert max(body["max_tokens"] for body in server.bodies) <= 12
        return engine.report


@pytest.mark.parametrize(
    ("manners", "expected"),
    [
        (
            Manners(cached=True),
            {"endpoint": "completions", "token_ids": True, "tokenize": True, "top_k": 20, "logprobs": "raw",
             "streaming": True, "prefix": True, "context": 4096, "seeds": True, "echo": True, "prefix_caching": True,
             "n": True, "server": "0.1-toy"},
        ),
        (Manners(most=7, raw=False), {"top_k": 7, "logprobs": "processed"}),
        (Manners(most=33), {"top_k": 33}),
        (Manners(seeds=False, cached=False), {"seeds": False, "prefix_caching": False}),
        (Manners(streams=False), {"streaming": False, "token_ids": True}),
        (
            Manners(**NO_IDS, chat=False),
            {"endpoint": "completions", "token_ids": False, "tokenize": False, "prefix": True, "echo": False,
             "n": False, "prefix_caching": None, "logprobs": "raw"},
        ),
        (Manners(**NO_IDS), {"endpoint": "chat/completions", "prefix": True}),  # it knows the chat template
        (Manners(**NO_IDS, completions=False, prefill=False), {"endpoint": "chat/completions", "prefix": False}),
        (Manners(**NO_IDS, logprobs=False), {"logprobs": "none", "top_k": 0, "streaming": None, "prefix": True}),
    ],
)  # fmt: skip
def test_what_a_server_can_do_is_found_out(manners: Manners, expected: dict[str, Any]) -> None:
    found = report(manners)
    told = found.dict()
    assert {key: told[key] for key in expected} == expected
    capabilities = found.capabilities.dict()
    shared = capabilities.keys() & expected.keys()
    assert {key: capabilities[key] for key in shared} == {key: expected[key] for key in shared}


def test_a_mode_can_be_chosen() -> None:
    assert report(Manners(), mode="chat").dialect.path == "chat/completions"
    assert report(Manners(**NO_IDS), mode="completions").dialect.path == "completions"
    with pytest.raises(EngineError, match="404"):
        report(Manners(completions=False, **NO_IDS), mode="completions")


def test_a_server_that_stumbles_is_asked_again() -> None:
    def fault(number: int, body: Any) -> str | None:
        return ("429", "503", "cut", "json")[number % 4] if number % 2 else None

    expected = report(Manners())
    found = report(Manners(fault=fault))
    assert found.capabilities == expected.capabilities
    assert found.requests > expected.requests


def run(*args: str) -> Any:
    app = Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(args))


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Server(replace(Manners(), cached=True)) as server:
        shown = run(server.url.removesuffix("/v1"))
        told = run(server.url, "--model", MODEL, "--json")
        assert shown.exit_code == told.exit_code == 0, shown.exception
        assert "an answer cut in half goes on as the whole one did" in " ".join(shown.stdout.split())
        assert json.loads(told.stdout)["logprobs"] == "raw"
        assert KEY not in shown.output + told.output
        unknown = run(server.url, "--model", "nonesuch")
        assert isinstance(unknown.exception, WrongturnError)
        assert "it has toy" in str(unknown.exception)
