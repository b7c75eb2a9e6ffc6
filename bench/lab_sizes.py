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

from wrongturn import stats
from wrongturn.cli_common import count
from wrongturn.lab import published
from wrongturn.lab.anatomy import anatomy
from wrongturn.lab.evaluate import evaluate, plain, sample
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
    return TrainConfig(model=ModelConfig(layers=layers, heads=heads), recipe=recipe, tokens=tokens, seed=seed)


def measure(size: str, seed: int, tokens: int, runs: Path, compiled: bool) -> None:
    """Train and measure one run, unless that is done; what was found stays in its folder."""
    made, folder = config(size, seed, tokens), runs / f"{size}-{seed}"
    if (folder / "found.json").exists():
        return
    train(made, folder, machine=Machine(compile=compiled), evaluate_every=500)
    facts: dict[str, Any] = {"size": size, "seed": seed, "parameters": made.model.parameters()}
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    facts |= {name: log[-1][name] for name in ("tokens", "step", "seconds")}
    facts["curve"] = [{k: round(r[k], 4) for k in ("tokens", "exact", "exact_long")} for r in log if "exact" in r]
    facts["greedy"] = evaluate(folder, published.DISTRIBUTIONS, n=N_GREEDY)["results"]
    facts["sampled"] = evaluate(folder, published.DISTRIBUTIONS, n=N_SAMPLED, sampled=True)["results"]
    dissected = anatomy(*sample(folder, published.DISTRIBUTIONS, n=N_SAMPLED, samples=1)).dict()
    facts["claims"] = [{k: c[k] for k in ("name", "verdict", "estimate", "n", "detail")} for c in dissected["claims"]]
    facts["groups"] = dissected["groups"]
    (folder / "found.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(size, seed, f"{facts['seconds']:.0f} s", [round(100 * r["path_accuracy"]["value"]) for r in facts["greedy"]])


# -- what the runs say together ----------------------------------------------------------------------------------------


def trends(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points of accuracy for every doubling of the layers, per distribution: least squares over runs; 95 % bootstrap
    interval over runs. NaN where all runs are of one size."""
    layers = np.log2([SIZES[f["size"]][0] for f in found])

    def slope(x: np.ndarray, y: np.ndarray) -> float:
        spread = x - x.mean()
        return float(spread @ y / (spread @ spread)) if spread.any() else float("nan")

    rows = []
    for i, distribution in enumerate(published.DISTRIBUTIONS):
        row: dict[str, Any] = {"distribution": distribution}
        for decoding, kind in MEASURES:
            accuracy = np.array([100 * f[decoding][i][kind]["value"] for f in found])
            row[f"{decoding} {kind}"] = plain(stats.bootstrap([layers, accuracy], slope))
        theirs = [np.mean(published.accuracy(distribution, *size) or ()) for size in published.SIZES]
        row["published"] = slope(np.log2([layers for layers, _ in published.SIZES]), np.array(theirs))
        rows.append(row)
    return rows


def read(runs: Path) -> list[dict[str, Any]]:
    found = [json.loads(file.read_text()) for file in runs.glob("*/found.json")]
    return sorted(found, key=lambda f: (list(SIZES).index(f["size"]), f["seed"]))


def table(found: Sequence[dict[str, Any]], decoding: str, kind: str) -> str:
    """Mean over seeds and its range, beside the published figure."""
    lines = ["| | seeds | " + " | ".join(published.DISTRIBUTIONS) + " |", "|---" * 8 + "|"]
    for size, shape in SIZES.items():
        cells, runs = [], [f for f in found if f["size"] == size]
        for i, distribution in enumerate(published.DISTRIBUTIONS):
            values = [100 * f[decoding][i][kind]["value"] for f in runs]
            theirs, _ = published.accuracy(distribution, *shape) or (float("nan"),) * 2
            ours = f"{np.mean(values):.0f} [{min(values):.0f}, {max(values):.0f}]" if values else "–"
            cells.append(f"{ours} / {theirs:.0f}")
        lines.append(f"| {size} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(runs: Path) -> None:
    found = read(runs) or json.loads(RESULTS.read_text())["runs"]
    facts = {"trends": trends(found), "runs": found}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    for decoding, kind in MEASURES:
        print(f"\n{decoding}, {kind}: mean over seeds [least, most] / published\n" + table(found, decoding, kind))
    print("\npoints for every doubling of the layers, greedy path, whole trace (published: path or trace)")
    for row in facts["trends"]:
        ours = [row[f"greedy {kind}"] for kind in ("path_accuracy", "trace_accuracy")]
        told = ", ".join(f"{e['value']:+.1f} [{e['low']:+.1f}, {e['high']:+.1f}]" for e in ours)
        print(f"{row['distribution']}: {told} ({row['published']:+.1f}), {len(found)} runs")


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
