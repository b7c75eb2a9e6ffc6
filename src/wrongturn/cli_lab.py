"""The commands ``wrongturn lab …``: train small reasoners, and see how well they search and how they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wrongturn.cli_common import Json, Seed, emit, estimate, out, progress_bars, svg_file, table, write_picture
from wrongturn.cli_train import export, posttrain, train
from wrongturn.errors import WrongturnError

lab = typer.Typer(help="Train small reasoners, and see how learned search fails.", no_args_is_help=True)
lab.command()(train)
lab.add_typer(posttrain, name="posttrain")
lab.command()(export)

Distributions = Annotated[
    list[str] | None,
    typer.Option("--graphs", help="G<nodes>_<shortest>,<longest path>; repeatable. Default: the published six."),
]
Plot = Annotated[Path | None, typer.Option(help="Write the picture to this .svg file.")]
Problems = Annotated[int, typer.Option("--problems", "-n", min=1, help="Problems per distribution.")]
Model = Annotated[
    str | None, typer.Argument(help="A checkpoint or exported folder, or a packaged model; default: the reasoner.")
]


@lab.command(name="eval")
def evaluate(
    checkpoint: Model = None,
    graphs: Distributions = None,
    problems: Problems = 500,
    seed: Seed = 1,
    sampled: Annotated[bool, typer.Option("--sampled", help="One sample at temperature 1, not greedy.")] = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """How often a reasoner finds the path, and how often its whole trace is right."""
    from wrongturn.lab import published
    from wrongturn.lab.evaluate import evaluate as measure

    svg_file(plot)
    with progress_bars() as progress:
        found = measure(
            checkpoint, graphs or published.DISTRIBUTIONS, n=problems, seed=seed, sampled=sampled, progress=progress
        )
    known = [published.accuracy(row["distribution"], found["layers"], found["heads"]) for row in found["results"]]
    if plot is not None:
        from wrongturn.lab.picture import accuracy

        title = f"{found['model']}: {found['decoding']}, {problems} problems a distribution, 95 % intervals"
        write_picture(plot, accuracy(title, found["results"], known))
    flat = found["results"][0] | {k: v for k, v in found.items() if k != "results"} if len(known) == 1 else found
    emit(flat, as_json, lambda _: print_accuracy(found, known))


def print_accuracy(found: dict[str, Any], known: list[tuple[float, float] | None]) -> None:
    shown = table(f"{found['model']}, {found['decoding']}, %", "graphs", "path", "whole trace", "published", "errors")
    for row, figures in zip(found["results"], known, strict=True):
        low, high = figures or (None, None)
        theirs = "–" if low is None else f"{low:.1f}" if low == high else f"{low:.0f} – {high:.0f}"
        errors = [f"{name} {n}" for name, n in row["first_errors"].items()]
        paths, traces = (estimate(row[k], digits=0) for k in ("path_accuracy", "trace_accuracy"))
        shown.add_row(row["distribution"], paths, traces, theirs, ", ".join(errors[:2]) or "none")
    for column in shown.columns:
        column.no_wrap = True
    out.print(shown)
    size = f"{found['layers']} layers x {found['heads']} heads"
    out.print(
        f"{found['results'][0]['path_accuracy']['n']} problems each, {size}, {found['seconds']} s; errors: the most "
        f"frequent.\nPublished: the same size, else the range over five sizes (paths or traces: not said).",
        style="dim",
    )


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
    """What the first wrong token of a failed search does, and what the published observations say about it."""
    from wrongturn.lab.anatomy import anatomy as dissect

    svg_file(plot)
    traces, asked, name = searches(source, graphs, problems, samples, seed)
    facts: dict[str, Any] = {"source": name} | dissect(traces, asked).dict()
    if plot is not None:
        from wrongturn.lab.picture import errors

        write_picture(plot, errors(f"{name}: first errors", facts["groups"]))
    emit(facts, as_json, print_anatomy)


def searches(source: str | None, graphs: list[str] | None, n: int, samples: int, seed: int):
    """Traces and problems of a run's plain samples, or fresh ones of a model; and what to call them."""
    import wrongturn
    from wrongturn.lab import published
    from wrongturn.lab.evaluate import sample

    if source is not None and (Path(source) / "run.json").exists():
        if graphs:
            raise WrongturnError(f"{source} is a run, whose problems are given: leave out --graphs")
        run = wrongturn.Run.open(source)
        return list(run.traces(strategy="sample")), run.problems(), source
    with progress_bars() as progress:
        traces, asked = sample(
            source, graphs or published.DISTRIBUTIONS, n=n, samples=samples, seed=seed, progress=progress
        )
    return traces, asked, source or "packaged"


def print_anatomy(facts: dict[str, Any]) -> None:
    kinds = list(facts["groups"][0]["shares"])
    first = table("First errors, % of all traces", "graphs", *kinds, "failed")
    for group in facts["groups"]:
        shares = (f"{100 * group['shares'][kind]['value']:.1f}" for kind in kinds)
        first.add_row(group["distribution"], *shares, f"{group['failed']} of {group['traces']}")
    out.print(first)
    held = table("Published observations", "observation", "verdict", "here, %", "problems")
    for claim in facts["claims"]:
        held.add_row(claim["text"], claim["verdict"], estimate(claim["estimate"]), str(claim["n"]))
    held.columns[2].no_wrap = True
    out.print(held)
    steps = facts["failed_steps"]
    out.print(
        f"Failed steps: {estimate(steps['right'])} % of the expansions of right traces,\n"
        f"{estimate(steps['wrong'])} % of wrong ones. Wrong from right within a problem (AUROC):\n"
        f"{estimate(steps['within'], percent=False)}, {steps['within']['n']} problems; by length alone "
        f"{estimate(steps['length_within'], percent=False)}."
    )
