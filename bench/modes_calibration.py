"""How often the default method is wrong, and how often it sees what is there. Run: python bench/modes_calibration.py

1. Permuted labels of published tables (or any tables given as arguments): share that gets a verdict.
2. Planted signals of published size: share judged as planted, over the number of completions.
3. Coverage of the intervals, around true values that come from a population of 50,000 completions, not from the tables.

All with the settings users get. Shares have Wilson intervals.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np

from wrongturn.diagnose.modes import features, judge
from wrongturn.diagnose.modes.features import SOUND, Features
from wrongturn.diagnose.modes.gate import exchangeable, gate_statistics, permuted
from wrongturn.diagnose.modes.judge import ALPHA, REPEATS, tested
from wrongturn.diagnose.modes.judgement import Judgement
from wrongturn.diagnose.modes.measure import group_index
from wrongturn.diagnose.modes.ridge import group_folds, logistic, prepare
from wrongturn.diagnose.modes.scoring import plain_precision
from wrongturn.stats import proportion

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT.parent / "shared" / "data" / "two_modes"
RESULTS = Path(__file__).parent / "results" / "modes_calibration.json"
RATE = 0.3  # of failures in planted tables
SCENARIOS = {"committed": (0.4, 0.28), "persistent": (0.28, 0.4), "alike": (0.4, 0.4)}
POPULATION = 50_000
_BLOCK = 100  # simulated tables after which figures are stored


def false_verdicts(path: Path, permutations: int, seed: int = 0) -> dict[str, Any]:
    """Verdicts on permuted labels.

    The gate ranks labels among permutations of them, so permutation i is tested against the others of the same set: the
    whole distribution costs one gate. Only those that pass need the rest.
    """
    found = features(path, answered=True)
    groups = group_index(found)
    best = gate_statistics(found.failed, groups, tested(found), permutations, seed)[1:]
    rng = np.random.default_rng([seed, 1])
    labels = permuted(found.failed, exchangeable(groups, rng), permutations, rng)[:, 1:]
    verdicts = Counter({"committed": 0, "persistent": 0, "undetermined": 0})
    for k in range(permutations):
        p = float(np.mean(best >= best[k] - 1e-12))
        passed = p <= ALPHA
        verdicts[judge(replace(found, failed=labels[:, k] > 0), seed=k, p=p).verdict if passed else "undetermined"] += 1
    return {"table": path.name, **verdicts}


def planted(n: int, early: float, full: float, seed: int, shared: float = 0.5) -> Features:
    """A table of which about 30 % fail; failures have three features higher by ``early`` or ``full`` standard
    deviations.

    Prefixes and whole traces share half of their noise (correlation ``shared``), as nested windows do.
    """
    rng = np.random.default_rng(seed)
    failed = rng.random(n) < RATE
    common = rng.normal(size=(n, len(SOUND)))
    tables = []
    for effect in (early, early, early, full):
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=common.shape)
        noise[:, :3] += effect * failed[:, None]
        tables.append(noise)
    windows = (128.0, 256.0, 512.0)
    return Features("planted", failed, SOUND, tables[-1], windows, np.stack(tables[:3]), "regular", np.full(n, np.nan))


def truth(job: tuple[int, float], tables: int = 100) -> float:
    """Average precision in a population, of scores made from n completions as the method makes them, on average over
    tables of that size."""
    n, effect = job
    people = planted(POPULATION, effect, effect, seed=10**6)
    found = []
    for seed in range(tables):
        table = planted(n, effect, effect, 2 * 10**6 + seed)
        failed, rng = table.failed.astype(np.float64), np.random.default_rng(seed)
        scores = np.zeros(POPULATION)
        for _ in range(REPEATS):
            fold = group_folds(np.arange(n), failed, rng)
            train, held = prepare(table.full[fold != 0], people.full)
            beta = logistic(train, failed[fold != 0, None])[:, 0]
            fitted = train @ beta
            scores += (held @ beta - fitted.mean()) / fitted.std()
        found.append(plain_precision(people.failed, scores))
    return float(np.mean(found))


def one(scenario: str, n: int, gated: bool, seed: int) -> Judgement:
    early, full = SCENARIOS[scenario]
    return judge(planted(n, early, full, seed), seed=seed, p=None if gated else 0.0)


def power(scenario: str, n: int, found: list[Judgement]) -> dict[str, Any]:
    verdicts = Counter(judgement.verdict for judgement in found)
    delta = float(np.mean([row.delta for judgement in found for row in judgement.windows]))
    opposite = "persistent" if scenario == "committed" else "committed"
    return {
        "planted": scenario,
        "n": n,
        "mean_delta": delta,
        "found": share(verdicts[scenario], len(found)),
        "opposite": share(verdicts[opposite], len(found)),
    }


def coverage(scenario: str, n: int, found: list[Judgement], true: dict[float, float]) -> dict[str, Any]:
    """How often intervals hold the true value: the band all windows at once, the one-sided limit and the lift in single
    windows (of one table they stand or fall together, so the first window is counted)."""
    early, full = SCENARIOS[scenario]
    delta = true[early] - true[full]
    lift = true[early] - RATE
    first = [judgement.windows[0] for judgement in found]
    inside = [all(w.band[0] <= delta <= w.band[1] for w in judgement.windows) for judgement in found]
    m = len(found)
    return {
        "scenario": scenario,
        "n": n,
        "true_delta": delta,
        "true_lift": lift,
        "band": share(sum(inside), m),
        "upper": share(sum(delta <= w.upper for w in first), m),
        "lift": share(sum(w.skill.ci[0] <= lift <= w.skill.ci[1] for w in first), m),
        "lift_above": share(sum(w.skill.ci[0] > lift for w in first), m),
    }


def share(hits: int, n: int) -> dict[str, float | int]:
    estimate = proportion(hits, n)
    return {"hits": hits, "n": n, "value": estimate.value, "low": estimate.low, "high": estimate.high}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("tables", nargs="*", type=Path)
    asked.add_argument("--permutations", type=int, default=200)
    asked.add_argument("--power", type=int, default=100, help="planted tables a cell")
    asked.add_argument("--coverage", type=int, default=1000, help="simulated tables a cell")
    asked.add_argument("--sizes", type=int, nargs="*", default=[100, 200, 400, 800])
    asked.add_argument("--coverage-sizes", type=int, nargs="*", default=[200])
    asked.add_argument("--out", type=Path, default=RESULTS)
    asked.add_argument("--workers", type=int, default=2)
    options = asked.parse_args()
    results = Results(options.out)
    with ProcessPoolExecutor(options.workers) as pool:
        if options.permutations:
            paths = options.tables or sorted(PUBLISHED.glob("*.*"))
            results["permutations"] = options.permutations
            results["permuted"] = []
            for row in pool.map(partial(false_verdicts, permutations=options.permutations), paths):
                results.keep("permuted", row)
            given = [row["committed"] + row["persistent"] for row in results["permuted"]]
            results["false_verdicts"] = share(sum(given), options.permutations * len(given))
            print("any verdict", text(results["false_verdicts"]))
        if options.power:
            results["power"] = []
            for scenario in ("committed", "persistent"):
                for n in options.sizes:
                    found = many(pool, partial(one, scenario, n, True), range(options.power))
                    results.keep("power", power(scenario, n, found))
        if options.coverage:
            results["coverage"] = []
            for n in options.coverage_sizes:
                effects = sorted({effect for pair in SCENARIOS.values() for effect in pair})
                true = dict(zip(effects, pool.map(truth, [(n, effect) for effect in effects]), strict=True))
                found: dict[str, list[Judgement]] = {scenario: [] for scenario in SCENARIOS}
                earlier = list(results["coverage"])
                for start in range(0, options.coverage, _BLOCK):
                    results["coverage"] = list(earlier)
                    for scenario, judged in found.items():
                        seeds = range(start, min(start + _BLOCK, options.coverage))
                        judged += many(pool, partial(one, scenario, n, False), seeds)
                        results.keep("coverage", coverage(scenario, n, judged, true))
    results.save()


def many(pool: ProcessPoolExecutor, job: Callable[[int], Judgement], seeds: Iterable[int]) -> list[Judgement]:
    return list(pool.map(job, seeds, chunksize=4))


class Results(dict[str, Any]):
    """What is measured by part; parts not asked for stay as they are in the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(json.loads(path.read_text()) if path.exists() else {})
        self.path = path

    def keep(self, part: str, row: dict[str, Any]) -> None:
        """Print a row, and store it at once, since all of them take minutes."""
        self[part].append(row)
        print(part, " ".join(f"{key}={text(value)}" for key, value in row.items()), flush=True)
        self.save()

    def save(self) -> None:
        self.path.write_text(json.dumps(self, indent=2) + "\n")


def text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['hits']}/{value['n']}={value['value']:.3f}[{value['low']:.3f},{value['high']:.3f}]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
