"""The commands ``wrongturn route …``: fit a policy to a run whose failures were rescued, and say what one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from wrongturn.cli_common import Folder, Json, Seed, emit, out, table
from wrongturn.store import Run

route = typer.Typer(help="Policies: which operator a problem gets, as a file.", no_args_is_help=True)


@route.command()
def fit(
    folder: Folder,
    file: Annotated[Path, typer.Option("--out", "-o", help="Where the policy is written.")],
    budget: Annotated[
        float | None, typer.Option(help="Decoded tokens it may spend on a problem. Default: two retries.")
    ] = None,
    graded: Annotated[
        bool,
        typer.Option("--graded", help="For where failures are known, from tries of these."),
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="One that needs no ancestor.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit a policy to the tries of ``wrongturn rescue --blind``; ``wrongturn run --policy FILE`` follows it."""
    from wrongturn import routes

    policy = routes.fit(Run.open(folder), budget=budget, graded=graded, plain=plain, seed=seed)
    policy.save(file)
    emit(json.loads(policy.to_json()) | {"file": str(file)}, as_json, print_policy)


@route.command()
def show(
    file: Annotated[Path, typer.Argument(help="A policy.")],
    as_json: Json = False,
) -> None:
    """What a policy does, and what it was fitted on."""
    from wrongturn.routing import Policy

    emit(json.loads(Policy.load(file).to_json()) | {"file": str(file)}, as_json, print_policy)


def print_policy(facts: dict[str, Any]) -> None:
    rule, trigger = facts["rule"], facts["trigger"]
    when = "every problem"
    if trigger is not None:
        when = (
            f"problems where less than {100 * trigger['agreement_below']:.0f} % of {trigger['samples']} samples agree"
        )
    at = f" at temperature {facts['temperature']:g}" if facts["signals"] == "two-model" else ""
    out.print(f"{facts['file']}: {when}; {facts['budget']:.0f} decoded tokens each; {facts['signals']} signals{at}")
    if rule["kind"] == "linear":
        listed = table("Plans; odds of each, a standard deviation of a feature", "plan", "base", "largest weights")
        for row in rule["plans"]:
            largest = sorted(row["weights"].items(), key=lambda item: -abs(item[1]))[:3]
            weights = ", ".join(f"{name} {weight:+.2f}" for name, weight in largest)
            listed.add_row(" + ".join(row["plan"]), f"{row['intercept']:+.2f}", weights)
        out.print(listed)
        first = " + ".join(rule["plans"][0]["plan"])
        out.print(f"the likeliest, where it is {100 * rule['margin']:.0f} points above {first}; else that")
    elif rule["kind"] == "threshold":
        (name, reference), *_ = facts["features"].items()
        cut = reference["mean"] + rule["cut"] * reference["sd"]
        out.print(f"{name} at most {cut:.3g}: {said(rule['below'])}; above: {said(rule['above'])}")
    else:
        out.print(f"{rule['kind']}: " + ", ".join(f"{k} {said(v)}" for k, v in rule.items() if k != "kind"))
    origin = facts["provenance"]
    out.print(
        f"fitted on {origin.get('problems', '?')} failed problems of {origin.get('model', 'a model')}", style="dim"
    )


def said(value: Any) -> str:
    if isinstance(value, list):
        return " + ".join(value)
    return json.dumps(value) if isinstance(value, dict) else str(value)
