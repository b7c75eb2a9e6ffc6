"""The commands ``wrongturn lab train``, ``posttrain`` and ``export`` (extra: ``wrongturn[lab]``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from wrongturn.cli_common import Json, Seed, count, emit, out, progress_bars
from wrongturn.errors import WrongturnError

posttrain = typer.Typer(help="Train a reasoner further (extra: wrongturn\\[lab]).", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", "-o", help="Checkpoint folder; the same command resumes it.")]
Device = Annotated[str, typer.Option(help="'auto' (a GPU if there is one), 'cpu' or 'cuda'.")]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile: slow to begin, then faster.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")]
Ancestor = Annotated[str, typer.Argument(help="A checkpoint or exported folder, or a packaged model.")]
Goal = Annotated[
    str | None, typer.Option("--graphs", help="What to get better at.", show_default="G15_5,6, of Countdown C4")
]
Lr = Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")]


def train(
    task: Annotated[str, typer.Argument(help="graph_search, graph_search_dfs, graph_search_best or countdown_search.")],
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
    from wrongturn.lab import recipes

    recipe = recipes.recipe(task, batch)
    if width % heads or (width // heads) % 16:
        raise WrongturnError(f"--width {width} with --heads {heads}: a head's size must be a multiple of 16")
    if optimizer not in ("muon", "adamw"):
        raise WrongturnError(f"unknown optimizer {optimizer!r} (expected 'muon' or 'adamw')")
    with torch_at_hand(threads):
        from wrongturn.lab.machine import here
        from wrongturn.lab.model import ModelConfig
        from wrongturn.lab.train import TrainConfig
    model = ModelConfig(len(recipes.words(task)), layers, heads, width, ffn, recipe.context)
    config = TrainConfig(model=model, recipe=recipe, tokens=count(tokens), lr=lr, optimizer=optimizer, seed=seed)
    fit(config, folder, here(device, compile), None, as_json)


@posttrain.command()
def sft(
    ancestor: Ancestor,
    folder: Out,
    graphs: Goal = None,
    tokens: Annotated[str, typer.Option(help="Training tokens, e.g. 2M.")] = "2M",
    lr: Lr = 5e-4,
    device: Device = "auto",
    threads: Threads = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Supervised: go on with right searches of one distribution."""
    with torch_at_hand(threads):
        from wrongturn.lab import recipes
        from wrongturn.lab.machine import here
        from wrongturn.lab.train import TrainConfig
    model, start, sha, task = beginning(ancestor)
    recipe = recipes.only(task, graphs or recipes.recipe(task).goal)
    config = TrainConfig(model=model, recipe=recipe, tokens=count(tokens), lr=lr, seed=seed, ancestor=sha)
    fit(config, folder, here(device), start, as_json)


@posttrain.command()
def grpo(
    ancestor: Ancestor,
    folder: Out,
    graphs: Goal = None,
    steps: Annotated[int, typer.Option(min=1, help="Rounds of rollouts.")] = 160,
    prompts: Annotated[int, typer.Option(min=1, help="Problems a round.")] = 24,
    samples: Annotated[int, typer.Option(min=2, help="Rollouts a problem.")] = 8,
    reward: Annotated[str, typer.Option(help="1 for a right 'answer', or for a right 'trace'.")] = "answer",
    lr: Lr = 1e-4,
    threads: Threads = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Reinforced: sample, grade, and make what was right more likely (GRPO). Runs on the CPU."""
    if reward not in ("answer", "trace"):
        raise WrongturnError(f"unknown reward {reward!r} (expected 'answer' or 'trace')")
    with torch_at_hand(threads):
        from wrongturn.lab import recipes
        from wrongturn.lab.grpo import GrpoConfig
        from wrongturn.lab.grpo import train as reinforce
    model, start, sha, task = beginning(ancestor)
    goal = graphs or recipes.recipe(task).goal
    config = GrpoConfig(model, task, goal, steps, prompts, samples, reward=reward, lr=lr, seed=seed, ancestor=sha)
    finish(folder, followed(lambda tell: reinforce(config, folder, start=start, report=tell), steps), as_json)


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
    """Shape, weights, fingerprint and task of what a training starts from."""
    from wrongturn.engines.embedded import model_folder
    from wrongturn.lab.checkpoints import ancestor as weights
    from wrongturn.lab.folders import layout

    folder = model_folder(ancestor)
    return *weights(folder), layout(folder).task


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
            shown = {"loss": ".3f", "reward": ".3f", "tokens_per_second": ",.0f"}
            shown |= {"exact": ".1%", "right": ".1%", "peak_share": ".1%"}
            what = ", ".join(f"{name} {last[name]:{form}}" for name, form in shown.items() if name in last)
            progress(f"training {what}", int(record["step" if "reward" in record else "tokens"]), total)

        work(tell)
    return last


def finish(folder: Path, last: dict[str, float], as_json: bool) -> None:
    """Export what was trained and say where it is."""
    from wrongturn.lab.export import export as write_export

    write_export(folder, folder / "export")
    emit(last | {"checkpoint": str(folder), "export": str(folder / "export")}, as_json, lambda f: out.print(f))
