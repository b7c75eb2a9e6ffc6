"""Any causal language model of transformers, batched continuously, with exact signals and a prefix cache.

A step feeds one token to all rows. Prompts are computed together before it, as far as no request has computed them yet:
a fork reuses what its parent has, samples share their prompt. Signals, the draw and the alternatives are made on the
device; the logits stay there, but for the rows whose edit or stop condition wants them. What a request gets does not
depend on its company beyond the rounding of a batch. With an ancestor both models are fed the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wrongturn.engines._kv import KV
from wrongturn.engines._loop import BatchEngine, Job
from wrongturn.engines._measured import Ask, Measured, Seen, look
from wrongturn.engines._network import Network, device_named, fingerprint
from wrongturn.engines._rows import Slots
from wrongturn.engines._scoring import PIECE, Given, Scorer, groups
from wrongturn.engines._tokenizer import HFVocabulary
from wrongturn.engines._vocabularies import Side, check_pair
from wrongturn.engines.base import SIGNALS, Capabilities, Chunk
from wrongturn.errors import EngineError
from wrongturn.signals import SignalConfig
from wrongturn.trace import Ids

_WORTH = 16  # tokens of a prefix that are worth waiting a step for
_LARGEST = 65504.0  # of float16


class Transformers(BatchEngine):
    """Continues token ids with a causal model: a folder with ``config.json`` and safetensors, or a name on the hub.

    ``device`` "auto" takes CUDA, then MPS, then the CPU; ``dtype`` "auto" is the checkpoint's, but float32 on a CPU.
    ``slots`` requests are decoded at once; finished ones are kept, up to ``cache_mb``, so that their prefixes can be
    reused. ``context`` limits the model's own. Only with ``trust_remote_code`` is code from the checkpoint run.
    ``ancestor`` is another checkpoint, with the same tokens, that decodes in step.

    Raises:
        FileNotFoundError: there is no such folder.
        EngineError: the model or the device cannot be had, the model cannot be batched (a recurrent one), or the
            ancestor has other tokens.
    """

    name = "transformers"

    def __init__(
        self,
        path_or_name: str | Path,
        *,
        ancestor: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        slots: int = 32,
        cache_mb: int = 1024,
        context: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._device = device_named(device)
        self._network = Network(path_or_name, self._device, dtype, context, trust_remote_code)
        self.model = Path(path_or_name).name if Path(path_or_name).is_dir() else str(path_or_name)
        if not Path(path_or_name).is_dir() or any(Path(path_or_name).glob("*token*")):  # some have none
            self.vocabulary = HFVocabulary.load(path_or_name, trust_remote_code=trust_remote_code)
        self._networks = [self._network]
        if ancestor is not None:
            its: dict[str, Any] = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
            beside = Transformers(ancestor, slots=slots, cache_mb=cache_mb, context=context, **its)
            check_pair(self._side(), beside._side())
            self.ancestor = beside
            self._networks.append(beside._network)
        vocab, known = self._network.vocab, min(network.context for network in self._networks)
        seen = look_at_tensor
        if self._device.type != "cpu":
            from wrongturn.engines._device_signals import look as seen
        rows = Measured(slots, vocab, known, seen)
        super().__init__(slots, vocab, known, rows)
        self._measured = rows
        self.concurrency = slots * 3 // 2
        self.capabilities = Capabilities(
            vocab_size=vocab,
            context=known,
            top_k=vocab,
            hidden_states=True,
            edits=True,
            ancestor=None if self.ancestor is None else self.ancestor.model,
            scores=True,
            token_ids=True,
            seeds=True,
            echo=False,
            prefix_caching=True,
            streaming=True,
            n=False,
        )
        self._slots, self._limit = slots, cache_mb * 2**20
        self._kv = self._empty()
        self._scorer = Scorer(self._network, seen, self._memory)
        self._wanted: dict[int, tuple[int, ...]] = {}  # by slot: layers whose states are asked for
        self._weights = fingerprint(self._network.model)
        self._check_padding()

    def identity(self) -> dict[str, Any]:
        """Also says which weights, in which type, on which device: they round differently."""
        kind = {"dtype": str(self._network.model.dtype).removeprefix("torch."), "device": self._device.type}
        return super().identity() | {"weights": self._weights} | kind

    async def close(self) -> None:
        """Let go of the model and of all that was kept; the engine is of no more use."""
        if self.ancestor is not None:
            await self.ancestor.close()
        del self._network, self._networks, self._scorer, self._kv

    async def score(self, prefix: Ids, start: int, *, top_k: int = 0, signals: SignalConfig = SIGNALS) -> Chunk:
        """See :meth:`Engine.score`. What is asked at once goes through the model together."""
        self.check_score(prefix, start, top_k)
        given = Given(np.asarray(prefix, np.int32), start, top_k, signals)
        return await self._scorer(given) if start < len(prefix) else given.blank()

    # -- what a batch engine is ----------------------------------------------------------------------------------------

    def _begin(self, job: Job, slot: int) -> bool:
        for layer in job.request.hidden:
            if not -self._network.layers - 1 <= layer <= self._network.layers:
                raise ValueError(f"hidden asks for layer {layer} of {self._network.layers} (0 is the embeddings)")
        prefix = job.request.prefix
        match = self._kv.find(prefix)
        if match.promise - match.count >= _WORTH:
            return False  # another request computes it in this step
        job.reused = match.count
        with self._memory(), torch.inference_mode():
            self._kv.begin(slot, prefix, match)
        if job.request.hidden:
            self._wanted[slot] = job.request.hidden
        return True

    def _forward(self) -> tuple[Slots, torch.Tensor, torch.Tensor | None]:
        kv = self._kv
        with self._memory(), torch.inference_mode():
            self._prefill()
            kv.make_room()
            step = slice(0, kv.n), kv.tokens[np.arange(kv.n), kv.fed[: kv.n]][:, None], kv.starts(), kv.end
            own, *beside = (
                network.feed(kv.place, cache, *step, states=bool(self._wanted) and network is self._network)
                for network, cache in zip(self._networks, kv.caches, strict=True)
            )
            kv.advance()
            if self._wanted:
                self._note_states(own.hidden_states)
        return kv.slot[: kv.n].copy(), own.logits[:, -1], beside[0].logits[:, -1] if beside else None

    def _append(self, slots: Slots, tokens: Ids) -> None:
        self._kv.append(slots, tokens)

    def _end(self, slot: int) -> None:
        self._wanted.pop(slot, None)
        with torch.inference_mode():
            self._kv.finish(slot)

    # -- the models ----------------------------------------------------------------------------------------------------

    def _side(self) -> Side:
        tokens = self.vocabulary.tokens if isinstance(self.vocabulary, HFVocabulary) else None
        return self.model, self._network.vocab, tokens

    def _empty(self) -> KV:
        return KV([network.layers for network in self._networks], self._slots, self._rows.context, self._limit)

    def _prefill(self) -> None:
        """Compute the prefixes of the requests that have just begun, without their last tokens."""
        kv = self._kv
        missing = kv.known[: kv.n] - 1 - kv.fed[: kv.n]
        for rows in groups(missing):
            starts, missed = kv.starts()[rows], missing[rows]
            index = torch.from_numpy(rows).to(self._device)
            width = max(1, PIECE // len(rows))
            for first in range(kv.end - int(missed.max()), kv.end, width):
                columns = np.arange(first, min(first + width, kv.end))
                tokens = kv.tokens[rows[:, None], np.maximum(columns - starts[:, None], 0)]
                for network, cache in zip(self._networks, kv.caches, strict=True):
                    network.feed(kv.place, cache, index, tokens, starts, first, fresh=kv.end - missed)
            kv.fed[rows] += missed

    def _note_states(self, layers: tuple[torch.Tensor, ...]) -> None:
        """Hand the states each request asked for to the rows."""
        asked = sorted({layer for wanted in self._wanted.values() for layer in wanted})
        states = torch.stack([layers[layer][:, -1] for layer in asked], 1).float()
        found = states.clamp(-_LARGEST, _LARGEST).half().cpu().numpy()
        rows = {slot: found[self._kv.row[slot]] for slot in self._wanted}
        self._measured.hidden = {
            slot: rows[slot][[asked.index(layer) for layer in wanted]] for slot, wanted in self._wanted.items()
        }

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Say which dial to turn where memory runs out."""
        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one; that of the CPU has no class of its own
            if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
                raise
            dials = f"lower slots (now {self._slots}), cache_mb (now {self._limit >> 20}) or context"
            raise EngineError(
                f"{self._device} is out of memory with {self.model}: {dials}", "memory", fatal=True
            ) from None

    def _check_padding(self) -> None:
        """See that a row says the same beside a longer one: models differ in how they take padding and positions."""
        vocab, length = self._rows.vocab, min(12, self._rows.context - 1)
        ids = np.random.default_rng(0).integers(0, vocab, (2, length)).astype(np.int32)
        short = ids[1, length // 2 :]
        with self._memory(), torch.inference_mode():
            alone = torch.from_numpy(short[None].astype(np.int64)).to(self._device)
            whole = self._network.model(alone).logits[0, -1].float()
            for slot, prefix in enumerate((ids[0], short)[-self._slots :]):
                self._kv.begin(slot, prefix, self._kv.find(prefix))
            _, logits, _ = self._forward()
        apart = (logits[-1].float().log_softmax(0) - whole.log_softmax(0)).abs()[whole.argmax()]
        self._kv = self._empty()
        if not apart < (1e-2 if self._network.model.dtype == torch.float32 else 0.5):
            what = f"says something else in a batch than alone ({float(apart):.2g} nats apart)"
            raise EngineError(f"{self.model} {what}: this kind of model is not supported", fatal=True)


def look_at_tensor(logits: torch.Tensor, ask: Ask) -> Seen:
    """The look at logits on a CPU, where NumPy is faster."""
    return look(logits.float().numpy(), ask)
