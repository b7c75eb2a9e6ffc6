"""Failed problems whose rates are known, and what tries of them came to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wrongturn.diagnose.recoverability.outcomes import Base, Outcomes

OPERATORS = ("retry", "dense", "steer")


@dataclass(frozen=True)
class Table:
    problems: tuple[str, ...]
    names: tuple[str, ...]
    values: np.ndarray


def outcomes_of(rates: np.ndarray, tries: int = 8, operators=OPERATORS, seed: int = 0, tokens=(10, 30)) -> Outcomes:
    """Tries of problems "p0" … with ``rates`` [P, O]; right answers have code 7, wrong ones 1 to 5."""
    rng = np.random.default_rng(1_000_000 + seed)  # not the stream that shares out the tries
    shape = (*rates.shape, tries)
    right = (rng.random(shape) < rates[..., None]).astype(float)
    answers = np.where(right == 1, 7, rng.integers(1, 6, shape))
    problems = tuple(f"p{i}" for i in range(len(rates)))
    groups = tuple(f"g{i % 2}" for i in range(len(rates)))
    return Outcomes(problems, groups, operators, right, rng.integers(*tokens, shape).astype(float), answers)


def planted(problems: int, seed: int = 0, tries: int = 8) -> tuple[Table, Outcomes]:
    """The feature "spread" says which of two operators works; "noise" says nothing."""
    rng = np.random.default_rng(2_000_000 + seed)
    spread = rng.normal(size=problems)
    rates = np.full((problems, 3), 0.1)
    rates[spread > 0, 1] = rates[spread <= 0, 2] = 0.6
    found = outcomes_of(rates, tries, seed=seed)
    return Table(found.problems, ("spread", "noise"), np.stack([spread, rng.normal(size=problems)], axis=1)), found


def base_of(outcomes: Outcomes, right: np.ndarray, samples: int, solved: int = 20, seed: int = 0) -> Base:
    """``samples`` of each problem, right with chance ``right`` [P], and of ``solved`` problems that never fail."""
    rng = np.random.default_rng(3_000_000 + seed)
    chance = np.concatenate((right, np.ones(solved)))
    names = outcomes.problems + tuple(f"s{i}" for i in range(solved))
    good = rng.random((len(chance), samples)) < chance[:, None]
    answers = np.where(good, 7, rng.integers(1, 6, good.shape))
    groups = outcomes.groups + ("g0",) * solved
    return Base(names, groups, good.astype(float), np.full(good.shape, 20.0), answers)
