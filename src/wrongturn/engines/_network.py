"""A causal model of transformers on its device, as the engine asks it."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import Cache
from transformers.utils import logging

from wrongturn.engines._kv import Place
from wrongturn.engines._rows import Slots
from wrongturn.errors import EngineError
from wrongturn.trace import Ids


class Network:
    """A model, ready to be fed. Raises what :func:`load` does, and ``EngineError`` where its context is not known."""

    def __init__(
        self, path_or_name: str | Path, device: torch.device, dtype: str, context: int | None, trust_remote_code: bool
    ) -> None:
        self.device = device
        self.model = load(path_or_name, device, dtype, trust_remote_code)
        config = self.model.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None)
        known = min((most for most in (context, longest) if most), default=None)
        if known is None:
            raise EngineError(f"{path_or_name}: the config has no max_position_embeddings; give context=", fatal=True)
        self.context: int = known
        self.vocab: int = config.vocab_size
        self.layers: int = config.num_hidden_layers
        takes = inspect.signature(self.model.forward).parameters
        self._keeps, self._positions = "logits_to_keep" in takes, "position_ids" in takes

    def feed(
        self,
        place: Place,
        cache: Cache,
        rows: slice | torch.Tensor,
        tokens: Ids,
        starts: Slots,
        end: int,
        *,
        fresh: Slots | None = None,
        states: bool = False,
        keep: int = 1,
    ) -> Any:
        """Feed tokens [n, t] to ``rows``, which begin at columns ``starts`` [n], at columns [end, end + t).

        ``fresh`` [n] are the columns from which on they are written; None: all are. Logits are wanted of the last
        ``keep`` columns (there may be more).
        """
        columns = np.arange(end, end + tokens.shape[1])
        place.rows, place.first, place.end = rows, int(min(starts.min(), end)), end
        place.keep = None
        if fresh is not None and (fresh > end).any():
            place.keep = torch.from_numpy(columns >= fresh[:, None]).to(self.device)[:, None, :, None]
        given: dict[str, Any] = {"logits_to_keep": keep} if self._keeps else {}
        if (starts > place.first).any():
            seen = np.arange(place.first, columns[-1] + 1) >= starts[:, None]
            given["attention_mask"] = torch.from_numpy(seen).to(self.device)
        if self._positions:
            given["position_ids"] = torch.from_numpy(np.maximum(columns - starts[:, None], 0)).to(self.device)
        if states:
            given["output_hidden_states"] = True
        ids = torch.from_numpy(tokens.astype(np.int64)).to(self.device)
        return self.model(input_ids=ids, past_key_values=cache, use_cache=True, **given)


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
