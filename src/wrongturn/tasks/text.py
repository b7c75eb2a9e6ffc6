"""A task put in words: how it is asked, where the answer stands in the reply, and when it is right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from wrongturn.errors import WrongturnError
from wrongturn.tasks.extract import Extractor, short
from wrongturn.tasks.graders import Grader
from wrongturn.trace import Problem
from wrongturn.vocabulary import Message, Vocabulary

STEP_MARKS = ("\n",)
"""A token whose text contains one of these ends a step: a line, or with a blank line a paragraph."""


def nothing() -> None:
    """Grading needs nothing that may be missing."""


@dataclass(frozen=True, slots=True)
class TextTask:
    """A prompt, an extractor and a grader. :meth:`on` binds it to a model's vocabulary, which tokens need.

    ``template`` stands around the question at ``{prompt}``; ``slow`` graders are called in a thread; ``needs`` raises
    ``WrongturnError`` where answers could not be graded here (a library that is missing, a permission not given) and is
    asked before a model is.
    """

    name: str
    grader: Grader
    extract: Extractor = short
    template: str = "{prompt}"
    system: str = ""
    slow: bool = False
    needs: Callable[[], None] = field(default=nothing, repr=False)
    vocabulary: Vocabulary | None = field(default=None, repr=False, compare=False)
    boundary_ids: Sequence[int] = field(default=(), repr=False, compare=False)

    def on(self, vocabulary: Vocabulary | None) -> TextTask:
        """The task as a model with that vocabulary reads and writes it."""
        return replace(
            self, vocabulary=vocabulary, boundary_ids=vocabulary.containing(STEP_MARKS) if vocabulary else ()
        )

    def messages(self, problem: Problem) -> list[Message]:
        """What is put to a chat model: the problem's own messages if it has any, else its prompt in the template."""
        given: list[Message] = list(problem.messages)
        if not given:
            given = [{"role": "user", "content": self.template.replace("{prompt}", problem.prompt)}]
        if self.system and all(message["role"] != "system" for message in given):
            given.insert(0, {"role": "system", "content": self.system})
        return given

    def answer_text(self, text: str) -> str | None:
        """The final answer in a text, None where it has none."""
        return self.extract(text)

    def grade(self, problem: Problem, answer: str | None) -> bool | None:
        """Whether the answer is right; None where there is no reference, or the grader could not decide.

        Raises ``WrongturnError`` where the grader itself fails.
        """
        if problem.reference is None:
            return None
        if answer is None:
            return False
        try:
            verdict = self.grader(problem.reference, answer)
        except WrongturnError:
            raise
        except Exception as failure:
            raise WrongturnError(
                f"problem {problem.id!r}: the grader of task {self.name!r} failed: {type(failure).__name__}: {failure}"
            ) from failure
        return None if verdict is None else bool(verdict)

    def check(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> None:
        """None: no checker follows free text token by token."""

    # -- tokens, once bound --------------------------------------------------------------------------------------------

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The model's end tokens; none while unbound."""
        return self.vocabulary.stop_ids if self.vocabulary else ()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self._bound().encode(text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each token."""
        return self._bound().pieces(ids)

    def boundaries(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """[tokens] bool: True at each token that contains a line break (the rule a trigger goes by while decoding)."""
        return np.array([any(mark in piece for mark in STEP_MARKS) for piece in self.pieces(ids)], bool)

    def answer(self, ids: Sequence[int] | np.ndarray) -> str | None:
        """The final answer of a completion, None where it has none."""
        return self.extract("".join(self.pieces(ids)))

    def _bound(self) -> Vocabulary:
        if self.vocabulary is None:
            raise ValueError(f"task {self.name!r} knows no tokens yet: bind it with task.on(engine.vocabulary)")
        return self.vocabulary
