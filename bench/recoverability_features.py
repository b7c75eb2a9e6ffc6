"""What it takes to compare two models along failed traces and to make features of it, without the models.

Run: python bench/recoverability_features.py. 10,000 traces of 200 tokens, one at a time and on one core: whole
distributions of 31 tokens (the packaged models), and lists of the 100 likeliest of 151,936 (Qwen's vocabulary). A few
hundred made traces are measured over and over. Target: 60 s of processor time each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np

from wrongturn.diagnose.recoverability.features import of_trace
from wrongturn.divergence import Divergence, Lists, from_lists, from_logits

RESULTS = Path(__file__).parent / "results" / "recoverability_features.json"
TRACES, TOKENS, MADE, TARGET = 10_000, 200, 200, 60.0
SMALL, LARGE, LISTED = 31, 151_936, 100


def whole(rng: np.random.Generator) -> Callable[[], Divergence]:
    specialist = (rng.normal(size=(TOKENS, SMALL)) * 3).astype(np.float32)
    ancestor = specialist + rng.normal(size=(TOKENS, SMALL)).astype(np.float32)
    chosen = rng.integers(0, SMALL, TOKENS)
    return lambda: from_logits(specialist, ancestor, chosen)


def lists(rng: np.random.Generator) -> Callable[[], Divergence]:
    """Two lists that share about three quarters of their tokens."""
    pool = np.argsort(rng.random((TOKENS, 2 * LISTED)), axis=1)
    start = rng.integers(0, LARGE - 700 * 2 * LISTED, (TOKENS, 1))
    pair = []
    for first in (0, LISTED // 4):
        logs = np.sort(-rng.exponential(4.0, (TOKENS, LISTED)), axis=1)[:, ::-1]
        logs = (logs - np.log(np.exp(logs).sum(axis=1, keepdims=True)) - 0.02).astype(np.float32)
        ids = (start + 700 * pool[:, first : first + LISTED]).astype(np.int32)
        pair.append(Lists(ids, logs, -logs[:, 0]))
    return lambda: from_lists(pair[0], pair[1], LARGE)


def measure(make: Callable[[np.random.Generator], Callable[[], Divergence]], traces: int) -> dict[str, float]:
    """Processor seconds for so many traces."""
    rng = np.random.default_rng(0)
    made = [make(rng) for _ in range(min(MADE, traces))]
    of_trace(made[0]())
    spent = {"divergence": 0.0, "features": 0.0}
    for i in range(traces):
        began = time.process_time()
        found = made[i % len(made)]()
        between = time.process_time()
        of_trace(found)
        spent["divergence"] += between - began
        spent["features"] += time.process_time() - between
    return spent | {"seconds": sum(spent.values())}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--traces", type=int, default=TRACES)
    options = asked.parse_args()
    told = {
        "traces": options.traces,
        "tokens": TOKENS,
        "target": TARGET,
        "machine": platform.processor() or platform.machine(),
    }
    print(f"{options.traces} traces of {TOKENS} tokens: processor seconds")
    for name, make in ((f"whole distributions of {SMALL}", whole), (f"{LISTED} listed of {LARGE}", lists)):
        told[name] = found = measure(make, options.traces)
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in found.items())
        print(f"  {name:28}  {parts}")
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
