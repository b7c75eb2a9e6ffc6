"""Tokens per second of the embedded engine against transformers' generate, on the same checkpoint and prompts.

    python bench/embedded.py [FOLDER]      # needs torch and transformers; some minutes on one core

Every run samples 100 new tokens after each of its prompts (which no run has seen before) on one thread, prompts
included. The engine also returns the signals of every token; transformers returns tokens only. The machine may be
shared, so seconds are CPU seconds, runs alternate, and a ratio is the median of the ratios within a round. The bound is
what multiplying by the weights takes at the speed of a large float32 matrix product: 2 · parameters operations a token.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is loaded

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging

from wrongturn.engines import Request
from wrongturn.engines.embedded import Embedded, packaged
from wrongturn.tasks import graphs as gs

BATCHES, NEW, ROUNDS = (1, 8, 64), 100, 5
SLOTS = (4, 8, 16, 32, 64)
RESULTS = Path(__file__).parent / "results" / "embedded.json"
Prompts = list[np.ndarray]
Way = Callable[[Prompts], None]


def embedded(folder: Path, **options: int) -> tuple[Way, Callable[[], float]]:
    """The engine as a way to sample, and the seconds it has spent inside ONNX Runtime."""
    engine = Embedded(folder, **options)
    inside = 0.0
    run = engine._graph._session.run_with_iobinding

    def timed(binding: Any) -> None:
        nonlocal inside
        start = time.process_time()
        run(binding)
        inside += time.process_time() - start

    engine._graph._session.run_with_iobinding = timed  # type: ignore[method-assign]

    async def all_of(prompts: Prompts) -> None:
        requests = [Request(prompt, NEW, seed=i, start=len(prompt)) for i, prompt in enumerate(prompts)]
        chunks = await asyncio.gather(*map(engine.generate, requests))
        assert all(len(chunk.ids) == NEW and chunk.prompt == len(p) for chunk, p in zip(chunks, prompts, strict=True))

    return lambda prompts: asyncio.run(all_of(prompts)), lambda: inside


def generate(folder: Path, cache: str | None) -> Way:
    """transformers, prompts padded on the left."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = GenerationConfig(
        max_new_tokens=NEW, do_sample=True, top_k=0, top_p=1.0, pad_token_id=gs.PAD, cache_implementation=cache
    )
    model.generation_config = GenerationConfig(pad_token_id=gs.PAD)  # no end token: all tokens are wanted

    def run(prompts: Prompts) -> None:
        longest = max(map(len, prompts))
        ids = np.stack([np.pad(p, (longest - len(p), 0), constant_values=gs.PAD) for p in prompts])
        batch = torch.from_numpy(ids).long()
        out = model.generate(batch, attention_mask=(batch != gs.PAD).long(), generation_config=config)
        assert out.shape == (len(prompts), longest + NEW)

    return run


def seconds(way: Way, prompts: Prompts) -> float:
    start = time.process_time()
    way(prompts)
    return time.process_time() - start


def gemm_flops() -> float:
    """Floating-point operations a second of one thread in a 1024³ product, the best of ten."""
    a = np.random.default_rng(0).random((1024, 1024), np.float32)
    return 2 * 1024**3 / min(seconds(lambda _: (np.matmul(a, a), None)[1], []) for _ in range(10))


def fresh_prompts() -> Iterator[np.ndarray]:
    for query in gs.Distribution.parse("G15_2,4").queries(seed=99):
        yield np.array(gs.prompt_ids(query), np.int32)


def measure(folder: Path) -> dict[str, Any]:
    ours, inside = embedded(folder)
    ways = {"embedded": ours, "dynamic": generate(folder, None), "static": generate(folder, "static")}
    config = json.loads((folder / "config.json").read_text())
    parameters = (folder / "model.safetensors").stat().st_size // 4
    bound = gemm_flops() / (2 * parameters)
    stream, rows = fresh_prompts(), []
    for batch in BATCHES:
        times: dict[str, list[float]] = {name: [] for name in ways}
        outside = []
        for round_ in range(ROUNDS + 1):  # the first one warms up
            prompts = [next(stream) for _ in range(batch)]
            before = inside()
            for name, way in ways.items():
                times[name].append(seconds(way, prompts))
            outside.append(1 - (inside() - before) / times["embedded"][-1])
            print(f"\rbatch {batch}, round {round_} of {ROUNDS}", end="", file=sys.stderr, flush=True)
        kept = {name: values[1:] for name, values in times.items()}
        rate = {name: batch * NEW / statistics.median(values) for name, values in kept.items()}
        ratio = {
            name: statistics.median(theirs / mine for theirs, mine in zip(kept[name], kept["embedded"], strict=True))
            for name in ("dynamic", "static")
        }
        row = {"batch": batch, "tokens_per_second": rate, "times_faster_than": ratio, "seconds": kept}
        rows.append(row | {"share_of_bound": rate["embedded"] / bound, "python_share": statistics.median(outside[1:])})
    print(file=sys.stderr)
    return {
        "slots": slots_that_pay(folder, stream),
        "model": {k: config[k] for k in ("num_hidden_layers", "hidden_size", "intermediate_size")},
        "new_tokens": NEW,
        "rounds": ROUNDS,
        "gemm_gflops": bound * 2 * parameters / 1e9,
        "bound_tokens_per_second": bound,
        "batches": rows,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("onnxruntime", "torch", "transformers", "numpy")},
    }


def slots_that_pay(folder: Path, stream: Iterator[np.ndarray]) -> dict[int, float]:
    """Tokens per second of 64 requests by how many the engine decodes at once."""
    ways = {slots: embedded(folder, slots=slots)[0] for slots in SLOTS}
    times: dict[int, list[float]] = {slots: [] for slots in SLOTS}
    for _ in range(ROUNDS):
        prompts = [next(stream) for _ in range(64)]
        for slots, way in ways.items():
            times[slots].append(seconds(way, prompts))
    return {slots: 64 * NEW / statistics.median(values) for slots, values in times.items()}


def table(result: dict[str, Any]) -> str:
    lines = [
        "| batch | embedded tok/s | generate, dynamic cache | generate, static cache | faster than dynamic, static "
        "| share of bound | outside ONNX Runtime |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["batches"]:
        rate, ratio, outside = row["tokens_per_second"], row["times_faster_than"], row["python_share"]
        lines.append(
            f"| {row['batch']} | {rate['embedded']:,.0f} | {rate['dynamic']:,.0f} | {rate['static']:,.0f} | "
            f"{ratio['dynamic']:.1f}x, {ratio['static']:.1f}x | {row['share_of_bound']:.0%} | {outside:.0%} |"
        )
    gflops, bound = result["gemm_gflops"], result["bound_tokens_per_second"]
    by_slots = ", ".join(f"{slots}: {rate:,.0f}" for slots, rate in result["slots"].items())
    lines += [f"Bound: {gflops:.0f} GFLOP/s, {bound:,.0f} tokens/s.", f"64 requests, tokens/s by slots: {by_slots}."]
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
