"""Edits of next-token distributions: a token is drawn from what an edit makes of the model's logits.

Signals, alternatives and stop conditions go on seeing the model's own distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

MIXES = ("path", "coverage")


class Edit(Protocol):
    """What is done to logits before a draw; a row depends on its own logits alone.

    Equal edits are applied to their rows at once; so they are frozen, hashable dataclasses.
    """

    @property
    def needs_ancestor(self) -> bool:
        """Whether it takes the logits of the engine's ancestor as well."""
        ...

    def __call__(self, logits: Floats, ancestor: Floats | None) -> Floats:
        """The logits [n, V] to draw from, before temperature; a row with no finite one ends its request in an error."""
        ...


@dataclass(frozen=True, slots=True)
class Mix:
    """The specialist S mixed with its ancestor A: weight 1 is the specialist, 0 the ancestor.

    "path" is a geometric mean, w·log pS + (1-w)·log pA; a weight above 1 goes on beyond the specialist. A token that
    either gives no probability gets none. "coverage" is an arithmetic one, log(w·pS + (1-w)·pA), so w <= 1.
    """

    weight: float = 0.7
    kind: str = "path"

    def __post_init__(self) -> None:
        if self.kind not in MIXES:
            raise ValueError(f"the kind of a mix must be one of {', '.join(MIXES)}, not {self.kind!r}")
        most = 1.0 if self.kind == "coverage" else math.inf
        if not (0.0 <= self.weight <= most and self.weight < math.inf):
            expected = "in [0, 1]" if self.kind == "coverage" else "a number >= 0"
            raise ValueError(f"the weight of a {self.kind} mix must be {expected}, not {self.weight}")

    @property
    def needs_ancestor(self) -> bool:
        return True

    def __call__(self, logits: Floats, ancestor: Floats | None) -> Floats:
        if ancestor is None:
            raise ValueError(f"{self} needs the logits of an ancestor")
        if self.weight in (0.0, 1.0):  # exactly the one or the other, also where it gives no probability
            return logits if self.weight else ancestor
        s, a = log_softmax(logits), log_softmax(ancestor)
        if self.kind == "coverage":
            return np.logaddexp(s + math.log(self.weight), a + math.log1p(-self.weight)).astype(np.float32)
        out = (s == -np.inf) | (a == -np.inf)
        with np.errstate(invalid="ignore"):  # beyond weight 1, inf - inf
            return np.where(out, -np.inf, self.weight * s + (1.0 - self.weight) * a).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Ban:
    """``tokens`` are not drawn."""

    tokens: tuple[int, ...]

    @property
    def needs_ancestor(self) -> bool:
        return False

    def __call__(self, logits: Floats, ancestor: Floats | None) -> Floats:
        """Raises ``ValueError`` for a token outside the vocabulary, and where all of it is banned."""
        vocab, tokens = logits.shape[1], sorted(set(self.tokens))
        bad = [token for token in tokens if not 0 <= token < vocab]
        if bad:
            raise ValueError(f"token id {bad[0]} is banned, which is outside the vocabulary of {vocab}")
        if len(tokens) == vocab:
            raise ValueError(f"all {vocab} tokens are banned: there must be one left to draw")
        edited = logits.copy()
        edited[:, tokens] = -np.inf
        return edited


def log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
    """Log-probabilities of logits [n, V]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
