"""GUARD and its controls against self-consistency, paired per problem at equal decoded tokens, all branches counted.

    python bench/strategies.py            # 300 problems a distribution; some minutes on one core

Prints a table a distribution and saves bench/results/strategies.json.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import wrongturn as wt
from wrongturn.compare import compare
from wrongturn.jobs import Settings, carry_out, jobs
from wrongturn.trace import Trace

DISTRIBUTIONS = ("G15_2,4", "G20_2,4", "G15_5,6", "G20_5,6")
STRATEGIES = (
    "sample",
    "greedy",
    "self_consistency:n=8",
    "guard",
    "guard:history=tokens",
    "guard:q=0.7",
    "guard:horizon=20",
    "guard:width=1",  # control: no choice, only the greedy continuation at the same places
    "guard:compat=repo",
)
N, SEED = 300, 101


async def solve_all(engine, problems) -> list[Trace]:
    todo = [job for name in STRATEGIES for job in jobs(problems, name)]
    return [t async for traces in carry_out(engine, todo, Settings(seed=SEED, top_k=0)) for t in traces]


def main() -> None:
    engine, results = wt.open("embedded"), {}
    for name in DISTRIBUTIONS:
        problems = wt.tasks.GraphSearch().problems(name, N, SEED)
        rows = compare(asyncio.run(solve_all(engine, problems)), seed=SEED)
        results[name] = rows
        print(f"\n{name}, n={N}, temperature 1, seed {SEED}")
        print(f"{'strategy':24}{'right %':>24}{'tokens':>9}{'against sample':>24}{'at equal tokens':>24}")
        for row in rows:
            cells = [row["accuracy"], row["difference"], row["equal_tokens"]]
            right, against, equal = (
                "–" if e is None else f"{100 * e['value']:.1f} [{100 * e['low']:.1f}, {100 * e['high']:.1f}]"
                for e in cells
            )
            print(f"{row['strategy']:24}{right:>24}{row['decoded_tokens']:>9.0f}{against:>24}{equal:>24}")
    out = Path(__file__).parent / "results" / "strategies.json"
    out.write_text(json.dumps({"n": N, "seed": SEED, "rows": results}, indent=1))


if __name__ == "__main__":
    main()
