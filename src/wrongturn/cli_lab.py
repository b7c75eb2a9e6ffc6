"""The commands ``wrongturn lab …``: train small reasoners, and see how well they search and how they fail."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from wrongturn.cli_common import Json, Seed, emit, estimate, out, progress_bars, svg_file, table, warn, write_picture
from wrongturn.cli_train import export, posttrain, train
from wrongturn.errors import WrongturnError

lab = typer.Typer(help="Train small reasoners, and see how learned search fails.", no_args_is_help=True)
lab.command()(train)
lab.add_typer(posttrain, name="posttrain")
lab.command()(export)

Distributions = Annotated[
    list[str] | None,
    typer.Option("--graphs", help="G<nodes>_<shortest>,<longest path>, Countdown: C<numbers>. Default: the task's."),
]
Plot = Annotated[Path | None, typer.Option(help="Write the picture to this .svg file.")]
Problems = Annotated[int, typer.Option("--problems", "-n", min=1, help="Problems per distribution.")]


@lab.command(name="eval")
def evaluate(
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(help="Checkpoint or exported folders, or packaged models; default: the reasoner."),
    ] = None,
    graphs: Distributions = None,
    problems: Problems = 500,
    seed: Seed = 1,
    sampled: Annotated[bool, typer.Option("--sampled", help="One sample at temperature 1, not greedy.")] = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """How often a reasoner finds the path (Countdown: a solution), and how often its whole trace is right.

    Several reasoners are asked the same, and put into one table.
    """
    from wrongturn.lab.evaluate import evaluate as measure

    svg_file(plot)
    asked = {"n": problems, "seed": seed, "sampled": sampled}
    with progress_bars() as progress:
        found = [measure(each, graphs, progress=progress, **asked) for each in checkpoints or [None]]
    if plot is not None:
        from wrongturn.lab.picture import accuracy, stack

        about = f"{found[0]['decoding']}, {problems} problems a distribution, 95 % intervals"
        write_picture(plot, stack([accuracy(f"{one['model']}: {about}", one["results"], known(one)) for one in found]))
    one = found[0]
    flat = one["results"][0] | {k: v for k, v in one.items() if k != "results"} if len(one["results"]) == 1 else one
    emit(flat if len(found) == 1 else {"models": found}, as_json, lambda _: print_accuracy(found))


def known(found: dict[str, Any]) -> list[tuple[float, float] | None]:
    """The published figures beside a model's results: of its size, else the range; None where nothing is published."""
    from wrongturn.lab import published

    if found["task"] != "graph_search":
        return [None] * len(found["results"])
    size = found["layers"], found["heads"]
    return [published.accuracy(row["distribution"], *size) for row in found["results"]]


def figures(of: tuple[float, float] | None) -> str:
    low, high = of or (None, None)
    return "–" if low is None else f"{low:.1f}" if low == high else f"{low:.0f} – {high:.0f}"


def print_accuracy(found: list[dict[str, Any]]) -> None:
    """A row for each distribution; of several models one for each, those of one distribution together."""
    several = len(found) > 1
    about = f"{', '.join({one['task']: '' for one in found})}, {found[0]['decoding']}, %"
    heads = ("answer", "whole trace", "published")
    shown = (
        table(about, "", "model", *heads) if several else table(f"{found[0]['model']}, {about}", "", *heads, "errors")
    )
    names = list(dict.fromkeys(row["distribution"] for one in found for row in one["results"]))
    rows = [(one, row, theirs) for one in found for row, theirs in zip(one["results"], known(one), strict=True)]
    for one, row, theirs in sorted(rows, key=lambda of: names.index(of[1]["distribution"])):
        cells = [*(estimate(row[k], digits=0) for k in ("path_accuracy", "trace_accuracy")), figures(theirs)]
        errors = ", ".join(f"{name} {n}" for name, n in list(row["first_errors"].items())[:2])
        model = f"{Path(one['model']).name} {one['layers']}x{one['heads']}"
        shown.add_row(row["distribution"], *([model, *cells] if several else [*cells, errors or "none"]))
    for column in shown.columns:
        column.no_wrap = True
    out.print(shown)
    legend = f"{rows[0][1]['path_accuracy']['n']} problems each, {sum(one['seconds'] for one in found):.1f} s"
    if not several:
        legend += f", {found[0]['layers']} layers x {found[0]['heads']} heads; errors: the most frequent"
    if any(theirs for _, _, theirs in rows):
        legend += ".\nPublished: the same size, else the range over five sizes (paths or traces: not said)"
    out.print(f"{legend}.", style="dim")


@lab.command()
def anatomy(
    source: Annotated[
        str | None, typer.Argument(help="A run folder, or what 'eval' takes; default: the packaged reasoner.")
    ] = None,
    graphs: Distributions = None,
    problems: Problems = 200,
    samples: Annotated[int, typer.Option(min=1, help="Samples per problem.")] = 4,
    seed: Seed = 1,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """What the first wrong token of a failed search does, what of it was in vain; of Countdown, the four habits."""
    from wrongturn.lab.anatomy import anatomies

    svg_file(plot)
    traces, asked, name = searches(source, graphs, problems, samples, seed)
    found = [one.dict() for one in anatomies(traces, asked)]
    unchecked = Counter(t.task for t in traces) - Counter({one["task"]: len(traces) for one in found})
    for task, n in unchecked.items():
        warn(f"{name}: {n} traces of {task} left out, whose tokens cannot be checked")
    if plot is not None:
        write_picture(plot, drawn(name, found))
    flat = found[0] if len(found) == 1 else {"tasks": found}
    emit({"source": name} | flat, as_json, print_anatomies)


def drawn(name: str, found: list[dict[str, Any]]) -> str:
    """Task by task the first errors, and the habits where it has them."""
    from wrongturn.lab import picture

    pictures = []
    for one in found:
        title = name if len(found) == 1 else f"{name}, {one['task']}"
        pictures.append(picture.errors(f"{title}: first errors", one["groups"]))
        if "habits" in one:
            pictures.append(picture.habits(f"{title}: habits, 95 % intervals", one["habits"]["groups"]))
    return picture.stack(pictures)


def searches(source: str | None, graphs: list[str] | None, n: int, samples: int, seed: int):
    """Traces and problems of a run's plain samples, or fresh ones of a model; and what to call them."""
    import wrongturn
    from wrongturn.lab.evaluate import sample

    if source is not None and (Path(source) / "run.json").exists():
        if graphs:
            raise WrongturnError(f"{source} is a run, whose problems are given: leave out --graphs")
        run = wrongturn.Run.open(source)
        return list(run.traces(strategy="sample")), run.problems(), source
    with progress_bars() as progress:
        traces, asked = sample(source, graphs, n=n, samples=samples, seed=seed, progress=progress)
    return traces, asked, source or "packaged"


def print_anatomies(facts: dict[str, Any]) -> None:
    for one in facts.get("tasks", [facts]):
        print_anatomy(one)


def print_anatomy(facts: dict[str, Any]) -> None:
    kinds = list(facts["groups"][0]["shares"])
    first = table(f"{facts['task']}: first errors, % of all traces", "", *kinds, "failed")
    for group in facts["groups"]:
        shares = (f"{100 * group['shares'][kind]['value']:.1f}" for kind in kinds)
        first.add_row(group["distribution"], *shares, f"{group['failed']} of {group['traces']}")
    out.print(first)
    if facts["claims"]:
        held = table("Observations published of breadth-first search", "observation", "verdict", "here, %", "problems")
        for claim in facts["claims"]:
            held.add_row(claim["text"], claim["verdict"], estimate(claim["estimate"]), str(claim["n"]))
        held.columns[2].no_wrap = True
        out.print(held)
    if "habits" in facts:
        print_habits(facts["habits"])
    steps = facts["failed_steps"]
    out.print(
        f"Failed steps: {estimate(steps['right'])} % of the {'steps' if 'habits' in facts else 'expansions'} of right "
        f"traces,\n{estimate(steps['wrong'])} % of wrong ones. Wrong from right within a problem (AUROC):\n"
        f"{estimate(steps['within'], percent=False)}, {steps['within']['n']} problems; by length alone "
        f"{estimate(steps['length_within'], percent=False)}."
    )


def print_habits(habits: dict[str, Any]) -> None:
    for group in habits["groups"]:
        n = group["traces"]
        title = f"{group['distribution']}: habits in right and wrong traces ({n['right']} of {n['all']} are right)"
        shown = table(title, "", "right, %", "wrong, %", "lines, right", "lines, wrong")
        for habit, of in group["habits"].items():
            shares = (estimate(of[kind]["share"], digits=0) for kind in ("right", "wrong"))
            counts = (estimate(of[kind]["count"], percent=False, digits=0) for kind in ("right", "wrong"))
            shown.add_row(habit.replace("_", " "), *shares, *counts)
        out.print(shown)
    tells = table("Wrong from right by such lines (AUROC)", "", "all traces", "within a problem", "problems")
    for habit, within in habits["within"].items():
        pooled = habits["pooled"][habit]
        all_traces = "–" if pooled is None else f"{pooled:.2f}"
        tells.add_row(habit.replace("_", " "), all_traces, estimate(within, percent=False), str(within["n"]))
    length = habits["length_within"]
    tells.add_row("length alone", "", estimate(length, percent=False), str(length["n"]))
    out.print(tells)
