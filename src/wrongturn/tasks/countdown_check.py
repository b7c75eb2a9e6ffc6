"""Check a Countdown search line by line, and count its habits.

The four habits are those of "Cognitive Behaviors that Enable Self-Improving Reasoners" (2025), which has a model count
them; here they are counted by the grammar, and a line counts only if it is true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations

from wrongturn.tasks.base import EOS, Check, Segment
from wrongturn.tasks.countdown_text import END, INVERSE, LIMIT, Puzzle, combine, grade, pieces

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
        if h < 1 or h > LIMIT or combine(h, INVERSE[op], n) != g:
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
