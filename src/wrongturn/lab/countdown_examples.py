"""Training examples for Countdown: puzzles that grow with right searches for their solutions, and a drill in sums."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wrongturn.lab.data import Example, held, kept
from wrongturn.lab.split import held_out_puzzles
from wrongturn.tasks import countdown as cd
from wrongturn.trace import Problem

if TYPE_CHECKING:
    from wrongturn.lab.model import Reasoner

Solved = tuple[cd.Puzzle, list[str]]
"""A puzzle and the steps of a solution."""

SUMS = 12
"""Steps of a drill."""


@dataclass(frozen=True, slots=True)
class CountdownRecipe:
    """What is trained on, as functions of progress p in [0, 1].

    Puzzles have ``numbers[0]`` numbers at first; the share of larger ones, of every size up to ``numbers[1]`` alike,
    rises to ``larger`` during the first ``growth`` of training. ``detours`` and ``backward`` are those of
    :func:`wrongturn.tasks.countdown.write`; an example of more than ``context`` tokens is left out. A drill writes true
    steps one after another, of which the results carry loss; its share falls linearly from ``drill`` to none at
    ``drill_until``.
    """

    task: str = "countdown_search"
    numbers: tuple[int, int] = (3, 4)
    larger: float = 0.7
    growth: float = 0.3
    detours: float = 0.5
    backward: float = 0.3
    drill: float = 0.5
    drill_until: float = 0.5
    batch: int = 32
    context: int = 256

    def __post_init__(self) -> None:
        low, high = map(cd.Distribution, self.numbers)
        if low.numbers > high.numbers:
            raise ValueError(f"numbers must be (least, most), not {self.numbers}")
        if self.context < 16 * high.numbers:  # a trace without a detour has some 14 tokens a number, with its prompt
            raise ValueError(f"a context of {self.context} tokens is too short for {high.numbers} numbers")

    @classmethod
    def only(cls, distribution: str, task: str = "countdown_search", batch: int = 32) -> CountdownRecipe:
        """Puzzles of one distribution and nothing else. Raises ``ValueError`` for a malformed one."""
        numbers = cd.Distribution.parse(distribution).numbers
        return cls(task=task, numbers=(numbers, numbers), drill=0.0, batch=batch)

    @property
    def distributions(self) -> tuple[str, ...]:
        return ("C3", "C4")

    @property
    def goal(self) -> str:
        return "C4"

    def longest(self) -> int:
        return self.context

    def weights(self) -> npt.NDArray[np.float32]:
        """[vocabulary]: all the same."""
        return np.ones(len(cd.VOCAB), np.float32)

    def examples(self, rng: np.random.Generator, p: float, number: int) -> list[Example]:
        """``number`` examples at progress ``p``, in random order."""
        low, high = self.numbers
        share = self.larger * min(1.0, p / self.growth) if self.growth > 0 else self.larger
        sizes = rng.integers(min(low + 1, high), high, number, endpoint=True)
        sizes[rng.random(number) >= share] = low
        drilled = rng.random(number) < self.drill * max(0.0, 1 - p / self.drill_until)
        made = sums(rng, int(drilled.sum()))
        for size, count in zip(*np.unique(sizes[~drilled], return_counts=True), strict=True):
            made += self.searches(rng, int(size), int(count))
        return [made[i] for i in rng.permutation(number).tolist()]

    def searches(self, rng: np.random.Generator, numbers: int, number: int) -> list[Example]:
        """Puzzles of so many numbers and right traces, all of which fit the context."""
        puzzles, choices = (int(seed) for seed in rng.integers(1 << 62, size=2))
        drawn, ties = kept(cd.Distribution(numbers).puzzles(puzzles), _held_out), random.Random(choices)
        made: list[Example] = []
        while len(made) < number:
            puzzle, steps = next(drawn)
            trace = cd.write(puzzle, steps, ties, detours=self.detours, backward=self.backward)
            example = Example(np.array(cd.prompt_ids(puzzle)), trace)
            if len(example) <= self.context:
                made.append(example)
        return made

    def fresh(self, distribution: str, n: int, seed: int) -> list[Problem]:
        """``n`` different puzzles held out for testing (see :func:`wrongturn.lab.split.held_out_puzzles`)."""
        d, task = cd.Distribution.parse(distribution), cd.Countdown()
        found = held(d.puzzles(seed), _held_out, n, distribution, lambda solved: solved[0].same)
        return [task.problem(*solved, f"{d}/test{seed}/{i}", str(d)) for i, solved in enumerate(found)]

    def practice(self, distribution: str, seed: int) -> Iterator[Problem]:
        """An endless stream of puzzles that are not held out."""
        d, task = cd.Distribution.parse(distribution), cd.Countdown()
        drawn = enumerate(kept(d.puzzles(seed), _held_out))
        return (task.problem(*solved, f"{d}/practice{seed}/{i}", str(d)) for i, solved in drawn)

    def accuracy(self, model: Reasoner) -> dict[str, float]:
        """By decoding the largest puzzles, as many traces are right."""
        from wrongturn.lab.decoding import decoded

        return decoded(model, self, f"C{self.numbers[1]}")


def sums(rng: np.random.Generator, number: int) -> list[Example]:
    """True steps as searches have them, after no prompt."""
    stream = kept(cd.Distribution(4).puzzles(int(rng.integers(1 << 62))), _held_out)
    steps = (step for _, solution in stream for step in solution)
    prompt, given = np.array([cd.BOS]), tuple(6 * k + i for k in range(SUMS) for i in range(3))  # 1 + 2 = 3 ;
    return [Example(prompt, cd.encode(";".join(islice(steps, SUMS)) + ";"), given) for _ in range(number)]


def _held_out(solved: Sequence[Solved]) -> npt.NDArray[np.bool_]:
    return held_out_puzzles([puzzle for puzzle, _ in solved])
