"""Countdown as text and tokens: puzzles, prompts and answers. The whole language: :mod:`wrongturn.tasks.countdown`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wrongturn.tasks.base import BOS, EOS, SPECIAL, read

LIMIT = 199
"""Every number is between 1 and this."""

FIRST = len(SPECIAL)  # the token of the number 0; c is FIRST + c
SYMBOLS = ("+", "-", "*", "/", "=", ",", ":", ";", "@", "!", "#", "^", ">")
VOCAB: tuple[str, ...] = (*SPECIAL, *map(str, range(LIMIT + 1)), *SYMBOLS)
_ID = {token: i for i, token in enumerate(VOCAB)}
END, ANSWER = _ID[";"], _ID[">"]
TOKEN = re.compile(r"\d+|[-+*/=,:;@!#^>]")
INVERSE = {"-": "+", "+": "-", "/": "*", "*": "/"}  # of a goal line: what the step set aside does


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Make ``target`` of all ``numbers``."""

    numbers: tuple[int, ...]
    target: int

    @property
    def same(self) -> tuple[int, ...]:
        """Equal for puzzles that differ in the order of their numbers alone."""
        return (*sorted(self.numbers), self.target)


def combine(a: int, op: str, b: int) -> int | None:
    """The result of a step; None where it is not allowed."""
    if op == "/":
        return a // b if b and a % b == 0 and a // b <= LIMIT else None
    c = a + b if op == "+" else a - b if op == "-" else a * b
    return c if 1 <= c <= LIMIT else None


def encode(text: str) -> list[int]:
    """Token ids of a prompt or trace (spaces ignored). Raises ``ValueError`` naming the first foreign character."""
    return read(text, TOKEN, _ID, "countdown")


def pieces(ids: Iterable[int]) -> list[str]:
    """The text of each token on its own (begin, end and padding are empty)."""
    return [VOCAB[i] if i > EOS else "" for i in ids]


def prompt(puzzle: Puzzle) -> str:
    """``"25,3:28"``."""
    return f"{','.join(map(str, puzzle.numbers))}:{puzzle.target}"


def prompt_ids(puzzle: Puzzle) -> list[int]:
    """``<bos>`` and the tokens of the prompt."""
    return [BOS, *encode(prompt(puzzle))]


def parse_prompt(text: str) -> Puzzle:
    """``"25,3:28"`` -> Puzzle; ``ValueError`` otherwise."""
    if not re.fullmatch(r"\d+(,\d+)*:\d+", text):
        raise ValueError(f"not a countdown prompt: {text[:40]!r} (expected 'number,number,...:target')")
    numbers, target = text.split(":")
    return Puzzle(tuple(map(int, numbers.split(","))), int(target))


def answer(ids: Sequence[int]) -> str | None:
    """What stands between the last ``>`` and the end token; None where a trace has no such part."""
    ids = [int(i) for i in ids]
    if not ids or ids[-1] != EOS or ANSWER not in ids:
        return None
    return "".join(pieces(ids[len(ids) - ids[::-1].index(ANSWER) :])) or None


def grade(puzzle: Puzzle, steps: str | None) -> bool:
    """True where the steps are right, use every number once, and end with the target."""
    if steps is None or not re.fullmatch(r"\d+[-+*/]\d+=\d+(,\d+[-+*/]\d+=\d+)*", steps):
        return False
    state = Counter(puzzle.numbers)
    for a, op, b, c in re.findall(r"(\d+)([-+*/])(\d+)=(\d+)", steps):
        used = Counter((int(a), int(b)))
        if used - state or combine(int(a), op, int(b)) != int(c):
            return False
        state = state - used + Counter((int(c),))
    return list(state.elements()) == [puzzle.target]
