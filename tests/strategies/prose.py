"""A task with words, for strategies that speak: one token a word, and the cues GUARD needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from wrongturn.engines.base import Sampling
from wrongturn.engines.scripted import Script, Scripted
from wrongturn.strategies.base import Context
from wrongturn.tasks.base import Check
from wrongturn.trace import Problem

WORDS = ["<bos>", "<eos>", "\n\n", "Wait", "</think>", "Wait,", "Let me reconsider:", *"abcdefgh", "yes", "no"]
BOS, EOS, BREAK, WAIT, END_THINK, CUE, RECONSIDER, A, B, C, D, E, F, G, H, YES, NO = range(len(WORDS))


class Prose:
    name = "prose"
    stop_ids = (EOS,)
    boundary_ids = (BREAK,)

    def encode(self, text: str) -> list[int]:
        if text and text not in WORDS:
            raise ValueError(text)
        return [WORDS.index(text)] if text else []

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [WORDS[i] for i in ids]

    def boundaries(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.asarray(ids) == BREAK

    def answer(self, ids: Sequence[int] | np.ndarray) -> str | None:
        return next((WORDS[i] for i in ids if i in (YES, NO)), None)

    def grade(self, problem: Problem, answer: str | None) -> bool:
        return answer == problem.reference

    def check(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Check | None:
        return None


def context(
    script: Script,
    *,
    max_tokens: int = 40,
    budget: int | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    holds: int = 4096,
    logprobs: str = "raw",
) -> tuple[Context, Scripted]:
    """A context on a scripted engine whose own context ``holds`` so many tokens."""
    engine = Scripted(script, len(WORDS), context=holds)
    engine.capabilities = replace(engine.capabilities, logprobs=logprobs)
    made = Context(
        engine, Prose(), [BOS], sampling=Sampling(temperature), max_tokens=max_tokens, budget=budget, seed=seed, top_k=3
    )
    return made, engine


def spread(entropy_rank: int) -> dict[int, float]:
    """A distribution over ``entropy_rank`` words starting at ``a``: the larger, the more uncertain."""
    return {A + i: 1.0 / entropy_rank for i in range(entropy_rank)}
