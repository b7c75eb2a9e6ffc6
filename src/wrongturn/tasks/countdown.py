"""Countdown: make a target of given numbers, each used once, with a search written out that can be checked exactly.

A prompt is ``25,3,7,4:86``; a completion is a search in lines that end with ``;``, then the answer::

    25+3=28;28*4=112;112-7=105;105#86;^0;@79=86-7;25*3=75;75+4=79;79!79;>25*3=75,75+4=79,79+7=86

=================  ===========================================================================================
``a+b=c;``         two numbers of the state become one (``+ - * /``, results are whole and in 1..``LIMIT``)
``@h=g-n;``        *backward chaining*: the goal g is h once n is set aside; ``@h=g+n`` for a last step ``h-n``,
                   ``@h=g/n`` for ``h*n``, ``@h=g*n`` for ``h/n``
``@h;``            *sub-goal*: h is wanted next, which one step from here can make (backward chaining sets one, too)
``c!g;`` ``c#g;``  *verification*: the one number left is, or is not, the goal
``^k;``            *backtracking*: back to the state after k of the steps in force
``>a+b=c,...``     the answer, after a verification that held: the steps of the solution in order
=================  ===========================================================================================

Many continuations are right, and the checker accepts each; it names the first token that is wrong.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wrongturn.tasks.base import BOS, EOS, Check, OwnTokens
from wrongturn.tasks.countdown_check import ERRORS, HABITS, check, habits
from wrongturn.tasks.countdown_text import (
    ANSWER,
    END,
    INVERSE,
    LIMIT,
    TOKEN,
    VOCAB,
    Puzzle,
    answer,
    combine,
    encode,
    grade,
    parse_prompt,
    pieces,
    prompt,
    prompt_ids,
)
from wrongturn.trace import Problem

__all__ = [
    "ANSWER",
    "BOS",
    "END",
    "EOS",
    "ERRORS",
    "HABITS",
    "LIMIT",
    "VOCAB",
    "Countdown",
    "Distribution",
    "Puzzle",
    "answer",
    "check",
    "combine",
    "encode",
    "grade",
    "habits",
    "parse_prompt",
    "pieces",
    "prompt",
    "prompt_ids",
    "write",
]

# -- puzzles and their traces ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Distribution:
    """``C{numbers}``: so many numbers of 1..25, a target of 10..100 that they make. Traces: see :func:`write`."""

    numbers: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.numbers <= 6:
            raise ValueError(f"numbers must be between 2 and 6, not {self.numbers}")

    def __str__(self) -> str:
        return f"C{self.numbers}"

    @classmethod
    def parse(cls, name: str) -> Distribution:
        """``"C4"`` -> Distribution(4); ValueError otherwise."""
        match = re.fullmatch(r"C(\d+)", name)
        if match is None:
            raise ValueError(f"not a countdown distribution: {name!r} (expected e.g. 'C4')")
        return cls(int(match[1]))

    def puzzles(self, seed: int) -> Iterator[tuple[Puzzle, list[str]]]:
        """An endless stream of puzzles, each with the steps of one solution."""
        rng = random.Random(f"countdown/{self}/{seed}")
        while True:
            numbers = tuple(rng.randint(1, 25) for _ in range(self.numbers))
            steps = _random_steps(rng, numbers)
            target = int(steps[-1].split("=")[1]) if steps else 0
            if 10 <= target <= 100:
                yield Puzzle(numbers, target), steps


def _random_steps(rng: random.Random, numbers: Sequence[int]) -> list[str]:
    """Random steps until one number is left; [] where that is not possible."""
    left, steps = list(numbers), []
    while len(left) > 1:
        a, b = rng.sample(left, 2)
        made = [(op, c) for op in "+-*/" if (c := combine(a, op, b)) is not None]
        if not made:
            return []
        op, c = rng.choice(made)
        left.remove(a)
        left.remove(b)
        left.append(c)
        steps.append(f"{a}{op}{b}={c}")
    return steps


def write(
    puzzle: Puzzle, solution: Sequence[str], rng: random.Random, *, detours: float = 0.5, backward: float = 0.3
) -> list[int]:
    """A right trace that ends with ``solution``: before each of its steps, with probability ``detours`` (again and
    again), a search down to another number, which is verified and given up; the last step, with probability
    ``backward``, worked out from the target first.
    """
    lines: list[str] = []
    left, goal, todo = list(puzzle.numbers), puzzle.target, list(solution)
    depth = 0
    a, op, b, _ = _parts(todo[-1])
    rest = puzzle.numbers if len(todo) > 1 else ()
    aside = next((n for n, other in ((b, a), (a, b)) if n in rest and other != n and (n == b or op in "+*")), None)
    if aside is not None and _never_made(aside, todo[:-1]) and rng.random() < backward:
        h = a if aside == b else b
        lines.append(f"@{h}={goal}{INVERSE[op]}{aside}")
        left.remove(aside)
        goal, depth = h, 1
        todo.pop()
    for step in todo:
        while rng.random() < detours:
            tried = _random_steps(rng, left)
            if not tried:
                break
            end = int(tried[-1].split("=")[1])
            if end == goal:  # a solution is no detour
                continue
            if rng.random() < 0.3:
                lines.append(f"@{tried[0].split('=')[1]}")
            lines += [*tried, f"{end}#{goal}", f"^{depth}"]
        x, _, y, made = _parts(step)
        left.remove(x)
        left.remove(y)
        left.append(made)
        lines.append(step)
        depth += 1
    lines.append(f"{goal}!{goal}")
    return [*encode(";".join(lines) + ";>" + ",".join(solution)), EOS]


def _parts(step: str) -> tuple[int, str, int, int]:
    a, op, b, c = re.findall(r"\d+|[-+*/]", step.replace("=", " "))
    return int(a), op, int(b), int(c)


def _never_made(n: int, steps: Sequence[str]) -> bool:
    """Whether no step uses or makes n, so that setting it aside takes nothing from them."""
    return all(n not in (a, b, c) for a, _, b, c in map(_parts, steps))


# -- the task ----------------------------------------------------------------------------------------------------------


class Countdown(OwnTokens):
    """The task the rest of the package sees; it has tokens of its own."""

    name = "countdown_search"
    stop_ids: tuple[int, ...] = (EOS,)
    boundary_ids: tuple[int, ...] = (END, EOS)
    words = VOCAB
    token = TOKEN
    usual_tokens = 240

    def problems(self, distribution: str | Distribution, n: int, seed: int = 0) -> list[Problem]:
        """``n`` problems; the same seed gives the same problems, whatever ``n`` is."""
        if isinstance(distribution, str):
            distribution = Distribution.parse(distribution)
        group, stream = str(distribution), distribution.puzzles(seed)
        return [self.problem(*next(stream), f"{group}/{seed}/{i}", group) for i in range(n)]

    def problem(self, puzzle: Puzzle, solution: Sequence[str], id: str, group: str = "") -> Problem:
        """One puzzle as a problem."""
        return Problem(id, self.name, prompt(puzzle), tuple(prompt_ids(puzzle)), ",".join(solution), group)

    def encode(self, text: str) -> list[int]:
        return encode(text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return pieces(ids)

    def answer(self, ids: Sequence[int] | np.ndarray) -> str | None:
        return answer([int(i) for i in ids])

    def grade(self, problem: Problem, answer: str | None) -> bool:
        return grade(parse_prompt(problem.prompt), answer)

    def check(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Check:
        return check(parse_prompt(problem.prompt), [int(i) for i in ids])
