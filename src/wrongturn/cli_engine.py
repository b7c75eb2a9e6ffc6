"""The command ``wrongturn engine serve``: an engine for other programs to use."""

from __future__ import annotations

from typing import Annotated

import typer

import wrongturn
from wrongturn.cli_common import out, warn
from wrongturn.engines import SPECS
from wrongturn.errors import extra

engine = typer.Typer(help="An engine for other programs to use.", no_args_is_help=True)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@engine.callback()
def _group() -> None:
    """One command is a group of one, not the group itself."""


@engine.command()
def serve(
    model: Annotated[str, typer.Option("--model", "-m", help=f"One of {', '.join(SPECS)}.")] = "embedded",
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reachable from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="WRONGTURN_API_KEY",
            show_envvar=True,
            help="Key that clients must send as their bearer token; none by default.",
        ),
    ] = None,
) -> None:
    """Serve an engine as an OpenAI-compatible API (needs the extra "serve"). Ctrl-C stops it."""
    with extra("serve", "serving an engine"):
        from wrongturn.server import serve as server
    opened = wrongturn.open(model)
    if host not in LOOPBACK and not api_key:
        warn(f"anyone who reaches {host} can use this server; --api-key asks them for a key")

    def started(address: str) -> None:
        out.print(f"serving {opened.model} at {address} (Ctrl-C stops it)", soft_wrap=True, highlight=False)

    server.serve(opened, host, port, api_key or None, started)
