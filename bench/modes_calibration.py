"""How often the default method is wrong, and how often it sees what is there. Run: python bench/modes_calibration.py

1. Permuted labels of published tables (or any tables given as arguments): share that gets a verdict.
2. Planted signals: share judged as planted, over the number of completions.
3. Coverage: how often the interval of a difference holds its mean over simulated tables.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np

from wrongturn.diagnose.modes import features, judge
from wrongturn.diagnose.modes.features import SOUND, Features
from wrongturn.diagnose.modes.gate import gate_statistics, permuted
from wrongturn.diagnose.modes.judge import ALPHA, tested
from wrongturn.diagnose.modes.measure import group_index

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT.parent / "shared" / "data" / "two_modes"
RESULTS = Path(__file__).parent / "results" / "modes_calibration.json"
_QUICK: dict[str, Any] = {"permutations": 59, "n_boot": 500, "repeats": 3}  # many tables, so less of each
TABLES = ("gpqa_gpt4o.final.csv", "math500_gemini2.5.final.csv", "math500_qwen3.5-122b.final.xlsx")


def false_verdicts(found: Features, permutations: int, seed: int = 0) -> dict[str, int]:
    """Verdicts on permuted labels.

    The gate ranks labels among permutations of them, so permutation i is tested against the others of the same set: the
    whole distribution costs one gate. Only those that pass need the rest.
    """
    groups = group_index(found)
    best = gate_statistics(found.failed, groups, tested(found), permutations, seed)[1:]
    labels = permuted(found.failed, groups, permutations, np.random.default_rng([seed, 1]))[:, 1:]
    verdicts = Counter({"committed": 0, "persistent": 0, "undetermined": 0})
    for k in range(permutations):
        p = float(np.mean(best >= best[k] - 1e-12))
        passed = p <= ALPHA
        verdicts[judge(replace(found, failed=labels[:, k] > 0), seed=k, p=p).verdict if passed else "undetermined"] += 1
    return dict(verdicts)


def planted(n: int, early: float, full: float, seed: int, shared: float = 0.5) -> Features:
    """A table of which 30 % fail; failures have three features higher by ``early`` or ``full`` standard deviations.

    Prefixes and whole traces share half of their noise (correlation ``shared``), as nested windows do.
    """
    rng = np.random.default_rng(seed)
    failed = rng.permutation(np.arange(n) < round(0.3 * n))
    common = rng.normal(size=(n, len(SOUND)))
    tables = []
    for effect in (early, early, early, full):
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=common.shape)
        noise[:, :3] += effect * failed[:, None]
        tables.append(noise)
    windows = (128.0, 256.0, 512.0)
    lengths = rng.integers(600, 3000, n).astype(np.float64)
    return Features("planted", failed, SOUND, tables[-1], windows, np.stack(tables[:3]), "regular", lengths)


def power(sizes: Sequence[int], tables: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, early, full in (("committed", 0.4, 0.28), ("persistent", 0.28, 0.4)):
        for n in sizes:
            found = [judge(planted(n, early, full, seed), seed=seed, **_QUICK) for seed in range(tables)]
            verdicts = Counter(one.verdict for one in found)
            delta = float(np.mean([row.delta for one in found for row in one.windows]))
            rows.append({"planted": name, "n": n, "tables": tables, "mean delta": delta, **verdicts})
            print(f"  {name:11} n={n:5} mean delta {delta:+.3f} {dict(verdicts)}", flush=True)
    return rows


def coverage(n: int, tables: int) -> dict[str, float]:
    """Of the simultaneous band, and of the one-sided limit, around the mean difference over all simulated tables."""
    found = [judge(planted(n, 0.4, 0.4, seed), seed=seed, p=0.0) for seed in range(tables)]
    delta = np.array([[row.delta for row in one.windows] for one in found])
    band = np.array([[row.band for row in one.windows] for one in found])
    upper = np.array([[row.upper for row in one.windows] for one in found])
    truth = delta.mean(axis=0)
    inside = (band[..., 0] <= truth) & (truth <= band[..., 1])
    return {
        "n": n,
        "tables": tables,
        "band, all windows": float(inside.all(axis=1).mean()),
        "upper limit, one window": float((truth <= upper).mean()),
    }


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("tables", nargs="*", type=Path)
    asked.add_argument("--permutations", type=int, default=200)
    asked.add_argument("--simulations", type=int, default=100)
    options = asked.parse_args()
    paths = options.tables or [PUBLISHED / name for name in TABLES]
    results: dict[str, object] = {"permutations": options.permutations}
    print("verdicts on permuted labels")
    permuted_labels = {}
    for path in paths:
        permuted_labels[path.name] = false_verdicts(features(path, answered=True), options.permutations)
        print(f"  {path.name:35} {permuted_labels[path.name]}", flush=True)
    results["permuted"] = permuted_labels
    save(results)
    if options.simulations:
        print("verdicts on planted signals")
        results["power"] = power((200, 400, 800), max(options.simulations // 4, 2))
        save(results)
        print("coverage of 95 % intervals")
        results["coverage"] = coverage(200, options.simulations)
        print(f"  {results['coverage']}")
        save(results)


def save(results: dict[str, object]) -> None:
    """After each part, since all of them take minutes."""
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
