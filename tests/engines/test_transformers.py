"""The transformers engine against the embedded one on its checkpoint, and against plain forward passes of others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wrongturn.engines.base import Chunk, Meter, Request, Sampling
from wrongturn.engines.embedded import Embedded
from wrongturn.errors import EngineError
from wrongturn.signals import FIELDS, Signals, from_logits
from wrongturn.tasks import graphs as gs

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")

from wrongturn.engines._network import Network, device_named  # noqa: E402
from wrongturn.engines._scoring import groups  # noqa: E402
from wrongturn.engines.transformers import Transformers  # noqa: E402

PROMPTS = [np.array(p.prompt_ids, np.int32) for p in gs.GraphSearch().problems("G8_2,4", 12)]
GREEDY = Sampling(temperature=0.0)
TINY: dict[str, Any] = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
LONG: dict[str, Any] = {"max_position_embeddings": 128}
KINDS: dict[str, Any] = {
    "qwen3": lambda: hf.Qwen3Config(**TINY, **SHAPE, **LONG, num_key_value_heads=2, head_dim=8),
    "gpt2": lambda: hf.GPT2Config(**TINY, n_embd=32, n_layer=3, n_head=4, n_positions=128),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**TINY, **SHAPE, **LONG),
    "gemma3": lambda: hf.Gemma3TextConfig(
        **TINY, **SHAPE, **LONG, num_key_value_heads=1, head_dim=8, sliding_window=9, sliding_window_pattern=2
    ),
    "bloom": lambda: hf.BloomConfig(**TINY, hidden_size=32, n_layer=2, n_head=4),
}


def made(kind: str, folder: Path) -> Path:
    """A small random checkpoint, with weights large enough to have opinions."""
    torch.manual_seed(5)
    model = hf.AutoModelForCausalLM.from_config(KINDS[kind]())
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(6.0)
    model.save_pretrained(folder / kind)
    return folder / kind


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Transformers:
    return Transformers(folder, device="cpu", slots=16)


@pytest.fixture(scope="module", params=KINDS)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Transformers:
    folder = made(request.param, tmp_path_factory.mktemp("made"))
    return Transformers(folder, device="cpu", slots=5, cache_mb=1, context=128)


def ask(prompt: int | np.ndarray = 0, max_tokens: int = 40, written: Sequence[int] = (), **kw: Any) -> Request:
    """Continue a prompt of which ``written`` has been decoded already."""
    ids = PROMPTS[prompt] if isinstance(prompt, int) else prompt
    prefix = np.concatenate((ids, np.asarray(written, np.int32)))
    return Request(prefix, max_tokens, **({"start": len(ids), "seed": 1} | kw))


def run(engine: Any, *requests: Request) -> list[Chunk]:
    async def together() -> list[Chunk]:
        return await asyncio.gather(*(engine.generate(r) for r in requests))

    return asyncio.run(together())


def assert_alike(a: Chunk, b: Chunk, atol: float = 1e-4) -> None:
    """The same tokens, and signals but for rounding."""
    np.testing.assert_array_equal(a.ids, b.ids)
    for name in ("nll", "entropy", "entropy_low", "margin"):
        np.testing.assert_allclose(getattr(a.signals, name), getattr(b.signals, name), atol=atol, rtol=0)


def is_idle(engine: Transformers) -> bool:
    return not engine._jobs and not engine._waiting and engine._kv.n == 0 and not engine._wanted


# -- the same as the embedded engine -----------------------------------------------------------------------------------


def test_greedy_traces_are_those_of_the_embedded_engine(engine: Transformers, folder: Path) -> None:
    requests = [ask(i, 80, sampling=GREEDY, stop_ids=(gs.EOS,), top_k=3) for i in range(12)]
    for ours, theirs in zip(run(engine, *requests), run(Embedded(folder), *requests), strict=True):
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        np.testing.assert_array_equal(ours.top_ids, theirs.top_ids)
        np.testing.assert_allclose(ours.top_logprobs, theirs.top_logprobs, atol=1e-3, rtol=0)
        assert ours.finish == theirs.finish
        for name in ("nll", "entropy", "entropy_low", "entropy_high", "missing", "margin"):
            np.testing.assert_allclose(getattr(ours.signals, name), getattr(theirs.signals, name), atol=1e-3, rtol=0)


def test_sampled_traces_are_those_of_the_embedded_engine(engine: Transformers, folder: Path) -> None:
    requests = [ask(i % 12, 60, seed=i, sampling=Sampling(1.2, (1.0, 0.9)[i % 2])) for i in range(30)]
    for ours, theirs in zip(run(engine, *requests), run(Embedded(folder), *requests), strict=True):
        assert_alike(ours, theirs)
    assert is_idle(engine)


def test_it_opens_by_its_spec(folder: Path) -> None:
    from wrongturn.engines import open

    engine = open(f"transformers:{folder}", slots=2, device="cpu")
    assert engine.model == folder.name
    assert engine.vocabulary is not None
    assert engine.vocabulary.stop_ids == (gs.EOS,)
    stamp = engine.provenance()
    assert (stamp["engine"], stamp["dtype"], stamp["device"]) == ("transformers", "float32", "cpu")
    assert stamp["capabilities"]["hidden_states"]


# -- other kinds of models, against a plain forward pass ---------------------------------------------------------------


def plain(engine: Transformers, request: Request, chunk: Chunk) -> tuple[np.ndarray, Any]:
    """Logits [tokens, V] and all hidden states of a forward pass over the whole sequence alone."""
    whole = torch.tensor(np.concatenate((request.prefix, chunk.ids))[None].astype(np.int64))
    with torch.no_grad():
        out = engine._network.model(whole, output_hidden_states=True, use_cache=False)
    span = slice(len(request.prefix) - 1, -1)
    return out.logits[0, span].numpy(), [layer[0, span].numpy() for layer in out.hidden_states]


def test_rows_of_any_length_say_what_a_forward_pass_says(other: Transformers) -> None:
    """Waves of requests that come, go and fork, so that rows are moved, aligned anew, reused and dropped."""
    rng = np.random.default_rng(0)
    done: list[tuple[Request, Chunk]] = []
    for wave in range(6):
        requests = []
        for i in range(9):
            if done and i % 3 == 0:  # a fork, perhaps with something put in
                parent, chunk = done[int(rng.integers(len(done)))]
                cut = chunk.ids[: int(rng.integers(len(chunk.ids)))]
                prefix = np.concatenate((parent.prefix, cut, rng.integers(3, 97, int(rng.integers(4)))))
            else:
                prefix = rng.integers(3, 97, int(rng.integers(1, 60)))
            prefix = prefix[:100].astype(np.int32)
            heat = Sampling(float(rng.choice([0.0, 1.0])))
            requests.append(
                Request(prefix, int(rng.integers(1, 25)), heat, seed=wave * 10 + i, top_k=2, hidden=(0, -1))
            )
        done += list(zip(requests, run(other, *requests), strict=True))
    for request, chunk in done:
        logits, states = plain(other, request, chunk)
        exact = from_logits(logits, chunk.ids)
        for name in ("nll", "entropy", "margin"):
            np.testing.assert_allclose(getattr(chunk.signals, name), getattr(exact, name), atol=1e-3, rtol=1e-3)
        assert chunk.hidden is not None
        expected = np.stack([states[0], states[-1]], 1)
        np.testing.assert_allclose(chunk.hidden, expected, atol=2e-2, rtol=5e-3)
    assert sum(chunk.reused for _, chunk in done) > 300
    assert all(chunk.reused + chunk.prompt == len(request.prefix) for request, chunk in done)


def test_a_window_is_kept_by_its_mask(other: Transformers) -> None:
    """Greedy continuations are those of generate."""
    prompt = np.arange(3, 40, dtype=np.int32)
    (chunk, _) = run(other, Request(prompt, 30, GREEDY), Request(np.tile(prompt, 2), 30, GREEDY))
    ids = torch.tensor(prompt[None].astype(np.int64))
    config = hf.GenerationConfig(max_new_tokens=30, do_sample=False, pad_token_id=0)
    other._network.model.generation_config = hf.GenerationConfig(pad_token_id=0)
    whole = other._network.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    np.testing.assert_array_equal(chunk.ids, whole[0, len(prompt) :].numpy())


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_a_trace_does_not_depend_on_the_company_beyond_rounding(engine: Transformers, folder: Path) -> None:
    wanted = ask(3, top_k=2)
    (alone,) = run(Transformers(folder, device="cpu", slots=1, cache_mb=0), wanted)
    few = [ask(i, 25 + i, seed=i) for i in (0, 3, 5)]
    many = [ask(i % 12, 10 + 3 * i, seed=i, chunk=1 + i % 5, top_k=i % 3) for i in range(40)]
    many += [ask(i, 20, alone.ids[: 3 * i]) for i in range(6)]
    for company in (few, many, few[::-1]):
        assert_alike(run(engine, *company[:2], wanted, *company[2:])[2], alone)
    assert is_idle(engine)


def test_a_fork_takes_over_what_its_parent_computed(engine: Transformers) -> None:
    (whole,) = run(engine, ask(2, 60))
    forks = run(engine, *(ask(2, 60 - at, whole.ids[:at]) for at in (0, 1, 17, 40, 59)))
    for at, fork in zip((0, 1, 17, 40, 59), forks, strict=True):
        np.testing.assert_array_equal(fork.ids, whole.ids[at:])
        np.testing.assert_allclose(fork.signals.entropy, whole.signals.entropy[at:], atol=1e-4)
        assert fork.prompt == 1


def test_forks_of_a_running_trace(engine: Transformers) -> None:
    (whole,) = run(engine, ask(1, 50))

    async def fork_while_running() -> list[Chunk]:
        engine._kv._past.clear()
        running = asyncio.create_task(engine.generate(ask(1, 50)))
        while not engine._jobs or engine._kv.fed[0] < len(PROMPTS[1]) + 20:
            await asyncio.sleep(0)
        forks = [engine.generate(ask(1, 50 - at, whole.ids[:at])) for at in (5, 15, 20)]
        return [*await asyncio.gather(*forks), await running]

    *forks, running = asyncio.run(fork_while_running())
    assert_alike(running, whole)
    for at, fork in zip((5, 15, 20), forks, strict=True):
        np.testing.assert_array_equal(fork.ids, whole.ids[at:])
        assert fork.prompt == 1


def test_samples_of_one_prompt_compute_it_once(folder: Path) -> None:
    engine = Transformers(folder, device="cpu", slots=8)
    n = len(PROMPTS[0])
    chunks = run(engine, *(ask(0, 10, seed=s) for s in range(6)))
    assert sorted((c.prompt, c.reused) for c in chunks) == [(1, n - 1)] * 5 + [(n, 0)]


def test_the_past_is_kept_up_to_its_limit(folder: Path) -> None:
    engine = Transformers(folder, device="cpu", slots=4, cache_mb=1)
    run(engine, *(ask(i, 30) for i in range(12)))
    held = sum(past.size for past in engine._kv._past.values())
    assert 0 < held <= 2**20
    for _ in range(2):
        (recent,) = run(engine, ask(5, 30))
    assert recent.prompt == 1
    nothing = Transformers(folder, device="cpu", slots=4, cache_mb=0)
    run(nothing, ask(0, 5))
    assert not nothing._kv._past


def test_prompts_are_computed_in_pieces_where_they_are_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [ask(i, 10) for i in range(5)]
    expected = run(Transformers(folder, device="cpu", slots=8), *wanted)
    for module in ("transformers", "_scoring"):
        monkeypatch.setattr(f"wrongturn.engines.{module}.PIECE", 50)
    for a, b in zip(run(Transformers(folder, device="cpu", slots=8), *wanted), expected, strict=True):
        assert_alike(a, b)


def test_groups_of_prompts_hold_few_tokens() -> None:
    missing = np.array([0, 5000, 10, 0, 4000, 12, 11])
    assert [g.tolist() for g in groups(missing)] == [[1], [4], [5, 6, 2]]


# -- what a request may ask for ----------------------------------------------------------------------------------------


def test_hidden_states_are_those_each_token_was_drawn_from(engine: Transformers) -> None:
    async def pieces() -> list[Chunk]:
        return [chunk async for chunk in engine.stream(ask(0, 20, chunk=8, hidden=(2, -1, 0)))]

    chunks = asyncio.run(pieces())
    whole = Chunk.concat(chunks)
    (bare, narrow) = run(engine, ask(0, 20), ask(0, 20, hidden=(4,)))
    assert bare.hidden is None
    assert whole.hidden is not None
    assert narrow.hidden is not None
    _, states = plain(engine, ask(0, 20), whole)
    expected = np.stack([states[2], states[-1], states[0]], 1)
    assert whole.hidden.dtype == np.float16
    np.testing.assert_allclose(whole.hidden, expected, atol=2e-3, rtol=2e-3)
    np.testing.assert_allclose(narrow.hidden[:, 0], states[4], atol=2e-3, rtol=2e-3)
    piece = whole[3:5].hidden
    assert piece is not None
    np.testing.assert_array_equal(piece, whole.hidden[3:5])
    for layer in (5, -6):
        with pytest.raises(ValueError, match=f"hidden asks for layer {layer} of 4"):
            run(engine, ask(0, 1, hidden=(layer,)))
    assert is_idle(engine)


@dataclass(frozen=True)
class After:
    """Stop where a trace holds ``n`` tokens."""

    n: int
    needs_logprobs = False
    needs_ancestor = False

    def watch(self, rows: int) -> AfterWatch:
        return AfterWatch(self, np.zeros(rows, int))


@dataclass
class AfterWatch:
    condition: After
    held: np.ndarray

    def admit(self, row: int, ids: Sequence[int], signals: Signals) -> None:
        self.held[row] = len(ids)

    def step(self, rows: np.ndarray, last: np.ndarray, signals: Signals) -> np.ndarray:
        assert np.isnan(signals.nll).all()
        assert not np.isnan(signals.entropy).any()
        stop = self.held[rows] >= self.condition.n
        self.held[rows] += 1
        return stop

    def release(self, row: int) -> None:
        self.held[row] = -1


def test_until_stops_before_the_draw(engine: Transformers) -> None:
    whole, stopped, other = run(engine, ask(0, 30), ask(0, 30, until=After(10), hidden=(1,), top_k=2), ask(1, 15))
    assert (stopped.finish, len(stopped.ids), other.finish) == ("until", 10, "length")
    assert stopped.pending is not None
    np.testing.assert_allclose(stopped.pending.entropy[0], whole.signals.entropy[10], atol=1e-4)
    assert np.isnan(stopped.pending.nll[0])
    np.testing.assert_array_equal(stopped.ids, whole.ids[:10])
    assert stopped.hidden is not None
    assert stopped.hidden.shape[:2] == (10, 1)
    assert stopped.top_ids.shape == (10, 2)


def test_a_meter_is_never_overspent(engine: Transformers) -> None:
    meter = Meter(101)
    chunks = run(engine, *(ask(i % 12, 30, meter=meter) for i in range(20)))
    assert meter.spent == sum(len(c.ids) for c in chunks) == 101


def test_a_full_context_ends_a_trace(folder: Path) -> None:
    engine = Transformers(folder, device="cpu", slots=2, context=60)
    full, last = run(engine, ask(np.resize(PROMPTS[0], 57), 10), ask(np.resize(PROMPTS[0], 59), 10))
    assert (full.finish, len(full.ids)) == ("length", 3)
    assert (last.finish, len(last.ids)) == ("length", 1)
    with pytest.raises(ValueError, match="the prefix has 60 tokens; the context of"):
        run(engine, ask(np.resize(PROMPTS[0], 60), 1))


def test_leaving_early_frees_the_row(engine: Transformers) -> None:
    async def leave_early() -> None:
        async with aclosing(engine.stream(ask(0, 300, chunk=5))) as stream:
            async for _ in stream:
                break
        assert is_idle(engine)
        tasks = [asyncio.create_task(engine.generate(ask(i % 12, 300))) for i in range(20)]
        other = asyncio.create_task(engine.generate(ask(3, 30)))
        for _ in range(4):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert_alike(await other, (await asyncio.gather(engine.generate(ask(3, 30))))[0])

    asyncio.run(leave_early())
    assert is_idle(engine)


# -- types -------------------------------------------------------------------------------------------------------------


def test_half_precision_is_near(folder: Path, engine: Transformers) -> None:
    half = Transformers(folder, device="cpu", dtype="bfloat16", slots=4)
    (chunk,) = run(half, ask(0, 10))
    assert half.identity()["dtype"] == "bfloat16"
    assert np.isfinite(chunk.signals.dict()["nll"]).all()
    assert half.identity()["weights"] != engine.identity()["weights"]


def test_the_tensors_of_a_device_are_measured_there(folder: Path, engine: Transformers) -> None:
    """The path of a GPU, on the CPU."""
    from wrongturn.engines._device_signals import look

    on_device = Transformers(folder, device="cpu", slots=16)
    on_device._measured._look = look
    requests = [ask(i % 12, 40, seed=i, sampling=Sampling(1.0, (1.0, 0.9)[i % 2]), top_k=3) for i in range(16)]
    for a, b in zip(run(on_device, *requests), run(engine, *requests), strict=True):
        assert_alike(a, b)
        for name in FIELDS:
            np.testing.assert_allclose(getattr(a.signals, name), getattr(b.signals, name), atol=1e-4)
        np.testing.assert_array_equal(a.top_ids, b.top_ids)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        Transformers(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json there"):
        Transformers(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 32}')
    with pytest.raises(EngineError, match=r"transformers cannot load") as said:
        Transformers(tmp_path)
    assert "\n" not in str(said.value)
    with pytest.raises(ValueError, match="dtype must be auto"):
        Transformers(folder, dtype="int3")
    with pytest.raises(ValueError, match="device must be auto"):
        Transformers(folder, device="toaster")
    with pytest.raises(ValueError, match="slots must be at least 1"):
        Transformers(folder, slots=0)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="device 'cuda:1' was asked for, but torch sees none here"):
        device_named("cuda:1")


def test_a_recurrent_model_is_refused(tmp_path: Path) -> None:
    config = hf.MambaConfig(**TINY, hidden_size=32, num_hidden_layers=2)
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="only attention is supported"):
        Transformers(tmp_path, device="cpu", context=64)


def test_a_model_that_minds_its_company_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes no notice of the mask."""
    feed = Network.feed

    def unmasked(
        self: Network, place: Any, cache: Any, rows: Any, tokens: Any, starts: Any, *rest: Any, **kw: Any
    ) -> Any:
        return feed(self, place, cache, rows, tokens, np.full_like(starts, starts.min()), *rest, **kw)

    monkeypatch.setattr(Network, "feed", unmasked)
    with pytest.raises(EngineError, match="says something else in a batch than alone"):
        Transformers(folder, device="cpu")


@pytest.mark.parametrize("kind", ["device", "host"])
def test_out_of_memory_names_the_dials(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    engine = Transformers(folder, device="cpu", slots=2)

    def full(*_: Any, **__: Any) -> None:
        if kind == "device":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(engine._network.model, "forward", full)
        with pytest.raises(EngineError, match=r"lower slots \(now 2\), cache_mb \(now 1024\) or context") as said:
            run(engine, ask(0, 5), ask(1, 5))
        assert said.value.fatal
    assert is_idle(engine)
    assert len(run(engine, ask(0, 5))[0].ids) == 5
