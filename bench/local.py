"""Tokens per second of the transformers engine against transformers' generate, on the same checkpoint and prompts.

    python bench/local.py [FOLDER]      # needs torch and transformers; some minutes on one core

As in bench/embedded.py: every run samples 100 new tokens after each of its prompts, which no run has seen before, on
one thread, prompts included; CPU seconds, runs alternate, a ratio is the median of the ratios within a round. The
engine also returns the signals of every token. Then, at batch 64, what its part beside the model takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is loaded

import torch
from embedded import NEW, Prompts, Way, fresh_prompts, generate, seconds
from transformers.utils import logging

from wrongturn.engines import Request
from wrongturn.engines.embedded import packaged
from wrongturn.engines.transformers import Transformers

BATCHES, ROUNDS = (1, 16, 64), 5
RESULTS = Path(__file__).parent / "results" / "local.json"


def engine_way(folder: Path) -> tuple[Way, Transformers]:
    """The engine as a way to sample."""
    engine = Transformers(folder, device="cpu", slots=64)

    async def all_of(prompts: Prompts) -> None:
        requests = [Request(prompt, NEW, seed=i, start=len(prompt)) for i, prompt in enumerate(prompts)]
        chunks = await asyncio.gather(*map(engine.generate, requests))
        assert all(len(chunk.ids) == NEW for chunk in chunks)

    return lambda prompts: asyncio.run(all_of(prompts)), engine


def measure(folder: Path) -> dict[str, Any]:
    ours, engine = engine_way(folder)
    ways = {"engine": ours, "dynamic": generate(folder, None), "static": generate(folder, "static")}
    stream, rows = fresh_prompts(), []
    for batch in BATCHES:
        times: dict[str, list[float]] = {name: [] for name in ways}
        for round_ in range(ROUNDS + 1):  # the first one warms up
            prompts = [next(stream) for _ in range(batch)]
            for name, way in ways.items():
                times[name].append(seconds(way, prompts))
            print(f"\rbatch {batch}, round {round_} of {ROUNDS}", end="", file=sys.stderr, flush=True)
        kept = {name: values[1:] for name, values in times.items()}
        rate = {name: batch * NEW / statistics.median(values) for name, values in kept.items()}
        ratio = {
            name: statistics.median(theirs / mine for theirs, mine in zip(kept[name], kept["engine"], strict=True))
            for name in ("dynamic", "static")
        }
        rows.append({"batch": batch, "tokens_per_second": rate, "times_faster_than": ratio, "seconds": kept})
    print(file=sys.stderr)
    return {
        "outside_the_model": outside(ours, engine, [next(stream) for _ in range(64)]),
        "batches": rows,
        "new_tokens": NEW,
        "rounds": ROUNDS,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
    }


def outside(way: Way, engine: Transformers, prompts: Prompts) -> float:
    """The share of the time that is not spent in the model's forward pass."""
    inside, forward = 0.0, engine._model.forward

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        start = time.process_time()
        out = forward(*args, **kwargs)
        inside += time.process_time() - start
        return out

    engine._model.forward = timed
    taken = seconds(way, prompts)
    engine._model.forward = forward
    return 1 - inside / taken


def table(result: dict[str, Any]) -> str:
    lines = [
        "| batch | engine, tokens/s | generate, dynamic cache | generate, static cache | ratio to dynamic, static |",
        "|---|---|---|---|---|",
    ]
    for row in result["batches"]:
        rate, ratio = row["tokens_per_second"], row["times_faster_than"]
        lines.append(
            f"| {row['batch']} | {rate['engine']:,.0f} | {rate['dynamic']:,.0f} | {rate['static']:,.0f} | "
            f"{ratio['dynamic']:.1f}, {ratio['static']:.1f} |"
        )
    lines.append(f"Outside the model's forward pass at batch 64: {result['outside_the_model']:.0%}.")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    result = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else packaged())
    print(table(result))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
