"""Graph examples a second on one core, and how often a test graph was trained on without the split.

    python bench/lab_data.py

An example is a drawn graph, checked against the split, its prompt and a right trace as token ids; "dfs" and "best" are
the searches in other orders. "plain" is the generator that draws one problem at a time (and knows no split), and writes
the breadth-first trace. The second part draws training and test graphs
without a split and counts test graphs whose twin (the same hash, then isomorphic by networkx) was trained on.
Writes bench/results/lab_data.json.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import networkx as nx
import numpy as np

from wrongturn.lab import split
from wrongturn.lab.graph_examples import GraphRecipe, searches
from wrongturn.tasks import graphs as gs

NAMES = ("G15_2,4", "G20_2,4", "G15_5,6", "G20_5,6")
TASKS = {"examples": "graph_search", "dfs": "graph_search_dfs", "best": "graph_search_best"}


def rate(work: Callable[[], int], rounds: int = 7) -> float:
    """Median examples a CPU second."""
    work()
    rates = []
    for _ in range(rounds):
        begun = time.process_time()
        made = work()
        rates.append(made / (time.process_time() - begun))
    return statistics.median(rates)


def speed() -> dict[str, dict[str, float]]:
    found = {}
    for name in NAMES:
        d, rng = gs.Distribution.parse(name), np.random.default_rng(0)
        stream = d.queries(0)

        def fast(task: str, d=d, rng=rng) -> int:
            return len(searches(rng, d.nodes, d.hops, 1024, task))

        def plain(stream=stream) -> int:
            return sum(bool(gs.prompt_ids(q) and gs.gold(q)) for q in (next(stream) for _ in range(300)))

        found[name] = {column: rate(partial(fast, task)) for column, task in TASKS.items()}
        found[name]["plain"] = rate(plain)
    rng = np.random.default_rng(0)
    found["training mix"] = {
        column: rate(lambda task=task: len(GraphRecipe(task=task).examples(rng, 1.0, 1024)))
        for column, task in TASKS.items()
    }
    return found


def twins(name: str, trained: int, tested: int) -> dict[str, int]:
    """Test graphs (of ``tested``) that share their hash with one of ``trained`` graphs, and that are isomorphic."""
    stream = gs.Distribution.parse(name).queries(10**6)
    by_hash: dict[int, list[gs.Query]] = {}
    for _ in range(0, trained, 1000):
        block = [next(stream) for _ in range(1000)]
        for query, h in zip(block, split.shape_hash(split.adjacency_of(block)).tolist(), strict=True):
            by_hash.setdefault(h, []).append(query)
    other = gs.Distribution.parse(name).queries(1)
    tests = [next(other) for _ in range(tested)]
    same = isomorphic = 0
    for query, h in zip(tests, split.shape_hash(split.adjacency_of(tests)).tolist(), strict=True):
        alike = by_hash.get(h, [])
        same += bool(alike)
        isomorphic += any(nx.is_isomorphic(nx.DiGraph(query.edges), nx.DiGraph(q.edges)) for q in alike)
    return {"trained": trained, "tested": tested, "same_hash": same, "isomorphic": isomorphic}


def main() -> None:
    facts: dict[str, object] = {"per_cpu_second": speed()}
    cells = (("G4_1,2", 20_000), ("G6_1,3", 20_000), ("G8_2,4", 20_000), ("G10_2,4", 20_000), ("G15_2,4", 40_000))
    facts["twins"] = {name: twins(name, trained, 1000) for name, trained in cells}
    Path(__file__).with_name("results").joinpath("lab_data.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
