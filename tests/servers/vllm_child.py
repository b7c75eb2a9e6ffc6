"""Run by vLLM's Python: ask the vllm engine what a file says, and write what it answers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from typing import Any

import numpy as np

from wrongturn.engines import open as open_engine
from wrongturn.engines.base import Chunk, Engine, Meter, Request, Sampling
from wrongturn.strategies.conditions import Spike


def request(asked: dict[str, Any], meter: Meter) -> Request:
    until = Spike(0.5, tuple(range(31)), min_history=4, history="tokens") if asked.get("until") else None
    return Request(
        np.array(asked["prefix"], np.int32),
        asked["max_tokens"],
        Sampling(asked.get("temperature", 0.0)),
        seed=asked.get("seed", 0),
        stop_ids=tuple(asked.get("stop_ids", ())),
        start=asked.get("start"),
        top_k=3,
        chunk=asked.get("chunk"),
        until=until,
        meter=meter if asked.get("meter") else None,
    )


def written(chunk: Chunk) -> dict[str, Any]:
    told = {name: array.tolist() for name, array in chunk.signals.dict().items()}
    counts = {"finish": chunk.finish, "prompt": chunk.prompt, "reused": chunk.reused}
    return {"ids": chunk.ids.tolist(), "top_ids": chunk.top_ids.tolist(), **told, **counts}


async def answer(engine: Engine, requests: list[Request]) -> list[dict[str, Any]]:
    return [written(chunk) for chunk in await asyncio.gather(*map(engine.generate, requests))]


async def leave(engine: Engine, asked: Request) -> int:
    """Close a stream early; how many requests vLLM still has."""
    async with aclosing(engine.stream(asked)) as stream:
        async for _ in stream:
            break
    return engine._engine.get_num_unfinished_requests()  # type: ignore[attr-defined]


def main(asked: str, answers: str, folder: str) -> None:
    with open(asked) as file:
        batches = json.load(file)
    engine = open_engine(f"vllm:{folder}", logprobs=31, dtype="float32", enforce_eager=True, block_size=32)
    meter = Meter(50)
    out: dict[str, Any] = {"provenance": engine.provenance()}
    out["batches"] = [asyncio.run(answer(engine, [request(r, meter) for r in batch])) for batch in batches]
    out["spent"] = meter.spent
    out["left"] = asyncio.run(leave(engine, request(batches[0][0] | {"chunk": 3, "max_tokens": 200}, meter)))
    with open(answers, "w") as file:
        json.dump(out, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
