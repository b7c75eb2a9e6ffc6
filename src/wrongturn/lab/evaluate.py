"""How often a reasoner finds the path, and how often its whole trace is right. Needs no torch: the embedded engine."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wrongturn import stats
from wrongturn.engines.embedded import Embedded, model_folder
from wrongturn.errors import WrongturnError
from wrongturn.lab.folders import Layout, layout
from wrongturn.lab.recipes import recipe
from wrongturn.pipeline import solve
from wrongturn.stats import Estimate
from wrongturn.tasks import Distribution, Problem
from wrongturn.trace import Trace


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One distribution: paths (or other answers; right, whatever the trace says) and traces (every token is correct).

    ``first_errors`` counts the traces that are not exact by the class of their first wrong token, most frequent first.
    """

    distribution: str
    path_accuracy: Estimate
    trace_accuracy: Estimate
    first_errors: dict[str, int]

    def dict(self) -> dict[str, Any]:
        found = {name: plain(getattr(self, name)) for name in ("path_accuracy", "trace_accuracy")}
        return {"distribution": self.distribution, **found, "first_errors": self.first_errors}


def plain(e: Estimate) -> dict[str, float | int | None]:
    """value, low, high, n."""
    return {name: value for name, value in e.dict().items() if name != "base_rate"}


def evaluate(
    checkpoint: str | Path | None,
    distributions: Sequence[str] | None = None,
    *,
    n: int = 500,
    seed: int = 1,
    sampled: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Accuracy on ``n`` fresh problems of each distribution of the model's task, greedy or sampled at temperature 1.

    ``checkpoint`` is a folder (a training's, or exported), the name of a packaged model, or None: the packaged
    reasoner. Without ``distributions``, those of its recipe. The result holds model, task, layers, heads, decoding,
    seconds and results (of :class:`Accuracy`). Raises ``WrongturnError`` for a folder that does not fit together,
    ``ValueError`` for a malformed distribution.
    """
    begun = time.monotonic()
    results = []
    with exported(checkpoint) as (folder, found):
        wanted = {name: fresh(name, n, seed, found.task) for name in asked(found, distributions)}
        engine = Embedded(folder)
        for i, (name, problems) in enumerate(wanted.items()):
            strategy = "sample" if sampled else "greedy"
            traces = solve(engine, problems, strategy=strategy, seed=seed, top_k=0, max_tokens=room(found, problems))
            results.append(
                Accuracy(
                    name,
                    stats.proportion(sum(bool(t.correct) for t in traces), n),
                    stats.proportion(sum(t.error is None for t in traces), n),
                    dict(Counter(t.error for t in traces if t.error is not None).most_common()),
                ).dict()
            )
            if progress:
                progress("distributions", i + 1, len(wanted))
    facts: dict[str, Any] = {"model": str(checkpoint or "packaged"), "task": found.task}
    facts |= {name: found.model[name] for name in ("layers", "heads")}
    return facts | {
        "decoding": "sampled" if sampled else "greedy",
        "seed": seed,
        "seconds": round(time.monotonic() - begun, 1),
        "results": results,
    }


def sample(
    checkpoint: str | Path | None,
    distributions: Sequence[str] | None = None,
    *,
    n: int = 200,
    samples: int = 4,
    seed: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Trace], dict[str, Problem]]:
    """``samples`` traces at temperature 1 of each of ``n`` fresh problems of each distribution, and the problems.

    Without ``distributions``, those of the recipe of the model's task.
    """
    traces: list[Trace] = []
    with exported(checkpoint) as (folder, found):
        problems = [p for name in asked(found, distributions) for p in fresh(name, n, seed, found.task)]
        engine = Embedded(folder)
        for k in range(samples):
            traces += solve(engine, problems, seed=seed + k, top_k=0, max_tokens=room(found, problems))
            if progress:
                progress("samples", k + 1, samples)
    return traces, {p.id: p for p in problems}


def fresh(distribution: Distribution | str, n: int, seed: int, task: str = "graph_search") -> list[Problem]:
    """``n`` problems that no training draws (see :mod:`wrongturn.lab.split`).

    Raises ``ValueError`` for a malformed distribution, and where it has hardly any such problems.
    """
    return recipe(task).fresh(str(distribution), n, seed)


def asked(found: Layout, distributions: Sequence[str] | None) -> Sequence[str]:
    """What a model is to be asked: the ``distributions``, else those of the recipe of its task."""
    return distributions or recipe(found.task).distributions


def room(found: Layout, problems: Sequence[Problem]) -> int:
    """Tokens that the longest prompt leaves of the context."""
    return found.model["context"] - max(len(problem.prompt_ids) for problem in problems)


def exported(checkpoint: str | Path | None) -> AbstractContextManager[tuple[Path, Layout]]:
    """A folder the embedded engine can run, and what is in it; a training's checkpoint is exported for the time being.

    Raises :class:`wrongturn.errors.WrongturnError` as :func:`wrongturn.lab.folders.layout` does, or where exporting
    needs what is not installed.
    """
    folder = model_folder(checkpoint)
    found = layout(folder)
    if found.exported:
        if not (folder / "graph.onnx").exists():
            raise WrongturnError(f"{folder}: no graph.onnx there (wrongturn lab train writes one into its export)")
        return nullcontext((folder, found))
    return _exported_aside(found)


@contextmanager
def _exported_aside(found: Layout):
    try:
        from wrongturn.lab.export import export
    except ModuleNotFoundError as missing:
        raise WrongturnError(
            f"{found.folder}: exporting it needs {missing.name}: pip install 'wrongturn[lab]'"
        ) from None
    with tempfile.TemporaryDirectory() as aside:
        yield export(found.folder, Path(aside) / found.folder.name), found
