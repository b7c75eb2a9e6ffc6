"""How often a problem is called steerable where no operator does anything, and how often where one does.

Run: python bench/labels.py. Four operators and retry; every rate is known. The published rule (``compat="naive"``) and
the split one see the same tries. Shares have Wilson intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wrongturn.diagnose.recoverability.labels import ALPHA, STEERABLE, Counts, label, null_rate
from wrongturn.stats import proportion

RESULTS = Path(__file__).parent / "results" / "labels.json"
OPERATORS = ("retry", "sparse", "random", "local", "dense")
TRIES = (3, 10, 16, 32, 64)
"""A problem and operator, both halves together."""
RATES = (0.05, 0.1, 0.3, 0.5)
EFFECTS = ((0.1, 0.4), (0.1, 0.6), (0.1, 0.9), (0.3, 0.8))
"""Retry's rate (and that of three operators), the fourth's."""


def counts(rates: np.ndarray, tries: int, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """(select, score) of tries [problems, operators] with these success rates."""
    first = tries // 2
    return tuple(Counts(rng.binomial(n, rates), np.full(rates.shape, n)) for n in (first, tries - first))  # type: ignore[return-value]


def called(select: Counts, score: Counts, compat: str | None) -> dict[str, Any]:
    """Share of problems called steerable, and of those the share whose operator is the last one."""
    found = [row for row in label(select, score, OPERATORS, compat=compat) if row.label == STEERABLE]
    share = proportion(len(found), len(select.tries)).dict()
    right = sum(row.operator == OPERATORS[-1] for row in found)
    return share | {"right_operator": right / len(found) if found else None}


def rescuers(select: Counts, score: Counts) -> dict[str, Any]:
    """Share of problems with any operator that Holm's adjustment leaves significant."""
    found = label(select, score, OPERATORS)
    return proportion(sum(bool(row.rescuers) for row in found), len(found)).dict()


def rows(problems: int, seed: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    cells = [(retry, retry, tries) for retry in RATES for tries in TRIES]
    cells += [(retry, best, tries) for retry, best in EFFECTS for tries in TRIES]
    for retry, best, tries in cells:
        rates = np.full((problems, len(OPERATORS)), retry)
        rates[:, -1] = best
        select, score = counts(rates, tries, rng)
        yield {
            "retry": retry,
            "best": best,
            "tries": tries,
            "null": best == retry,
            "naive": called(select, score, "naive"),
            "split": called(select, score, None),
            "holm": rescuers(select, score),
        }


def mixture(problems: int, seed: int) -> dict[str, Any]:
    """What a run would print: problems of every difficulty, Beta(.5, 1), nothing works; the null rate by dealing anew
    beside the rate there is."""
    rng = np.random.default_rng(seed)
    told = {}
    for tries in TRIES:
        rates = np.repeat(rng.beta(0.5, 1.0, problems)[:, None], len(OPERATORS), axis=1)
        select, score = counts(rates, tries, rng)
        told[tries] = {
            name: {
                "called": called(select, score, compat),
                "null_rate": null_rate(select, score, compat=compat, draws=20, seed=seed).dict(),
            }
            for name, compat in (("naive", "naive"), ("split", None))
        }
    return told


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--problems", type=int, default=2000, help="simulated problems a cell")
    asked.add_argument("--seed", type=int, default=0)
    options = asked.parse_args()
    told: dict[str, Any] = {"operators": OPERATORS, "alpha": ALPHA, "problems": options.problems, "rows": []}
    for row in rows(options.problems, options.seed):
        told["rows"].append(row)
        shown = "  ".join(f"{name} {100 * row[name]['value']:5.1f}" for name in ("naive", "split", "holm"))
        print(f"retry {row['retry']:.2f}, best {row['best']:.2f}, {row['tries']:2d} tries: {shown}", file=sys.stderr)
    told["mixture"] = mixture(options.problems // 4, options.seed)
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told["mixture"]))


if __name__ == "__main__":
    main()
