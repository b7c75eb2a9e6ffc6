"""The commands ``wrongturn lab …``: train small reasoners, and see how their searches fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from wrongturn.cli_common import Json, Seed, count, emit, estimate, out, progress_bars, svg_file, table, write_picture
from wrongturn.errors import WrongturnError

lab = typer.Typer(help="Train small reasoners, and see how learned search fails.", no_args_is_help=True)
posttrain = typer.Typer(help="Train a reasoner further (extra: wrongturn\\[lab]).", no_args_is_help=True)
lab.add_typer(posttrain, name="posttrain")

TASKS = ("graph_search",)

Distributions = Annotated[
    list[str] | None,
    typer.Option("--graphs", help="G<nodes>_<shortest>,<longest path>; repeatable. Default: the published six."),
]
Plot = Annotated[Path | None, typer.Option(help="Write the picture to this .svg file.")]
Problems = Annotated[int, typer.Option("--problems", "-n", min=1, help="Problems per distribution.")]
Model = Annotated[
    str | None, typer.Argument(help="A checkpoint or exported folder, or a packaged model; default: the reasoner.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Checkpoint folder; the same command resumes it.")]
Device = Annotated[str, typer.Option(help="'auto' (a GPU if there is one), 'cpu' or 'cuda'.")]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile: slow to begin, then faster.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")]
Ancestor = Annotated[str, typer.Argument(help="A checkpoint or exported folder, or a packaged model.")]
Goal = Annotated[str, typer.Option("--graphs", help="The distribution to get better at.")]
Lr = Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")]


# -- measuring ---------------------------------------------------------------------------------------------------------


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


# -- training ----------------------------------------------------------------------------------------------------------


@lab.command()
def train(
    task: Annotated[str, typer.Argument(help="What to learn; there is 'graph_search'.")],
    folder: Out,
    tokens: Annotated[str, typer.Option(help="Training tokens, e.g. 42M.")] = "42M",
    layers: Annotated[int, typer.Option(min=1)] = 4,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    width: Annotated[int, typer.Option(min=8)] = 128,
    ffn: Annotated[int, typer.Option(min=8)] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Examples a step (and process).")] = 32,
    lr: Lr = 2e-3,
    optimizer: Annotated[str, typer.Option(help="'muon' or 'adamw'.")] = "muon",
    device: Device = "auto",
    compile: Compile = False,
    threads: Threads = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a reasoner from scratch; a killed training goes on from its last checkpoint.

    On several GPUs: torchrun --nproc-per-node 8 -m wrongturn lab train …
    """
    if task not in TASKS:
        near = get_close_matches(task, TASKS, 1, 0.4)
        raise WrongturnError(
            f"unknown task {task!r} ({f'did you mean {near[0]!r}' if near else 'there is'}: {TASKS[0]})"
        )
    if width % heads or (width // heads) % 16:
        raise WrongturnError(f"--width {width} with --heads {heads}: a head's size must be a multiple of 16")
    if optimizer not in ("muon", "adamw"):
        raise WrongturnError(f"unknown optimizer {optimizer!r} (expected 'muon' or 'adamw')")
    with torch_at_hand(threads):
        from wrongturn.lab.data import Recipe
        from wrongturn.lab.machine import here
        from wrongturn.lab.model import ModelConfig
        from wrongturn.lab.train import TrainConfig
    model = ModelConfig(layers=layers, heads=heads, width=width, ffn=ffn)
    recipe = Recipe(batch=batch)
    config = TrainConfig(model=model, recipe=recipe, tokens=count(tokens), lr=lr, optimizer=optimizer, seed=seed)
    fit(config, folder, here(device, compile), None, as_json)


@posttrain.command()
def sft(
    ancestor: Ancestor,
    folder: Out,
    graphs: Goal = "G15_5,6",
    tokens: Annotated[str, typer.Option(help="Training tokens, e.g. 2M.")] = "2M",
    lr: Lr = 5e-4,
    device: Device = "auto",
    threads: Threads = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Supervised: go on with right searches of one distribution."""
    with torch_at_hand(threads):
        from wrongturn.lab.data import Recipe
        from wrongturn.lab.machine import here
        from wrongturn.lab.train import TrainConfig
    model, start, sha = beginning(ancestor)
    config = TrainConfig(model=model, recipe=Recipe.only(graphs), tokens=count(tokens), lr=lr, seed=seed, ancestor=sha)
    fit(config, folder, here(device), start, as_json)


@posttrain.command()
def grpo(
    ancestor: Ancestor,
    folder: Out,
    graphs: Goal = "G15_5,6",
    steps: Annotated[int, typer.Option(min=1, help="Rounds of rollouts.")] = 160,
    prompts: Annotated[int, typer.Option(min=1, help="Problems a round.")] = 24,
    samples: Annotated[int, typer.Option(min=2, help="Rollouts a problem.")] = 8,
    reward: Annotated[str, typer.Option(help="1 for a right 'path', or for a right 'trace'.")] = "path",
    lr: Lr = 1e-4,
    threads: Threads = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Reinforced: sample, grade, and make what was right more likely (GRPO). Runs on the CPU."""
    if reward not in ("path", "trace"):
        raise WrongturnError(f"unknown reward {reward!r} (expected 'path' or 'trace')")
    with torch_at_hand(threads):
        from wrongturn.lab.grpo import GrpoConfig
        from wrongturn.lab.grpo import train as reinforce
    model, start, sha = beginning(ancestor)
    config = GrpoConfig(model, graphs, steps, prompts, samples, reward=reward, lr=lr, seed=seed, ancestor=sha)
    finish(folder, followed(lambda tell: reinforce(config, folder, start=start, report=tell), steps), as_json)


@lab.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A training's checkpoint folder.")],
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    as_json: Json = False,
) -> None:
    """Write a checkpoint as a Hugging Face folder that the embedded engine runs as well."""
    from wrongturn.lab.folders import layout

    found = layout(checkpoint)
    if found.exported:
        raise WrongturnError(f"{checkpoint} is exported already")
    with torch_at_hand(0):
        from wrongturn.lab.export import export as write_export
    emit({"export": str(write_export(checkpoint, folder))}, as_json, lambda f: out.print(f["export"]))


# -- what commands share -----------------------------------------------------------------------------------------------


@contextmanager
def torch_at_hand(threads: int) -> Iterator[None]:
    """A context in which what is missing of the lab's extra is one clear line."""
    try:
        import torch

        if threads:
            torch.set_num_threads(threads)
        yield
    except ModuleNotFoundError as missing:
        raise WrongturnError(f"the lab needs {missing.name}: pip install 'wrongturn[lab]'") from None


def beginning(ancestor: str):
    """Shape, weights and fingerprint of what a training starts from."""
    from wrongturn.engines.embedded import model_folder
    from wrongturn.lab.checkpoints import ancestor as weights

    return weights(model_folder(ancestor))


def fit(config: Any, folder: Path, machine: Any, start: dict[str, Any] | None, as_json: bool) -> None:
    """Train as a :class:`wrongturn.lab.train.TrainConfig` says and export; only the leading process has a say."""
    from wrongturn.lab.train import train

    last = followed(lambda tell: train(config, folder, start=start, machine=machine, report=tell), config.tokens)
    if machine.leads:
        finish(folder, last, as_json)


def followed(work: Callable[[Callable[[dict[str, float]], None]], object], total: int) -> dict[str, float]:
    """Do the work with a progress bar; its last log record (of a training that was done already: {})."""
    last: dict[str, float] = {}
    with progress_bars() as progress:

        def tell(record: dict[str, float]) -> None:
            last.update(record)
            shown = {"loss": ".3f", "reward": ".3f", "tokens_per_second": ",.0f", "exact": ".1%", "peak_share": ".1%"}
            what = ", ".join(f"{name} {last[name]:{form}}" for name, form in shown.items() if name in last)
            progress(f"training {what}", int(record["step" if "reward" in record else "tokens"]), total)

        work(tell)
    return last


def finish(folder: Path, last: dict[str, float], as_json: bool) -> None:
    """Export what was trained and say where it is."""
    from wrongturn.lab.export import export as write_export

    write_export(folder, folder / "export")
    emit(last | {"checkpoint": str(folder), "export": str(folder / "export")}, as_json, lambda f: out.print(f))
