"""The command ``wrongturn recoverability``: what kinds of failures a run has, and what can be done about them."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

import wrongturn
from wrongturn.cli_common import Json, Seed, emit, estimate, out, progress_bars, svg_file, table, warn, write_picture
from wrongturn.cli_locate import spec
from wrongturn.diagnose.recoverability.features import PUBLISHED
from wrongturn.diagnose.recoverability.figure import svg
from wrongturn.errors import WrongturnError
from wrongturn.pipeline import wait
from wrongturn.recoverability import Recoverability, Source, enough_stored
from wrongturn.recoverability import recoverability as tell
from wrongturn.store import Run

_SHOWN = (*PUBLISHED, "concentration_free", "junction", "entropy", "answer_entropy", "agreement")


def recoverability(
    folders: Annotated[list[Path], typer.Argument(help="Run folders; with several, can their models be told apart?")],
    ancestor: Annotated[
        str | None,
        typer.Option("--ancestor", "-a", help="The model theirs was trained from, of the same vocabulary."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The run's model (default: 20 stored alternatives a token, else as named)."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="At which the two models are compared. Default: each run's own (1 where it was greedy)."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the picture to this .svg file.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Do failed problems fall into regimes, by where their model departs from its ancestor, and what rescues them?"""
    svg_file(plot)
    if temperature is not None and not (temperature > 0 and math.isfinite(temperature)):
        raise WrongturnError(f"--temperature {temperature:g}: two models can be compared at any above 0")
    if model is not None and (ancestor is None or len(folders) > 1):
        raise WrongturnError("--model is for one run, compared with an --ancestor")
    opened = [source(folder, model, ancestor) for folder in folders]
    with progress_bars() as progress:
        found = wait(tell(opened, temperature=temperature, seed=seed, progress=progress))
    for names, reason in reasons(found).items():
        warn(f"not known: {names}: {reason}")
    x, y = found.regimes.names[:2]
    if plot is not None:
        write_picture(plot, svg(", ".join(folder.name for folder in folders), found.features, found.regimes, x, y))
    emit(found.dict(), as_json, print_recoverability)


def source(folder: Path, model: str | None, ancestor: str | None) -> Source:
    """A run with the engines it takes; an ancestor that names no engine is of the kind of the run's."""
    run = Run.open(folder)
    if ancestor is None:
        return Source(run)
    stored = model is None and enough_stored(run)
    own = str(run.settings.get("engine")) if stored else model or spec(folder, run.settings)
    kind = own.partition(":")[0]
    there, _, name = ancestor.rpartition(":")
    if not stored and there in ("", kind):
        engine = wrongturn.open(own, ancestor=name)  # says so where the vocabularies differ
        return Source(run, engine, engine.ancestor)
    return Source(run, None if stored else wrongturn.open(own), wrongturn.open(f"{there or kind}:{name}"))


def reasons(found: Recoverability) -> dict[str, str]:
    """Features that are not known, by the reason why."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.features.reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return {", ".join(names): reason for reason, names in by_reason.items()}


def print_recoverability(facts: dict[str, Any]) -> None:
    for run in facts["runs"]:
        told = f", told from {run['told_from']} at temperature {run['temperature']:g}" if run["told_from"] else ""
        out.print(f"{run['run']} ({run['method']}): {run['failed_problems']} failed problems, ", end="")
        out.print(f"{run['failed_traces']} failed traces{told}", highlight=False)
    print_features(facts)
    print_regimes(facts["regimes"])
    print_labels(facts)
    if facts["topography"] is not None:
        print_topography(facts["topography"])


def print_features(facts: dict[str, Any]) -> None:
    listed = table("Features of failed problems", "feature", "problems", "median", "25 %", "75 %", "with length")
    for name in _SHOWN:
        values = sorted(v for problem in facts["problems"] if (v := problem["features"].get(name)) is not None)
        if values:
            cuts = [values[round(q * (len(values) - 1))] for q in (0.5, 0.25, 0.75)]
            rho = estimate(facts["correlation_with_length"].get(name), percent=False, signed=True)
            listed.add_row(name, str(len(values)), *(f"{cut:.3f}" for cut in cuts), rho)
    out.print(listed)


def print_regimes(told: dict[str, Any]) -> None:
    if told["k"] is None:
        out.print(f"No regimes: {told['reason']}")
        return
    listed = table("Regimes", "regime", "problems", *told["names"], *told["labels"])
    for j, size in enumerate(told["sizes"]):
        counts = [] if told["table"] is None else [str(n) for n in told["table"][j]]
        listed.add_row(str(j + 1), str(size), *(f"{value:.3f}" for value in told["centres"][j]), *counts)
    out.print(listed)
    by_k = ", ".join(f"{k}: {value:.2f}" for k, value in told["silhouettes"].items())
    out.print(f"silhouette by number of regimes: {by_k}; one cloud does as well with p = {told['p_one']:.2f}")
    halves = "–" if told["stability_rollouts"] is None else f"{told['stability_rollouts']:.2f}"
    out.print(
        f"agreement (1: the same, 0: chance) on resampled problems {told['stability_bootstrap']:.2f}, between halves "
        f"of each problem's failed traces {halves} ({told['split_problems']} problems)"
    )
    if told["p"] is not None:
        out.print(f"do regimes go with labels? permuted within groups, p = {told['p']:.3f}")


def print_labels(facts: dict[str, Any]) -> None:
    if not facts["labels"]:
        out.print(f"No labels: {facts['untold']}", soft_wrap=True)
        return
    counts = Counter(row["label"] for row in facts["labels"])
    out.print("What rescues them: " + ", ".join(f"{n} {label}" for label, n in counts.most_common()))
    for name, rule in (("split", "chosen and tested on separate tries"), ("naive", "the published rule")):
        called, null = (estimate(facts[key].get(name)) for key in ("called", "null_rates"))
        out.print(f"  steerable, {rule}: {called} %; where no operator is better than another: {null} %")


def print_topography(told: dict[str, Any]) -> None:
    counts = ", ".join(f"{n} {method}" for method, n in told["methods"].items())
    if told["reason"]:
        out.print(f"Methods cannot be told apart ({counts}): {told['reason']}")
        return
    listed = table(f"Telling methods apart ({counts}), tested on {told['folds']} held out", "told from", "right %")
    for heading in ("features are better by", "even methods", "features are better by"):
        listed.add_column(heading)
    for name in ("accuracy", "majority", "length_only", "failures_only"):
        row = told[name]
        lifts = (estimate(row[key], signed=True) for key in ("lift", "lift_balanced"))
        lift, lift_even = lifts
        listed.add_row(row["told_from"], estimate(row["raw"]), lift, estimate(row["balanced"]), lift_even)
    out.print(listed)
