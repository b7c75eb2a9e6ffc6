"""The commands ``wrongturn run`` and ``wrongturn collect``: whose problems, which model, how they are decoded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

import wrongturn
from wrongturn import pipeline
from wrongturn.cli_common import Graphs, Json, Seed, count, emit, out, progress_bars, search_problems
from wrongturn.cli_show import print_failed, print_summary
from wrongturn.engines import SPECS, Engine
from wrongturn.errors import WrongturnError
from wrongturn.jobs import Limits
from wrongturn.routing import follow
from wrongturn.tasks.base import OwnVocabulary

Policy = Annotated[
    Path | None, typer.Option(help="Solve as this policy says (wrongturn route fit makes them).", dir_okay=False)
]

TEXT_TOKENS = 4096
"""Longest completion unless asked otherwise: the longest search of a graph needs about 180."""


@dataclass(frozen=True)
class Asked:
    """The options that ``run`` and ``collect`` share."""

    source: Annotated[
        str | None,
        typer.Argument(
            metavar="PROBLEMS",
            help="A file of problems (.jsonl, .csv, .parquet) or hf:DATASET; without one, problems of a search task.",
        ),
    ] = None
    model: Annotated[str, typer.Option("--model", "-m", "--engine", help=f"One of {', '.join(SPECS)}.")] = "embedded"
    base_url: Annotated[
        list[str] | None,
        typer.Option(help="Server of an openai model; repeatable. Default: OPENAI_BASE_URL, else localhost:8000."),
    ] = None
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or name of the model's tokenizer, for servers that tell no token ids.")
    ] = None
    ancestor: Annotated[
        str | None, typer.Option(help="The model it was trained from, decoded beside it: for steers and some policies.")
    ] = None
    task: Annotated[
        str | None,
        typer.Option(help="How answers are read and graded: math, numeric, choice, exact, gsm8k, countdown_search, …"),
    ] = None
    prompt: Annotated[
        str | None, typer.Option(help="Field of the file with the question. Default: the first of the usual names.")
    ] = None
    reference: Annotated[str | None, typer.Option(help="Field with the reference answer. Default: likewise.")] = None
    group: Annotated[str | None, typer.Option(help="Field by which results are broken down.")] = None
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Grade programs the model wrote by running them, in no sandbox.")
    ] = False
    graphs: Graphs = None
    problems: Annotated[
        int | None,
        typer.Option("--problems", "-n", min=1, help="Problems of each distribution (50) or of the file (all)."),
    ] = None
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = 1.0
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Probability of the nucleus that is sampled from; 1 is everything.")
    ] = 1.0
    top_k: Annotated[int, typer.Option(min=0, help="Alternatives stored with each token.")] = 5
    budget: Annotated[
        int | None, typer.Option(min=1, help="Cap on decoded tokens per problem, all branches counted.")
    ] = None
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help=f"Longest completion (192 for graphs, else {TEXT_TOKENS}).")
    ] = None
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Problems worked on at once. Default: what suits the engine.")
    ] = None
    seed: Seed = 0

    def open(self) -> Engine:
        """The engine."""
        given = {"tokenizer": self.tokenizer, "ancestor": self.ancestor}
        options = {name: value for name, value in given.items() if value is not None}
        engine = wrongturn.open(self.model, base_url=self.base_url or None, **options)
        if self.concurrency is not None:
            engine.concurrency = self.concurrency
        return engine

    def read(self, engine: Engine) -> list[wrongturn.Problem]:
        """The problems; without a file, of the task that is asked for or that is all the model has learned."""
        if self.source is None:
            learned = engine.vocabulary.task.name if isinstance(engine.vocabulary, OwnVocabulary) else "graph_search"
            return search_problems(self.task or learned, self.graphs, self.problems or 50, self.seed)
        if self.allow_code:
            wrongturn.tasks.allow_code()
        return wrongturn.tasks.read_problems(
            self.source,
            task=self.task,
            prompt=self.prompt,
            reference=self.reference,
            group=self.group,
            limit=self.problems,
            seed=self.seed,
        )

    def settings(self, problems: list[wrongturn.Problem]) -> dict[str, Any]:
        """How traces of these problems are decoded, as :class:`wrongturn.jobs.Settings` takes it."""
        usual = {getattr(wrongturn.tasks.get(task), "usual_tokens", TEXT_TOKENS) for task in {p.task for p in problems}}
        return {
            "sampling": wrongturn.Sampling(self.temperature, self.top_p),
            "budget": self.budget,
            "max_tokens": self.max_tokens or max(usual, default=TEXT_TOKENS),
            "top_k": self.top_k,
            "seed": self.seed,
        }


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take the fields of :class:`Asked` as options of its own."""
    shared = get_type_hints(Asked, include_extras=True)
    own = get_type_hints(command, include_extras=True)

    def call(**given: Any) -> None:
        command(Asked(**{name: given.pop(name) for name in shared}), **given)

    options = {f.name: Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default) for f in fields(Asked)}
    options |= {name: p.replace(kind=Parameter.KEYWORD_ONLY) for name, p in signature(command).parameters.items()}
    del options["asked"]
    call.__annotations__ = {name: (own | shared)[name] for name in options} | {"return": None}
    call.__signature__ = Signature([p.replace(annotation=call.__annotations__[name]) for name, p in options.items()])  # type: ignore[attr-defined]
    call.__name__, call.__doc__ = command.__name__, command.__doc__
    return call


@with_options
def run(
    asked: Asked,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Run folder; the same command resumes it.")] = Path(
        "wrongturn-run"
    ),
    samples: Annotated[int, typer.Option(min=1, help="Plain samples per problem.")] = 4,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="Strategy to compare with plain sampling; repeatable. Default: self_consistency:n=8, guard."),
    ] = None,
    policy: Policy = None,
    as_json: Json = False,
) -> None:
    """Solve problems, see where they fail, try to rescue them, and write a report."""
    engine = asked.open()
    problems = asked.read(engine)
    if policy is not None:
        strategy = [*(strategy or pipeline.compared(engine)), follow.spec(str(policy))]
    with progress_bars() as progress:
        summary = wrongturn.run(
            engine,
            problems,
            out=folder,
            samples=samples,
            strategies=strategy or None,
            progress=progress,
            **asked.settings(problems),
        )
    emit(summary, as_json, print_summary)
    end(summary)


@with_options
def collect(
    asked: Asked,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Run folder; the same command resumes it.")],
    samples: Annotated[int, typer.Option(min=1, help="Traces per problem.")] = 1,
    strategy: Annotated[str, typer.Option(help="How each problem is solved, e.g. 'guard:q=0.8'.")] = "sample",
    policy: Policy = None,
    max_tokens_total: Annotated[
        str | None, typer.Option(help="Begin no further problem once so many tokens are decoded, e.g. 2M.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(help="Dollars per million prompt and completion tokens, to show what is spent, e.g. 0.15,0.60."),
    ] = None,
    on: Annotated[str | None, typer.Option(help="'ray': on a Ray cluster (RAY_ADDRESS, else this machine).")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Ray workers; default: one for each CPU.")] = None,
    as_json: Json = False,
) -> None:
    """Collect traces into a run folder; what fails is recorded there, and tried again by the same command."""
    began = time.monotonic()
    limits = Limits(None if max_tokens_total is None else count(max_tokens_total, "--max-tokens-total"), dollars(price))
    engine = asked.open()
    problems = asked.read(engine)
    if policy is not None:
        strategy = follow.spec(str(policy))
    with progress_bars() as progress:
        collected = wrongturn.collect(
            engine,
            problems,
            out=folder,
            strategy=strategy,
            samples=samples,
            limits=limits,
            on=on,
            workers=workers,
            progress=progress,
            **asked.settings(problems),
        )
    rows = collected.summary()
    facts: dict[str, Any] = {
        "run": str(folder),
        "problems": len(collected.problems()),
        "traces": sum(row["traces"] for row in rows),
        "tokens": sum(row["decoded"] for row in rows),
        "seconds": round(time.monotonic() - began, 1),
    } | pipeline.failed(collected)
    emit(facts, as_json, print_collected)
    end(facts)


def end(facts: dict[str, Any]) -> None:
    """Exit with 2 where the run holds failures and nothing else."""
    if facts["failed"] and not facts["traces"]:
        raise typer.Exit(2)


def dollars(text: str | None) -> tuple[float, float] | None:
    """``"0.15,0.60"`` as two numbers; WrongturnError for anything else."""
    if text is None:
        return None
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError:
        prompt = completion = -1.0
    if not (0 <= prompt < float("inf") and 0 <= completion < float("inf")):
        raise WrongturnError(f"--price {text!r} is no two prices (expected e.g. 0.15,0.60)")
    return prompt, completion


def print_collected(facts: dict[str, Any]) -> None:
    out.print(f"{facts['traces']} traces of {facts['problems']} problems, {facts['tokens']} tokens, in {facts['run']}")
    print_failed(facts)
