"""What makes the reasoner learn: a short training with one thing changed at a time, each equally long.

    python bench/lab_ablation.py [--tokens 3M] [--runs runs/lab_ablation] [VARIANT[:SEED] ...]
    python bench/lab_ablation.py write          # table and picture from bench/results/lab_ablation.json

Without names: every variant with seed 0, in order, about eight minutes each on a quiet core. A killed run goes on where
it was, a finished one is only read. The base is the packaged recipe but for its calendar: graphs grow and drills fade
over the whole of so short a run, not its first 12 and 30 % ("packaged-calendar"). Accuracies are by teacher forcing, on
256 graphs every 50 steps, and at the end on 1,000 of held-out classes; a greedy trace is exact iff every token of it
is. Writes bench/results/lab_ablation.json.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from wrongturn import stats
from wrongturn.cli_common import count
from wrongturn.lab import picture
from wrongturn.lab.evaluate import fresh, plain
from wrongturn.lab.forcing import forced, token_roles
from wrongturn.lab.graph_examples import GraphRecipe
from wrongturn.lab.train import TrainConfig, train
from wrongturn.tasks import graphs as gs

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "lab_ablation.json", HERE.parent / "docs"
N, EVERY, REACHED = 1000, 50, 0.9
ROLES = {"path": "path", "neighbour": "neighbour", "node": "next node", "close": "list end", "back": "trace back"}
GRAPHS = ("G15_2,4", "G15_5,6")
PLACES = ("1st", "2nd", "later")

BASE = GraphRecipe(growth=1.0, drill_until=1.0)
NO_LISTING = {"listing": 0.0, "listing_end": 0.0}
NO_TRAVERSAL = {"traversal": 0.0, "traversal_end": 0.0}
CALENDAR = {"growth": GraphRecipe().growth, "drill_until": GraphRecipe().drill_until}
PLAIN = {"look_back": ()}
VARIANTS: dict[str, tuple[str, float, dict[str, Any], dict[str, Any]]] = {  # text, length, training, recipe
    "base": ("base", 1, {}, {}),
    "no-drills": ("no drills", 1, {}, NO_LISTING | NO_TRAVERSAL),
    "no-look-back": ("plain initialisation", 1, PLAIN, {}),
    "adamw": ("AdamW alone", 1, {"optimizer": "adamw"}, {}),
    "no-growth": ("15 nodes from the start", 1, {}, {"start_nodes": (15, 15), "growth": 0.0}),
    "prompt-order": ("lists in the prompt's order", 1, {}, {"order": "prompt"}),
    "no-look-back-2x": ("plain initialisation, twice the tokens", 2, PLAIN, {}),
    "no-look-back-slow": ("plain initialisation, a third of the learning rate", 1, PLAIN | {"lr": 7e-4}, {}),
    "slow": ("a third of the learning rate", 1, {"lr": 7e-4}, {}),
    "packaged-calendar": ("the packaged calendar, a third longer", 4 / 3, {}, CALENDAR),
    "no-listing": ("no listing drill", 1, {}, NO_LISTING),
    "no-traversal": ("no traversal drill", 1, {}, NO_TRAVERSAL),
    "no-weights": ("all tokens weigh the same", 1, {}, {"label_weight": 1.0}),
}


def config(name: str, tokens: int, seed: int) -> TrainConfig:
    _, length, training, recipe = VARIANTS[name]
    return TrainConfig(recipe=replace(BASE, **recipe), tokens=round(length * tokens), seed=seed, **training)


def measure(name: str, tokens: int, seed: int, runs: Path, held_out: dict[str, list[gs.Query]]) -> dict[str, Any]:
    """Train (or read what was trained) and measure: facts of one variant."""
    made = config(name, tokens, seed)
    assert isinstance(made.recipe, GraphRecipe)
    gold = made.recipe.gold
    folder = runs / f"{name}-{seed}"
    model = train(made, folder, evaluate_every=EVERY)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    curve = {
        r["step"]: {k: round(r[k], 4) for k in ("tokens", "exact", "exact_long", *ROLES)} for r in log if "exact" in r
    }
    facts: dict[str, Any] = {"variant": name, "seed": seed, "tokens": log[-1]["tokens"], "steps": log[-1]["step"]}
    facts["seconds"] = log[-1]["seconds"]
    facts["reached"] = {role: next((r["tokens"] for r in curve.values() if r[role] >= REACHED), None) for role in ROLES}
    for graphs in GRAPHS:
        found = forced(model, held_out[graphs], gold)
        exact = plain(stats.proportion(round(found["exact"] * N), N))
        facts[graphs] = {"exact": exact} | {role: found[role] for role in ROLES}
    placed = forced(model, held_out[GRAPHS[0]], gold, places)
    facts["places"] = {place: placed[place] for place in PLACES}
    return facts | {"curve": list(curve.values())}


def places(trace: list[int]) -> list[str]:
    """Of each token of a trace, which neighbour of its list it is ("" where it is none)."""
    named, place = [], 0
    for role, token in zip(token_roles(trace), trace, strict=True):
        place = 0 if token == gs.LIST else place + (role == "neighbour")
        named.append(PLACES[min(place, 3) - 1] if role == "neighbour" else "")
    return named


def table(found: list[dict[str, Any]]) -> str:
    heads = ["", "seed", *ROLES.values(), "1st, 2nd, later neighbour", "half of them at", "whole trace"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for f in found:
        half = next((f"{r['tokens'] / 1e6:.1f} M" for r in f["curve"] if r["neighbour"] >= 0.5), "–")
        cells = [f"{100 * f['G15_2,4'][role]:.0f}{at(f['reached'][role])}" for role in ROLES]
        cells += [", ".join(f"{100 * share:.0f}" for share in f["places"].values()), half]
        cells += [percent(f["G15_2,4"]["exact"])]
        lines.append(f"| {VARIANTS[f['variant']][0]} | {f['seed']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def at(tokens: int | None) -> str:
    return "" if tokens is None else f" ({tokens / 1e6:.1f} M)"


def percent(e: dict[str, float]) -> str:
    return f"{100 * e['value']:.1f} [{100 * e['low']:.1f}, {100 * e['high']:.1f}]"


def draw(found: list[dict[str, Any]]) -> str:
    shown = [f for f in found if f["seed"] == 0][:6]
    series = {f["variant"].replace("-", " "): [(r["tokens"] / 1e6, r["neighbour"]) for r in f["curve"]] for f in shown}
    return picture.curves("Neighbours right, %, by what is left out", series, "training tokens, million")


def read() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(VARIANTS))
    parser.add_argument("--tokens", default="3M")
    parser.add_argument("--runs", type=Path, default=Path("runs/lab_ablation"))
    asked = parser.parse_args()
    if asked.names != ["write"]:
        torch.set_num_threads(1)
        held_out = {g: [gs.parse_prompt(p.prompt_ids) for p in fresh(gs.Distribution.parse(g), N, 1)] for g in GRAPHS}
        for name, _, seed in (a.partition(":") for a in asked.names):
            facts = measure(name, count(asked.tokens), int(seed or 0), asked.runs, held_out)
            found = [f for f in read() if (f["variant"], f["seed"]) != (name, facts["seed"])] + [facts]
            found.sort(key=lambda f: (list(VARIANTS).index(f["variant"]), f["seed"]))
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            print(name, seed, f"{facts['seconds']:.0f} s", flush=True)
    found = read()
    (DOCS / "lab-ablation.svg").write_text(draw(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
