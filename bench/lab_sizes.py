"""Does a bigger reasoner search better on graphs like those it learned from, and worse on others? Sizes and seeds.

    python bench/lab_sizes.py [--tokens 10M] [--runs runs/lab_sizes] [--compile] [SIZE[:SEED] ...]
    python bench/lab_sizes.py write             # results, table and picture from what the runs have left

The sizes are the published ones, layers x heads, all 128 wide, all on equally many tokens. Without names: three seeds
of each. A killed run goes on where it was, a finished one is only measured (greedy and sampled, the six published
distributions, test graphs the same for all), a measured one is left alone; so several may run side by side:

    printf '%s\\n' 3x4:0 3x8:0 6x4:0 | xargs -P 2 -n 1 python bench/lab_sizes.py

The recipe is the packaged one for a shorter training: batches of 16 instead of 32, graphs grow and drills fade over its
first quarter instead of its first 12 and 30 %. Writes bench/results/lab_sizes.json.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.stats import ttest_ind

from wrongturn.cli_common import count
from wrongturn.lab import picture, published
from wrongturn.lab.anatomy import anatomy
from wrongturn.lab.evaluate import evaluate, sample
from wrongturn.lab.graph_examples import GraphRecipe
from wrongturn.lab.machine import Machine
from wrongturn.lab.model import ModelConfig
from wrongturn.lab.train import TrainConfig, train

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "lab_sizes.json", HERE.parent / "docs"
SIZES = {f"{layers}x{heads}": (layers, heads) for layers, heads in published.SIZES}
SEEDS = range(3)
N_GREEDY, N_SAMPLED = 300, 200
MEASURES = (("greedy", "path_accuracy"), ("greedy", "trace_accuracy"), ("sampled", "path_accuracy"))


def config(size: str, seed: int, tokens: int) -> TrainConfig:
    layers, heads = SIZES[size]
    recipe = GraphRecipe(growth=0.25, drill_until=0.25, batch=16)
    lr = 2e-3 if layers < 12 else 7e-4  # at 2e-3 seed 0 of twelve layers found no neighbours
    return TrainConfig(model=ModelConfig(layers=layers, heads=heads), recipe=recipe, tokens=tokens, lr=lr, seed=seed)


def measure(size: str, seed: int, tokens: int, runs: Path, compiled: bool) -> None:
    """Train and measure one run, unless that is done; what was found stays in its folder."""
    made, folder = config(size, seed, tokens), runs / f"{size}-{seed}"
    if (folder / "found.json").exists():
        return
    train(made, folder, machine=Machine(compile=compiled), evaluate_every=500)
    facts: dict[str, Any] = {"size": size, "seed": seed, "parameters": made.model.parameters()}
    facts["seconds"] = logged(folder)[-1]["seconds"]
    facts["greedy"] = evaluate(folder, published.DISTRIBUTIONS, n=N_GREEDY)["results"]
    facts["sampled"] = evaluate(folder, published.DISTRIBUTIONS, n=N_SAMPLED, sampled=True)["results"]
    dissected = anatomy(*sample(folder, published.DISTRIBUTIONS, n=N_SAMPLED, samples=1)).dict()
    facts["claims"] = [{k: c[k] for k in ("name", "verdict", "estimate", "n", "detail")} for c in dissected["claims"]]
    facts["groups"] = dissected["groups"]
    (folder / "found.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(size, seed, f"{facts['seconds']:.0f} s", [round(100 * r["path_accuracy"]["value"]) for r in facts["greedy"]])


# -- what the runs say together ----------------------------------------------------------------------------------------


def depth(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points of accuracy that 6 layers have more than 3, per distribution: means over runs, 95 % by Welch's t over runs
    (of other seeds and numbers of heads). The published figures have one run of each size and no interval."""
    rows = []
    for i, distribution in enumerate(published.DISTRIBUTIONS):
        row: dict[str, Any] = {"distribution": distribution}
        for decoding, kind in MEASURES:
            deep, shallow = (
                [100 * f[decoding][i][kind]["value"] for f in found if SIZES[f["size"]][0] == layers]
                for layers in (6, 3)
            )
            row[f"{decoding} {kind}"] = more(deep, shallow)
        deep, shallow = (
            [
                (published.accuracy(distribution, *size) or (float("nan"),))[0]
                for size in published.SIZES
                if size[0] == n
            ]
            for n in (6, 3)
        )
        row["published"] = round(float(np.mean(deep) - np.mean(shallow)), 2)
        rows.append(row)
    return rows


def spread(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per distribution the standard deviation of right paths over the seeds of a size (pooled, points), and how many
    runs of each size it takes to see 5 points (two-sided 5 %, power 80 %)."""
    rows = []
    for i, distribution in enumerate(published.DISTRIBUTIONS):
        sizes: dict[str, list[float]] = {}
        for f in found:
            sizes.setdefault(f["size"], []).append(100 * f["greedy"][i]["path_accuracy"]["value"])
        freedom = sum(len(values) - 1 for values in sizes.values())
        variance = sum(np.var(values) * len(values) for values in sizes.values()) / freedom if freedom else float("nan")
        rows.append({"distribution": distribution, "points": variance**0.5, "runs": 2 * 2.8**2 * variance / 5**2})
    return rows


def more(a: Sequence[float], b: Sequence[float]) -> dict[str, float | int | None]:
    if min(len(a), len(b)) < 2:
        return {"value": None, "low": None, "high": None, "n": len(a) + len(b)}
    low, high = ttest_ind(a, b, equal_var=False).confidence_interval()
    return {"value": float(np.mean(a) - np.mean(b)), "low": float(low), "high": float(high), "n": len(a) + len(b)}


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def read(runs: Path) -> list[dict[str, Any]]:
    """Every run with its learning curve; those that were not finished have nothing else."""
    found = []
    for folder in (log.parent for log in runs.glob("*/log.jsonl")):
        size, seed, *_ = folder.name.split("-")
        done = folder / "found.json"
        facts = json.loads(done.read_text()) if done.exists() else {"size": size, "seed": int(seed)}
        facts["lr"] = json.loads((folder / "config.json").read_text())["lr"]
        shown = ("tokens", "neighbour", "back", "exact", "exact_long")
        facts["curve"] = [{k: round(r[k], 4) for k in shown} for r in logged(folder) if "exact" in r]
        found.append(facts)
    return sorted(found, key=lambda f: (list(SIZES).index(f["size"]), f["lr"], f["seed"]))


def label(facts: dict[str, Any]) -> str:
    return facts["size"] if facts["lr"] == 2e-3 else f"{facts['size']} at {facts['lr']:g}"


def draw(found: Sequence[dict[str, Any]]) -> str:
    """The first seed of each size, then the seeds of two sizes."""
    shown = [("neighbour", "Neighbours right, by layers x heads", [f for f in found if f["seed"] == 0], label)]
    for size, role, what in (
        ("6x8", "neighbour", "Neighbours right, 6x8, by seed"),
        ("3x4", "back", "Trace back right on G15_2,4, 3x4, by seed"),
        ("3x4", "exact_long", "Whole traces right on G15_5,6, 3x4, by seed"),
    ):
        shown.append((role, what, [f for f in found if f["size"] == size], lambda facts: f"seed {facts['seed']}"))
    return picture.stack(
        [
            picture.curves(
                f"{what}, %",
                {name(f): [(r["tokens"] / 1e6, r[role]) for r in f["curve"]] for f in runs},
                "training tokens, million",
            )
            for role, what, runs, name in shown
        ]
    )


def table(found: Sequence[dict[str, Any]], decoding: str, kind: str) -> str:
    """Every run, in the order of seeds, and the published one."""
    lines = ["| | " + " | ".join(published.DISTRIBUTIONS) + " |", "|---" * 7 + "|"]
    for size, shape in SIZES.items():
        cells, runs = [], [f for f in found if f["size"] == size]
        for i, distribution in enumerate(published.DISTRIBUTIONS):
            theirs, _ = published.accuracy(distribution, *shape) or (float("nan"),) * 2
            ours = ", ".join(f"{100 * f[decoding][i][kind]['value']:.0f}" for f in runs) or "–"
            cells.append(f"{ours} / {theirs:.0f}")
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(runs: Path) -> None:
    everything = read(runs) or json.loads(RESULTS.read_text())["runs"]
    found = [f for f in everything if "greedy" in f]
    facts = {"depth": depth(found), "spread": spread(found), "runs": everything}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    (DOCS / "lab-sizes.svg").write_text(draw(everything), encoding="utf-8")
    for decoding, kind in MEASURES:
        print(f"\n{decoding}, {kind}: here / published\n" + table(found, decoding, kind))
    print("\n| 6 layers minus 3, points | " + " | ".join(f"{d} {kind}" for d, kind in MEASURES) + " | published |")
    for row in facts["depth"]:
        print(f"| {row['distribution']} | " + " | ".join(signed(row[f"{d} {k}"]) for d, k in MEASURES), end="")
        print(f" | {row['published']:+.1f} |")
    for row in facts["spread"]:
        print(f"{row['distribution']}: seeds of a size {row['points']:.0f} points apart, {row['runs']:.0f} runs for 5")


def signed(e: dict[str, Any]) -> str:
    return "–" if e["value"] is None else f"{e['value']:+.0f} [{e['low']:+.0f}, {e['high']:+.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[f"{size}:{seed}" for seed in SEEDS for size in SIZES])
    parser.add_argument("--tokens", default="10M")
    parser.add_argument("--runs", type=Path, default=Path("runs/lab_sizes"))
    parser.add_argument("--compile", action="store_true", help="torch.compile: a minute more at the start, then faster")
    asked = parser.parse_args()
    if asked.names != ["write"]:
        torch.set_num_threads(1)
        for size, _, seed in (name.partition(":") for name in asked.names):
            measure(size, int(seed or 0), count(asked.tokens), asked.runs, asked.compile)
    else:
        write(asked.runs)


if __name__ == "__main__":
    main()
