"""The command line. No logic of its own: every command is one call of :mod:`wrongturn.pipeline`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import wrongturn
from wrongturn.cli_modes import modes
from wrongturn.errors import WrongturnError

app = typer.Typer(
    name="wrongturn",
    help="Find where a language model's reasoning takes a wrong turn, and get it back on the road.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
lab = typer.Typer(help="Train small reasoners from scratch (extra: wrongturn[lab]).", no_args_is_help=True)
app.add_typer(lab, name="lab")
app.command()(modes)

out, err = Console(), Console(stderr=True)

DISTRIBUTIONS = ("G15_2,4", "G15_5,6", "G20_5,6")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to stderr.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.")]
Graphs = Annotated[
    list[str], typer.Option("--graphs", help="Graph distribution, G<nodes>_<shortest>,<longest path>; repeatable.")
]
Count = Annotated[int, typer.Option("--problems", "-n", min=1, help="Problems per distribution.")]
Samples = Annotated[int, typer.Option(min=1, help="Plain samples per problem.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")]
Budget = Annotated[int | None, typer.Option(min=1, help="Cap on decoded tokens per problem, all branches counted.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest completion, in tokens.")]
EngineName = Annotated[str, typer.Option("--engine", help="'embedded', or 'embedded:FOLDER' with an exported model.")]
Folder = Annotated[Path, typer.Argument(help="A run folder.")]


# -- commands ----------------------------------------------------------------------------------------------------------


@app.command()
def run(
    folder: Annotated[Path, typer.Option("--out", "-o", help="Run folder; the same command resumes it.")] = Path(
        "wrongturn-run"
    ),
    graphs: Graphs = list(DISTRIBUTIONS),  # noqa: B006 (typer copies it)
    problems: Count = 50,
    samples: Samples = 4,
    strategy: Annotated[list[str], typer.Option(help="Strategy to compare with plain sampling; repeatable.")] = [  # noqa: B006
        "self_consistency:n=8",
        "guard",
    ],
    engine: EngineName = "embedded",
    temperature: Temperature = 1.0,
    budget: Budget = None,
    max_tokens: MaxTokens = 192,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Solve problems, see where they fail, try to rescue them, and write a report."""
    with progress_bars() as progress:
        summary = wrongturn.run(
            wrongturn.open(engine),
            graph_problems(graphs, problems, seed),
            out=folder,
            samples=samples,
            strategies=strategy,
            progress=progress,
            sampling=wrongturn.Sampling(temperature),
            budget=budget,
            max_tokens=max_tokens,
            seed=seed,
        )
    emit(summary, as_json, print_summary)


@app.command()
def collect(
    folder: Annotated[Path, typer.Option("--out", "-o", help="Run folder; the same command resumes it.")],
    graphs: Graphs = list(DISTRIBUTIONS),  # noqa: B006
    problems: Count = 50,
    samples: Samples = 1,
    strategy: Annotated[str, typer.Option(help="How each problem is solved, e.g. 'guard:q=0.8'.")] = "sample",
    engine: EngineName = "embedded",
    temperature: Temperature = 1.0,
    budget: Budget = None,
    max_tokens: MaxTokens = 192,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Collect traces into a run folder."""
    with progress_bars() as progress:
        collected = wrongturn.collect(
            wrongturn.open(engine),
            graph_problems(graphs, problems, seed),
            out=folder,
            strategy=strategy,
            samples=samples,
            progress=progress,
            sampling=wrongturn.Sampling(temperature),
            budget=budget,
            max_tokens=max_tokens,
            seed=seed,
        )
    facts = {"run": str(folder), "traces": len(collected.done()), "problems": len(collected.problems())}
    emit(facts, as_json, lambda f: out.print(f"{f['traces']} traces of {f['problems']} problems in {f['run']}"))


@app.command()
def diagnose(folder: Folder, seed: Seed = 0, as_json: Json = False) -> None:
    """Where the run's traces failed: onset, entropy, claims."""
    emit(wrongturn.diagnose(wrongturn.Run.open(folder), seed=seed).dict(), as_json, print_study)


@app.command()
def report(folder: Folder, seed: Seed = 0, as_json: Json = False) -> None:
    """Write the run's report.html again."""
    emit(wrongturn.report(wrongturn.Run.open(folder), seed=seed), as_json, print_summary)


@app.command()
def show(
    folder: Folder,
    trace: Annotated[str | None, typer.Argument(help="Trace id; without one, a list of traces.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only wrong answers.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most traces listed.")] = 20,
    as_json: Json = False,
) -> None:
    """Show a trace in the terminal, its tokens shaded by entropy, or list the traces of a run."""
    stored = wrongturn.Run.open(folder)
    if trace is not None:
        found = next((t for t in stored.traces() if t.id == trace), None)
        if found is None:
            raise WrongturnError(f"{folder}: no trace {trace!r} (wrongturn show {folder} lists them)")
        emit(trace_facts(found), as_json, lambda _: print_trace(found, stored.problems()[found.problem].prompt))
        return
    listed = [t for t in stored.traces() if not (failed and t.correct)]
    facts = {"traces": len(listed), "shown": [trace_facts(t, brief=True) for t in listed[:limit]]}
    emit(facts, as_json, print_list)


@lab.command()
def train(
    task: Annotated[str, typer.Argument(help="What to learn; there is 'graph_search'.")],
    folder: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint folder; the same command resumes it.")],
    tokens: Annotated[str, typer.Option(help="Training tokens, e.g. 42M.")] = "42M",
    layers: Annotated[int, typer.Option(min=1)] = 4,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    width: Annotated[int, typer.Option(min=8)] = 128,
    ffn: Annotated[int, typer.Option(min=8)] = 256,
    lr: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 2e-3,
    optimizer: Annotated[str, typer.Option(help="'muon' or 'adamw'.")] = "muon",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")] = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a reasoner from scratch; a killed training goes on from its last checkpoint."""
    if task != "graph_search":
        raise WrongturnError(f"unknown task {task!r} (expected 'graph_search')")
    if width % heads or (width // heads) % 16:
        raise WrongturnError(f"--width {width} with --heads {heads}: a head's size must be a multiple of 16")
    if optimizer not in ("muon", "adamw"):
        raise WrongturnError(f"unknown optimizer {optimizer!r} (expected 'muon' or 'adamw')")
    try:
        import torch

        from wrongturn.lab.export import export
        from wrongturn.lab.model import ModelConfig
        from wrongturn.lab.train import TrainConfig
        from wrongturn.lab.train import train as fit
    except ModuleNotFoundError as missing:
        raise WrongturnError(f"the lab needs {missing.name}: pip install 'wrongturn[lab]'") from None
    if threads:
        torch.set_num_threads(threads)
    model = ModelConfig(layers=layers, heads=heads, width=width, ffn=ffn)
    config = TrainConfig(model=model, tokens=count(tokens), lr=lr, optimizer=optimizer, seed=seed)
    last: dict[str, float] = {}
    with progress_bars() as progress:

        def tell(record: dict[str, float]) -> None:
            last.update(record)
            what = f"loss {record['loss']:.3f}, {record['tokens_per_second']:,.0f} tokens/s"
            progress(
                what + (f", exact {last['exact']:.1%}" if "exact" in last else ""), int(record["tokens"]), config.tokens
            )

        fit(config, folder, report=tell)
    export(folder, folder / "export")
    emit(last | {"checkpoint": str(folder), "export": str(folder / "export")}, as_json, lambda f: out.print(f))


# -- what commands share -----------------------------------------------------------------------------------------------


def graph_problems(graphs: list[str], n: int, seed: int) -> list[wrongturn.Problem]:
    """``n`` problems of each distribution."""
    task = wrongturn.tasks.GraphSearch()
    return [problem for name in graphs for problem in task.problems(name, n, seed)]


def count(text: str) -> int:
    """``"42M"`` -> 42 000 000; WrongturnError for anything else."""
    scale = {"k": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
    try:
        value = round(float(text[:-1] if scale > 1 else text) * scale)
    except ValueError:
        value = 0
    if value < 1:
        raise WrongturnError(f"--tokens {text!r} is no number of tokens (expected e.g. 500k or 42M)")
    return value


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress callback that draws one bar per stage on stderr."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bars:
        stages: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            stage = what.partition(" ")[0]  # a training's description changes, its stage does not
            if stage not in stages:
                stages[stage] = bars.add_task(what, total=total)
            bars.update(stages[stage], description=what, completed=done, total=total)

        try:
            yield progress
        except KeyboardInterrupt:
            raise Interrupted from None  # under a name of our own: the option parser would swallow the other


def emit(facts: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """One JSON object, or the same for people."""
    if as_json:
        sys.stdout.write(json.dumps(facts, allow_nan=False) + "\n")
    else:
        show(facts)


def estimate(e: dict[str, Any] | None, percent: bool = True, signed: bool = False, digits: int = 1) -> str:
    """``84.0 [80.1, 87.3]``, in percent or (with one more digit) as it is."""
    if not e or e["value"] is None:
        return "–"
    scale, digits = (100, digits) if percent else (1, digits + 1)
    value, low, high = (None if e[k] is None else e[k] * scale for k in ("value", "low", "high"))
    shown = f"{value:{'+' if signed else ''}.{digits}f}"
    return shown if low is None or high is None else f"{shown} [{low:.{digits}f}, {high:.{digits}f}]"


def table(title: str, *columns: str) -> Table:
    """A table without rules, its title on the left."""
    return Table(
        *columns,
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def print_summary(summary: dict[str, Any]) -> None:
    accuracy = table("Accuracy of one sample, %", "distribution", "right answers", "problems")
    for group, e in summary["accuracy"].items():
        accuracy.add_row(group, estimate(e), str(e["n"]))
    out.print(accuracy)
    print_claims(summary["claims"])
    onset = summary["onset"]
    out.print(
        f"Median onset: {estimate(onset['median'])} % into a failed trace;\n"
        f"{estimate(onset['share_30'])} % of failures begin in the first 30 %.\n"
    )
    compared = table(
        "Strategies, paired per problem, %", "strategy", "right", "tokens", "against sample", "at equal tokens"
    )
    for row in summary["comparison"]:
        compared.add_row(
            row["strategy"],
            estimate(row["accuracy"], digits=0),
            f"{row['decoded_tokens']:.0f}",
            estimate(row["difference"], signed=True),
            estimate(row["equal_tokens"], signed=True),
        )
    out.print(compared)
    out.print("tokens: decoded a problem, all branches; at equal tokens: to self-consistency\n", style="dim")
    took = f" in {summary['seconds']} s" if "seconds" in summary else ""
    out.print(f"{summary['traces']} traces of {summary['problems']} problems{took}.")
    out.print(f"Report: {summary['report']}", soft_wrap=True)


def print_claims(claims: list[dict[str, Any]]) -> None:
    held = table("Claims about failures", "claim", "verdict", "here", "problems")
    for claim in claims:
        shown = estimate(claim["estimate"], percent=False)
        held.add_row(claim["name"].replace("_", " "), claim["verdict"], shown, str(claim["n"]))
    out.print(held)


def print_study(found: dict[str, Any]) -> None:
    for group, e in found["accuracy"].items():
        classes = found["error_classes"].get(group, {})
        errors = ", ".join(f"{name} {n}" for name, n in sorted(classes.items(), key=lambda item: -item[1]))
        out.print(f"{group}: {estimate(e)} % right, n={e['n']}; first errors: {errors or 'none'}")
    print_claims(found["claims"])


def trace_facts(trace: wrongturn.Trace, brief: bool = False) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "id": trace.id,
        "group": trace.group,
        "strategy": trace.strategy,
        "correct": trace.correct,
        "onset": trace.onset,
        "error": trace.error,
        "tokens": len(trace),
        "finish": trace.finish,
        "answer": trace.answer,
    }
    if not brief:
        entropy = [None if e != e else round(float(e), 5) for e in trace.signals.entropy]
        facts |= {"text": trace.text, "ids": trace.ids.tolist(), "entropy": entropy, "events": trace.events}
    return facts


def print_list(facts: dict[str, Any]) -> None:
    listed = table("Traces", "trace", "answer", "right", "first wrong token", "tokens")
    for t in facts["shown"]:
        wrong = "–" if t["onset"] in (None, -1) else f"{t['onset']} {t['error']}"
        listed.add_row(t["id"], t["answer"] or "–", "yes" if t["correct"] else "no", wrong, str(t["tokens"]))
    out.print(listed)
    if facts["traces"] > len(facts["shown"]):
        out.print(f"{len(facts['shown'])} of {facts['traces']}; more with --limit")


def print_trace(trace: wrongturn.Trace, prompt: str) -> None:
    from wrongturn.report.inline import trace_text

    out.print(f"[dim]{prompt}[/dim]", highlight=False)
    out.print(trace_text(trace, width=out.width))


@app.callback(invoke_without_command=True)
def version(
    shown: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if shown:
        out.print(wrongturn.__version__, highlight=False)
        raise typer.Exit


class Interrupted(Exception):
    """Ctrl-C during long work."""


def main() -> None:
    """Entry point: problems of the user's making are one line and exit code 2; an interruption says how to go on."""
    try:
        app()
    except (WrongturnError, ValueError) as problem:
        if os.environ.get("WRONGTURN_DEBUG"):
            raise
        err.print(f"wrongturn: {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except Interrupted:
        again = shlex.join(["wrongturn", *sys.argv[1:]])
        err.print(f"interrupted; what was collected is kept. Go on with: {again}", markup=False, soft_wrap=True)
        sys.exit(130)
