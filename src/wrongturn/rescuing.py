"""Failed problems tried again with every operator: the tries that labels, regimes and routers are made of.

The tries are a run of their own inside the run (``RUN/rescue``; without a grader ``RUN/blind``), whose settings name
the ancestor and how it was decoded; more tries or other operators go on where it stands. An operator is any strategy
(those of :mod:`wrongturn.strategies.operators` may look at the failed traces). None of them sees the reference answer:
that a trace failed is all they are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from wrongturn.diagnose.recoverability.outcomes import PREFIX
from wrongturn.divergence import Divergence
from wrongturn.engines.base import Chunk, Engine
from wrongturn.engines.pair import divergences
from wrongturn.errors import EngineError, WrongturnError
from wrongturn.jobs import Job, Progress, Settings, Solver, fill, same_model, settings_of
from wrongturn.store import Run
from wrongturn.strategies.base import Context, Draft
from wrongturn.strategies.named import parse
from wrongturn.strategies.operators import CUES, always_the_same
from wrongturn.trace import Trace

FOLDER, BLIND = "rescue", "blind"
"""Where in a run its tries are: those of failed problems, and those of problems whose samples disagree."""

PAIR = (
    "steer",
    "steer:kind=coverage",
    "steer:where=random",
    "lift",
    "dense",
    "dense:weight=1.5",
    "dense:temperature=0",
    "rewind:where=junction",
    "ban:where=junction",
)
"""Operators that need the ancestor as well."""


def operators(engine: Engine) -> tuple[str, ...]:
    """What is tried unless asked otherwise: whatever the engine (once it is ready) can do, controls among them."""
    known = engine.capabilities
    found = ["retry", "greedy", "retry:temperature=1.5"]
    if known.prefix:
        found += ["rewind:where=random"] + ["switch"] * speaks(engine)
        if known.logprobs != "none":
            found += ["rewind", "lift:where=entropy"] + ["ban"] * known.edits
    return (*found, *PAIR) if engine.ancestor is not None else tuple(found)


def speaks(engine: Engine) -> bool:
    """Whether the model's vocabulary has words for a cue."""
    try:
        return engine.vocabulary is not None and bool(engine.vocabulary.encode(CUES["strategy"]))
    except (ValueError, EngineError):  # a server's tokenizer refuses as an error of its own
        return False


async def rescue(
    engine: Engine,
    run: Run,
    out: Run,
    names: Sequence[str],
    *,
    tries: int | Mapping[str, int] = 12,
    most: int | None = None,
    blind: bool = False,
    known: dict[str, Divergence] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Try the run's failed problems (the first ``most``) ``tries`` times with each operator; the traces join ``out``.

    ``tries`` may be told operator by operator; one that always does the same is tried once. ``blind``: as where nobody
    grades, problems whose samples disagree are tried, and operators are shown all of these. ``known`` keeps what was
    scored from one call to the next. Raises ``WrongturnError`` where there is no such problem.
    """
    shown = (flagged if blind else failures)(run)
    chosen = dict(list(shown.items())[:most])
    solvers = {name: parse(name) for name in names}
    times = {name: 1 if always_the_same(solver) else wanted(tries, name) for name, solver in solvers.items()}
    known = {} if known is None else known
    problems = run.problems()
    out.add_problems(problems[name] for name in chosen)
    todo = [
        Job(
            f"{name}/{PREFIX}{spec}/{k}",
            problems[name],
            PREFIX + spec,
            k,
            _after(traces, known, solver),
            earlier=tuple(traces),
        )
        for name, traces in chosen.items()
        for spec, solver in solvers.items()
        for k in range(times[spec])
    ]
    if engine.ancestor is not None:
        stored = out.done()
        left = {job.problem.id for job in todo if job.id not in stored}
        asked = [trace for name in left for trace in chosen[name] if trace.id not in known]
        asked, at = sorted(asked, key=lambda trace: trace.id), compared_at(run)
        known |= await divergences(engine, engine.ancestor, asked, progress, temperature=at)
    await fill(engine, out, todo, _settings(run), progress, "blind" if blind else "rescue")


def wanted(tries: int | Mapping[str, int], name: str) -> int:
    """Tries of an operator."""
    return tries if isinstance(tries, int) else tries[name]


def failures(run: Run) -> dict[str, list[Trace]]:
    """The failed plain samples of each problem that has one, in the order of the problems.

    Raises ``WrongturnError`` where there is none.
    """
    samples = _samples(run)
    failed = {name: [t for t in traces if t.correct is False and len(t)] for name, traces in samples.items()}
    if not any(failed.values()):
        n = sum(map(len, samples.values()))
        raise WrongturnError(f"{run.path}: none of {n} plain samples failed: there is nothing to rescue")
    return {name: traces for name, traces in failed.items() if traces}


def flagged(run: Run) -> dict[str, list[Trace]]:
    """All plain samples of each problem whose samples do not all give one answer: what is known without a grader.

    Raises ``WrongturnError`` where there is no such problem.
    """
    found = {
        name: [trace for trace in traces if len(trace)]
        for name, traces in _samples(run).items()
        if len({trace.answer for trace in traces}) > 1 or all(trace.answer is None for trace in traces)
    }
    if not any(found.values()):
        raise WrongturnError(f"{run.path}: the samples of every problem agree: nothing tells a failure but a grader")
    return {name: traces for name, traces in found.items() if traces}


def _samples(run: Run) -> dict[str, list[Trace]]:
    """The plain samples of each problem, in the order of the problems."""
    by_problem: dict[str, list[Trace]] = {name: [] for name in run.problems()}
    for trace in sorted(run.traces(top_k=False, strategy="sample"), key=lambda trace: trace.id):
        by_problem[trace.problem].append(trace)
    return {name: traces for name, traces in by_problem.items() if traces}


def described(engine: Engine, run: Run) -> dict[str, Any]:
    """What the tries of a run depend on besides their operators.

    Raises ``WrongturnError`` where the engine's model is not the one that wrote the run.
    """
    same_model(engine, run, "be rescued")
    told: dict[str, Any] = {"rescues": run.path.name, "ancestor": None}
    if engine.ancestor is not None:
        told |= {"ancestor": engine.ancestor.identity(), "compared_at": compared_at(run)}
    return engine.identity() | told | _settings(run).dict()


def compared_at(run: Run) -> float:
    """The temperature at which a run's model is compared with its ancestor: that of decoding, or 1 where it was greedy
    or is not known."""
    return float((run.settings.get("sampling") or {}).get("temperature") or 1.0)


def _settings(run: Run) -> Settings:
    """How the run's own traces were decoded; alternatives are not stored again."""
    return replace(settings_of(run), top_k=0)


def _after(failed: Sequence[Trace], known: Mapping[str, Divergence], solver: Solver) -> Solver:
    """The solver, told of the failed traces."""

    async def solve(ctx: Context) -> Draft:
        for trace in failed:
            chunk = Chunk(trace.ids, trace.signals, trace.top_ids, trace.top_logprobs, trace.finish)
            ctx.recall(chunk, trace.id, known.get(trace.id))
        return await solver(ctx)

    return solve
