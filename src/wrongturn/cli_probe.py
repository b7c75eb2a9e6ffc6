"""The command ``wrongturn probe``: what a server can do."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from wrongturn.cli_common import Json, emit, out, table
from wrongturn.errors import WrongturnError, extra


def probe(
    url: Annotated[str, typer.Argument(help="The server's base URL, e.g. http://localhost:8000/v1.")],
    model: Annotated[str | None, typer.Option(help="Model to ask. Default: the only one the server has.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or name of the model's tokenizer, to compare it with the server's.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="Endpoint: 'completions', 'chat', or 'auto' for the one that can do more.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Find out what an OpenAI-compatible server can do: logprobs, token ids, prefixes, seeds.

    Sends a few dozen requests of a few tokens each, with the key in OPENAI_API_KEY if there is one.
    """
    with extra("openai", "the engine 'openai'"):
        from wrongturn.engines.openai import OpenAI
        from wrongturn.engines.probe import ProbeReport

    async def ask() -> ProbeReport:
        name = model
        if name is None:
            listed = [m["id"] for m in await OpenAI("", url).server.models() or []]
            if len(listed) != 1:
                raise WrongturnError(f"{url} lists {', '.join(listed) or 'no models'}: name one with --model")
            name = listed[0]
        engine = OpenAI(name, url, tokenizer=tokenizer, mode=mode)
        await engine.ready()
        assert engine.report is not None
        return engine.report

    report = asyncio.run(ask())
    emit(report.dict(), as_json, lambda _: show(report))


def show(report: Any) -> None:
    """The findings as a table, a sentence each."""
    found = table(f"{report.model} at {report.url}", "what", "found", "that is")
    for finding in report.findings:
        value = {True: "yes", False: "no", None: "?"}.get(finding.value, str(finding.value))
        found.add_row(finding.key.replace("_", " "), value, finding.says)
    out.print(found)
    out.print(f"{report.requests} requests; server version: {report.version or 'not told'}", style="dim")
