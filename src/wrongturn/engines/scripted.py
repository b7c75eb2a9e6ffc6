"""The scripted engine: a model that is a function in a test; what follows the logits is the embedded engine's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from wrongturn.engines._draw import Floats
from wrongturn.engines._loop import BatchEngine, Job
from wrongturn.engines._rows import Slots
from wrongturn.engines.base import Capabilities, Request
from wrongturn.trace import Ids

Next = int | Mapping[int, float] | npt.ArrayLike
"""What comes next: one token for certain, probabilities by token, or logits [V]."""

Script = Callable[[Ids], Next] | Mapping[tuple[int, ...], Next]


class Scripted(BatchEngine):
    """Plays ``script``, which says what comes after a sequence of token ids.

    A function is given the whole sequence. A mapping is read like rules: of all keys the sequence *ends* with, the
    longest counts, so ``{(): {3: 0.5, 4: 0.5}, (3,): 4}`` tosses a coin but always puts a 4 after a 3. An exception in
    the script reaches the caller of that request alone. ``requests`` lists every request in the order of arrival.
    """

    name = "scripted"

    def __init__(self, script: Script, vocab_size: int, *, context: int = 4096, slots: int = 64) -> None:
        super().__init__(slots, vocab_size, context)
        self.model = "script"
        self.capabilities = Capabilities(vocab_size=vocab_size, context=context, top_k=vocab_size)
        self.requests: list[Request] = []
        self._script = script
        self._sequences: dict[int, list[int]] = {}  # by slot
        self._longest = max(map(len, script), default=0) if isinstance(script, Mapping) else 0

    def _begin(self, job: Job, slot: int) -> bool:
        self.requests.append(job.request)
        self._sequences[slot] = job.request.prefix.tolist()
        return True

    def _forward(self) -> tuple[Slots, Floats]:
        logits: dict[int, Floats] = {}
        for slot, sequence in list(self._sequences.items()):
            try:
                logits[slot] = self._logits(sequence)
            except Exception as error:
                self._refuse(slot, error)
        rows = np.array(list(logits.values()), np.float32).reshape(len(logits), self._rows.vocab)
        return np.array(list(logits), np.intp), rows

    def _append(self, slots: Slots, tokens: Ids) -> None:
        for slot, token in zip(slots.tolist(), tokens.tolist(), strict=True):
            self._sequences[slot].append(token)

    def _end(self, slot: int) -> None:
        del self._sequences[slot]

    def _logits(self, sequence: list[int]) -> Floats:
        if not isinstance(self._script, Mapping):
            return as_logits(self._script(np.array(sequence, np.int32)), self._rows.vocab)
        for start in range(max(0, len(sequence) - self._longest), len(sequence) + 1):
            if tuple(sequence[start:]) in self._script:
                return as_logits(self._script[tuple(sequence[start:])], self._rows.vocab)
        raise LookupError(f"the script has no rule for a sequence that ends with {sequence[-8:]}")


def as_logits(after: Next, vocab: int) -> Floats:
    """Logits [V] of what a script said. Raises ``ValueError`` where that is no distribution over the vocabulary."""
    rule: Mapping[int, float] | npt.ArrayLike = {int(after): 1.0} if isinstance(after, int | np.integer) else after
    if isinstance(rule, Mapping):
        p = np.array([rule.get(token, 0.0) for token in range(vocab)])
        known = all(0 <= token < vocab for token in rule)
        with np.errstate(divide="ignore", invalid="ignore"):
            logits = np.log(p).astype(np.float32)
    else:
        logits, known = np.asarray(rule, np.float32), True
    if not known or logits.shape != (vocab,) or not np.isfinite(logits.max()):
        raise ValueError(f"a script gives a token < {vocab}, probabilities by token, or {vocab} logits, not {after!r}")
    return logits
