from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnx")

from safetensors.torch import save_file  # noqa: E402

from wrongturn.engines.base import Request  # noqa: E402
from wrongturn.engines.embedded import Embedded  # noqa: E402
from wrongturn.lab.export import export, write  # noqa: E402
from wrongturn.lab.model import ModelConfig, Reasoner  # noqa: E402
from wrongturn.tasks import graphs as gs  # noqa: E402

CONFIG = ModelConfig(layers=3, heads=2, width=64, ffn=80, context=160, rope_theta=300.0)
QUERIES = [q for q, _ in zip(gs.Distribution.parse("G8_2,4").queries(0), range(6), strict=False)]


@pytest.fixture(scope="module")
def model() -> Reasoner:
    """Random weights large enough to make the model opinionated, with biases and norms that are not trivial."""
    torch.manual_seed(0)
    model = Reasoner(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


@pytest.fixture(scope="module")
def checkpoint(model: Reasoner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "last").mkdir()
    (folder / "config.json").write_text(json.dumps({"model": asdict(CONFIG)}))
    save_file(model.state_dict(), folder / "last" / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(checkpoint, tmp_path_factory.mktemp("exported"))


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in exported.iterdir())
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (exported / file.name).read_bytes(), file.name


def test_the_weights_are_there_once(exported: Path) -> None:
    assert (exported / "graph.onnx").stat().st_size < 20_000
    size = (exported / "model.safetensors").stat().st_size
    assert 4 * CONFIG.parameters() < size < 4 * CONFIG.parameters() + 10_000


def test_transformers_computes_the_same(model: Reasoner, exported: Path) -> None:
    llama = transformers.AutoModelForCausalLM.from_pretrained(exported)
    ids = torch.tensor([gs.prompt_ids(QUERIES[0]) + gs.gold(QUERIES[0])])
    with torch.no_grad():
        torch.testing.assert_close(llama(ids).logits, model(ids), atol=1e-4, rtol=0)


def test_the_engine_computes_the_same(model: Reasoner, exported: Path) -> None:
    """After a prefill, in decoding and in a fork, among others."""

    async def generate() -> None:
        prompts = [np.array(gs.prompt_ids(q), np.int32) for q in QUERIES]
        wholes = await asyncio.gather(*(ask(p, p[:0], 40) for p in prompts))
        await asyncio.gather(*(ask(p, w.ids[:9], 30) for p, w in zip(prompts, wholes, strict=True)))

    async def ask(prompt: np.ndarray, written: np.ndarray, n: int):
        prefix = np.concatenate((prompt, written))
        chunk = await engine.generate(Request(prefix, n, start=len(prompt), seed=len(written), top_k=CONFIG.vocab))
        with torch.no_grad():
            logits = model(torch.tensor(np.concatenate((prefix, chunk.ids))[None]))[0]
        expected = torch.log_softmax(logits[len(prefix) - 1 : -1], -1).numpy()
        listed = np.take_along_axis(expected, chunk.top_ids.astype(int), 1)
        np.testing.assert_allclose(chunk.top_logprobs, listed, atol=2e-4, rtol=0)
        return chunk

    engine = Embedded(exported)
    asyncio.run(generate())


def test_the_tokenizer_is_the_tasks(exported: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (gs.PAD, gs.BOS, gs.EOS)
    for query in QUERIES:
        prompt, whole = gs.prompt_ids(query), gs.prompt_ids(query) + gs.gold(query)
        text = gs.decode(prompt)
        assert tokenizer(text).input_ids == prompt
        assert tokenizer(text.replace(",", ", ")).input_ids == prompt
        assert tokenizer(gs.decode(whole)).input_ids == whole[:-1]
        assert tokenizer.decode(whole, skip_special_tokens=True) == gs.decode(whole)
        assert tokenizer.decode(whole) == f"<bos>{gs.decode(whole)}<eos>"
    with pytest.raises(Exception, match="WordLevel"):
        tokenizer("0,1 hello")


def test_what_does_not_fit_is_refused(model: Reasoner, tmp_path: Path) -> None:
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="multiple of 16"):
        write(replace(CONFIG, width=48), state, tmp_path)
    with pytest.raises(ValueError, match="not of this architecture"):
        write(replace(CONFIG, layers=2), state, tmp_path)


def test_a_training_is_not_exported_onto_itself(checkpoint: Path) -> None:
    before = (checkpoint / "config.json").read_text()
    with pytest.raises(ValueError, match="the training is there; export it to another folder"):
        export(checkpoint, checkpoint / ".." / checkpoint.name)
    assert (checkpoint / "config.json").read_text() == before


def test_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": asdict(CONFIG)}))
    with pytest.raises(FileNotFoundError, match="has training saved yet"):
        export(tmp_path, tmp_path / "out")
