"""What collection adds to a server's own time, and what it keeps in memory for problems that wait.

    python bench/collection.py [ROUNDS]      # some minutes on two cores

Two servers, each in a process of its own. *Paced* writes a token every 20 ms whatever the load, as a server with a GPU
to itself does: what the client costs shows only as far as it falls behind. *Embedded* is ``wrongturn engine serve``,
which decodes on the same two cores. The same requests go to it from ``wrongturn.collect`` (signals, grading, traces on
disk) and from minimal clients, which parse every event as JSON and keep its text: *one*, an ``httpx.AsyncClient`` of 64
streams, and *many*, a client for every stream, which spares httpx the care of a pool: the least httpx can cost.
They alternate; a figure is the median over rounds, and so is the ratio within a round.

Memory is resident memory after ``collect`` has begun on 100,000 problems at a server that never answers, less that
before the problems were made.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import wrongturn
from wrongturn.engines.base import Capabilities, Request
from wrongturn.engines.openai import OpenAI
from wrongturn.jobs import Settings, carry_out, jobs
from wrongturn.strategies.base import mix_seed
from wrongturn.tasks import graphs as gs

CONCURRENT, REQUESTS, TOKENS, PACE, PENDING = 64, 128, 96, 0.02, 100_000
RESULTS = Path(__file__).parent / "results" / "collection.json"

PACED = """
import asyncio, json, math, sys
TOKENS, PACE = int(sys.argv[1]), float(sys.argv[2])
TOPS = {f"token_id:{i}": -0.5 - i / 4 for i in range(3, 23)}

def event(i, last):
    choice = {"index": 0, "text": "a", "token_ids": [3], "finish_reason": "length" if last else None, "logprobs": {
        "tokens": ["token_id:3"], "token_logprobs": [-0.5], "top_logprobs": [TOPS], "text_offset": [i]}}
    usage = {"prompt_tokens": 100, "completion_tokens": i + 1}
    data = b"data: " + json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode() + b"\\n\\n"
    return f"{len(data):x}\\r\\n".encode() + data + b"\\r\\n"

EVENTS = [event(i, i == TOKENS - 1) for i in range(TOKENS)]
END = b"e\\r\\ndata: [DONE]\\n\\n\\r\\n0\\r\\n\\r\\n"
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"

async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).lower()
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\\r")[0]))
            writer.write(HEAD)
            due = asyncio.get_running_loop().time()
            for data in EVENTS if PACE < 1e3 else []:
                due += PACE
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                writer.write(data)
            if PACE >= 1e3:
                await asyncio.sleep(PACE)
            writer.write(END)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


class Process:
    """A server in a process of its own; ``url`` is where."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found is not None
        return found[0]

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def problems(n: int, seed: int) -> list[wrongturn.Problem]:
    return gs.GraphSearch().problems("G15_2,4", n, seed)


def collected(engine: OpenAI, asked: list[wrongturn.Problem], seed: int) -> tuple[float, float]:
    """Wall and CPU seconds of a collection."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        run = wrongturn.collect(engine, asked, out=Path(folder) / "run", max_tokens=TOKENS, seed=seed)
        assert len(run.done()) == len(asked)
        return time.perf_counter() - wall, time.process_time() - cpu


def replayed(engine: OpenAI, asked: list[wrongturn.Problem], seed: int, clients: int) -> tuple[float, float]:
    """The same for the same requests from so many minimal clients."""
    bodies = []
    for problem in asked:
        prompt = np.array(problem.prompt_ids, np.int32)
        own = mix_seed(mix_seed(seed, f"{problem.id}/sample/0"), 0)
        request = Request(prompt, TOKENS, seed=own, stop_ids=gs.GraphSearch().stop_ids, start=len(prompt), top_k=5)
        k = min(engine.logprobs, engine.capabilities.top_k)
        assert engine._dialect is not None
        bodies.append(engine._body(engine._dialect, request, TOKENS, k))

    async def work() -> None:
        gate, limits = asyncio.Semaphore(CONCURRENT), httpx.Limits(max_connections=CONCURRENT)
        opened = [httpx.AsyncClient(limits=limits, timeout=300.0, verify=False) for _ in range(clients)]
        free = opened * (CONCURRENT // clients)

        async def one(body: dict[str, Any]) -> str:
            text = []
            async with gate:
                client = free.pop()
                async with client.stream("POST", f"{engine.server.url}/completions", json=body) as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data: {"):
                            text += [choice["text"] for choice in json.loads(line[6:])["choices"]]
                free.append(client)
            return "".join(text)

        assert all(await asyncio.gather(*map(one, bodies)))
        for client in opened:
            await client.aclose()

    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(work())
    return time.perf_counter() - wall, time.process_time() - cpu


def compared(engine: OpenAI, rounds: int) -> dict[str, Any]:
    """All ways, in turns; the first round only warms up."""
    ways = {"collect": collected, "one": partial(replayed, clients=1), "many": partial(replayed, clients=CONCURRENT)}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        asked = problems(REQUESTS if turn else CONCURRENT, turn)
        for name in sorted(ways, reverse=bool(turn % 2)):
            found = ways[name](engine, asked, turn)
            if turn:
                took[name].append(found)
    shown = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in took.items()}
    ratios = {n: [round(c[0] / m[0], 3) for c, m in zip(took["collect"], took[n], strict=True)] for n in ways}
    return {
        "seconds": {name: round(s[0], 2) for name, s in shown.items()},
        "cpu_seconds": {name: round(s[1], 2) for name, s in shown.items()},
        "wall_ratio": {name: statistics.median(found) for name, found in ratios.items() if name != "collect"},
        "wall_ratios": {name: found for name, found in ratios.items() if name != "collect"},
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def resident() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def pending(engine: OpenAI) -> dict[str, float]:
    """Memory of ``PENDING`` problems that wait, MB; of that the problems' own."""
    before = resident()
    asked = problems(PENDING, 0)
    own = resident()

    async def begun() -> float:
        stream = carry_out(engine, jobs(asked, "sample"), Settings(max_tokens=TOKENS))
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(3.0)
        most = resident()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return most

    return {"all": round(asyncio.run(begun()) - before, 1), "problems": round(own - before, 1)}


def open_engine(url: str) -> OpenAI:
    known = Capabilities(top_k=20, token_ids=True, streaming=True)
    return OpenAI("graph_search", url, concurrency=CONCURRENT, capabilities=known)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with Process("-c", PACED, "1", "1e6") as url:
        results: dict[str, Any] = {"pending_MB": pending(open_engine(url))}
    with Process("-c", PACED, str(TOKENS), str(PACE)) as url:
        print(results, flush=True)
        results["paced"] = compared(open_engine(url), rounds)
    with Process("-m", "wrongturn", "engine", "serve", "--port", "0") as url:
        print(results, flush=True)
        results["embedded"] = compared(open_engine(url), rounds)
    results |= {
        "requests": REQUESTS, "concurrent": CONCURRENT, "tokens": TOKENS, "pace": PACE, "rounds": rounds,
        "python": platform.python_version(), "httpx": httpx.__version__,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
