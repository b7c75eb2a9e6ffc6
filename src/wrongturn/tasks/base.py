"""What a task is: it knows where its steps end, grades answers and, where it can, checks every token."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from wrongturn.trace import Problem
from wrongturn.vocabulary import Message, Vocabulary

SPECIAL = ("<pad>", "<bos>", "<eos>")
PAD, BOS, EOS = range(len(SPECIAL))
"""The first words of every vocabulary that is a task's own."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One step of a trace: tokens ``start:stop``, what it does, and its first local error (None where valid)."""

    start: int
    stop: int
    kind: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """What a checker found: the first offending token and its class, and each segment judged on what stands before it.

    ``index`` is -1 where the trace is correct; a truncated trace offends at its length.
    """

    index: int
    error: str | None
    segments: tuple[Segment, ...]

    @property
    def exact(self) -> bool:
        """True where every token is the correct one."""
        return self.error is None


class Task(Protocol):
    """Grading sees the problem and its reference; strategies see neither."""

    @property
    def name(self) -> str: ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion."""
        ...

    @property
    def boundary_ids(self) -> Sequence[int]:
        """Tokens that end a step."""
        ...

    @property
    def slow(self) -> bool:
        """Whether grading may take long: it is then called in a thread."""
        ...

    def needs(self) -> None:
        """Raises ``WrongturnError`` where answers could not be graded here; asked before a model is."""
        ...

    def on(self, vocabulary: Vocabulary | None) -> Task:
        """The task as a model with that vocabulary reads and writes it (None: the task has tokens of its own)."""
        ...

    def messages(self, problem: Problem) -> list[Message]:
        """What is put to a chat model."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each token."""
        ...

    def boundaries(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """[tokens] bool: True at each token that ends a step."""
        ...

    def answer(self, ids: Sequence[int] | np.ndarray) -> str | None:
        """The final answer of a completion, None where it has none."""
        ...

    def answer_text(self, text: str) -> str | None:
        """The final answer in the text of a completion, None where it has none."""
        ...

    def grade(self, problem: Problem, answer: str | None) -> bool | None:
        """Whether the answer is right; None where that cannot be said (no reference, a grader that ran out of time)."""
        ...

    def check(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Check | None:
        """Where a completion leaves the correct path; None where the task cannot tell."""
        ...


def read(text: str, token: re.Pattern[str], ids: Mapping[str, int], language: str) -> list[int]:
    """Token ids of a text whose words look like ``token`` (spaces ignored).

    Raises ``ValueError`` naming the ``language`` and the first character that is foreign to it.
    """
    found, end = [], 0
    text = text.replace(" ", "")
    for match in token.finditer(text):
        if match.start() != end or match.group() not in ids:
            break
        found.append(ids[match.group()])
        end = match.end()
    if end != len(text):
        raise ValueError(f"not {language} text: {text[end : end + 12]!r} at character {end}")
    return found


class OwnTokens(ABC):
    """What tasks with tokens of their own have in common: it takes no model's vocabulary to read them."""

    slow = False
    name: str
    stop_ids: tuple[int, ...]
    boundary_ids: tuple[int, ...]
    words: tuple[str, ...]
    """The vocabulary, by token id; it begins with ``SPECIAL``."""
    token: re.Pattern[str]
    """What a word looks like in a text."""
    usual_tokens: int
    """A completion's limit unless another is asked for: hardly any right one is as long."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text. Raises ``ValueError`` for one that is not in the language of the task."""

    @abstractmethod
    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each token."""

    @abstractmethod
    def answer(self, ids: Sequence[int] | np.ndarray) -> str | None:
        """The final answer of a completion, None where it has none."""

    @abstractmethod
    def grade(self, problem: Problem, answer: str | None) -> bool:
        """Whether the answer is right."""

    @abstractmethod
    def check(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Check:
        """Where a completion leaves the correct path."""

    def needs(self) -> None:  # noqa: B027 (they need nothing)
        """Nothing that could be missing."""

    def on(self, vocabulary: Vocabulary | None) -> Self:
        """The task itself: its tokens are its own."""
        return self

    def messages(self, problem: Problem) -> list[Message]:
        """The prompt as one turn."""
        return [{"role": "user", "content": problem.prompt}]

    def boundaries(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """[tokens] bool: True at each token that ends a step."""
        return np.isin(np.asarray(ids), self.boundary_ids)

    def answer_text(self, text: str) -> str | None:
        """As :meth:`answer`; a text shows no end token, so one is added."""
        try:
            return self.answer([*self.encode(text), *self.stop_ids])
        except ValueError:  # not in the language of the task
            return None


class OwnVocabulary:
    """The vocabulary of a model that has learned such a task and nothing else; a conversation is its last question."""

    begin_ids: tuple[int, ...] = (BOS,)  # what stands in front of every prompt

    def __init__(self, task: OwnTokens) -> None:
        self.task, self.stop_ids = task, task.stop_ids

    def encode(self, text: str) -> list[int]:
        return self.task.encode(text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return self.task.pieces(ids)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """``<bos>`` and the last user's text; ``ValueError`` where no user has said anything."""
        said = [message["content"] for message in messages if message["role"] == "user"]
        if not said:
            raise ValueError("there is no message of a user, which would be the problem")
        return [BOS, *self.encode(said[-1])]

    def containing(self, marks: Sequence[str]) -> tuple[int, ...]:
        every = self.pieces(range(len(self.task.words)))
        return tuple(i for i, text in enumerate(every) if any(mark in text for mark in marks))
