"""The scripted engine: a model that is a function in a test; what follows the logits is the embedded engine's code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from wrongturn.engines._draw import Floats, alternatives
from wrongturn.engines._loop import BatchEngine, Job
from wrongturn.engines._rows import Slots
from wrongturn.engines.base import SIGNALS, Capabilities, Chunk, Request
from wrongturn.signals import SignalConfig, from_logits
from wrongturn.trace import Ids

Next = int | Mapping[int, float] | npt.ArrayLike
"""What comes next: one token for certain, probabilities by token, or logits [V]."""

Script = Callable[[Ids], Next] | Mapping[tuple[int, ...], Next]


class Scripted(BatchEngine):
    """Plays ``script``, which says what comes after a sequence of token ids.

    A function is given the whole sequence. A mapping is read like rules: of all keys the sequence *ends* with, the
    longest counts, so ``{(): {3: 0.5, 4: 0.5}, (3,): 4}`` tosses a coin but always puts a 4 after a 3. An exception in
    the script reaches the caller of that request alone. ``requests`` lists every request in the order of arrival.
    ``ancestor`` is a script too, of a model that decodes in step.
    """

    name = "scripted"

    def __init__(
        self,
        script: Script,
        vocab_size: int,
        *,
        ancestor: Script | None = None,
        context: int = 4096,
        slots: int = 64,
    ) -> None:
        super().__init__(slots, vocab_size, context)
        self.model = "script"
        self._beside: Scripted | None = None
        if ancestor is not None:
            self.ancestor = self._beside = Scripted(ancestor, vocab_size, context=context, slots=slots)
        self.capabilities = Capabilities(
            vocab_size=vocab_size,
            context=context,
            top_k=vocab_size,
            edits=True,
            ancestor=None if ancestor is None else "script",
            scores=True,
        )
        self.requests: list[Request] = []
        self._script = script
        self._sequences: dict[int, list[int]] = {}  # by slot
        self._longest = max(map(len, script), default=0) if isinstance(script, Mapping) else 0

    async def score(self, prefix: Ids, start: int, *, top_k: int = 0, signals: SignalConfig = SIGNALS) -> Chunk:
        """See :meth:`Engine.score`."""
        self.check_score(prefix, start, top_k)
        ids = np.asarray(prefix, np.int32)
        logits = self._stacked(self._logits(ids[:end].tolist()) for end in range(start, len(ids)))
        measured = from_logits(logits, ids[start:], signals)
        return Chunk(ids[start:], measured, *alternatives(logits, ids[start:], measured, top_k), prompt=len(ids))

    def _begin(self, job: Job, slot: int) -> bool:
        self.requests.append(job.request)
        self._sequences[slot] = job.request.prefix.tolist()
        return True

    def _forward(self) -> tuple[Slots, Floats, Floats | None]:
        models = [self] if self._beside is None else [self, self._beside]
        logits: dict[int, list[Floats]] = {}
        for slot, sequence in list(self._sequences.items()):
            try:
                logits[slot] = [model._logits(sequence) for model in models]
            except Exception as error:
                self._refuse(slot, error)
        own, *beside = (self._stacked(rows[i] for rows in logits.values()) for i in range(len(models)))
        return np.array(list(logits), np.intp), own, beside[0] if beside else None

    def _append(self, slots: Slots, tokens: Ids) -> None:
        for slot, token in zip(slots.tolist(), tokens.tolist(), strict=True):
            self._sequences[slot].append(token)

    def _end(self, slot: int) -> None:
        del self._sequences[slot]

    def _stacked(self, rows: Iterable[Floats]) -> Floats:
        return np.array(list(rows), np.float32).reshape(-1, self._rows.vocab)

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
