"""What a model says of given tokens: whoever asks at once is answered by one padded batch, without a cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from transformers.cache_utils import Cache

from wrongturn.engines._draw import no_alternatives
from wrongturn.engines._kv import Layer, Place
from wrongturn.engines._measured import Ask, Look
from wrongturn.engines._network import Network
from wrongturn.engines._rows import Slots
from wrongturn.engines.base import Chunk
from wrongturn.signals import FIELDS, SignalConfig, Signals
from wrongturn.trace import Ids

PIECE = 4096  # tokens computed at once
_LOGITS = 1 << 26  # of all tokens that are measured at once: a few times 256 MB


@dataclass(frozen=True, slots=True)
class Given:
    """``ids[start:]`` are to be scored."""

    ids: Ids
    start: int
    top_k: int
    config: SignalConfig

    def blank(self) -> Chunk:
        """The answer before anything is known."""
        ids = self.ids[self.start :]
        return Chunk(ids, Signals.empty(len(ids)), *no_alternatives(len(ids), self.top_k), prompt=len(self.ids))


class Scorer:
    """Collects what is asked in one turn of the event loop. ``memory`` says what to do where there is too little."""

    def __init__(self, network: Network, look: Look, memory: Callable[[], AbstractContextManager[None]]) -> None:
        self._network, self._look, self._memory = network, look, memory
        self._asked: list[tuple[Given, asyncio.Future[Chunk]]] = []

    async def __call__(self, given: Given) -> Chunk:
        loop = asyncio.get_running_loop()
        if not self._asked or self._asked[0][1].get_loop() is not loop:  # what a dead loop asked concerns nobody
            self._asked = []
            loop.call_soon(self._answer)
        answer = loop.create_future()
        self._asked.append((given, answer))
        return await answer

    def _answer(self) -> None:
        asked = [(given, answer) for given, answer in self._asked if not answer.done()]  # a caller may have gone
        self._asked = []
        try:
            for rows in groups(np.array([len(given.ids) - 1 for given, _ in asked], np.intp)):
                with self._memory(), torch.inference_mode():
                    chunks = self._score([asked[row][0] for row in rows])
                for row, chunk in zip(rows.tolist(), chunks, strict=True):
                    asked[row][1].set_result(chunk)
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)

    def _score(self, asked: list[Given]) -> list[Chunk]:
        n, network = len(asked), self._network
        begins = np.array([given.start - 1 for given in asked])  # columns: each says what the next token will be
        ends = np.array([len(given.ids) - 1 for given in asked])
        tokens = np.zeros((n, int(ends.max()) + 1), np.int32)  # padded on the right: nothing attends to that
        for row, given in enumerate(asked):
            tokens[row, : len(given.ids)] = given.ids
        place = Place(n, tokens.shape[1])
        cache = Cache(layers=[Layer(place) for _ in range(network.layers)])
        chunks = [given.blank() for given in asked]
        starts, longest = np.zeros(n, np.intp), int(ends.max())
        at, first, width = 0, int(begins.min()), max(1, _LOGITS // (n * network.vocab))
        while at < longest:
            stop = min(first + width, longest)
            fed = network.feed(place, cache, slice(0, n), tokens[:, at:stop], starts, at, keep=stop - first)
            columns = np.arange(first, stop)
            rows, wanted = np.nonzero((columns >= begins[:, None]) & (columns < ends[:, None]))
            if len(rows):
                logits = fed.logits[:, first - stop :][torch.from_numpy(rows), torch.from_numpy(wanted)]
                self._note(asked, chunks, rows, columns[wanted] - begins[rows], logits)
            at = first = stop
        return chunks

    def _note(self, asked: list[Given], chunks: list[Chunk], rows: Slots, places: Slots, logits: torch.Tensor) -> None:
        """Measure ``logits`` [m, V] of rows ``rows`` [m], and write that at ``places`` [m] of their chunks."""
        nucleus_p, tie_delta = np.array([(given.config.nucleus_p, given.config.tie_delta) for given in asked])[rows].T
        greedy, any_ = np.zeros(len(rows)), np.ones(len(rows))
        top_k = max(given.top_k for given in asked)
        seen = self._look(logits, Ask(greedy, any_, any_, nucleus_p, tie_delta, top_k))
        taken = np.array([chunks[row].ids[place] for row, place in zip(rows, places, strict=True)], np.int64)
        both = torch.from_numpy(np.stack([seen.tokens, taken], 1).astype(np.int64)).to(logits.device)
        best, own = logits.gather(1, both).float().cpu().numpy().T
        seen.table[0] += best - own
        for row, chunk in enumerate(chunks):
            mine = rows == row
            for name, values in zip(FIELDS, seen.table[:, mine], strict=True):
                getattr(chunk.signals, name)[places[mine]] = values
            known = min(asked[row].top_k, seen.top_ids.shape[1])
            chunk.top_ids[places[mine], :known] = seen.top_ids[mine, :known]
            chunk.top_logprobs[places[mine], :known] = seen.top_logprobs[mine, :known]


def groups(missing: Slots) -> Iterator[Slots]:
    """The rows that miss tokens, alike ones together, such that few more than ``PIECE`` tokens are fed at once."""
    rows = np.flatnonzero(missing)
    rows = rows[np.argsort(-missing[rows], kind="stable")]
    while len(rows):
        count = max(1, PIECE // int(missing[rows[0]]))
        yield rows[:count]
        rows = rows[count:]
