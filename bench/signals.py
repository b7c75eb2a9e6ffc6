"""Signals of a batch at once against what analysis scripts do instead. Run: python bench/signals.py

First NumPy against a loop over tokens; then, where torch is installed, bfloat16 logits of a language model's vocabulary
as the transformers engine sees them, against softmax, log-softmax and sort of the whole batch. One thread, both sides
in one run. Where there is a GPU, the same on it by the kernel and by torch alone, and the share each has of a copy's
bandwidth. Seconds are CPU seconds (of the clock on a GPU), the best of at least three.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np

from wrongturn.signals import SignalConfig, Signals, from_logits

SHAPES = [(64, 31), (20_000, 31), (2_000, 1_000), (200, 50_000), (200, 152_000)]  # tokens, vocabulary
RESULTS = Path(__file__).parent / "results" / "signals.json"


def token_by_token(logits: np.ndarray, chosen: np.ndarray, config: SignalConfig) -> Signals:
    """Softmax and a full sort for each token, as the scripts published with papers do it."""
    rows = []
    for row, token in zip(logits, chosen, strict=True):
        logprobs = row - row.max()
        logprobs = logprobs - np.log(np.exp(logprobs).sum())
        p = np.exp(logprobs)
        ranked = np.sort(p)[::-1]
        entropy = -(p * np.log(np.maximum(p, 1e-30))).sum()
        nucleus = min(int(np.searchsorted(np.cumsum(ranked), config.nucleus_p)) + 1, len(p))
        near = int((logprobs >= logprobs.max() - config.tie_delta).sum()) - 1
        margin = ranked[0] - ranked[1]
        rows.append([-logprobs[token], entropy, entropy, entropy, 0.0, margin, nucleus, near, float(near > 0)])
    return Signals(*np.array(rows, dtype=np.float32).T)


def seconds(work: Callable[[], object], least: float = 0.3, clock: Callable[[], float] = time.process_time) -> float:
    """The best time of one call, over at least three calls and ``least`` seconds."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


def measure(tokens: int, vocab: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    config = SignalConfig()
    # Most tokens nearly certain, a few wide open: about what a language model writes. Open rows are the slow ones.
    sharpness = rng.choice([2.0, 5.0, 15.0], p=[0.05, 0.25, 0.7], size=(tokens, 1))
    logits = (rng.normal(size=(tokens, vocab)) * sharpness).astype(np.float32)
    chosen = logits.argmax(axis=1)
    ours, naive = from_logits(logits, chosen, config), token_by_token(logits, chosen, config)
    real = ("nll", "entropy", "margin")
    counts = ("nucleus_size", "near_tie", "fork")
    fast = seconds(lambda: from_logits(logits, chosen, config))
    slow = seconds(lambda: token_by_token(logits, chosen, config))
    return {
        "tokens": tokens,
        "vocab": vocab,
        "mean_entropy": float(ours.entropy.mean()),
        "microseconds_per_call": fast * 1e6,
        "tokens_per_second": tokens / fast,
        "tokens_per_second_loop": tokens / slow,
        "ratio": slow / fast,
        "max_abs_difference": max(float(np.abs(getattr(ours, f) - getattr(naive, f)).max()) for f in real),
        "share_of_counts_equal": float(np.mean([np.mean(getattr(ours, f) == getattr(naive, f)) for f in counts])),
    }


def wide(tokens: int = 64, vocab: int = 151_936) -> list[dict[str, float | str]]:
    """The transformers engine's look at bfloat16 logits, without its draw, on every device there is."""
    import torch

    from wrongturn.engines._device_signals import checked_kernel, plain

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    sharpness = rng.choice([2.0, 5.0, 15.0], p=[0.05, 0.25, 0.7], size=(tokens, 1))
    given = torch.from_numpy((rng.normal(size=(tokens, vocab)) * sharpness).astype(np.float32)).bfloat16()
    chosen = given.argmax(1).numpy()
    exact = from_logits(given.double().numpy(), chosen)  # in float64

    def naive(logits: torch.Tensor) -> list[torch.Tensor]:
        p, logprobs = logits.float().softmax(1), logits.float().log_softmax(1)
        ranked = p.sort(1, descending=True).values
        nucleus = (ranked.cumsum(1) < 0.9).sum(1) + 1
        near = (logprobs >= logprobs.amax(1, keepdim=True) - 0.1).sum(1) - 1
        nll = -logprobs.gather(1, logprobs.argmax(1, keepdim=True))
        return [nll, -(p * logprobs).sum(1), ranked[:, 0] - ranked[:, 1], nucleus, near]

    def row(device: str, ours: Callable[[], object], theirs: Callable[[], object], entropy: np.ndarray, **more: float):
        clock = time.process_time if device == "cpu" else time.perf_counter
        fast, slow = seconds(ours, 1.0, clock), seconds(theirs, 1.0, clock)
        error = float(np.abs(entropy - exact.entropy).max())
        rates = {"tokens_per_second": tokens / fast, "tokens_per_second_naive": tokens / slow, "ratio": slow / fast}
        return {"device": device, "tokens": tokens, "vocab": vocab} | rates | {"error_in_nats": error} | more

    host = from_logits(given.float().numpy(), chosen)
    nll_error = float(np.abs(host.nll - exact.nll).max())

    def on_host() -> Signals:
        return from_logits(given.float().numpy(), chosen)

    rows = [row("cpu", on_host, lambda: naive(given), host.entropy, nll_error_in_nats=nll_error)]
    if torch.cuda.is_available():
        tokens *= 8  # 156 MB, which no cache holds
        there = given.cuda().repeat(8, 1)
        constants = torch.full((tokens, 1), 0.9).cuda(), torch.full((tokens, 1), 0.1).cuda()

        def synchronised(work: Callable[[], object]) -> Callable[[], object]:
            return lambda: (work(), torch.cuda.synchronize())

        # A copy reads and writes what the signals only read.
        copy = 2 * there.nbytes / seconds(synchronised(lambda: there.clone()), 1.0, time.perf_counter)
        for name, work in (("kernel", checked_kernel(there.device, there.dtype, vocab)), ("torch", plain)):
            if work:  # no kernel: a warning has said why
                entropy = work(there, *constants)[3][: len(given), 1].cpu().numpy()
                ours = synchronised(lambda work=work: work(there, *constants))
                found = row(f"cuda, {name}", ours, synchronised(lambda: naive(there)), entropy)
                found["share_of_copy_bandwidth"] = found["tokens_per_second"] * there.nbytes / tokens / copy
                rows.append(found)
    return rows


def main() -> None:
    widths = (8, 8, 9, 10, 12, 12, 7, 9, 7)
    heads = ("tokens", "vocab", "mean H", "us/call", "tokens/s", "loop tok/s", "ratio", "max diff", "counts=")
    print(" ".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    results = []
    for tokens, vocab in SHAPES:
        row = measure(tokens, vocab)
        results.append(row)
        cells = [f"{tokens}", f"{vocab}", f"{row['mean_entropy']:.2f}", f"{row['microseconds_per_call']:.0f}"]
        cells += [f"{row['tokens_per_second']:.0f}", f"{row['tokens_per_second_loop']:.0f}", f"{row['ratio']:.1f}"]
        cells += [f"{row['max_abs_difference']:.1e}", f"{row['share_of_counts_equal']:.4f}"]
        print(" ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    rows = wide() if find_spec("torch") else []
    for row in rows:
        print(", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{value}" for key, value in row.items()))
    if len(rows) < 2:
        print("no GPU here: nothing about one was measured")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    machine = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
    RESULTS.write_text(json.dumps({"machine": machine, "results": results, "wide": rows}, indent=2) + "\n")
    print(f"saved {RESULTS}")


if __name__ == "__main__":
    main()
