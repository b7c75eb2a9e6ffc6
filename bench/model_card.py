"""Measure the packaged reasoner on every distribution, greedy and sampled, and write its model card.

    python bench/model_card.py            # 500 graphs a cell; about five minutes on one core

Writes MODEL_CARD.md beside the weights and bench/results/model_card.json. Test graphs come from a seed that training
never used.
"""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import wrongturn as wt
from wrongturn import stats

DISTRIBUTIONS = ("G15_2,4", "G17_2,4", "G20_2,4", "G15_5,6", "G17_5,6", "G20_5,6")
SEED, N = 20_26, 500
PUBLISHED = {  # "Learning to search" (2025), 6 layers x 4 heads and the range over its five models
    "G15_2,4": "89.2–99.9",
    "G17_2,4": "79.4–98.5",
    "G20_2,4": "78.9–98.5",
    "G15_5,6": "33.5–41.5",
    "G17_5,6": "30.5–40.1",
    "G20_5,6": "23.7–28.0",
}


def measure() -> dict[str, dict[str, object]]:
    engine = wt.open("embedded")
    cells = {}
    for name in DISTRIBUTIONS:
        problems = wt.tasks.GraphSearch().problems(name, N, SEED)
        cell: dict[str, object] = {}
        for kind, strategy in (("greedy", "greedy"), ("sampled", "sample")):
            traces = wt.solve(engine, problems, strategy=strategy, seed=SEED, top_k=0)
            cell[kind] = {
                "path": stats.proportion(sum(bool(t.correct) for t in traces), N).dict(),
                "exact": stats.proportion(sum(t.error is None for t in traces), N).dict(),
                "first_errors": dict(Counter(t.error for t in traces if t.error).most_common()),
                "tokens": sum(len(t) for t in traces) / N,
            }
        cells[name] = cell
        print(name, {k: v["path"] for k, v in cell.items()}, flush=True)  # type: ignore[index]
    return cells


def percent(e: dict[str, float]) -> str:
    return f"{100 * e['value']:.1f} [{100 * e['low']:.1f}, {100 * e['high']:.1f}]"


def card(cells: dict[str, dict], config: dict, log: list[dict]) -> str:
    model, last = config["model"], log[-1]
    rows = "\n".join(
        f"| {name} | {percent(c['greedy']['path'])} | {percent(c['greedy']['exact'])} | {percent(c['sampled']['path'])} "
        f"| {percent(c['sampled']['exact'])} | {PUBLISHED[name]} "
        f"| {', '.join(f'{k} {v}' for k, v in list(c['greedy']['first_errors'].items())[:4])} |"
        for name, c in cells.items()
    )
    return f"""# Model card: the embedded reasoner

A {model["layers"]}-layer Llama-style transformer ({model["heads"]} heads, width {model["width"]}, feed-forward {model["ffn"]},
tied embeddings, attention biases, RoPE θ = {model["rope_theta"]:.0f}), trained from scratch by `wrongturn lab train graph_search` to write
out a breadth-first search over a graph given in its prompt, then the shortest path. 31 tokens, context {model["context"]}.

**Use.** Trying out failure diagnosis and inference-time interventions where the first wrong token is known exactly. It knows nothing
but this task.

**Files.** `model.safetensors`, `config.json`, `tokenizer.json`: a Hugging Face checkpoint (`LlamaForCausalLM`).
`graph.onnx`: the same network without weights, for the embedded engine. `training.json`: the recipe. `training_log.jsonl`: the log.

**Trained on** searches over G15_2,4 (15 of 20 node labels, 1.3 to 1.8 edges a node, shortest path 2 to 4 edges), and two drills: listing
every node's neighbours, and traversing everything reachable and tracing back from the node found last (so trace-backs of any
depth are seen, targets further than 4 edges never are). {last["tokens"] / 1e6:.0f} M tokens, {last["seconds"] / 60:.0f} minutes on one to two shared CPU cores, one seed.

**Accuracy**, % with 95 % Wilson intervals, n = {N} graphs a cell, seed {SEED}. *Path*: the final path is valid and shortest. *Exact*:
every token of the trace is right. Sampled: temperature 1. Published: path accuracy over the five models of "Learning to search"
(their training-set size, width and decoding are not stated, so this is context, not a replication).

| distribution | greedy path | greedy exact | sampled path | sampled exact | published | first errors, greedy |
|---|---|---|---|---|---|---|
{rows}

**Limits.** One seed of one size. Graphs with other densities, labels outside 0–19 or prompts of another form are outside what it was
trained on.

Made by `python bench/model_card.py`.
"""


if __name__ == "__main__":
    folder = Path(str(files("wrongturn"))) / "engines" / "weights" / "graph_search"
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    cells = measure()
    (results / "model_card.json").write_text(json.dumps({"n": N, "seed": SEED, "cells": cells}, indent=1))
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    config = json.loads((folder / "training.json").read_text())
    (folder / "MODEL_CARD.md").write_text(card(cells, config, log))
