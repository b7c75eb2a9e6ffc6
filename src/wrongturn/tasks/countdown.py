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

Many continuations are right, and the checker accepts each; it names the first token that is wrong. The four habits are
those of "Cognitive Behaviors that Enable Self-Improving Reasoners" (2025), which has a model count them; here they are
counted by the grammar, and a line counts only if it is true.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from wrongturn.tasks.base import BOS, EOS, SPECIAL, Check, OwnTokens, Segment
from wrongturn.trace import Problem

LIMIT = 199
"""Every number is between 1 and this."""

FIRST = len(SPECIAL)  # the token of the number 0; c is FIRST + c
SYMBOLS = ("+", "-", "*", "/", "=", ",", ":", ";", "@", "!", "#", "^", ">")
VOCAB: tuple[str, ...] = (*SPECIAL, *map(str, range(LIMIT + 1)), *SYMBOLS)
_ID = {token: i for i, token in enumerate(VOCAB)}
END, ANSWER = _ID[";"], _ID[">"]
_TOKEN = re.compile(r"\d+|[-+*/=,:;@!#^>]")
_INVERSE = {"-": "+", "+": "-", "/": "*", "*": "/"}  # of a goal line: what the step set aside does

ERRORS: dict[str, str] = {
    "syntax": "a token the grammar does not allow here",
    "not_there": "a number that is not in the state",
    "arithmetic": "a wrong result, or one that is not whole or out of range",
    "goal": "a goal line that does not start from the goal, or a sub-goal no step can make",
    "verification": "says that unequal numbers are equal or the reverse, or compares what is not there to compare",
    "backtrack": "goes back to a state there is not",
    "unverified": "answers before a verification has held",
    "answer": "an answer that is not a solution",
    "truncated": "stopped before the end token",
}

HABITS = ("verification", "backtracking", "subgoals", "backward_chaining")


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Make ``target`` of all ``numbers``."""

    numbers: tuple[int, ...]
    target: int


def combine(a: int, op: str, b: int) -> int | None:
    """The result of a step; None where it is not allowed."""
    if op == "/":
        return a // b if b and a % b == 0 and a // b <= LIMIT else None
    c = a + b if op == "+" else a - b if op == "-" else a * b
    return c if 1 <= c <= LIMIT else None


# -- text and tokens ---------------------------------------------------------------------------------------------------


def encode(text: str) -> list[int]:
    """Token ids of a prompt or trace (spaces ignored). Raises ``ValueError`` naming the first foreign character."""
    ids, end = [], 0
    text = text.replace(" ", "")
    for match in _TOKEN.finditer(text):
        if match.start() != end or match.group() not in _ID:
            break
        ids.append(_ID[match.group()])
        end = match.end()
    if end != len(text):
        raise ValueError(f"not countdown text: {text[end : end + 12]!r} at character {end}")
    return ids


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


# -- the checker -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _State:
    """What the steps in force have made: numbers left, the goal, and the steps that lead from it to the target."""

    numbers: tuple[int, ...]
    goal: int

    def without(self, *used: int) -> tuple[int, ...] | None:
        """The numbers less those; None where one is not there."""
        left = list(self.numbers)
        for n in used:
            if n not in left:
                return None
            left.remove(n)
        return tuple(left)


@dataclass(slots=True)
class _Search:
    puzzle: Puzzle
    states: list[_State] = field(default_factory=list)
    verified: bool = False
    habits: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.states.append(_State(self.puzzle.numbers, self.puzzle.target))

    def line(self, tokens: Sequence[str]) -> tuple[int, str] | None:
        """Take one line without its ``;``: (index of the first wrong token, error), or None where it is true."""
        forms = {"@": self._goal, "^": self._back}
        if not tokens:
            return 0, "syntax"
        if tokens[0] in forms:
            return forms[tokens[0]](tokens)
        if len(tokens) > 1 and tokens[1] in "!#" and tokens[0].isdigit():
            return self._verify(tokens)
        return self._step(tokens)

    def _step(self, tokens: Sequence[str]) -> tuple[int, str] | None:
        wrong = _shape(tokens, "n", "+-*/", "n", "=", "n")
        state = self.states[-1]
        for k, used in ((0, 1), (2, 2)):  # the first operand, then both
            if wrong is not None and wrong <= k:
                return wrong, "syntax"
            if state.without(*(int(tokens[2 * i]) for i in range(used))) is None:
                return k, "not_there"
        if wrong is not None:
            return wrong, "syntax"
        a, op, b, _, c = tokens
        if combine(int(a), op, int(b)) != int(c):
            return 4, "arithmetic"
        left = state.without(int(a), int(b))
        self.states.append(_State((*(left or ()), int(c)), state.goal))
        self.verified = False
        return None

    def _goal(self, tokens: Sequence[str]) -> tuple[int, str] | None:
        state = self.states[-1]
        if len(tokens) == 2 and tokens[1].isdigit():
            if int(tokens[1]) not in _reachable(state.numbers):
                return 1, "goal"
            self.habits["subgoals"] += 1
            return None
        wrong = _shape(tokens, "@", "n", "=", "n", "+-*/", "n")
        if wrong is not None:
            return wrong, "syntax"
        h, g, op, n = int(tokens[1]), int(tokens[3]), tokens[4], int(tokens[5])
        left = state.without(n)
        if g != state.goal:
            return 3, "goal"
        if left is None or not left:
            return 5, "not_there"
        if h < 1 or h > LIMIT or combine(h, _INVERSE[op], n) != g:
            return 5, "goal"
        self.states.append(_State(left, h))
        self.habits.update(("subgoals", "backward_chaining"))
        self.verified = False
        return None

    def _verify(self, tokens: Sequence[str]) -> tuple[int, str] | None:
        wrong = _shape(tokens, "n", "!#", "n")
        state = self.states[-1]
        if state.numbers != (int(tokens[0]),):
            return 0, "verification"
        if wrong is not None:
            return wrong, "syntax"
        equal = int(tokens[0]) == state.goal
        if equal != (tokens[1] == "!"):
            return 1, "verification"
        if int(tokens[2]) != state.goal:
            return 2, "verification"
        self.verified = equal
        self.habits["verification"] += 1
        return None

    def _back(self, tokens: Sequence[str]) -> tuple[int, str] | None:
        wrong = _shape(tokens, "^", "n")
        if wrong is not None:
            return wrong, "syntax"
        to = int(tokens[1])
        if to >= len(self.states) - 1:
            return 1, "backtrack"
        del self.states[to + 1 :]
        self.verified = False
        self.habits["backtracking"] += 1
        return None


def _shape(tokens: Sequence[str], *kinds: str) -> int | None:
    """The index of the first token that is not of its kind ("n": a number; else one of these characters)."""
    for i, kind in enumerate(kinds):
        if i >= len(tokens) or (not tokens[i].isdigit() if kind == "n" else tokens[i] not in kind):
            return i
    return len(kinds) if len(tokens) > len(kinds) else None


def _reachable(numbers: Sequence[int]) -> set[int]:
    """What one step can make."""
    made = (combine(a, op, b) for a, b in permutations(numbers, 2) for op in "+-*/")
    return {c for c in made if c is not None}


def check(puzzle: Puzzle, ids: Sequence[int]) -> Check:
    """Follow a completion line by line; name the first wrong token and judge every line on the states before it.

    A wrong line changes nothing: the lines after it are judged as if it were not there.
    """
    return _follow(puzzle, ids)[0]


def habits(puzzle: Puzzle, ids: Sequence[int]) -> dict[str, int]:
    """How often a completion shows each of the four habits, in lines that are true (of ``HABITS``)."""
    return dict(_follow(puzzle, ids)[1])


def _follow(puzzle: Puzzle, ids: Sequence[int]) -> tuple[Check, dict[str, int]]:
    search = _Search(puzzle)
    texts = [text or "?" for text in pieces(int(i) for i in ids)]  # special tokens have no text: no line allows one
    first: tuple[int, str] | None = None
    segments: list[Segment] = []
    start, ended = 0, False
    for i, token in enumerate(ids):
        if int(token) not in (END, EOS) or ended:
            continue
        line = texts[start:i]
        wrong = search.line(line) if int(token) == END else _final(search, line)
        kind = "answer" if int(token) == EOS else _KIND.get(next(iter(line), ""), "step")
        kind = "verify" if len(line) > 1 and line[1] in "!#" and kind == "step" else kind
        segments.append(Segment(start, i + 1, kind, wrong[1] if wrong else None))
        if wrong and first is None:
            first = start + wrong[0], wrong[1]
        start, ended = i + 1, int(token) == EOS
    if start < len(ids):  # after the end token, or no end token
        error = "syntax" if ended else "truncated"
        segments.append(Segment(start, len(ids), "unfinished", error))
        first = first or ((start, error) if ended else (len(ids), error))
    if not ended and first is None:
        first = len(ids), "truncated"
    counted = {habit: search.habits[habit] for habit in HABITS}
    return Check(first[0] if first else -1, first[1] if first else None, tuple(segments)), counted


_KIND = {"@": "goal", "^": "backtrack"}


def _final(search: _Search, line: Sequence[str]) -> tuple[int, str] | None:
    """The answer line, up to the end token."""
    if not line or line[0] != ">":
        return 0, "syntax"
    if not search.verified:
        return 0, "unverified"
    return None if grade(search.puzzle, "".join(line[1:])) else (1, "answer")


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
        lines.append(f"@{h}={goal}{_INVERSE[op]}{aside}")
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
    token = _TOKEN
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
