"""Train a reasoner: resumable from any kill, everything needed to repeat it in the checkpoint folder."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from wrongturn.lab.data import GROUP, Recipe, batches
from wrongturn.lab.model import ModelConfig, Reasoner
from wrongturn.tasks import graphs as gs


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run. ``tokens`` counts prompt and trace tokens without padding, and sets the whole schedule."""

    model: ModelConfig = field(default_factory=ModelConfig)
    recipe: Recipe = field(default_factory=Recipe)
    tokens: int = 42_000_000
    lr: float = 2e-3
    lr_end: float = 0.02
    warmup: float = 0.01
    decay_from: float = 0.0  # share of training after which the cosine starts
    optimizer: str = "muon"
    weight_decay: float = 0.05
    clip: float = 1.0
    look_back: tuple[int, ...] = (1, 2)
    seed: int = 0
    save_seconds: float = 60.0


def learning_rate(config: TrainConfig, p: float) -> float:
    """Linear warm-up, then a cosine to ``lr_end`` times the peak, over progress p in [0, 1]."""
    if p < config.warmup:
        return config.lr * p / config.warmup
    start = max(config.warmup, config.decay_from)
    cosine = 0.5 * (1 + math.cos(math.pi * max(0.0, p - start) / (1 - start)))
    return config.lr * (config.lr_end + (1 - config.lr_end) * cosine)


def optimizers(config: TrainConfig, model: Reasoner) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest; decay on matrices only."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    adam = {"betas": (0.9, 0.98), "fused": True, "lr": config.lr}
    if config.optimizer == "muon":
        muon = torch.optim.Muon(
            matrices, lr=config.lr, momentum=0.95, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        return [muon, torch.optim.AdamW(rest, weight_decay=0.0, **adam)]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [torch.optim.AdamW(groups, **adam)]


# -- evaluation by teacher forcing -------------------------------------------------------------------------------------


@torch.no_grad()
def exact_trace(model: Reasoner, distribution: str, n: int = 256, seed: int = 1) -> dict[str, float]:
    """Greedy exact-trace accuracy, and token accuracy by what the token decides.

    Greedy decoding writes the gold trace iff every gold token is the arg-max given the gold prefix: one forward pass.
    """
    stream = gs.Distribution.parse(distribution).queries(seed)
    right = 0
    hits: dict[str, list[float]] = {}
    for _ in range(0, n, 64):
        queries = [next(stream) for _ in range(64)]
        rows = [(gs.prompt_ids(q), gs.gold(q)) for q in queries]
        longest = max(len(p) + len(t) for p, t in rows)
        ids = torch.zeros(64, longest, dtype=torch.long)
        for r, (prompt, trace) in enumerate(rows):
            ids[r, : len(prompt) + len(trace)] = torch.tensor(prompt + trace)
        best = model(ids[:, :-1]).argmax(-1)
        for r, (prompt, trace) in enumerate(rows):
            ok = (best[r, len(prompt) - 1 : len(prompt) + len(trace) - 1] == torch.tensor(trace)).tolist()
            right += all(ok)
            for name, hit in zip(token_roles(trace), ok, strict=True):
                hits.setdefault(name, []).append(hit)
    return {"exact": right / n} | {name: float(np.mean(h)) for name, h in sorted(hits.items())}


def token_roles(trace: list[int]) -> list[str]:
    """What each token of a gold trace decides: node, neighbour, separator, stop, back, path or grammar."""
    roles, phase = [], "node"
    for token in trace:
        label = gs.FIRST_LABEL <= token < gs.FIRST_LABEL + gs.LABELS
        if label:
            roles.append(phase)
        elif phase == "neighbour" and token in (gs.COMMA, gs.NEXT, gs.FOUND):
            roles.append("separator" if token == gs.COMMA else "close")
        else:
            roles.append("grammar")
        phase = {gs.LIST: "neighbour", gs.NEXT: "node", gs.FOUND: "back", gs.DONE: "path"}.get(token, phase)
    return roles


# -- checkpoints -------------------------------------------------------------------------------------------------------


def save(folder: Path, model: Reasoner, optims: list[torch.optim.Optimizer], state: dict[str, object]) -> None:
    """Write a checkpoint aside and swap it in: ``folder/last`` is always whole."""
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


def restore(folder: Path, model: Reasoner, optims: list[torch.optim.Optimizer]) -> dict[str, float]:
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


# -- the loop ----------------------------------------------------------------------------------------------------------


def train(
    config: TrainConfig,
    out: Path,
    *,
    report: Callable[[dict[str, float]], None] | None = None,
    evaluate_every: int = 500,
    log_every: int = 50,
) -> Reasoner:
    """Train to ``config.tokens`` and leave model, optimiser, log and configuration in ``out``; resumes what is there.

    ``report`` receives each log record: step, tokens, loss, lr, tokens_per_second, and accuracies when evaluated.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = json.dumps(asdict(config), indent=1)
    written = out / "config.json"
    if written.exists() and json.loads(written.read_text()) != json.loads(settings):
        raise ValueError(f"{written}: training was begun with other settings; choose another folder")
    written.write_text(settings)

    torch.manual_seed(config.seed)
    model = Reasoner(config.model)
    model.look_back(config.look_back)
    optims = optimizers(config, model)
    state = restore(out, model, optims)
    step, seen, spent = int(state.get("step", 0)), int(state.get("tokens", 0)), float(state.get("seconds", 0.0))
    group_at = int(state.get("group_at", seen))  # tokens seen when the current group of batches was drawn

    begun = saved = time.monotonic()
    base, losses, tick, ticked = spent, [], time.monotonic(), seen
    stream: Iterator[tuple[np.ndarray, np.ndarray]] | None = None
    with (out / "log.jsonl").open("a") as log:
        while seen < config.tokens:
            if step % GROUP == 0:
                group_at = seen
            if stream is None or step % GROUP == 0:
                stream = batches(config.recipe, config.seed, step, group_at / config.tokens)
            ids, weights = next(stream)
            for optim in optims:
                for group in optim.param_groups:
                    group["lr"] = learning_rate(config, seen / config.tokens)
            x, w = torch.from_numpy(ids), torch.from_numpy(weights)[:, 1:]
            keep = w > 0
            logits = model(x[:, :-1], keep)
            w = w[keep]
            loss = (F.cross_entropy(logits, x[:, 1:][keep], reduction="none") * w).sum() / w.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            for optim in optims:
                optim.step()
                optim.zero_grad(set_to_none=True)
            step, seen = step + 1, seen + int((ids != gs.PAD).sum())
            losses.append(loss.item())
            done = seen >= config.tokens
            if step % log_every == 0 or done:
                spent = base + time.monotonic() - begun
                rate = (seen - ticked) / (time.monotonic() - tick)
                record = {"step": step, "tokens": seen, "seconds": round(spent, 1), "loss": float(np.mean(losses))}
                record |= {"lr": learning_rate(config, seen / config.tokens), "tokens_per_second": round(rate)}
                if step % evaluate_every == 0 or done:
                    record |= exact_trace(model, "G15_2,4")
                    record["exact_long"] = exact_trace(model, "G15_5,6", 128)["exact"]
                log.write(json.dumps(record) + "\n")
                log.flush()
                if report:
                    report(record)
                losses, tick, ticked = [], time.monotonic(), seen
            if time.monotonic() - saved > config.save_seconds or done:
                spent = base + time.monotonic() - begun
                save(out, model, optims, {"step": step, "tokens": seen, "group_at": group_at, "seconds": spent})
                saved = time.monotonic()
    os.sync()
    return model
