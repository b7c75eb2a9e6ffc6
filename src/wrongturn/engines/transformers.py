"""Any causal language model of transformers, batched continuously, with exact signals and a prefix cache.

A step feeds one token to all rows. Prompts are computed together before it, as far as no request has computed them yet:
a fork reuses what its parent has, samples share their prompt. Signals, the draw and the alternatives are made on the
device; the logits stay there. What a request gets does not depend on its company beyond the rounding of a batch.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from wrongturn.engines._kv import KV
from wrongturn.engines._loop import BatchEngine, Job
from wrongturn.engines._measured import Ask, Measured, Seen, look
from wrongturn.engines._rows import Slots
from wrongturn.engines._tokenizer import HFVocabulary
from wrongturn.engines.base import Capabilities
from wrongturn.errors import EngineError
from wrongturn.trace import Ids

_WORTH = 16  # tokens of a prefix that are worth waiting a step for
_PIECE = 4096  # tokens of prompts computed at once
_LARGEST = 65504.0  # of float16


class Transformers(BatchEngine):
    """Continues token ids with a causal model: a folder with ``config.json`` and safetensors, or a name on the hub.

    ``device`` "auto" takes CUDA, then MPS, then the CPU; ``dtype`` "auto" is the checkpoint's, but float32 on a CPU.
    ``slots`` requests are decoded at once; finished ones are kept, up to ``cache_mb``, so that their prefixes can be
    reused. ``context`` limits the model's own. Only with ``trust_remote_code`` is code from the checkpoint run.

    Raises:
        FileNotFoundError: there is no such folder.
        EngineError: the model or the device cannot be had, or the model cannot be batched (a recurrent one).
    """

    name = "transformers"

    def __init__(
        self,
        path_or_name: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        slots: int = 32,
        cache_mb: int = 1024,
        context: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._device = device_named(device)
        self._model = load(path_or_name, self._device, dtype, trust_remote_code)
        config = self._model.config.get_text_config()
        known = context or getattr(config, "max_position_embeddings", None)
        if known is None:
            raise EngineError(f"{path_or_name}: the config has no max_position_embeddings; give context=", fatal=True)
        if context is not None:
            known = min(context, getattr(config, "max_position_embeddings", None) or context)
        if self._device.type == "cpu":
            rows = Measured(slots, config.vocab_size, known, look_at_tensor)
        else:
            from wrongturn.engines._device_signals import look as look_on_device

            rows = Measured(slots, config.vocab_size, known, look_on_device)
        super().__init__(slots, config.vocab_size, known, rows)
        self._measured = rows
        self.model = Path(path_or_name).name if Path(path_or_name).is_dir() else str(path_or_name)
        if not Path(path_or_name).is_dir() or any(Path(path_or_name).glob("*token*")):  # some have none
            self.vocabulary = HFVocabulary.load(path_or_name, trust_remote_code=trust_remote_code)
        self.concurrency = slots * 3 // 2
        self.capabilities = Capabilities(
            vocab_size=config.vocab_size,
            context=known,
            top_k=config.vocab_size,
            hidden_states=True,
            token_ids=True,
            seeds=True,
            echo=False,
            prefix_caching=True,
            streaming=True,
            n=False,
        )
        self._layers = config.num_hidden_layers
        takes = inspect.signature(self._model.forward).parameters
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self._positions = "position_ids" in takes
        self._slots, self._limit = slots, cache_mb * 2**20
        self._kv = KV(self._layers, slots, known, self._limit)
        self._wanted: dict[int, tuple[int, ...]] = {}  # by slot: layers whose states are asked for
        self._weights = fingerprint(self._model)
        self._check_padding()

    def identity(self) -> dict[str, Any]:
        """Also says which weights, in which type, on which device: they round differently."""
        kind = {"dtype": str(self._model.dtype).removeprefix("torch."), "device": self._device.type}
        return super().identity() | {"weights": self._weights} | kind

    async def close(self) -> None:
        """Let go of the model and of all that was kept; the engine is of no more use."""
        del self._model, self._kv

    # -- what a batch engine is ----------------------------------------------------------------------------------------

    def _begin(self, job: Job, slot: int) -> bool:
        for layer in job.request.hidden:
            if not -self._layers - 1 <= layer <= self._layers:
                raise ValueError(f"hidden asks for layer {layer} of {self._layers} (0 is the embeddings)")
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

    def _forward(self) -> tuple[Slots, torch.Tensor]:
        kv = self._kv
        with self._memory(), torch.inference_mode():
            self._prefill()
            kv.make_room()
            starts, rows = kv.starts(), slice(0, kv.n)
            fed = kv.fed[: kv.n]
            out = self._feed(rows, kv.tokens[np.arange(kv.n), fed][:, None], starts, kv.end, None, bool(self._wanted))
            kv.advance()
            if self._wanted:
                self._note_states(out.hidden_states)
        return kv.slot[: kv.n].copy(), out.logits[:, -1]

    def _append(self, slots: Slots, tokens: Ids) -> None:
        self._kv.append(slots, tokens)

    def _end(self, slot: int) -> None:
        self._wanted.pop(slot, None)
        with torch.inference_mode():
            self._kv.finish(slot)

    # -- the model -----------------------------------------------------------------------------------------------------

    def _feed(
        self, rows: slice | torch.Tensor, tokens: Ids, starts: Slots, end: int, fresh: Slots | None, states: bool
    ) -> Any:
        """Feed tokens [n, t] to ``rows``, which begin at columns ``starts`` [n], at columns [end, end + t).

        ``fresh`` [n] are the columns from which on they are written; None: all are.
        """
        place, device = self._kv.place, self._device
        columns = np.arange(end, end + tokens.shape[1])
        place.rows, place.first, place.end = rows, int(min(starts.min(), end)), end
        place.keep = None
        if fresh is not None and (fresh > end).any():
            place.keep = torch.from_numpy(columns >= fresh[:, None]).to(device)[:, None, :, None]
        given: dict[str, Any] = dict(self._options)
        if (starts > place.first).any():
            seen = np.arange(place.first, columns[-1] + 1) >= starts[:, None]
            given["attention_mask"] = torch.from_numpy(seen).to(device)
        if self._positions:
            given["position_ids"] = torch.from_numpy(np.maximum(columns - starts[:, None], 0)).to(device)
        if states:
            given["output_hidden_states"] = True
        ids = torch.from_numpy(tokens.astype(np.int64)).to(device)
        return self._model(input_ids=ids, past_key_values=self._kv.cache, use_cache=True, **given)

    def _prefill(self) -> None:
        """Compute the prefixes of the requests that have just begun, without their last tokens."""
        kv = self._kv
        missing = kv.known[: kv.n] - 1 - kv.fed[: kv.n]
        for rows in groups(missing):
            starts, missed = kv.starts()[rows], missing[rows]
            index = torch.from_numpy(rows).to(self._device)
            width = max(1, _PIECE // len(rows))
            for first in range(kv.end - int(missed.max()), kv.end, width):
                columns = np.arange(first, min(first + width, kv.end))
                tokens = kv.tokens[rows[:, None], np.maximum(columns - starts[:, None], 0)]
                self._feed(index, tokens, starts, first, kv.end - missed, False)
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
            whole = self._model(torch.from_numpy(short[None].astype(np.int64)).to(self._device)).logits[0, -1].float()
            for slot, prefix in enumerate((ids[0], short)[-self._slots :]):
                self._kv.begin(slot, prefix, self._kv.find(prefix))
            _, logits = self._forward()
        apart = (logits[-1].float().log_softmax(0) - whole.log_softmax(0)).abs()[whole.argmax()]
        self._kv = KV(self._layers, self._slots, self._rows.context, self._limit)
        if not apart < (1e-2 if self._model.dtype == torch.float32 else 0.5):
            what = f"says something else in a batch than alone ({float(apart):.2g} nats apart)"
            raise EngineError(f"{self.model} {what}: this kind of model is not supported", fatal=True)


def look_at_tensor(logits: torch.Tensor, ask: Ask) -> Seen:
    """The look at logits on a CPU, where NumPy is faster."""
    return look(logits.float().numpy(), ask)


def groups(missing: Slots) -> Iterator[Slots]:
    """The rows that miss tokens, alike ones together, such that few more than ``_PIECE`` tokens are fed at once."""
    rows = np.flatnonzero(missing)
    rows = rows[np.argsort(-missing[rows], kind="stable")]
    while len(rows):
        count = max(1, _PIECE // int(missing[rows[0]]))
        yield rows[:count]
        rows = rows[count:]


def device_named(name: str) -> torch.device:
    """The device of a name or of "auto". Raises ``EngineError`` where torch does not see it."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    kind = name.partition(":")[0]
    if kind not in there:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, not {name!r}")
    if not there[kind]:
        raise EngineError(
            f"device {name!r} was asked for, but torch sees none here (device='auto' takes what there is)"
        )
    return torch.device(name)


def load(path_or_name: str | Path, device: torch.device, dtype: str, trust_remote_code: bool) -> Any:
    """The model, ready for inference. Only safetensors are read: other weights are pickles."""
    folder = Path(path_or_name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise FileNotFoundError(f"{folder}: no config.json there (expected a Hugging Face checkpoint)")
    elif folder.is_absolute() or str(path_or_name).startswith((".", "~")) or str(path_or_name).count("/") > 1:
        raise FileNotFoundError(f"{folder}: no such folder")
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype must be auto, float32, bfloat16 or float16, not {dtype!r}")
    kind = torch.float32 if dtype == "auto" and device.type == "cpu" else dtype
    source = folder if folder.is_dir() else str(path_or_name)
    said, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        layers = getattr(config.get_text_config(), "layer_types", None) or ()
        recurrent = sorted(kind for kind in set(layers) if not kind.endswith("attention") or "linear" in kind)
        if recurrent:
            raise EngineError(
                f"{path_or_name} has layers of type {recurrent[0]}: only attention is supported", fatal=True
            )
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=kind, use_safetensors=True, trust_remote_code=trust_remote_code
        )
        return model.to(device).eval()
    except torch.OutOfMemoryError:
        raise EngineError(
            f"{device} is too small for {path_or_name}: try dtype='bfloat16'", "memory", fatal=True
        ) from None
    except (OSError, ValueError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise EngineError(f"transformers cannot load {path_or_name}: {first}", fatal=True) from None
    finally:
        logging.set_verbosity(said)
        if progress:
            logging.enable_progress_bar()


def fingerprint(model: torch.nn.Module) -> str:
    """A hash of names, shapes and up to a thousand values of every weight."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        values = flat[:: max(1, len(flat) // 1000)].float().cpu().numpy()
        digest.update(f"{name} {tuple(weight.shape)}".encode() + values.tobytes())
    return digest.hexdigest()[:16]
