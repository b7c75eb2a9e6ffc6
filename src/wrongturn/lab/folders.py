"""What a folder with a reasoner holds, and whether it fits together. Needs no torch: only headers are read."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wrongturn.engines.embedded import TASK
from wrongturn.errors import WrongturnError
from wrongturn.lab.recipes import RECIPES, words

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A training's checkpoint or an exported folder: the model's shape, where the weights are, and what was learned."""

    folder: Path
    model: dict[str, Any]
    weights: Path
    exported: bool
    task: str


_LLAMA = {  # our word: Hugging Face's
    "vocab": "vocab_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "width": "hidden_size",
    "ffn": "intermediate_size",
    "context": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
}


def layout(folder: Path) -> Layout:
    """Read a folder's config and the header of its weights, and compare every tensor's shape with the config.

    Raises :class:`wrongturn.errors.WrongturnError` naming the file and what was expected.
    """
    if not folder.is_dir():
        raise WrongturnError(f"{folder}: no such folder (expected a checkpoint of 'wrongturn lab train' or an export)")
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        raise WrongturnError(f"{file}: missing (expected a checkpoint of 'wrongturn lab train' or an export)") from None
    except ValueError as problem:
        raise WrongturnError(f"{file}: not JSON ({problem})") from None
    exported = isinstance(config, dict) and "model" not in config
    known = config if exported or not isinstance(config, dict) else config["model"]
    if not isinstance(known, dict):
        raise WrongturnError(f"{file}: expected the settings of a model, found {type(known).__name__}")
    names = _LLAMA if exported else dict(zip(_LLAMA, _LLAMA, strict=True))
    lacking = [name for name in names.values() if name not in known]
    if lacking:
        raise WrongturnError(f"{file}: {lacking[0]!r} is missing")
    model, task = {ours: known[name] for ours, name in names.items()}, task_of(config)
    if task not in RECIPES:
        raise WrongturnError(f"{file}: unknown task {task!r} (expected one of {', '.join(RECIPES)})")
    if model["vocab"] != len(words(task)):
        raise WrongturnError(f"{file}: a vocabulary of {model['vocab']}, but {task} has {len(words(task))} words")
    places = [folder] if exported else [folder / "last", folder / "old"]
    weights = next((p / "model.safetensors" for p in places if (p / "model.safetensors").exists()), None)
    if weights is None:
        raise WrongturnError(f"{places[0] / 'model.safetensors'}: missing; has training saved yet?")
    compare(weights, shapes(weights), expected(model, exported))
    return Layout(folder, model, weights, exported, task)


def task_of(config: dict[str, Any]) -> str:
    """The task in the settings of a training or in an exported ``config.json``; all once had none but the first."""
    recipe = config.get("recipe", config)
    return str((recipe if isinstance(recipe, dict) else {}).get("task", config.get(TASK, "graph_search")))


def shapes(weights: Path) -> Shapes:
    """Names and shapes of the tensors in a safetensors file, from its header."""
    size = weights.stat().st_size
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, size)))
        header.pop("__metadata__", None)
        end = max(entry["data_offsets"][1] for entry in header.values())
        found = {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise WrongturnError(f"{weights}: not a safetensors file") from None
    if size != 8 + length + end:
        raise WrongturnError(
            f"{weights}: {size} bytes, but its header speaks of {8 + length + end}: was a copy cut short?"
        )
    return found


def compare(weights: Path, found: Shapes, wanted: Shapes) -> None:
    """Raise for the first tensor that is missing, of another shape, or not in the model."""
    for name, shape in wanted.items():
        if name not in found:
            raise WrongturnError(f"{weights}: tensor {name!r} is missing, which config.json asks for")
        if found[name] != shape:
            raise WrongturnError(f"{weights}: tensor {name!r} is {found[name]}, but config.json makes it {shape}")
    more = sorted(found.keys() - wanted.keys())
    if more:
        raise WrongturnError(f"{weights}: tensor {more[0]!r} is not part of the model config.json describes")


def expected(model: dict[str, Any], exported: bool) -> Shapes:
    """The tensors of a reasoner of that shape, under our names or Hugging Face's."""
    d, f, vocab = model["width"], model["ffn"], model["vocab"]
    if not exported:
        wanted: Shapes = {"embed.weight": (vocab, d), "norm.weight": (d,)}
        block = {"norm1.weight": (d,), "qkv.weight": (3 * d, d), "qkv.bias": (3 * d,), "out.weight": (d, d)}
        block |= {"out.bias": (d,), "norm2.weight": (d,), "gate_up.weight": (2 * f, d), "down.weight": (d, f)}
        return wanted | {f"blocks.{i}.{name}": s for i in range(model["layers"]) for name, s in block.items()}
    wanted = {"model.embed_tokens.weight": (vocab, d), "model.norm.weight": (d,)}
    block = {f"self_attn.{n}_proj.weight": (d, d) for n in "qkvo"} | {f"self_attn.{n}_proj.bias": (d,) for n in "qkvo"}
    block |= {"mlp.gate_proj.weight": (f, d), "mlp.up_proj.weight": (f, d), "mlp.down_proj.weight": (d, f)}
    block |= {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)}
    return wanted | {f"model.layers.{i}.{name}": s for i in range(model["layers"]) for name, s in block.items()}
