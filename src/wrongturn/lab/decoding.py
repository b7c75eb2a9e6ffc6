"""Accuracy by decoding: during a training, where more than one trace is right."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from wrongturn.lab.data import Recipe
from wrongturn.lab.evaluate import evaluate
from wrongturn.lab.export import write
from wrongturn.lab.model import Reasoner


def decoded(model: Reasoner, recipe: Recipe, distribution: str, n: int = 128) -> dict[str, float]:
    """Of ``n`` held-out problems, decoded greedily: the share of traces that are ``exact``, of answers ``right``."""
    with TemporaryDirectory() as aside:
        (row,) = evaluate(written(model, recipe.task, Path(aside)), [distribution], n=n)["results"]
    return {"exact": row["trace_accuracy"]["value"], "right": row["path_accuracy"]["value"]}


def written(model: Reasoner, task: str, folder: Path) -> Path:
    """The model's present weights as a folder that the embedded engine runs."""
    state = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return write(model.config, state, folder, task)
