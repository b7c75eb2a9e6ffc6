"""Checkpoint folders: what a training leaves, goes on from, and starts from.

``config.json`` holds every setting, ``log.jsonl`` what was reported, ``last/`` weights and optimiser (safetensors,
nothing pickled) and ``state.json``. A checkpoint is written aside and swapped in, so ``last/`` is always whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wrongturn.lab.folders import layout
from wrongturn.lab.model import ModelConfig, Reasoner

Optimizers = list[torch.optim.Optimizer]


def begin(out: Path, config: Any) -> None:
    """Write a training's settings, or compare them with the folder's. Raises ``ValueError`` where they differ."""
    out.mkdir(parents=True, exist_ok=True)
    settings = json.dumps(asdict(config), indent=1)
    written = out / "config.json"
    if written.exists():
        try:
            begun = json.loads(written.read_text())
        except ValueError as problem:
            raise ValueError(f"{written}: not JSON ({problem})") from None
        if _filled(begun, config) != json.loads(settings):
            raise ValueError(f"{written}: training was begun with other settings; choose another folder")
    if not written.exists() or written.read_text() != settings:
        _swap(written, settings)


def journal(out: Path, step: int) -> TextIO:
    """``log.jsonl`` up to ``step``, open for what comes next; what was reported after the checkpoint is taken out."""
    log = out / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        _swap(log, "".join(kept))
    return log.open("a")


def _swap(file: Path, text: str) -> None:
    """Write a file aside and put it in place: it is there as it was or as it will be."""
    aside = file.with_name(file.name + ".new")
    aside.write_text(text)
    aside.replace(file)


def _filled(settings: dict[str, Any], config: Any) -> dict[str, Any]:
    """A folder's settings; for those that came later the defaults, which is what was done before there were any."""
    filled = asdict(type(config)()) | settings
    if "recipe" in settings:
        filled["recipe"] = asdict(type(config.recipe)()) | settings["recipe"]
    return json.loads(json.dumps(filled))


def save(folder: Path, model: Reasoner, optims: Optimizers, state: dict[str, Any]) -> None:
    """Write a checkpoint aside and swap it in."""
    new, last, old = folder / "new", folder / "last", folder / "old"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(model.state_dict(), new / "model.safetensors")
    tensors: dict[str, Tensor] = {}
    for k, optim in enumerate(optims):
        for i, entry in optim.state_dict()["state"].items():
            tensors |= {f"{k}/{i}/{name}": torch.as_tensor(value) for name, value in entry.items()}
    save_file(tensors, new / "optimizer.safetensors")
    (new / "state.json").write_text(json.dumps(state))
    if last.exists():
        shutil.rmtree(old, ignore_errors=True)
        last.rename(old)
    new.rename(last)


def restore(folder: Path, model: Reasoner, optims: Optimizers) -> dict[str, Any]:
    """Load the newest whole checkpoint into model and optimisers; {} where there is none."""
    found = next((f for f in (folder / "last", folder / "old") if (f / "state.json").exists()), None)
    if found is None:
        return {}
    model.load_state_dict(load_file(found / "model.safetensors"))
    tensors = load_file(found / "optimizer.safetensors")
    for k, optim in enumerate(optims):
        whole = optim.state_dict()
        for key, value in tensors.items():
            which, i, name = key.split("/")
            if int(which) == k:
                whole["state"].setdefault(int(i), {})[name] = value
        optim.load_state_dict(whole)
    return json.loads((found / "state.json").read_text())


def ancestor(folder: Path) -> tuple[ModelConfig, dict[str, Tensor], str]:
    """Shape, weights and fingerprint of a checkpoint or an exported folder.

    Raises :class:`wrongturn.errors.WrongturnError` where the folder is neither, or its weights do not fit its config.
    """
    found = layout(folder)
    config, tensors = ModelConfig(**found.model), load_file(found.weights)
    if found.exported:
        tensors = from_hugging_face(config, tensors)
    return config, tensors, fingerprint(tensors)


def fingerprint(state: dict[str, Tensor]) -> str:
    """The beginning of a SHA-256 of names and numbers: the same for a checkpoint and its export."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()[:16]


def from_hugging_face(config: ModelConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a :class:`Reasoner` from an exported checkpoint's tensors: the projections fused again."""
    state = {"embed.weight": tensors["model.embed_tokens.weight"], "norm.weight": tensors["model.norm.weight"]}
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        for kind in ("weight", "bias"):
            state[f"{ours}qkv.{kind}"] = torch.cat([tensors[f"{theirs}self_attn.{n}_proj.{kind}"] for n in "qkv"])
            state[f"{ours}out.{kind}"] = tensors[f"{theirs}self_attn.o_proj.{kind}"]
        state[f"{ours}gate_up.weight"] = torch.cat([tensors[f"{theirs}mlp.{n}_proj.weight"] for n in ("gate", "up")])
        state[f"{ours}down.weight"] = tensors[f"{theirs}mlp.down_proj.weight"]
        state[f"{ours}norm1.weight"] = tensors[f"{theirs}input_layernorm.weight"]
        state[f"{ours}norm2.weight"] = tensors[f"{theirs}post_attention_layernorm.weight"]
    return state
