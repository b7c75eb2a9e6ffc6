"""The store on one core: writing and scanning 10 million tokens, bytes a token on disk, opening 100,000 traces.

MB are 10^6 bytes of uncompressed Arrow columns, as they are handed to the writer and come back from a scan. The tokens
are made: nothing in them repeats that would not in a language model's (ids by Zipf over 150,000 tokens, signals exact,
from random logits of which most rows are nearly certain). Run: taskset -c 0 python bench/store.py
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wrongturn.columns import TRACES, to_table
from wrongturn.signals import FIELDS, Signals, from_logits, from_topk
from wrongturn.store import Run
from wrongturn.trace import Trace, Usage

TOKENS, LENGTH, BATCH = 10_000_000, 2_000, 512  # in all, of a trace, traces of a part
POOL = 1 << 18  # rows of signals that are really computed; traces are drawn from them
RESULTS = Path(__file__).parent / "results" / "store.json"


def pool(rng: np.random.Generator, listed: int) -> Signals:
    """Signals of ``POOL`` tokens: exact, or from the best ``listed``."""
    vocab = 64
    sharpness = rng.choice([2.0, 5.0, 15.0], p=[0.05, 0.25, 0.7], size=(POOL, 1))
    logits = (rng.normal(size=(POOL, vocab)) * sharpness).astype(np.float32)
    chosen = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    if not listed:
        return from_logits(logits, chosen)
    logprobs = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    logprobs -= logits.max(1, keepdims=True)
    tops = np.sort(logprobs, axis=1)[:, ::-1][:, :listed]
    return from_topk(tops, logprobs[np.arange(POOL), chosen], vocab_size=150_000)


def traces(count: int, length: int, listed: int = 0, seed: int = 0) -> list[Trace]:
    """``count`` traces of ``length`` tokens with text, without alternatives."""
    rng = np.random.default_rng(seed)
    signals = np.stack(list(pool(rng, listed).dict().values()))
    letters = np.frombuffer(b"etaoinshrdlucmfw etaoin e t a\n", np.uint8)
    made = []
    for i in range(count):
        at = rng.integers(0, POOL, length)
        widths = rng.integers(1, 8, length)
        text = letters[rng.integers(0, len(letters), int(widths.sum()))].tobytes().decode()
        made.append(
            Trace(
                f"p{i // 8}/sample/{i % 8}",
                problem=f"p{i // 8}",
                task="math",
                prompt_ids=rng.integers(0, 150_000, 64, dtype=np.int32),
                ids=(np.minimum(rng.zipf(1.3, length), 150_000) * 7919 % 150_001).astype(np.int32),
                signals=Signals(*signals[:, at]),
                finish="stop",
                sample=i % 8,
                text=text,
                offsets=np.cumsum(widths).astype(np.int32),
                answer=str(i),
                correct=bool(i % 2),
                usage=Usage(64, 0, 64, length),
                provenance={"engine": "made", "model": "made", "sampling": {"temperature": 0.6}},
            )
        )
    return made


def best(work: Callable[[], object], times: int = 5) -> tuple[float, float]:
    """The best time of one call, by the clock and by the processor: they differ where others share the machine."""
    found = []
    for _ in range(times):
        start, started = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - start, time.process_time() - started))
    return min(wall for wall, _ in found), min(cpu for _, cpu in found)


def throughput(folder: Path, listed: int, tokens: int = TOKENS) -> dict[str, float]:
    batch = traces(BATCH, LENGTH, listed)
    size = to_table([trace.to_record() for trace in batch], TRACES).nbytes
    parts = -(-tokens // (BATCH * LENGTH))
    spent = cpu = 0.0
    with Run.create(folder / f"run-{listed}", {}) as run:
        for part in range(parts):
            for i, trace in enumerate(batch):
                trace.id = f"{part}/{i}"
            start, started = time.perf_counter(), time.process_time()
            run.append(batch)
            spent += time.perf_counter() - start
            cpu += time.process_time() - started
    run = Run.open(run.path)
    scanned = run.table(["signal.entropy"]).nbytes
    scan, scan_cpu = best(lambda: run.table(["signal.entropy"]))
    on_disk = sum(file.stat().st_size for file in (run.path / "traces").iterdir())
    stored = parts * BATCH * LENGTH
    return {
        "tokens": stored,
        "arrow_megabytes": parts * size / 1e6,
        "write_megabytes_per_second": parts * size / 1e6 / spent,
        "write_megabytes_per_cpu_second": parts * size / 1e6 / cpu,
        "scan_megabytes_per_second": scanned / 1e6 / scan,
        "scan_megabytes_per_cpu_second": scanned / 1e6 / scan_cpu,
        "bytes_per_token": on_disk / stored,
    }


def columns(folder: Path) -> dict[str, float]:
    """Bytes a token of each column of the stored traces, the widest first."""
    sizes: dict[str, int] = {}
    tokens = 0
    for path in (folder / "traces").glob("*.parquet"):
        with pq.ParquetFile(path) as file:
            tokens += len(pa.chunked_array(file.read(["ids"])["ids"]).combine_chunks().values)
            for group in range(file.metadata.num_row_groups):
                for i in range(file.metadata.num_columns):
                    column = file.metadata.row_group(group).column(i)
                    name = column.path_in_schema.removesuffix(".list.element")
                    sizes[name] = sizes.get(name, 0) + column.total_compressed_size
    found = sorted(((size / tokens, name) for name, size in sizes.items()), reverse=True)
    return {name: round(size, 3) for size, name in found if size >= 0.01}


def opening(folder: Path, count: int = 100_000, size: int = 64) -> dict[str, float]:
    """Seconds to open a run of short traces, in parts of ``size`` as a collection writes them, and compacted."""
    batch = traces(size, 16)
    with Run.create(folder / "many", {}) as run:
        for part in range(-(-count // size)):
            for i, trace in enumerate(batch):
                trace.id = f"{part}/{i}"
            run.append(batch)
        loose, loose_cpu = best(lambda: Run.open(run.path), 3)
        run.compact()
    merged, merged_cpu = best(lambda: Run.open(run.path), 3)
    return {
        "traces": len(run),
        "parts": -(-count // size),
        "seconds": loose,
        "cpu_seconds": loose_cpu,
        "seconds_compacted": merged,
        "cpu_seconds_compacted": merged_cpu,
    }


def main() -> None:
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {
            "machine": {"python": platform.python_version(), "pyarrow": pa.__version__, "machine": platform.machine()},
            "fields": len(FIELDS),
            "exact": throughput(folder, 0),
            "top_20": throughput(folder, 20),
            "columns_exact": columns(folder / "run-0"),
            "columns_top_20": columns(folder / "run-20"),
            "opening": opening(folder),
        }
    if "--print" not in sys.argv:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
