"""The jobs people come for, each one call: solve, collect, recover, diagnose, report, and all of it: run."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wrongturn.compare import compare, outcomes
from wrongturn.diagnose import Study, plan, study
from wrongturn.distributed import fill_on_ray
from wrongturn.engines.base import Engine
from wrongturn.errors import EngineError, WrongturnError
from wrongturn.jobs import NO_LIMITS, Limits, Progress, Settings, carry_out, fill, jobs, resample_jobs
from wrongturn.report import Pieces, pieces_of
from wrongturn.report import write as write_report
from wrongturn.store import Failure, Run
from wrongturn.trace import Problem, Trace

T = TypeVar("T")


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also inside a notebook whose event loop is already running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def silent(what: str, done: int, total: int) -> None:
    """Progress for nobody."""


# -- what people call --------------------------------------------------------------------------------------------------


def solve(engine: Engine, problems: Sequence[Problem], *, strategy: str = "sample", **options: Any) -> list[Trace]:
    """The trace each problem's strategy stands by, in the order of ``problems``; nothing is written to disk.

    ``options`` are those of :class:`Settings`. Raises ``ValueError`` for an unknown strategy or option value, and
    ``EngineError`` at the first request that fails for good (:func:`collect` goes on, and records it).
    """
    settings, todo = Settings(**options), jobs(problems, strategy)

    async def work() -> dict[str, Trace]:
        found = {}
        async for made in carry_out(engine, todo, settings):
            if isinstance(made, Failure):
                raise EngineError(f"problem {made.problem!r}: {made.message}", made.reason)
            found[made[0].id] = made[0]
        return found

    found = wait(work())
    return [found[job.id] for job in todo]


def collect(
    engine: Engine,
    problems: Sequence[Problem],
    *,
    out: str | Path,
    strategy: str = "sample",
    samples: int = 1,
    limits: Limits = NO_LIMITS,
    on: str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Run:
    """Traces of ``problems`` in the run folder ``out``; the same call again goes on where it stopped.

    What an engine could not do is in ``run.failures()``, and is tried again by the next call. With ``on="ray"``,
    ``workers`` Ray actors do it, each with an engine opened as ``engine`` was (:mod:`wrongturn.distributed`).
    ``options`` are those of :class:`wrongturn.jobs.Settings`. Raises :class:`wrongturn.errors.WrongturnError` where the
    folder is not a run, or one of other settings or problems, ``EngineError`` where the engine can do nothing of it.
    """
    settings, todo = Settings(**options), jobs(problems, strategy, samples)
    with Run.create(out, described(engine, problems, settings, strategy=strategy, samples=samples)) as run:
        ask(run, problems)
        if on is None:
            wait(fill(engine, run, todo, settings, progress, strategy, limits))
        elif on == "ray" and engine.opening is not None:
            fill_on_ray(engine.opening, run, todo, settings, progress, strategy, limits, workers=workers)
        else:
            raise ValueError(f"cannot collect on {on!r}: there is 'ray', for engines made by wrongturn.open")
        run.compact()
    return run


COMPARED = ("self_consistency:n=8", "guard")
"""What plain sampling is compared with unless asked otherwise."""


def compared(engine: Engine) -> list[str]:
    """Those of ``COMPARED`` that the engine can carry out."""
    wait(engine.ready())
    known = engine.capabilities
    return [name for name in COMPARED if name != "guard" or (known.prefix and known.logprobs == "raw")]


def described(engine: Engine, problems: Sequence[Problem], settings: Settings, **more: Any) -> dict[str, Any]:
    """Everything a run's traces depend on; a run folder goes on only with the same."""
    groups = Counter(problem.group or problem.task for problem in problems)
    beside = {} if engine.ancestor is None else {"ancestor": engine.ancestor.identity()}
    return engine.identity() | beside | {"problems": dict(groups)} | more | settings.dict()


def ask(run: Run, problems: Sequence[Problem]) -> None:
    """Store what a run asks. Raises ``WrongturnError`` where it asks anything else already: traces would be mixed."""
    stored, given = run.problems(), dict.fromkeys(problem.id for problem in problems)
    new, gone = [id for id in given if id not in stored], [id for id in stored if id not in given]
    if stored and (new or gone):
        why = f"other problems ({new[0]!r} is not among its {len(stored)})" if new else ""
        why = why or f"more problems ({gone[0]!r} is not among the {len(given)} given)"
        raise WrongturnError(f"{run.path} holds a run of {why}: use those, or give another --out")
    run.add_problems(problems)


def recover(engine: Engine, run: Run, settings: Settings, *, most: int = 40, progress: Progress = silent) -> None:
    """Resample ``most`` failed traces from before and after their onset, from scratch and from a random boundary.

    The new traces join the run; each has its parent as lineage.
    """
    problems = run.problems()
    samples = {t.id: t for t in by_id(run, strategy="sample")}
    cuts = plan(list(samples.values()), problems, max_traces=most, seed=settings.seed)
    todo = resample_jobs(cuts, samples, problems)
    wait(fill(engine, run, todo, settings, progress, "recoverability"))


def diagnose(run: Run, *, seed: int = 0) -> Study:
    """Where the run's plain samples failed and what its resamples say; see :mod:`wrongturn.diagnose`."""
    traces = by_id(run)
    samples = [t for t in traces if t.strategy == "sample"]
    recovery = [t for t in traces if t.strategy.startswith("resample:")]
    return study(samples, run.problems(), recovery=recovery, seed=seed)


def model_of(settings: Mapping[str, Any]) -> str | None:
    """How :func:`wrongturn.open` names the model of a run with these settings; None where they do not say."""
    return f"{settings['engine']}:{settings['model']}" if settings.get("engine") else None


def command(settings: dict[str, Any]) -> str | None:
    """The command line that makes a run with these settings, where one does."""
    counts = set(settings["problems"].values())
    generated = all(re.fullmatch(r"G\d+_\d+,\d+", name) for name in settings["problems"])
    if "strategies" not in settings or len(counts) != 1 or not generated:
        return None
    options = {
        "--model": model_of(settings),
        "--problems": counts.pop(),
        "--temperature": settings["sampling"]["temperature"],
    }
    if "ancestor" in settings:
        options["--ancestor"] = settings["ancestor"]["model"]
    options |= {f"--{name.replace('_', '-')}": settings[name] for name in ("samples", "max_tokens", "budget", "seed")}
    words = ["wrongturn", "run"] + [w for name, v in options.items() if v is not None for w in (name, str(v))]
    words += [w for name in settings["problems"] for w in ("--graphs", name)]
    return shlex.join(words + [w for name in settings["strategies"] for w in ("--strategy", name)])


def by_id(run: Run, **where: Any) -> list[Trace]:
    """The run's traces in an order that does not depend on when each was finished, so that figures do not either."""
    return sorted(run.traces(**where), key=lambda trace: trace.id)


def report(run: Run, *, seed: int = 0, findings: Study | None = None) -> dict[str, Any]:
    """Diagnose and compare a run, write ``diagnosis/study.json`` and ``report.html`` into it, return the summary.

    Keys: traces, problems, accuracy, outcomes, onset (median, share_30, null_30), claims, comparison, report; failed
    and why as :func:`failed` has them.
    """
    findings = findings or diagnose(run, seed=seed)
    found, traces, problems = findings.dict(), by_id(run), run.problems()
    rows = compare(traces, seed=seed)
    run.write("diagnosis/study.json", json.dumps(found, indent=1))
    run.write("diagnosis/comparison.json", json.dumps(rows, indent=1))
    told = failed(run)
    meta = run.manifest | {"command": command(run.settings)} | told
    path = write_report(
        run.path / "report.html",
        traces=traces,
        problems=problems,
        study=found,
        comparison=rows,
        meta=meta,
        pieces=named(run.vocabulary()),
    )
    return {
        "traces": len(traces),
        "problems": len(problems),
        "accuracy": found["accuracy"],
        "outcomes": outcomes(traces),
        "onset": {key: found["onset"][key] for key in ("median", "share_30", "null_30")},
        "claims": found["claims"],
        "comparison": rows,
        "report": str(path),
    } | told


def failed(run: Run) -> dict[str, Any]:
    """What could not be made: ``failed`` counts it by reason, ``why`` has one message of each."""
    failures = run.failures()
    counts = Counter(failure.reason for failure in failures)
    return {"failed": dict(counts), "why": {failure.reason: failure.message for failure in reversed(failures)}}


def named(vocabulary: Mapping[int, str]) -> Pieces:
    """Token texts as a run recorded them, else by the task."""
    if not vocabulary:
        return pieces_of
    return lambda trace, ids: [vocabulary[i] if i in vocabulary else pieces_of(trace, [i])[0] for i in ids]


def run(
    engine: Engine,
    problems: Sequence[Problem],
    *,
    out: str | Path,
    samples: int = 4,
    strategies: Sequence[str] | None = None,
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Any]:
    """Everything: sample, try the strategies, resample around the onsets, diagnose, compare, report.

    Goes on where an interrupted call with the same settings stopped. Without ``strategies``, those of ``COMPARED`` that
    the engine can carry out. ``options`` are those of
    :class:`wrongturn.jobs.Settings`. Returns :func:`report`'s summary with ``seconds``.
    """
    began = time.monotonic()
    settings = Settings(**options)
    if strategies is None:
        strategies = compared(engine)
    plain = jobs(problems, "sample", samples)
    tried = [job for name in strategies for job in jobs(problems, name)]
    with Run.create(out, described(engine, problems, settings, strategies=list(strategies), samples=samples)) as folder:
        ask(folder, problems)

        async def work() -> None:
            await fill(engine, folder, plain, settings, progress, "sampling")
            await fill(engine, folder, tried, settings, progress, "strategies")

        wait(work())
        recover(engine, folder, settings, progress=progress)
        folder.compact()
        progress("diagnosis", 0, 1)
        summary = report(folder, seed=settings.seed)
        progress("diagnosis", 1, 1)
    return summary | {"seconds": round(time.monotonic() - began, 1)}
