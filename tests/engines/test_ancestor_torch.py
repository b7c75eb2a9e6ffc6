"""Two transformers models in step, and what a model says of given tokens, against plain forward passes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wrongturn.engines import Ban, Edit, Mix, Request, Sampling
from wrongturn.engines import open as open_engine
from wrongturn.engines.base import Chunk, Engine
from wrongturn.engines.embedded import Embedded, model_folder
from wrongturn.errors import EngineError
from wrongturn.signals import FIELDS, SignalConfig, from_logits
from wrongturn.tasks import graphs as gs

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")

from wrongturn.engines.transformers import Transformers  # noqa: E402

VOCAB = 97
GREEDY = Sampling(temperature=0.0)
PROMPTS = [np.array(p.prompt_ids, np.int32) for p in gs.GraphSearch().problems("G8_2,4", 10)]


def made(folder: Path, seed: int, **shape: Any) -> Path:
    """A small random Llama with opinions."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    settings |= {"vocab_size": VOCAB, "num_hidden_layers": 2, "max_position_embeddings": 128} | shape
    model = hf.AutoModelForCausalLM.from_config(hf.LlamaConfig(**settings, bos_token_id=1, eos_token_id=2))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(6.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("made")
    return made(root / "child", 1), made(root / "parent", 2, num_hidden_layers=3, num_key_value_heads=2)


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> Transformers:
    return Transformers(folders[0], ancestor=folders[1], device="cpu", slots=4)


def prompt(i: int, length: int = 0) -> np.ndarray:
    return np.random.default_rng(i).integers(3, VOCAB, length or 3 + 4 * i).astype(np.int32)


def run(engine: Engine, *requests: Request) -> list[Chunk]:
    async def together() -> list[Chunk]:
        return await asyncio.gather(*map(engine.generate, requests))

    return asyncio.run(together())


def logits(folder: Path, ids: np.ndarray) -> np.ndarray:
    model = hf.AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        return model(torch.from_numpy(ids[None].astype(np.int64))).logits[0].numpy()


def test_the_specialist_is_what_it_is_alone(pair: Transformers, folders: tuple[Path, Path]) -> None:
    requests = [Request(prompt(i), 20, seed=i, top_k=3, start=3) for i in range(4)]
    for ours, theirs in zip(
        run(pair, *requests), run(Transformers(folders[0], device="cpu", slots=4), *requests), strict=True
    ):
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        np.testing.assert_array_equal(ours.top_logprobs, theirs.top_logprobs)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(ours.signals, name), getattr(theirs.signals, name))


@pytest.mark.parametrize("edit", [None, Mix(0.0), Mix(0.6), Mix(0.4, "coverage"), Mix(1.4), Ban((5, 6, 7))])
def test_a_greedy_row_takes_the_likeliest_token_of_what_is_edited(
    pair: Transformers, folders: tuple[Path, Path], edit: Edit | None
) -> None:
    """Also in forks, in company of every length; and its signals are the specialist's."""
    company = [Request(prompt(i, 30), 12, seed=i, edit=Mix(0.5)) for i in range(3)]
    (whole, *_) = run(pair, Request(prompt(3), 16, GREEDY, edit=edit, top_k=2), *company)
    fork = np.concatenate((prompt(3), whole.ids[:7]))
    (rest, *_) = run(pair, Request(fork, 9, GREEDY, edit=edit, start=len(prompt(3))), *company)
    np.testing.assert_array_equal(rest.ids, whole.ids[7:])
    ids, at = np.concatenate((prompt(3), whole.ids)), len(prompt(3)) - 1
    s, a = (logits(folder, ids)[at:-1] for folder in folders)
    edited = s if edit is None else edit(s, a)
    np.testing.assert_array_equal(whole.ids, edited.argmax(1))
    expected = from_logits(s, whole.ids)
    for name in ("nll", "entropy", "margin"):
        np.testing.assert_allclose(getattr(whole.signals, name), getattr(expected, name), atol=1e-4)


def test_scores_are_those_of_a_plain_forward_pass(
    pair: Transformers, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked at once, of different lengths, beginnings, constants and alternatives; in one piece and in several."""
    asked = [
        (prompt(i, length), start) for i, (length, start) in enumerate([(40, 1), (9, 4), (128, 100), (30, 29), (6, 6)])
    ]
    configs = [SignalConfig(), SignalConfig(0.5, 0.6)]

    async def together(engine: Engine) -> list[Chunk]:
        calls = [engine.score(ids, start, top_k=i, signals=configs[i % 2]) for i, (ids, start) in enumerate(asked)]
        return await asyncio.gather(*calls)

    assert pair.ancestor is not None
    for size in (1 << 26, 4 * VOCAB * 7):
        monkeypatch.setattr("wrongturn.engines._scoring._LOGITS", size)
        for engine, folder in zip((pair, pair.ancestor), folders, strict=True):
            for i, ((ids, start), chunk) in enumerate(zip(asked, asyncio.run(together(engine)), strict=True)):
                rows = logits(folder, ids)[start - 1 : -1]
                expected = from_logits(rows, ids[start:], configs[i % 2])
                np.testing.assert_array_equal(chunk.ids, ids[start:])
                assert (chunk.prompt, chunk.top_ids.shape) == (len(ids), (len(ids) - start, i))
                for name in FIELDS:
                    np.testing.assert_allclose(getattr(chunk.signals, name), getattr(expected, name), atol=1e-4)
                if i and len(rows):
                    np.testing.assert_array_equal(chunk.top_ids[:, 0], rows.argmax(1))


def test_scores_asked_at_once_are_one_batch(pair: Transformers, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    network = pair._network
    feed = network.feed

    def counted(place: Any, cache: Any, rows: Any, tokens: Any, *rest: Any, **kw: Any) -> Any:
        fed.append(len(tokens))
        return feed(place, cache, rows, tokens, *rest, **kw)

    monkeypatch.setattr(network, "feed", counted)

    async def together() -> None:
        left = asyncio.create_task(pair.score(prompt(9, 10), 1))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(*(pair.score(prompt(i, 10 + i), 1) for i in range(5)))

    asyncio.run(together())
    assert fed == [5]


def test_signals_are_scored_as_they_were_written(pair: Transformers) -> None:
    requests = [Request(prompt(i), 20, seed=i, edit=(None, Mix(0.5))[i % 2]) for i in range(4)]
    for i, chunk in enumerate(run(pair, *requests)):
        scored = asyncio.run(pair.score(np.concatenate((prompt(i), chunk.ids)), len(prompt(i))))
        for name in ("nll", "entropy", "margin"):
            np.testing.assert_allclose(
                getattr(scored.signals, name), getattr(chunk.signals, name), atol=1e-5, rtol=1e-5
            )


def test_a_dense_mix_is_that_of_the_embedded_pair() -> None:
    if not model_folder("sft").exists():
        pytest.skip("no packaged pair")
    names = [str(model_folder(name)) for name in ("sft", "ancestor")]
    ours = open_engine(f"transformers:{names[0]}", ancestor=names[1], device="cpu", slots=10)
    assert ours.capabilities.ancestor == "ancestor"
    requests = [Request(ids, 80, GREEDY, stop_ids=(gs.EOS,), edit=Mix(0.7), start=len(ids)) for ids in PROMPTS]
    for a, b in zip(run(ours, *requests), run(Embedded("sft", ancestor="ancestor"), *requests), strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_allclose(a.signals.nll, b.signals.nll, atol=1e-3)


def test_another_vocabulary_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    larger = made(tmp_path / "larger", 3, vocab_size=VOCAB + 3)
    with pytest.raises(
        EngineError, match=r"larger cannot be the ancestor of child: .*; one has 97 logits, the other 100"
    ):
        Transformers(folders[0], ancestor=larger, device="cpu", slots=2)
