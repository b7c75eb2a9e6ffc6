"""Signals of a batch at once against the per-token loop that analysis scripts use. Run: python bench/signals.py"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
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


def seconds(work: Callable[[], object], least: float = 0.3) -> float:
    """The best time of one call, over at least three calls and ``least`` seconds."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
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
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    machine = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
    RESULTS.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    print(f"saved {RESULTS}")


if __name__ == "__main__":
    main()
