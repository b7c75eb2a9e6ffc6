"""What a plan comes to within a budget of decoded tokens, told from tries that were made beforehand.

A *plan* is one operator, or several tried in turn. A problem's tries are taken in random order until the budget is
spent. The try that would go beyond it is begun by lot, with the chance that is the share of it there is budget for: so
every plan spends the budget in the mean, whatever its tries cost, and none is worse off for not dividing it evenly. The
average over many orders is what the plan is worth there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.recoverability.outcomes import Base, Outcomes

Float = NDArray[np.float64]
Index = NDArray[np.intp]
Plan = tuple[str, ...]

ORDERS = 32
_VOTED = 8  # orders that votes are averaged over: they cost the square of the tries
_BLOCK = 128  # problems at once


@dataclass(frozen=True, slots=True, eq=False)
class Spent:
    """What each of N plans comes to on each of P problems; arrays [P, N], means over orders.

    ``rescued``: a try that fitted is right (somebody can tell). ``voted``: the majority of the answers is (nobody can).
    ``once``: success of a single try, whatever it cost. ``tokens``: decoded, the budget in the mean. ``short``: all
    tries that there were fitted, so the plan would have gone on had more been made. NaN where none was made.
    """

    plans: tuple[Plan, ...]
    rescued: Float
    voted: Float
    once: Float
    tokens: Float
    short: Float


def all_plans(operators: Sequence[str]) -> tuple[Plan, ...]:
    """Each operator alone, then each two of them in turn."""
    return tuple((name,) for name in operators) + tuple(itertools.combinations(operators, 2))


def spend(
    outcomes: Outcomes,
    plans: Sequence[Plan],
    budget: float,
    *,
    base: Base | None = None,
    votes: bool = True,
    orders: int = ORDERS,
    seed: int = 0,
) -> Spent:
    """Every plan on every problem, ``budget`` decoded tokens each.

    Args:
        base: samples of the same problems, row by row, that vote along and cost nothing here.
        votes: without, ``voted`` is NaN, which is several times faster.
    """
    column = {name: i for i, name in enumerate(outcomes.operators)}
    wanted = [[column[name] for name in plan] for plan in plans]
    made, problems = outcomes.made, len(outcomes.problems)
    with np.errstate(invalid="ignore"):
        rates = np.where(made, outcomes.right, 0.0).sum(axis=2) / made.sum(axis=2)
    once = np.stack([rates[:, columns].mean(axis=1) for columns in wanted], axis=1)
    found = np.full((4, problems, len(plans)), np.nan)
    width, rng = int(made.sum(axis=2).max(initial=0)), np.random.default_rng(seed)
    for start in range(0, problems, _BLOCK):
        rows = slice(start, start + _BLOCK)
        part = outcomes.take(np.arange(problems)[rows])
        tables = _shuffled(part, width, orders, rng)
        lot = (rng.permuted(np.tile(np.arange(orders), (len(part.problems), 1)), axis=1) + 0.5) / orders
        # no plan takes more tries of an operator than fit alone; one more says that there are more
        alone = tables[0] & (np.cumsum(tables[2], axis=2) <= budget)
        tables = [table[:, :, : 1 + int(alone.sum(axis=2).max(initial=0))] for table in tables]
        first = None if base is None else (base.answers[rows], base.right[rows])
        for n, columns in enumerate(wanted):
            # [P, R, T, operators] -> [P, R, T * operators]: in turn
            turn = [table[..., columns].reshape(len(table), orders, -1) for table in tables]
            found[:, rows, n] = _play(turn, budget, lot, first, votes)
    rescued, voted, tokens, short = found
    return Spent(tuple(plans), rescued, voted, once, tokens, short)


def _shuffled(part: Outcomes, width: int, orders: int, rng: np.random.Generator) -> tuple[NDArray, ...]:
    """(made, right, tokens, answers), each [P, R, width, O]: R random orders of each cell's tries, those made first."""
    made = part.made
    keys = rng.random((*made.shape[:2], orders, made.shape[2]), dtype=np.float32)
    order = np.argsort(np.where(made[:, :, None, :], keys, 2.0), axis=3)[..., :width]

    def sort(table: NDArray) -> NDArray:
        return np.ascontiguousarray(np.take_along_axis(table[:, :, None, :], order, axis=3).transpose(0, 2, 3, 1))

    tokens = np.where(made, part.tokens, 0.0)
    return sort(made), sort(made & (part.right == 1)), sort(tokens), sort(np.where(made, part.answers, -1))


def _play(
    tables: Sequence[NDArray], budget: float, lot: Float, base: tuple[NDArray, NDArray] | None, votes: bool
) -> Float:
    """(rescued, voted, tokens, short) of one plan [4, P], of tries [P, R, S] in order; ``lot`` [P, R] in (0, 1)."""
    made, right, tokens, answers = tables
    before = np.cumsum(tokens, axis=2) - tokens
    fits = made & (before + lot[:, :, None] * tokens <= budget)
    some = made[:, 0].any(axis=1)
    found = np.full((4, len(made)), np.nan)
    found[0] = np.where(some, (fits & right).any(axis=2).mean(axis=1), np.nan)
    if votes:
        longest = 1 + int(np.flatnonzero(fits.any(axis=(0, 1))).max(initial=0))  # votes cost its square
        part = np.s_[:, :_VOTED, :longest]
        voted = _majority(fits[part], right[part], answers[part], base)
        found[1] = np.where(some, voted, np.nan)
    found[2] = np.where(some, np.where(fits, tokens, 0.0).sum(axis=2).mean(axis=1), np.nan)
    found[3] = np.where(some, (tokens.sum(axis=2) < budget).mean(axis=1), np.nan)
    return found


def _majority(fits: NDArray, right: NDArray, answers: NDArray, base: tuple[NDArray, NDArray] | None) -> Float:
    """[P]: how often the most frequent answer of those that fit is right; the answerless do not vote, first wins."""
    if base is not None:
        codes, good = (np.repeat(table[:, None, :], fits.shape[1], axis=1) for table in base)
        fits = np.concatenate((~np.isnan(good), fits), axis=2)
        right = np.concatenate((good == 1, right), axis=2)
        answers = np.concatenate((codes, answers), axis=2)
    votes = fits & (answers >= 0)
    count = ((answers[..., :, None] == answers[..., None, :]) & votes[..., None, :]).sum(axis=3)
    count = np.where(votes, count, 0)
    winner = count.argmax(axis=2)[..., None]
    good = np.take_along_axis(right & votes, winner, axis=2)[..., 0]
    return good.mean(axis=1)
