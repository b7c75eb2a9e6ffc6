"""What rescues the failures of the packaged specialists, and which router would have chosen well.

Run: python bench/rescue.py (about an hour and a half on two quiet cores; goes on where it was stopped). Both
specialists, four samples of each of 150 graphs of the six published distributions at the published temperature 0.6;
every operator 12 times or more on every failed problem. Prints the tables of docs/recoverability.md, and saves them.

Regimes and localisation compare the two models at temperature 1, as those tables do. Operators and routers did so too
when the tables were made, and now do where they decode.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import wrongturn as wt
from wrongturn import routes
from wrongturn.diagnose.intervals import Resamples, share
from wrongturn.diagnose.recoverability.features import Features
from wrongturn.diagnose.recoverability.figure import svg as picture
from wrongturn.diagnose.recoverability.outcomes import Outcomes
from wrongturn.diagnose.table import tabulate
from wrongturn.engines.pair import divergences
from wrongturn.folder import to_json
from wrongturn.recoverability import Source, recoverability
from wrongturn.rescuing import failures
from wrongturn.routing import compare, figure, follow
from wrongturn.stats import difference

RESULTS = Path(__file__).parent / "results" / "rescue.json"
GRAPHS = ("G15_2,4", "G17_2,4", "G20_2,4", "G15_5,6", "G17_5,6", "G20_5,6")
MODELS = ("sft", "grpo")
DECODING: dict[str, Any] = {"sampling": wt.Sampling(0.6), "max_tokens": 192, "top_k": 0}
SEED, FRESH = 11, 12
"""Of the problems that are rescued, and of those that policies are tried on."""


def problems(n: int, seed: int) -> list[wt.Problem]:
    task = wt.tasks.GraphSearch()
    return [problem for name in GRAPHS for problem in task.problems(name, n, seed)]


def rescued(model: str, folder: Path, n: int, tries: int) -> tuple[wt.Run, routes.Rescued]:
    """The run of a model, its failures rescued."""
    engine = wt.open(f"embedded:{model}")
    run = wt.collect(engine, problems(n, SEED), out=folder, samples=4, seed=SEED, progress=told(model), **DECODING)
    pair = wt.open(f"embedded:{model}", ancestor="ancestor")
    return run, wt.pipeline.wait(routes.rescued(pair, run, tries=tries, blind=True, progress=told(model)))


def told(who: str) -> Any:
    last = [0.0]

    def progress(what: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 60:
            last[0] = time.monotonic()
            print(f"{who}: {what} {done}/{total}", flush=True)

    return progress


def together(parts: dict[str, routes.Rescued]) -> tuple[Features, Outcomes]:
    """Both models' failures as one table; a problem that both failed stays one unit."""
    outcomes = [part.tried.outcomes for part in parts.values()]
    features = [part.tried.features for part in parts.values()]
    width = max(o.right.shape[2] for o in outcomes)

    def stack(name: str, empty: float) -> np.ndarray:
        tables = [getattr(o, name) for o in outcomes]
        return np.concatenate(
            [np.pad(t, ((0, 0), (0, 0), (0, width - t.shape[2])), constant_values=empty) for t in tables]
        )

    called = [f"{model}:{name}" for model, o in zip(parts, outcomes, strict=True) for name in o.problems]
    groups = [f"{model} {name}" for model, o in zip(parts, outcomes, strict=True) for name in o.groups]
    units = tuple(name for o in outcomes for name in o.problems)
    tables = stack("right", np.nan), stack("tokens", np.nan), stack("answers", -1)
    both = Outcomes(tuple(called), tuple(groups), outcomes[0].operators, *tables, units=units)
    names = [f"{model}:{name}" for model, f in zip(parts, features, strict=True) for name in f.problems]
    values = np.concatenate([f.values for f in features])
    failed = np.concatenate([f.failed for f in features])
    return Features(tuple(names), ("",) * len(names), features[0].names, values, failed), both


def deployed(model: str, run: wt.Run, folder: Path, n: int) -> Iterator[dict[str, Any]]:
    """Policies fitted on the run, on problems that it never saw, beside self-consistency of as many tokens or more."""
    pair = wt.open(f"embedded:{model}", ancestor="ancestor")
    fresh = problems(n, FRESH)
    right: dict[str, list[bool]] = {}
    spent: dict[str, float] = {}
    strategies = {f"self_consistency:n={k}": f"self_consistency:n={k}" for k in (4, 5, 6)}
    for name, plain in (("policy, plain", True), ("policy, two models", False)):
        file = folder.with_name(f"{folder.name}-{'plain' if plain else 'two'}.json")
        routes.fit(run, plain=plain).save(file)
        strategies[name] = follow.spec(str(file))
    for name, strategy in strategies.items():
        traces = wt.solve(pair, fresh, strategy=strategy, seed=FRESH, **DECODING)
        right[name] = [bool(trace.correct) for trace in traces]
        spent[name] = float(np.mean([trace.usage.decoded for trace in traces]))
        print(model, name, np.mean(right[name]), spent[name], flush=True)
    for name, got in right.items():
        even = min((k for k in right if k.startswith("self")), key=lambda k: abs(spent[k] - spent[name]))
        against = None if name == even else difference(got, right[even]).dict()
        yield {"model": model, "strategy": name, "right": float(np.mean(got)), "n": len(got), "tokens": spent[name],
               "against": even, "difference": against}  # fmt: skip


def localised(model: str, run: wt.Run, seed: int = 0) -> dict[str, Any]:
    """How often a place found in a failed trace is the token, or within one step, of the true onset; and a control that
    puts the same relative depths into other failed traces of the distribution."""
    pair = wt.open(f"embedded:{model}", ancestor="ancestor")
    traces = [trace for found in failures(run).values() for trace in found]
    assert pair.ancestor is not None
    apart = wt.pipeline.wait(divergences(pair, pair.ancestor, traces, temperature=1.0))
    table = tabulate(traces, run.problems())
    known = np.flatnonzero(table.onset_segment >= 0)
    groups = np.array([trace.group for trace in traces])
    clusters = np.unique([trace.problem for trace in traces], return_inverse=True)[1][known]
    rng, boot = np.random.default_rng(seed), Resamples(int(clusters.max()) + 1, seed=seed)
    signals = {"demotion": lambda t: apart[t.id].demotion, "entropy": lambda t: t.signals.entropy}
    found: dict[str, Any] = {"traces": len(known)}
    for name, of in signals.items():
        at = np.array([int(np.nanargmax(of(trace))) for trace in traces])
        depth = at / np.array([len(trace) for trace in traces])
        dealt = depth.copy()
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            dealt[rows] = rng.permutation(depth[rows])
        other = (dealt * [len(trace) for trace in traces]).astype(int)
        hits = {}
        for what, places in (("", at), (", control", other)):
            step = [step_of(table, i, int(places[i])) for i in known]
            hits[f"token{what}"] = (places[known] == table.onset[known]).astype(float)
            hits[f"within a step{what}"] = np.abs(np.array(step) - table.onset_segment[known]) <= 1.0
        found[name] = {what: share(values, clusters).dict() for what, values in hits.items()}
        for what in ("token", "within a step"):
            away = np.asarray(hits[what], float) - hits[f"{what}, control"]
            found[name][f"{what}, less control"] = boot.mean(clusters, away).dict()
    return found


def brief(facts: Any) -> Any:
    """The same with rare plans, rates of single problems and figures of minor subsets left out."""
    if isinstance(facts, list):
        return [brief(row) for row in facts]
    if not isinstance(facts, dict):
        return round(facts, 5) if isinstance(facts, float) else facts
    kept = {name: brief(value) for name, value in facts.items() if name not in ("caveats", "base_rate")}
    if "plans" in kept and isinstance(kept["plans"], dict):
        kept["plans"] = {name: part for name, part in kept["plans"].items() if part >= 0.02}
    if "subsets" in kept:
        told = ("rescued", "low", "high", "n", "minus_retry", "minus_best_fixed")
        kept["subsets"] = {name: {key: row[key] for key in told} for name, row in kept["subsets"].items()}
    return kept


def step_of(table: Any, trace: int, token: int) -> int:
    """The step of a trace that a token is in."""
    stops = table.stop[table.first_segment[trace] : table.first_segment[trace + 1]]
    return int(np.searchsorted(stops, token, side="right"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=150)
    parser.add_argument("--fresh", type=int, default=50)
    parser.add_argument("--tries", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("runs/rescue"))
    parser.add_argument("--pictures", type=Path, default=Path("runs/rescue"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    asked.pictures.mkdir(parents=True, exist_ok=True)
    runs, parts = {}, {}
    for model in MODELS:
        runs[model], parts[model] = rescued(model, asked.out / model, asked.problems, asked.tries)
    found: dict[str, Any] = {
        model: {k: v for k, v in part.dict().items() if k != "problems"} for model, part in parts.items()
    }
    features, outcomes = together(parts)
    budget = routes.two_retries(outcomes)
    both = compare(features, outcomes, budget=budget)
    found["both"] = both.dict()
    found["both, plain features"] = compare(routes.routable(features, routes.PLAIN), outcomes, budget=budget).dict()
    for times in (1, 4):
        found[f"both, {times} retries"] = compare(features, outcomes, budget=times * budget / 2).dict()
    sources = []
    for model, run in runs.items():
        pair = wt.open(f"embedded:{model}", ancestor="ancestor")
        sources.append(Source(run, pair, pair.ancestor))
    for name, some in (("sft", (0,)), ("grpo", (1,)), ("both", (0, 1))):
        whole = wt.pipeline.wait(recoverability([sources[i] for i in some], temperature=1.0))
        told_of = whole.dict()
        found[f"recoverability {name}"] = {k: v for k, v in told_of.items() if k not in ("problems", "labels")} | {
            "labelled": dict(Counter(label["label"] for label in told_of["labels"]))
        }
        if name == "both":
            x, y = whole.regimes.names[:2]
            drawn = picture("Both specialists", whole.features, whole.regimes, x, y)
            (asked.pictures / "regimes.svg").write_text(drawn)
    found["localised"] = {model: localised(model, run) for model, run in runs.items()}
    found["deployed"] = [
        row for model in MODELS for row in deployed(model, runs[model], asked.out / model, asked.fresh)
    ]
    (asked.pictures / "rescue_routers.svg").write_text(figure.routers("Both specialists", both))
    (asked.pictures / "rescue_matrix.svg").write_text(figure.matrix("Both specialists", outcomes))
    RESULTS.write_text(json.dumps(brief(json.loads(to_json(found))), indent=1) + "\n")
    print(json.dumps(found["deployed"], indent=1))


if __name__ == "__main__":
    main()
