"""How failed problems can be rescued, as far as a run tells: features of its failures, regimes, labels, topography.

Failed plain samples are scored under the model that wrote them and under its ancestor, one prefill each; everything
else is arithmetic (:mod:`wrongturn.diagnose.recoverability`). Without an ancestor there are the features of
:mod:`wrongturn.diagnose.recoverability.fallback` alone.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from wrongturn.diagnose.intervals import share
from wrongturn.diagnose.recoverability import fallback, features
from wrongturn.diagnose.recoverability.features import PUBLISHED, Features, Rows, correlation_with_length
from wrongturn.diagnose.recoverability.labels import STEERABLE, Label, by_chance, label, split
from wrongturn.diagnose.recoverability.outcomes import RETRY, Outcomes, read_outcomes
from wrongturn.diagnose.recoverability.regimes import Regimes, regimes
from wrongturn.diagnose.recoverability.topography import Topography, topography
from wrongturn.diagnose.table import tabulate
from wrongturn.divergence import TOP, Divergence, Lists, from_lists
from wrongturn.engines.base import Engine
from wrongturn.engines.pair import EXACT, LISTED, divergences
from wrongturn.errors import WrongturnError
from wrongturn.folder import to_json
from wrongturn.jobs import Progress, same_model
from wrongturn.locating import bank
from wrongturn.rescuing import FOLDER, compared_at, failures, flagged
from wrongturn.stats import Estimate
from wrongturn.store import Run
from wrongturn.strategies.named import parse
from wrongturn.strategies.operators import always_the_same
from wrongturn.trace import Trace

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Source:
    """A run, the engine of the model that wrote it (None: the alternatives stored with its traces), and its ancestor
    (None: there is none). ``blind``: what counts as failed are problems whose samples disagree, with all of these."""

    run: Run
    specialist: Engine | None = None
    ancestor: Engine | None = None
    blind: bool = False

    @property
    def method(self) -> str:
        """What its post-training is called."""
        return str(self.run.settings.get("model") or self.run.path.name)


@dataclass(frozen=True, slots=True, eq=False)
class Recoverability:
    """What R runs tell. ``features`` has a row for each failed problem of each, ``of`` [P] says of which run it is.

    ``labels`` [P] are None without tries (``untold`` says why); ``called`` and ``null_rates`` are the shares of
    problems called steerable, and called so by chance, by our rule ("split") and the published one ("naive"); a problem
    that failed in several runs is one unit of their intervals.
    """

    runs: tuple[dict[str, Any], ...]
    of: tuple[int, ...]
    features: Features
    correlations: dict[str, Estimate]
    regimes: Regimes
    labels: tuple[Label | None, ...]
    untold: str
    called: dict[str, Estimate]
    null_rates: dict[str, Estimate]
    topography: Topography | None

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON: what is not known is None."""
        found = self.features
        names = [self.runs[of]["run"] for of in self.of]
        problems = [
            {
                "run": names[i],
                "id": found.problems[i],
                "group": found.groups[i],
                "failed": int(found.failed[i]),
                "regime": int(self.regimes.member[i]) if self.regimes.member[i] >= 0 else None,
                "features": dict(zip(found.names, found.values[i].tolist(), strict=True)),
            }
            for i in range(len(found))
        ]
        labels = [
            {"run": names[i], "problem": found.problems[i]} | asdict(told) | {"cells": [_cell(c) for c in told.cells]}
            for i, told in enumerate(self.labels)
            if told is not None
        ]
        facts = {
            "runs": self.runs,
            "problems": problems,
            "reasons": dict(found.reasons),
            "correlation_with_length": {name: e.dict() for name, e in self.correlations.items()},
            "regimes": self.regimes.dict(),
            "labels": labels,
            "untold": self.untold,
            "called": {name: e.dict() for name, e in self.called.items()},
            "null_rates": {name: e.dict() for name, e in self.null_rates.items()},
            "topography": None if self.topography is None else self.topography.dict(),
        }
        return json.loads(to_json(facts))


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """The failed traces and problems of R runs: ``rows`` has a row for each trace, ``features`` for each problem (in
    the same order of problems), ``of`` [P] is the run of each, ``runs`` says what was compared with what."""

    rows: Rows
    features: Features
    of: tuple[int, ...]
    runs: tuple[dict[str, Any], ...]


async def examine(
    sources: Sequence[Source],
    *,
    temperature: float | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Examined:
    """The features of :func:`recoverability`, and nothing that is made of them."""
    table: list[dict[str, float]] = []
    failed: list[dict[str, list[Trace]]] = []
    runs: list[dict[str, Any]] = []
    for source in sources:
        failed.append((flagged if source.blind else failures)(source.run))
        traces = [trace for of_problem in failed[-1].values() for trace in of_problem]
        at = compared_at(source.run) if temperature is None else temperature
        diverging, how = await _diverging(source, traces, at, progress)
        rolled = dict(_rolled(source.run, traces))
        for trace in traces:
            pair = features.of_trace(diverging[trace.id]) if trace.id in diverging else {}
            table.append(fallback.of_trace(trace) | pair | rolled.get(trace.id, {}))
        runs.append(_told(source, failed[-1], how, at))
    rows = _rows(table, failed)
    of = tuple(int(key.partition("/")[0]) for key in rows.problems)
    return Examined(rows, _features(rows, failed, sources), of, tuple(runs))


async def recoverability(
    sources: Sequence[Source],
    *,
    temperature: float | None = None,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Recoverability:
    """Features of the failed problems of each run, and what they divide into.

    ``temperature`` is the one at which the two models are compared (None: where each run decoded, 1 where that was
    greedy). Raises ``WrongturnError`` where a run has no failed
    sample, is another model's, or stores too few alternatives to do without its model.
    """
    seen = await examine(sources, temperature=temperature, progress=progress)
    found, of = seen.features, seen.of
    outcomes = [_outcomes(source.run) for source in sources]
    labels, called, null_rates = _labels(found.problems, of, outcomes, seed)
    shape = PUBLISHED if any(source.ancestor for source in sources) else fallback.SHAPE
    apart = replace(found, groups=tuple(f"{run}/{g}" for run, g in zip(of, found.groups, strict=True)))
    return Recoverability(
        runs=seen.runs,
        of=of,
        features=found,
        correlations=correlation_with_length(found, seed),
        regimes=regimes(apart, shape, seen.rows, [None if told is None else told.label for told in labels], seed),
        labels=labels,
        untold="; ".join(dict.fromkeys(told for told in outcomes if isinstance(told, str))),
        called=called,
        null_rates=null_rates,
        topography=topography(_by_method(found, of, sources), shape, seed) if len(sources) > 1 else None,
    )


async def _diverging(
    source: Source, traces: Sequence[Trace], temperature: float, progress: Progress
) -> tuple[dict[str, Divergence], str]:
    """How the two models differ along each trace, by its id, and what that was told from."""
    ancestor, specialist, run = source.ancestor, source.specialist, source.run
    if ancestor is None:
        return {}, ""
    if specialist is not None:
        same_model(specialist, run, "be compared with its ancestor there")
        vocab = specialist.capabilities.vocab_size or 0
        how = "whole distributions" if vocab <= EXACT else f"the {LISTED} likeliest tokens of both"
        return await divergences(specialist, ancestor, traces, progress, temperature=temperature), how
    vocab = ancestor.capabilities.vocab_size
    if vocab is None:
        raise WrongturnError(f"{ancestor.model} does not say how large its vocabulary is: give --model")
    stored = {t.id: t for t in run.traces(strategy="sample", correct=False)}
    k = min(stored[trace.id].top_ids.shape[1] for trace in traces)
    if k < min(TOP, vocab):
        raise WrongturnError(
            f"{run.path}: its traces hold {k} alternatives a token, and {min(TOP, vocab)} are needed: give --model"
        )
    found: dict[str, Divergence] = {}
    width = vocab if vocab <= EXACT else LISTED
    for first in range(0, len(traces), _BATCH):
        part = [stored[trace.id] for trace in traces[first : first + _BATCH]]
        prefixes = [(np.concatenate((trace.prompt_ids, trace.ids)), len(trace.prompt_ids)) for trace in part]
        scored = await asyncio.gather(*(ancestor.score(*prefix, top_k=width) for prefix in prefixes))
        for trace, said in zip(part, scored, strict=True):
            ours = Lists(trace.top_ids, trace.top_logprobs, trace.signals.nll)
            theirs = Lists(said.top_ids, said.top_logprobs, said.signals.nll)
            found[trace.id] = from_lists(ours, theirs, vocab, temperature=temperature)
        progress("scoring", len(found), len(traces))
    return found, f"the {k} alternatives stored with each token"


def enough_stored(run: Run) -> bool:
    """Whether a run's traces hold as many alternatives as doing without its model takes."""
    return int(run.settings.get("top_k") or 0) >= TOP


def _rolled(run: Run, traces: Sequence[Trace]) -> Iterator[tuple[str, dict[str, float]]]:
    """Features from the continuations of traces that were located, by id."""
    stored = bank(run, {trace.id: trace for trace in traces})
    known = {parent for parent, _ in stored}
    chosen = [trace for trace in traces if trace.id in known]
    table = tabulate(chosen, run.problems())
    for i, trace in enumerate(chosen):
        steps = slice(table.first_segment[i], table.first_segment[i + 1])
        spans = np.column_stack((table.start[steps], table.stop[steps]))
        rollouts = [rollout for (parent, _), made in stored.items() if parent == trace.id for rollout in made.values()]
        yield trace.id, fallback.of_rollouts(rollouts, spans)


def _told(source: Source, failed: Mapping[str, Sequence[Trace]], how: str, temperature: float) -> dict[str, Any]:
    """A run, for the record."""
    return {
        "run": source.run.path.name,
        "method": source.method,
        "failed_problems": len(failed),
        "failed_traces": sum(map(len, failed.values())),
        "ancestor": source.ancestor.identity() if source.ancestor else None,
        "told_from": how or None,
        "temperature": temperature if source.ancestor else None,
    }


def _rows(table: Sequence[Mapping[str, float]], failed: Sequence[Mapping[str, Sequence[Trace]]]) -> Rows:
    """Problems are named ``RUN/ID``, the run by its number."""
    keys = [(f"{r:06d}/{name}", t.group) for r, by in enumerate(failed) for name, of in by.items() for t in of]
    names = dict.fromkeys((*features.names(), *fallback.PER_TRACE, *fallback.ROLLED))
    return features.rows(table, [name for name, _ in keys], dict(keys), tuple(names))


def _features(rows: Rows, failed: Sequence[Mapping[str, Sequence[Trace]]], sources: Sequence[Source]) -> Features:
    place = [key.partition("/")[::2] for key in rows.problems]
    together = [fallback.of_problem(failed[int(run)][name]) for run, name in place]
    values = np.column_stack((rows.mean(), [[row[key] for key in fallback.TOGETHER] for row in together]))
    names = (*rows.names, *fallback.TOGETHER)
    why = dict.fromkeys(features.names(), "no ancestor was given") | {"concentration_free": "no ancestor was given"}
    why = {} if all(source.ancestor for source in sources) else why
    why |= dict.fromkeys(fallback.ROLLED, "no failed trace was continued (wrongturn locate does)")
    why |= dict.fromkeys(fallback.TOGETHER, "no problem has two failed traces that tell it")
    empty = [name for name, column in zip(names, values.T, strict=True) if np.isnan(column).all()]
    reasons = {name: why.get(name, "the traces do not tell it") for name in empty}
    return Features(tuple(name for _, name in place), rows.groups, names, values, rows.failed, reasons)


def _outcomes(run: Run) -> Outcomes | str:
    """What tries came to, or why that is not known."""
    try:
        folder = run.path / FOLDER
        return read_outcomes(Run.open(folder) if folder.is_dir() else run)
    except WrongturnError as problem:
        return str(problem)


def _labels(
    problems: Sequence[str], of: Sequence[int], outcomes: Sequence[Outcomes | str], seed: int
) -> tuple[tuple[Label | None, ...], dict[str, Estimate], dict[str, Estimate]]:
    """Labels [P], the share of problems called steerable, and the share called so by chance, both over all runs."""
    found: dict[tuple[int, str], Label] = {}
    hits, chance = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    units: list[str] = []
    for run, tried in enumerate(outcomes):
        if isinstance(tried, str):
            continue
        halves, once = split(tried.right, seed), [name for name in tried.operators if _once(name)]
        units += tried.problems
        for name, compat in (("split", None), ("naive", "naive")):
            told = label(*halves, tried.operators, once=once, compat=compat)
            hits[name] += [row.label == STEERABLE for row in told]
            retry = tried.operators.index(RETRY)
            chance[name] += by_chance(*halves, retry=retry, compat=compat, seed=seed).tolist()
            if compat is None:
                found |= {(run, problem): row for problem, row in zip(tried.problems, told, strict=True)}
    called, nulls = ({name: share(rows, units) for name, rows in by.items()} for by in (hits, chance))
    return tuple(found.get(key) for key in zip(of, problems, strict=True)), called, nulls


def _once(operator: str) -> bool:
    """Whether an operator (one that is known here) always does the same, and so was tried once."""
    try:
        return always_the_same(parse(operator))
    except ValueError:
        return False


def _by_method(found: Features, of: Sequence[int], sources: Sequence[Source]) -> list[tuple[str, Features]]:
    parts = []
    for run, source in enumerate(sources):
        rows = [i for i, r in enumerate(of) if r == run]
        names = tuple(found.problems[i] for i in rows), tuple(found.groups[i] for i in rows)
        parts.append((source.method, Features(*names, found.names, found.values[rows], found.failed[rows])))
    return parts


def _cell(cell: Any) -> dict[str, Any]:
    known = {name: value if math.isfinite(value) else None for name in ("p", "holm") for value in [getattr(cell, name)]}
    return asdict(cell) | known | {"rate": cell.rate.dict()}
