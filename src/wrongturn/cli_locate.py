"""The command ``wrongturn locate``: where failed traces were lost, found by resampling them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import wrongturn
from wrongturn.cli_common import Folder, Json, Seed, emit, estimate, out, progress_bars, table
from wrongturn.diagnose.recoverability.designs import FOUND
from wrongturn.errors import WrongturnError
from wrongturn.locating import METHODS, planner
from wrongturn.locating import locate as search
from wrongturn.pipeline import model_of, wait
from wrongturn.store import Run


def locate(
    folder: Folder,
    traces: Annotated[int | None, typer.Option(min=1, help="Most failed traces searched (all).")] = None,
    rollouts: Annotated[int, typer.Option(min=1, help="Continuations that may be spent on a trace.")] = 64,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "bisection",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The run's model (default: as it is named).")
    ] = None,
    base_url: Annotated[list[str] | None, typer.Option(help="The server of an openai model; repeatable.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find the step at which failed traces were lost, by continuing their prefixes; the rollouts join the run."""
    plan = planner(method, rollouts)
    settings = Run.open(folder).settings
    engine = wrongturn.open(model or spec(folder, settings), base_url=base_url or None)
    with Run.create(folder, settings) as run, progress_bars() as progress:
        found = wait(search(engine, run, plan, method=method, most=traces, seed=seed, progress=progress))
        run.compact()
    emit(found.dict(), as_json, print_onsets)


def spec(folder: Path, settings: dict[str, Any]) -> str:
    """How ``wrongturn.open`` names the engine that made a run; WrongturnError where the run does not say."""
    name = model_of(settings)
    if name is None:
        raise WrongturnError(f"{folder}: the run does not say which model wrote it: give --model")
    return name


def print_onsets(facts: dict[str, Any]) -> None:
    listed = table("Onsets", "trace", "steps", "located", "95 %", "true", "token", "true", "p", "rollouts", "")
    for row in facts["traces"]:
        onset = row["onset"]
        listed.add_row(
            row["trace"],
            str(row["steps"]),
            "–" if onset["step"] is None else str(onset["step"]),
            span(onset["steps"]),
            "–" if row["true_step"] is None else str(row["true_step"]),
            "–" if onset["token"] is None else span(onset["tokens"]),
            "–" if row["true_token"] is None else str(row["true_token"]),
            "–" if onset["p"] is None else f"{onset['p']:.2g}",
            str(onset["rollouts"]),
            onset["status"] + (f": {onset['reason']}" if onset["reason"] else ""),
        )
    out.print(listed)
    counted = ", ".join(f"{n} {name}" for name, n in facts["status"].items())
    out.print(f"{facts['searched']} of {facts['failed']} failed traces searched by {facts['method']}: {counted}")
    for name, key in (("all with a known onset", "near"), (f"those {FOUND}", "near_found")):
        e = facts[key]
        if e["value"] is not None:
            out.print(f"within one step of the true onset, {name}: {estimate(e)} %; a random step: {chance(e)} %")
    out.print(f"spent: {facts['rollouts']} rollouts, {facts['decoded_tokens']} tokens")


def span(pair: tuple[int, int] | None) -> str:
    if pair is None:
        return "–"
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}–{pair[1]}"


def chance(e: dict[str, Any]) -> str:
    return "–" if e["base_rate"] is None else f"{100 * e['base_rate']:.1f}"
