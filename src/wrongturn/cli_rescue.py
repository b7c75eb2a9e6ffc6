"""The command ``wrongturn rescue``: failed problems tried again with every operator, and who would have chosen well."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import wrongturn
from wrongturn.cli_common import (
    Folder,
    Json,
    Seed,
    emit,
    estimate,
    out,
    progress_bars,
    svg_file,
    table,
    warn,
    write_picture,
)
from wrongturn.cli_locate import spec
from wrongturn.errors import WrongturnError
from wrongturn.pipeline import wait
from wrongturn.store import Run

AncestorOf = Annotated[
    str | None, typer.Option("--ancestor", "-a", help="The model it was trained from: a name, a folder.")
]
ModelOf = Annotated[str | None, typer.Option("--model", "-m", help="The run's model (default: as it is named).")]


def rescue(
    folder: Folder,
    ancestor: AncestorOf = None,
    model: ModelOf = None,
    operator: Annotated[
        list[str] | None, typer.Option(help="An operator or any strategy; repeatable. Default: all the engine can do.")
    ] = None,
    tries: Annotated[int, typer.Option(min=2, help="Tries of each operator on each failed problem.")] = 12,
    problems: Annotated[int | None, typer.Option("--problems", "-n", min=1, help="Most failed problems.")] = None,
    budget: Annotated[
        float | None, typer.Option(help="Decoded tokens a router may spend on a problem. Default: two retries.")
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Also try problems whose samples disagree, as where nobody grades.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Write the pictures: NAME.svg, and NAME-matrix.svg.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Try failed problems again with every operator, and compare routers at equal tokens; the tries join RUN/rescue."""
    from wrongturn.routes import rescued
    from wrongturn.routing import figure

    svg_file(plot)
    run = Run.open(folder)
    options: dict[str, Any] = {} if ancestor is None else {"ancestor": ancestor}
    engine = wrongturn.open(model or spec(folder, run.settings), **options)
    with progress_bars() as progress:
        found = wait(
            rescued(
                engine,
                run,
                operator or None,
                tries=tries,
                most=problems,
                budget=budget,
                blind=blind,
                seed=seed,
                progress=progress,
            )
        )
    if plot is not None and found.comparison is None:
        raise WrongturnError(f"{folder}: no routers to draw: {found.reason}")
    if plot is not None and found.comparison is not None:
        write_picture(plot, figure.routers(folder.name, found.comparison))
        write_picture(plot.with_stem(f"{plot.stem}-matrix"), figure.matrix(folder.name, found.tried.outcomes))
    emit(found.dict(), as_json, print_rescue)


def print_rescue(facts: dict[str, Any]) -> None:
    within = {row["router"]: row for row in facts["operators"]}
    budget = f"in {facts['budget']:.0f} tokens, %" if within else ""
    tried = table(f"Operators, {facts['failures']} failed problems", "operator", "a try, %", "tokens", "tries", budget)
    for row in sorted(facts["tried"], key=lambda row: -rank(row, within)):
        shown = estimate(flat(within[row["operator"]])) if within else ""
        name = row["operator"]
        tried.add_row(name, estimate(row["rate"]), f"{row['tokens']:.0f}", str(row["tries"]), shown)
    out.print(tried)
    if not facts["comparison"]:
        warn(f"no routers: {facts['reason']}")
        return
    compared = table("Routers, rescued %", "router", "rescued", "less retry", "less best fixed")
    for row in sorted(facts["comparison"], key=lambda row: -(row["rescued"] or 0.0)):
        compared.add_row(
            row["router"],
            estimate(flat(row)),
            estimate(row["minus_retry"], signed=True),
            estimate(row["minus_best_fixed"], signed=True),
        )
    out.print(compared)
    deals = facts["shuffled"]
    out.print(
        f"the router's choices dealt out anew within groups: {100 * deals['rescued']:.1f} % "
        f"[{100 * deals['low']:.1f}, {100 * deals['high']:.1f}], p = {deals['p']:.2g}"
    )
    hard = facts["comparison"][0]["subsets"]["steerable"]["n"]
    if hard:
        shown = {row["router"]: estimate(flat(row["subsets"]["steerable"])) for row in facts["comparison"]}
        told = "; ".join(f"{name} {shown[name]}" for name in ("router", "best fixed", "retry"))
        out.print(f"on {hard} hard problems that some operator helps: {told}")
    if facts["left_out"]:
        out.print(f"{facts['left_out']} problems left out: not two tries of every operator")
    for name in ("oracle", "bandit"):
        out.print(f"{name}: {facts['caveats'][name]}", style="dim")
    if facts["without_grader"]:
        out.print()
        print_ungraded(facts["without_grader"])
    elif facts["reason"]:
        warn(f"what is left of it where nobody grades cannot be told: {facts['reason']}")


def print_ungraded(facts: dict[str, Any]) -> None:
    """What is left of it where nobody grades."""
    title = (
        f"Nobody grades: {estimate(facts['flagged'])} % of {facts['problems']} problems are flagged "
        f"(fewer than {100 * facts['agreement_below']:.0f} % of {facts['samples']} samples agree)"
    )
    listed = table(title, "flagged problems get", "right, %", "tokens a problem", "less retry", "less failures known")
    for arm in facts["arms"]:
        listed.add_row(
            arm["arm"],
            estimate(arm["accuracy"]),
            f"{arm['decoded_tokens']:.0f}",
            estimate(arm["minus_retry"], signed=True),
            estimate(arm["minus_known"], signed=True),
        )
    out.print(listed)


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """The rescued share of a row as an estimate."""
    return {"value": row["rescued"]} | {key: row[key] for key in ("low", "high", "n")}


def rank(row: dict[str, Any], within: dict[str, Any]) -> float:
    """What an operator rescues within the budget, or in one try."""
    found = within[row["operator"]]["rescued"] if within else row["rate"]["value"]
    return found or 0.0
