"""Window-feature tables made from a seed, and the published ones where they lie beside the repository."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from wrongturn.diagnose.modes.features import SUMMARIES

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "two_modes"


def published_table(name: str) -> Path:
    """The path of a published table; the test is skipped where it is not there."""
    path = PUBLISHED / name
    if not path.exists():
        pytest.skip(f"the published table {name} is not beside this repository")
    return path


def made_columns(
    n: int = 120,
    failures: int = 40,
    grid: tuple[int, ...] = (128, 512),
    early: float = 0.0,
    full: float = 0.0,
    seed: int = 0,
    suffix: str = "_prefinal",
) -> dict[str, list[object]]:
    """Columns of a table whose failures have features higher by ``early`` (in the windows) or ``full`` (in all)."""
    rng = np.random.default_rng(seed)
    failed = rng.permutation(np.arange(n) < failures)
    columns: dict[str, list[object]] = {
        "question_id": [f"q{i}" for i in range(n)],
        "text": [f'line one, "{i}"\nline two' for i in range(n)],
        "correct": [int(not f) for f in failed],
        "predicted_answer": ["A"] * n,
        "hit_max_tokens": [0] * n,
        "generated_len": rng.integers(300, 3000, n).tolist(),
        "prefinal_len": rng.integers(200, 2500, n).tolist(),
    }
    for name in SUMMARIES:
        columns[name + suffix] = (rng.normal(size=n) + full * failed).tolist()
        for T in grid:
            columns[f"{name}{suffix}_w{T}"] = (rng.normal(size=n) + early * failed).tolist()
    return columns


def write_csv(path: Path, columns: dict[str, list[object]], encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path
