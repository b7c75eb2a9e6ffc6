"""Average precision of thousands of resamples against scikit-learn's in a loop. Run: python bench/modes.py

Same resamples, ties included; then how time grows with rows, and published tables from file to verdict. All times are
CPU seconds of one thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np
from sklearn.metrics import average_precision_score

from wrongturn.cli_modes import judged_curve
from wrongturn.diagnose.modes import failure_modes, published_modes
from wrongturn.diagnose.modes.figure import svg
from wrongturn.diagnose.modes.scoring import resampled_precision

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT.parent / "shared" / "data" / "two_modes"
RESULTS = Path(__file__).parent / "results" / "modes.json"


def against_loop(n: int, n_boot: int, ties: bool) -> dict[str, Any]:
    """Seconds for ``n_boot`` resamples of ``n`` rows, ours and scikit-learn's, and the largest difference."""
    rng = np.random.default_rng(0)
    failed = rng.random(n) < 0.3
    scores = rng.integers(0, 20, n).astype(float) if ties else rng.random(n)
    start = time.process_time()
    ours = resampled_precision(failed, scores[None], n_boot, 42)[0]
    fast = time.process_time() - start
    draws = np.random.default_rng(42)
    start = time.process_time()
    theirs = []
    for _ in range(n_boot):
        rows = draws.integers(0, n, n)
        theirs.append(average_precision_score(failed[rows], scores[rows]))
    slow = time.process_time() - start
    difference = float(np.abs(ours - np.array(theirs)).max())
    return {"rows": n, "ties": ties, "seconds": fast, "loop": slow, "ratio": slow / fast, "max_difference": difference}


def growth(n: int, n_boot: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    failed, scores = rng.random(n) < 0.3, rng.random((1, n))
    start = time.process_time()
    resampled_precision(failed, scores, n_boot, 42)
    seconds = time.process_time() - start
    return {"rows": n, "seconds": seconds, "nanoseconds_per_row_and_resample": 1e9 * seconds / (n * n_boot)}


def table(path: Path, pictures: Path | None) -> dict[str, Any]:
    """Seconds from file to verdict, published procedure (10,000 resamples, every window) and ours; and our picture."""
    start = time.process_time()
    old = published_modes(path)
    middle = time.process_time()
    new = failure_modes(path)
    end = time.process_time()
    curve = judged_curve(new)
    if pictures is not None and curve is not None:
        (pictures / f"modes_{path.name.removesuffix(path.suffix).removesuffix('.final')}.svg").write_text(svg(curve))
    facts = {"published": old.verdict, "ours": new.verdict, "reason": new.reason, "n": new.n, "failures": new.failures}
    if new.full is not None:
        facts |= {"p": new.p, "lift": new.full.lift, "lift_ci": new.full.ci, "length_lift": new.full.length_lift}
    return {"table": path.name, "compat_seconds": middle - start, "default_seconds": end - middle, **facts}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--resamples", type=int, default=1000)
    asked.add_argument("--pictures", type=Path, help="write the picture of each published table to this folder")
    options = asked.parse_args()
    n_boot = options.resamples
    results: dict[str, Any] = {"resamples": n_boot}
    results["loop"] = [show(against_loop(n, n_boot, ties)) for n in (200, 1319) for ties in (False, True)]
    results["growth"] = [show(growth(n, n_boot)) for n in (1_000, 10_000, 100_000)]
    paths = sorted(PUBLISHED.glob("*.*")) if PUBLISHED.exists() else []
    results["tables"] = [show(table(path, options.pictures)) for path in paths]
    results["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {results['peak_mib']:.0f} MiB")
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def show(row: dict[str, Any]) -> dict[str, Any]:
    print(
        " ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items())
    )
    return row


if __name__ == "__main__":
    main()
