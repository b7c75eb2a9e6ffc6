"""Reinforcement learning with a verifiable reward: group-relative policy optimisation of a small reasoner of any task.

Rollouts come from the embedded engine on the current weights, the reward from the task's own grader or checker, and the
update from torch. Advantages are rewards standardised within the rollouts of a problem ("DeepSeekMath", Shao et al.,
2024); the loss is the clipped surrogate averaged over tokens, so that long traces weigh what they are (as in "DAPO", Yu
et al., 2025). Problems whose rollouts all got the same reward teach nothing and cost nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wrongturn.engines.base import Chunk, Request, Sampling
from wrongturn.engines.embedded import Embedded
from wrongturn.errors import WrongturnError
from wrongturn.lab import checkpoints, recipes
from wrongturn.lab.decoding import decoded, written
from wrongturn.lab.model import ModelConfig, Reasoner
from wrongturn.tasks.base import OwnTokens
from wrongturn.trace import Problem


@dataclass(frozen=True, slots=True)
class GrpoConfig:
    """One run: ``steps`` rounds of ``prompts`` problems with ``samples`` rollouts each, then updates of ``batch`` rows.

    ``reward``: 1 for a right "answer" (whatever the trace says), or for a "trace" every token of which is right.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    task: str = "graph_search"
    distribution: str = "G15_5,6"
    steps: int = 150
    prompts: int = 24
    samples: int = 8
    batch: int = 48
    reward: str = "answer"
    lr: float = 1e-4
    warmup: int = 5
    ratio: float = 0.2  # the surrogate is clipped outside [1 - ratio, 1 + ratio]
    clip: float = 1.0
    seed: int = 0
    save_seconds: float = 60.0
    ancestor: str = ""


@dataclass(slots=True)
class Rollout:
    """One sampled completion: ids [T], the log-probability each had when it was drawn [T], and its reward."""

    prompt: Sequence[int]
    ids: np.ndarray
    logprobs: np.ndarray
    reward: float
    advantage: float = 0.0


def reward(task: OwnTokens, problem: Problem, ids: np.ndarray, kind: str) -> float:
    """1 where the completion is right, 0 where not."""
    right = task.grade(problem, task.answer(ids)) if kind == "answer" else task.check(problem, ids).exact
    return float(right)


def rollouts(engine: Embedded, config: GrpoConfig, problems: Sequence[Problem], step: int) -> list[list[Rollout]]:
    """``samples`` rollouts of each problem, with advantages; the same (seed, step) gives the same draws."""
    task = recipes.own_tokens(config.task)

    async def ask() -> list[Chunk]:
        requests = [
            Request(
                np.array(problem.prompt_ids, np.int32),
                min(task.usual_tokens, config.model.context - len(problem.prompt_ids)),
                Sampling(),
                seed=int(np.random.SeedSequence([config.seed, step, i, k]).generate_state(1)[0]),
                stop_ids=task.stop_ids,
            )
            for i, problem in enumerate(problems)
            for k in range(config.samples)
        ]
        return list(await asyncio.gather(*map(engine.generate, requests)))

    chunks = iter(asyncio.run(ask()))
    groups = []
    for problem in problems:
        group = [
            Rollout(problem.prompt_ids, c.ids, -c.signals.nll, reward(task, problem, c.ids, config.reward))
            for c in islice(chunks, config.samples)
        ]
        for rollout, a in zip(group, advantages([r.reward for r in group]), strict=True):
            rollout.advantage = a
        groups.append(group)
    return groups


def advantages(rewards: Sequence[float]) -> list[float]:
    """Rewards of one problem's rollouts, standardised; all 0 where they are equal."""
    r = np.asarray(rewards, np.float64)
    spread = r.std()
    return ((r - r.mean()) / spread).tolist() if spread > 0 else [0.0] * len(r)


def surrogate(model: Reasoner, rows: Sequence[Rollout], config: GrpoConfig) -> Tensor:
    """The clipped objective (to be minimised), summed over the rows' completion tokens."""
    longest = max(len(r.prompt) + len(r.ids) for r in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    keep = torch.zeros(len(rows), longest - 1, dtype=torch.bool)
    for i, r in enumerate(rows):
        ids[i, : len(r.prompt) + len(r.ids)] = torch.tensor([*r.prompt, *r.ids.tolist()])
        keep[i, len(r.prompt) - 1 : len(r.prompt) + len(r.ids) - 1] = True
    logits = model(ids[:, :-1], keep)
    now = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:][keep][:, None])[:, 0]
    old = torch.from_numpy(np.concatenate([r.logprobs for r in rows])).float()
    a = torch.cat([torch.full((len(r.ids),), r.advantage) for r in rows])
    change = (now - old).exp()
    return -torch.minimum(change * a, change.clamp(1 - config.ratio, 1 + config.ratio) * a).sum()


def minibatches(groups: Sequence[Sequence[Rollout]], config: GrpoConfig, step: int) -> Iterator[list[Rollout]]:
    """The rollouts that teach something, shuffled, in batches."""
    rows = [r for group in groups for r in group if r.advantage]
    rng = np.random.default_rng([config.seed, step])
    rows = [rows[i] for i in rng.permutation(len(rows))]
    for at in range(0, len(rows), config.batch):
        yield rows[at : at + config.batch]


def train(
    config: GrpoConfig,
    out: Path,
    *,
    start: dict[str, Tensor],
    report: Callable[[dict[str, float]], None] | None = None,
    evaluate_every: int = 25,
) -> Reasoner:
    """Improve the weights ``start`` for ``config.steps`` rounds; resumes what is in ``out``.

    ``report`` receives each log record: step, reward (mean over rollouts), mixed (share of problems that taught
    something), tokens (decoded so far), seconds, and when evaluated ``right`` answers and ``exact`` traces, with and
    without ``_goal``: of the distribution that is trained on, and of the one that the ancestor was at home in.
    """
    recipe = recipes.recipe(config.task)
    stream = recipe.practice(config.distribution, config.seed + 1_000_000)
    checkpoints.begin(out, config)
    torch.manual_seed(config.seed)
    model = Reasoner(config.model)
    model.load_state_dict(start)
    optim = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    state = checkpoints.restore(out, model, [optim])
    first, tokens = int(state.get("step", 0)), int(state.get("tokens", 0))
    begun = saved = time.monotonic() - float(state.get("seconds", 0.0))
    stream = islice(stream, first * config.prompts, None)
    with checkpoints.journal(out, first) as log:
        for step in range(first, config.steps):
            engine = Embedded(written(model, config.task, out / "rollouts"))
            groups = rollouts(engine, config, list(islice(stream, config.prompts)), step)
            for group in optim.param_groups:
                group["lr"] = config.lr * min(1.0, (step + 1) / config.warmup)
            for rows in minibatches(groups, config, step):
                loss = surrogate(model, rows, config) / sum(len(r.ids) for r in rows)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                if not torch.isfinite(norm):
                    raise WrongturnError(f"the gradient is not finite at step {step + 1}; last good: {out / 'last'}")
                optim.step()
                optim.zero_grad(set_to_none=True)
            flat = [r for group in groups for r in group]
            tokens += sum(len(r.ids) for r in flat)
            record = {"step": step + 1, "tokens": tokens, "seconds": round(time.monotonic() - begun, 1)}
            record["reward"] = float(np.mean([r.reward for r in flat]))
            record["mixed"] = float(np.mean([any(r.advantage for r in group) for group in groups]))
            done = step + 1 == config.steps
            if evaluate_every and ((step + 1) % evaluate_every == 0 or done):
                record |= decoded(model, recipe, recipe.distributions[0])
                record |= {f"{name}_goal": x for name, x in decoded(model, recipe, config.distribution).items()}
            log.write(json.dumps(record) + "\n")
            log.flush()
            if report:
                report(record)
            if time.monotonic() - saved > config.save_seconds or done:
                saved = time.monotonic()
                checkpoints.save(
                    out, model, [optim], {"step": step + 1, "tokens": tokens, "seconds": time.monotonic() - begun}
                )
    return model
