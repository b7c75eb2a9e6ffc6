"""Train a reasoner: resumable from any kill, everything needed to repeat it in the checkpoint folder."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wrongturn.errors import WrongturnError
from wrongturn.lab import checkpoints
from wrongturn.lab.data import GROUP, batches
from wrongturn.lab.graph_examples import GraphRecipe
from wrongturn.lab.machine import Machine, check_memory, flops_per_token, peak_flops
from wrongturn.lab.model import ModelConfig, Reasoner
from wrongturn.lab.recipes import AnyRecipe
from wrongturn.tasks.base import PAD


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run. ``tokens`` counts prompt and trace tokens without padding, and sets the whole schedule.

    ``ancestor`` is the fingerprint of the weights it starts from; empty: from scratch.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    recipe: AnyRecipe = field(default_factory=GraphRecipe)
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
    ancestor: str = ""


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


def update(optims: list[torch.optim.Optimizer], model: Reasoner, config: TrainConfig, lr: float, at: str) -> None:
    """One optimiser step from the gradients at hand. Raises where they are not finite: the weights stay good."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    if not torch.isfinite(norm):
        raise WrongturnError(f"the gradient is not finite at {at}")
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = lr
        optim.step()
        optim.zero_grad(set_to_none=True)


def trace_loss(model: Callable[..., Tensor], x: Tensor, w: Tensor) -> Tensor:
    """Weighted cross-entropy of ids x [B, T], each predicted from those before; w [B, T] weighs it as a target."""
    w = w[:, 1:]
    keep = w > 0
    logits = model(x[:, :-1], keep)
    w = w[keep]
    return (F.cross_entropy(logits, x[:, 1:][keep], reduction="none") * w).sum() / w.sum()


def train(
    config: TrainConfig,
    out: Path,
    *,
    start: dict[str, Tensor] | None = None,
    machine: Machine | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
    evaluate_every: int = 500,
    log_every: int = 50,
) -> Reasoner:
    """Train to ``config.tokens`` and leave model, optimiser, log and configuration in ``out``; resumes what is there.

    ``start`` are the weights to begin with (those of ``config.ancestor``). ``report`` receives each log record: step,
    tokens, loss, lr, tokens_per_second, and accuracies when evaluated. Raises
    :class:`wrongturn.errors.WrongturnError` where the loss is no longer a number (the last checkpoint is still good),
    memory will not do, or the examples do not fit the context.
    """
    here = machine or Machine()
    if config.recipe.longest() > config.model.context:
        raise WrongturnError(f"a context of {config.model.context} tokens; the recipe needs {config.recipe.longest()}")
    check_memory(config.model, config.recipe.batch, config.recipe.longest(), here.device)
    torch.manual_seed(config.seed)
    model = Reasoner(config.model)
    if start is None:
        model.look_back(config.look_back)
    else:
        model.load_state_dict(start)
    model.to(here.device)
    if here.leads:
        checkpoints.begin(out, config)
    forward = torch.compile(model, dynamic=True) if here.compile else model
    optims = optimizers(config, model)
    state = checkpoints.restore(out, model, optims)
    if state.get("world", here.world) != here.world:
        raise WrongturnError(f"{out}: begun with {state['world']} processes, not {here.world}; they share the batches")
    step, seen, spent = int(state.get("step", 0)), int(state.get("tokens", 0)), float(state.get("seconds", 0.0))
    group_at = int(state.get("group_at", seen))  # tokens seen when the current group of batches was drawn

    peak = peak_flops(here.device) * here.world if here.device.startswith("cuda") else 0.0
    saved = time.monotonic()
    begun, losses, tick, ticked = saved - spent, [], saved, seen
    stream: Iterator[tuple[np.ndarray, np.ndarray]] | None = None
    with checkpoints.journal(out, step) if here.leads else Path(os.devnull).open("a") as log:
        while seen < config.tokens:
            if step % GROUP == 0:
                group_at = seen
            if stream is None or step % GROUP == 0:
                number = (step // GROUP * here.world + here.rank) * GROUP + step % GROUP
                stream = batches(config.recipe, config.seed, number, group_at / config.tokens)
            ids, weights = next(stream)
            x, w = (torch.from_numpy(a).to(here.device, non_blocking=True) for a in (ids, weights))
            try:
                with here.autocast():
                    loss = trace_loss(forward, x, w)
                loss.backward()
            except torch.OutOfMemoryError:
                less = "smaller batches" if config.recipe.batch > 1 else "a smaller model"
                raise WrongturnError(f"too little memory on {here.device} at step {step + 1}; try {less}") from None
            here.average([p.grad for p in model.parameters() if p.grad is not None])
            losses.append(loss.item())
            try:
                if not math.isfinite(losses[-1]):
                    raise WrongturnError(f"the loss is {losses[-1]} at step {step + 1}")
                update(optims, model, config, learning_rate(config, seen / config.tokens), f"step {step + 1}")
            except WrongturnError as problem:
                good = f"the checkpoint of step {state['step']} in {out / 'last'}" if state else "nothing saved yet"
                raise WrongturnError(f"{problem}; last good: {good}. A lower --lr helps most often") from None
            step, seen = step + 1, seen + here.total(int((ids != PAD).sum()))
            done = seen >= config.tokens
            if step % log_every == 0 or done:
                now = time.monotonic()
                record = {"step": step, "tokens": seen, "seconds": round(now - begun, 1)}
                record |= {"loss": float(np.mean(losses)), "lr": learning_rate(config, seen / config.tokens)}
                record |= {"tokens_per_second": round((seen - ticked) / (now - tick))}
                if peak:
                    used = record["tokens_per_second"] * flops_per_token(config.model, ids.shape[1])
                    record["peak_share"] = round(used / peak, 4)
                if here.leads and evaluate_every and (step % evaluate_every == 0 or done):
                    record |= config.recipe.accuracy(model)
                log.write(json.dumps(record) + "\n")
                log.flush()
                if report and here.leads:
                    report(record)
                losses, tick, ticked = [], time.monotonic(), seen
            if here.leads and (time.monotonic() - saved > config.save_seconds or done):
                saved = time.monotonic()
                state = {"step": step, "tokens": seen, "group_at": group_at, "seconds": saved - begun}
                state["world"] = here.world
                checkpoints.save(out, model, optims, state)
    return model
