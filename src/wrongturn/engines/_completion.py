"""A remote completion being written down: counted, watched, and handed out in chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from wrongturn.engines._draw import no_alternatives
from wrongturn.engines.base import Chunk, Request
from wrongturn.signals import Signals, from_topk

NAN = float("nan")

Key = int | str
"""A token id where the server tells it, else the token's text."""


class Token(NamedTuple):
    """One token received. ``top`` lists the most probable ones, best first, as far as the server told."""

    text: str
    id: int | None
    logprob: float
    top: list[tuple[Key, float]]


class Completion:
    """What came of one request. ``limit`` tokens were asked for; ``identify`` gives the id of a token or a text."""

    def __init__(self, request: Request, limit: int, vocab: int | None, identify: Callable[[Token | Key], int]) -> None:
        self.request, self.limit = request, limit
        self.pending: Signals | None = None
        self.unlisted = 0  # tokens that the server counts beyond those it has sent
        self._vocab, self._identify = vocab, identify
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._listed: list[list[float]] = []  # log-probabilities of the alternatives
        self._names: list[list[Key]] = []  # and those of them that are asked for
        self._sent = 0
        self._charged = 0
        self._last = int(request.prefix[-1])
        self._watch = None
        if request.until is not None:
            begun = len(request.prefix) if request.start is None else request.start
            self._watch = request.until.watch(1)
            history = request.history or Signals.empty(len(request.prefix) - begun)
            self._watch.admit(0, np.asarray(request.prefix[begun:]).tolist(), history)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, token: Token, doubtful: int = 0) -> str | None:
        """One more token has arrived; why the completion ends before it, None where it goes on.

        It has been decoded, so it is counted, unless others have left nothing on the meter. So many tokens as are
        ``doubtful`` may come beyond the limit.
        """
        meter = self.request.meter
        if meter is not None:
            if meter.left < 1:
                return self._limited("budget")
            meter.spent += 1
        self._charged += 1
        if self._ids and self._last in self.request.stop_ids:  # a server that does not know where to stop
            return "stop"
        if len(self) >= self.limit + doubtful:
            return self._limited("length")
        listed = [value for _, value in token.top]
        if self._watch is not None:
            signals = from_topk(_table([listed]), [NAN], self._vocab, self.request.signals)
            if self._watch.step(np.zeros(1, np.intp), np.array([self._last], np.int32), signals)[0]:
                self.pending = signals
                return "until"
        self._last = self._identify(token)
        self._ids.append(self._last)
        self._logprobs.append(token.logprob)
        self._listed.append(listed)
        self._names.append([name for name, _ in token.top[: self.request.top_k]])
        return None

    def drop(self, twice: list[int], doubtful: list[int]) -> None:
        """Forget the tokens sent ``twice``, and as many ``doubtful`` ones as there are too many, unless handed out."""
        excess = len(self) - self.limit
        for i in sorted(twice or doubtful[: max(0, excess)], reverse=True):
            if self._sent <= i < len(self):
                del self._ids[i], self._logprobs[i], self._listed[i], self._names[i]
                self._charged -= 1
                if self.request.meter is not None:
                    self.request.meter.spent -= 1  # it was decoded once

    def charge(self, decoded: int, *, ended: bool) -> int:
        """The server has ``decoded`` so many tokens for it: count those that were not yet; how many these are.

        Where the answer has ``ended`` all are counted, also beyond the budget; of one still coming in, what is left.
        """
        rest, meter = max(0, decoded - self._charged), self.request.meter
        self._charged += rest
        if meter is not None:
            meter.spent += rest if ended else max(0, int(min(rest, meter.left)))
        return rest

    def finish(self, told: str | None) -> str:
        """Why the completion has ended, where the server says ``told``."""
        if self._ids and self._last in self.request.stop_ids:
            return "stop"
        return self._limited(told or ("length" if len(self) >= self.limit else "stop"))

    def _limited(self, why: str) -> str:
        """As the engines with logits say it: the own limit comes before the budget."""
        if why == "stop" or len(self) + self.unlisted >= self.request.max_tokens:
            return why if why == "stop" else "length"
        meter = self.request.meter
        return "budget" if meter is not None and meter.left < 1 else why

    @property
    def due(self) -> bool:
        """Whether there is a whole chunk to hand out."""
        return self.request.chunk is not None and len(self) - self._sent >= self.request.chunk

    def take(self) -> Chunk:
        """What has not been handed out yet."""
        span = slice(self._sent, len(self))
        self._sent = len(self)
        ids, names, k = np.array(self._ids[span], np.int32), self._names[span], self.request.top_k
        listed = _table(self._listed[span])
        signals = from_topk(listed, self._logprobs[span], self._vocab, self.request.signals)
        top_ids, top_logprobs = no_alternatives(len(ids), k)
        top_logprobs[:, : listed.shape[1]] = listed[:, :k]
        for row, best in zip(top_ids, names, strict=True):
            row[: len(best)] = [self._identify(name) for name in best]
        self._listed[span] = self._names[span] = [[]] * len(ids)
        return Chunk(ids, signals, top_ids, top_logprobs)


def _table(listed: list[list[float]]) -> np.ndarray:
    """Log-probabilities [tokens, k] of the listed alternatives, padded with NaN."""
    table = np.full((len(listed), max(map(len, listed), default=0)), np.nan)
    for row, values in zip(table, listed, strict=True):
        row[: len(values)] = values
    return table


def after(request: Request, chunk: Chunk) -> Request:
    """The request for what comes after a chunk of it."""
    begun = len(request.prefix) if request.start is None else request.start
    history = request.history or Signals.empty(len(request.prefix) - begun)
    return replace(
        request,
        prefix=np.concatenate((request.prefix, chunk.ids)),
        start=begun,
        max_tokens=request.max_tokens - len(chunk.ids),
        history=Signals.concat([history, chunk.signals]),
    )


def seed_after(seed: int, written: int) -> int:
    """The seed of a request that goes on after ``written`` tokens.

    A server draws from its seed's first number on whatever stands before, so the tokens of a continuation would be
    drawn with the numbers that its beginning was drawn with.
    """
    if not written:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}/{written}".encode(), digest_size=8).digest(), "little") >> 1
