"""How often a reasoner finds the path, and how often its whole trace is right. Needs no torch: the embedded engine."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from wrongturn import stats
from wrongturn.engines.embedded import Embedded, model_folder
from wrongturn.errors import WrongturnError
from wrongturn.lab.folders import Layout, layout
from wrongturn.lab.split import SHARE, held_out
from wrongturn.pipeline import solve
from wrongturn.stats import Estimate
from wrongturn.tasks import Distribution, GraphSearch, Problem
from wrongturn.trace import Trace

MAX_TOKENS = 224
"""A completion's limit: what the longest prompts leave of the context; right traces stay well below."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One distribution: paths (a shortest one, whatever the trace says) and traces (every token the one correct one).

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
    distributions: Sequence[str],
    *,
    n: int = 500,
    seed: int = 1,
    sampled: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Accuracy on ``n`` fresh problems of each distribution, greedy or sampled at temperature 1.

    ``checkpoint`` is a folder (a training's, or exported), the name of a packaged model, or None: the packaged
    reasoner. The result holds model, layers, heads, decoding, seconds and results (of :class:`Accuracy`). Raises
    ``WrongturnError`` for a folder that does not fit together, ``ValueError`` for a malformed distribution.
    """
    wanted = [Distribution.parse(name) for name in distributions]
    begun = time.monotonic()
    results = []
    with exported(checkpoint) as (folder, found):
        engine = Embedded(folder)
        for i, distribution in enumerate(wanted):
            problems = fresh(distribution, n, seed)
            strategy = "sample" if sampled else "greedy"
            traces = solve(engine, problems, strategy=strategy, seed=seed, top_k=0, max_tokens=MAX_TOKENS)
            results.append(
                Accuracy(
                    str(distribution),
                    stats.proportion(sum(bool(t.correct) for t in traces), n),
                    stats.proportion(sum(t.error is None for t in traces), n),
                    dict(Counter(t.error for t in traces if t.error is not None).most_common()),
                ).dict()
            )
            if progress:
                progress("distributions", i + 1, len(wanted))
    facts: dict[str, Any] = {"model": str(checkpoint or "packaged")}
    facts |= {name: found.model[name] for name in ("layers", "heads")}
    return facts | {
        "decoding": "sampled" if sampled else "greedy",
        "seed": seed,
        "seconds": round(time.monotonic() - begun, 1),
        "results": results,
    }


def sample(
    checkpoint: str | Path | None,
    distributions: Sequence[str],
    *,
    n: int = 200,
    samples: int = 4,
    seed: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Trace], dict[str, Problem]]:
    """``samples`` traces at temperature 1 of each of ``n`` fresh problems of each distribution, and the problems."""
    problems = [p for name in distributions for p in fresh(Distribution.parse(name), n, seed)]
    traces: list[Trace] = []
    with exported(checkpoint) as (folder, _):
        engine = Embedded(folder)
        for k in range(samples):
            traces += solve(engine, problems, seed=seed + k, top_k=0, max_tokens=MAX_TOKENS)
            if progress:
                progress("samples", k + 1, samples)
    return traces, {p.id: p for p in problems}


def fresh(distribution: Distribution, n: int, seed: int) -> list[Problem]:
    """``n`` problems on graphs of test classes, which no training draws (see :mod:`wrongturn.lab.split`).

    Raises ``ValueError`` where graphs are so small that there are hardly any such classes.
    """
    task, stream, made = GraphSearch(), distribution.queries(seed), []
    for _ in range(SHARE + n * SHARE // 64):  # four times what is needed on average
        block = list(islice(stream, 256))
        for query in (q for q, out in zip(block, held_out(block), strict=True) if out):
            made.append(task.problem(query, f"{distribution}/test{seed}/{len(made)}", str(distribution)))
            if len(made) == n:
                return made
    raise ValueError(f"{distribution}: too few graphs of test classes; larger graphs have more")


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
