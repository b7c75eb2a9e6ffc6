"""Two packaged models in step: the specialist as it is alone, the ancestor as it is alone, and what stands between."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wrongturn.divergence import Divergence, from_logits
from wrongturn.engines import Ban, Edit, Mix, Request, Sampling
from wrongturn.engines import open as open_engine
from wrongturn.engines.base import Chunk, Engine
from wrongturn.engines.embedded import Embedded, model_folder
from wrongturn.errors import EngineError
from wrongturn.signals import FIELDS, Signals
from wrongturn.tasks import graphs as gs

PROMPTS = [np.array(p.prompt_ids, np.int32) for p in gs.GraphSearch().problems("G8_2,4", 10)]
GREEDY = Sampling(temperature=0.0)

pytestmark = pytest.mark.skipif(not model_folder("sft").exists(), reason="no packaged pair")


@pytest.fixture(scope="module")
def pair() -> Embedded:
    return Embedded("sft", ancestor="ancestor")


@pytest.fixture(scope="module")
def alone() -> Embedded:
    return Embedded("sft")


def ask(prompt: int = 0, most: int = 60, written: Any = (), **kw: Any) -> Request:
    prefix = np.concatenate((PROMPTS[prompt], np.asarray(written, np.int32)))
    return Request(prefix, most, **({"start": len(PROMPTS[prompt]), "seed": prompt, "stop_ids": (gs.EOS,)} | kw))


def run(engine: Engine, *requests: Request) -> list[Chunk]:
    async def together() -> list[Chunk]:
        return await asyncio.gather(*map(engine.generate, requests))

    return asyncio.run(together())


def score(engine: Engine, prompt: int, ids: np.ndarray, **kw: Any) -> Chunk:
    return asyncio.run(engine.score(np.concatenate((PROMPTS[prompt], ids)), len(PROMPTS[prompt]), **kw))


def assert_same(a: Chunk, b: Chunk) -> None:
    """Equal in every bit."""
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.top_logprobs, b.top_logprobs)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a.signals, name), getattr(b.signals, name))


# -- in step -----------------------------------------------------------------------------------------------------------


def test_the_specialist_is_what_it_is_alone(pair: Embedded, alone: Embedded) -> None:
    """Bit for bit, with company that is edited, and in forks of it."""
    requests = [ask(i, 50, top_k=3, sampling=(Sampling(), GREEDY)[i % 2]) for i in range(6)]
    company = [ask(i, 40, edit=edit, seed=50 + i) for i in range(4) for edit in (Mix(0.5), Ban((gs.EOS,)))]
    expected = run(alone, *requests)
    for ours, theirs in zip(run(pair, *company, *requests)[len(company) :], expected, strict=True):
        assert_same(ours, theirs)
    whole = expected[2]
    forks = [ask(2, 40, whole.ids[:at], top_k=3) for at in (1, 9, 20)]
    for ours, theirs in zip(run(pair, *company[:3], *forks)[3:], run(alone, *forks), strict=True):
        assert_same(ours, theirs)


def test_a_weight_of_one_is_the_specialist_and_of_none_the_ancestor(pair: Embedded, alone: Embedded) -> None:
    for weight, engine in ((1.0, alone), (0.0, Embedded("ancestor"))):
        for kind in ("path", "coverage"):
            for sampling in (GREEDY, Sampling(0.9)):
                mixed = run(pair, *(ask(i, sampling=sampling, edit=Mix(weight, kind)) for i in range(3)))
                plain = run(engine, *(ask(i, sampling=sampling) for i in range(3)))
                for ours, theirs in zip(mixed, plain, strict=True):
                    np.testing.assert_array_equal(ours.ids, theirs.ids)


def test_the_ancestor_sees_forks_and_what_was_written_otherwise(pair: Embedded) -> None:
    """A fork of a trace that the specialist wrote goes on as the ancestor would have gone on from there."""
    (whole,) = run(pair, ask(3))
    for at in (1, 7, 25):
        (fork,) = run(pair, ask(3, 20, whole.ids[:at], sampling=GREEDY, edit=Mix(0.0)))
        (own,) = run(Embedded("ancestor"), ask(3, 20, whole.ids[:at], sampling=GREEDY))
        np.testing.assert_array_equal(fork.ids, own.ids)


@pytest.mark.parametrize("edit", [Mix(0.7), Mix(0.7, "coverage"), Mix(1.7)])
def test_a_greedy_mix_takes_the_likeliest_token_of_the_mix(pair: Embedded, edit: Edit) -> None:
    chunks = run(pair, *(ask(i, sampling=GREEDY, edit=edit) for i in range(4)))
    for i, chunk in enumerate(chunks):
        assert pair.ancestor is not None
        s, a = (score(engine, i, chunk.ids, top_k=31) for engine in (pair, pair.ancestor))
        np.testing.assert_allclose(chunk.signals.nll, s.signals.nll, atol=1e-5)  # the specialist's own
        rows = []
        for said in (s, a):
            logits = np.full((len(chunk.ids), 31), -np.inf, np.float32)
            np.put_along_axis(logits, said.top_ids, said.top_logprobs, 1)
            rows.append(logits)
        mixed = edit(*rows)
        best = mixed.max(axis=1)
        np.testing.assert_allclose(np.take_along_axis(mixed, chunk.ids[:, None], 1)[:, 0], best, atol=1e-4)


def test_a_ban_forces_another_way_on(pair: Embedded) -> None:
    (whole,) = run(pair, ask(1, sampling=GREEDY))
    (other,) = run(pair, ask(1, 1, whole.ids[:5], sampling=GREEDY, edit=Ban((int(whole.ids[5]),))))
    scored = score(pair, 1, whole.ids, top_k=2)
    assert other.ids[0] == scored.top_ids[5, 1]


# -- stop conditions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Apart:
    """Stops where J's expectation is above ``most``; keeps what it was told."""

    most: float
    told: list[Divergence] = field(default_factory=list, compare=False)
    needs_logprobs = True
    needs_ancestor = True

    def watch(self, rows: int) -> Apart:
        return self

    def again(self) -> Apart:
        return self

    def admit(self, row: int, ids: Sequence[int], signals: Signals) -> None:
        pass

    def step(self, rows: Any, last: Any, signals: Signals, divergence: Divergence | None = None) -> np.ndarray:
        assert divergence is not None
        self.told.append(divergence)
        return divergence.pressure > self.most

    def release(self, row: int) -> None:
        pass


def test_a_stop_condition_is_told_how_the_two_diverge(pair: Embedded) -> None:
    condition = Apart(np.inf)
    (chunk,) = run(pair, ask(4, until=condition))
    told = Divergence.concat(condition.told)
    assert len(told) == len(chunk.ids)
    assert np.isnan(told.delta).all()
    assert pair.ancestor is not None
    rows = []
    for engine in (pair, pair.ancestor):
        said = score(engine, 4, chunk.ids, top_k=31)
        logits = np.full((len(chunk.ids), 31), -np.inf, np.float32)
        np.put_along_axis(logits, said.top_ids, said.top_logprobs, 1)
        rows.append(logits)
    expected = from_logits(*rows)
    for name in ("coverage", "pressure", "kl", "variance"):
        np.testing.assert_allclose(getattr(told, name), getattr(expected, name), atol=2e-4)
    assert told.kl.max() > 0.01
    highest = int(told.pressure.argmax())
    (stopped,) = run(pair, ask(4, until=Apart(float(told.pressure[highest]) * 0.999)))
    assert (stopped.finish, len(stopped.ids)) == ("until", highest)


# -- scoring -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_scoring_a_trace_says_what_was_said_when_it_was_written(name: str) -> None:
    engine = Embedded(name)
    requests = [ask(i, 60, top_k=4) for i in range(6)]
    for i, chunk in enumerate(run(engine, *requests)):
        scored = score(engine, i, chunk.ids, top_k=4)
        np.testing.assert_array_equal(scored.ids, chunk.ids)
        assert scored.prompt == len(PROMPTS[i]) + len(chunk.ids)
        for signal in ("nll", "entropy", "margin", "missing"):
            np.testing.assert_allclose(
                getattr(scored.signals, signal), getattr(chunk.signals, signal), atol=1e-5, rtol=1e-5
            )
        np.testing.assert_allclose(scored.top_logprobs, chunk.top_logprobs, atol=1e-4)


def test_scoring_does_not_disturb_decoding(pair: Embedded) -> None:
    async def both() -> list[Any]:
        decoding = [pair.generate(ask(i)) for i in range(4)]
        whole = [np.concatenate((PROMPTS[i], PROMPTS[i + 1])) for i in range(4)]
        return await asyncio.gather(*decoding, *(pair.score(ids, 1) for ids in whole))

    for chunk, expected in zip(asyncio.run(both())[:4], run(Embedded("sft"), *(ask(i) for i in range(4))), strict=True):
        assert_same(chunk, expected)


def test_what_cannot_be_scored(pair: Embedded) -> None:
    ids = PROMPTS[0]
    for given, said in (((ids, 0), "must begin at 1 to"), ((ids, len(ids) + 1), "must begin at 1 to")):
        with pytest.raises(ValueError, match=said):
            asyncio.run(pair.score(*given))
    with pytest.raises(ValueError, match="token id 31 at position 1 is outside the vocabulary of 31"):
        asyncio.run(pair.score(np.array([1, 31], np.int32), 1))
    with pytest.raises(ValueError, match="the prefix has 385 tokens; the context of sft holds 384"):
        asyncio.run(pair.score(np.resize(ids, 385), 1))
    assert len(asyncio.run(pair.score(np.resize(ids, 384), 1)).ids) == 383
    nothing = asyncio.run(pair.score(ids, len(ids), top_k=2))
    assert (len(nothing.ids), len(nothing.signals), nothing.top_ids.shape) == (0, 0, (0, 2))


# -- opening -----------------------------------------------------------------------------------------------------------


def test_it_opens_by_its_spec_and_says_what_it_is() -> None:
    engine = open_engine("embedded:sft", ancestor="ancestor", slots=2)
    assert engine.opening == ("embedded:sft", {"ancestor": "ancestor", "slots": 2})
    assert (engine.capabilities.edits, engine.capabilities.ancestor, engine.capabilities.scores) == (
        True,
        "ancestor",
        True,
    )
    assert isinstance(engine.ancestor, Embedded)
    assert engine.identity() == Embedded("sft").identity()
    assert engine.provenance()["ancestor"] == Embedded("ancestor").identity()
    assert "ancestor" not in Embedded("sft").provenance()


def test_another_vocabulary_is_refused_by_its_first_token(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(model_folder("ancestor"), folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    token = next(word for word, i in words.items() if i == 12)
    words["new"] = words.pop(token)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(EngineError, match=f"other cannot be the ancestor of sft: .*; token 12 is '{token}' and 'new'"):
        Embedded("sft", ancestor=folder)


def test_an_ancestor_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"engine 'embedded:sft': nowhere: no graph.onnx there"):
        open_engine("embedded:sft", ancestor="nowhere")


@pytest.mark.torch
def test_a_context_is_the_shorter_of_the_two(tmp_path: Path) -> None:
    """Arrays of another shape beside the first."""
    pytest.importorskip("onnx")
    torch = pytest.importorskip("torch")
    from wrongturn.lab.export import write
    from wrongturn.lab.model import ModelConfig, Reasoner

    torch.manual_seed(0)
    config = ModelConfig(layers=2, heads=2, width=32, ffn=48, context=128)
    state = {name: tensor.numpy() for name, tensor in Reasoner(config).state_dict().items()}
    small = write(config, state, tmp_path / "small")
    pair = Embedded("sft", ancestor=small)
    assert pair.capabilities.context == 128
    (ours, mixed), (theirs,) = run(pair, ask(0, 30), ask(0, 30, edit=Mix(0.0))), run(Embedded("sft"), ask(0, 30))
    assert_same(ours, theirs)
    np.testing.assert_array_equal(mixed.ids, run(Embedded(small), ask(0, 30))[0].ids)
