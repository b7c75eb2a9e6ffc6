"""Training: it learns, it resumes exactly, and what it is fed is right."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from wrongturn.errors import WrongturnError  # noqa: E402
from wrongturn.lab import checkpoints  # noqa: E402
from wrongturn.lab.forcing import exact_trace, forced, token_roles  # noqa: E402
from wrongturn.lab.graph_examples import GraphRecipe  # noqa: E402
from wrongturn.lab.machine import Machine, bytes_needed, check_memory, here, peak_flops, room  # noqa: E402
from wrongturn.lab.model import ModelConfig, Reasoner  # noqa: E402
from wrongturn.lab.train import TrainConfig, learning_rate, train  # noqa: E402
from wrongturn.tasks import graphs as gs  # noqa: E402

TINY = ModelConfig(layers=1, heads=2, width=32, ffn=32)
RECIPE = GraphRecipe(nodes=6, start_nodes=(4, 5), batch=4)
PROMPT = GraphRecipe(order="prompt")


def config(tokens: int = 20_000, **changes) -> TrainConfig:
    return TrainConfig(model=TINY, recipe=RECIPE, tokens=tokens, save_seconds=0, **changes)


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = train(config(), tmp_path / "whole", log_every=1, evaluate_every=0)

    resumed = None
    for last_step in (7, 21, 10**9):  # killed in the middle of a group, in the middle of the next one, and not at all

        def report(record: dict[str, float], last_step: int = last_step) -> None:
            if record["step"] == last_step:
                raise Killed

        try:
            resumed = train(config(), tmp_path / "cut", log_every=1, report=report, evaluate_every=0)
        except Killed:  # the step that was reported had not been saved yet
            assert json.loads((tmp_path / "cut" / "last" / "state.json").read_text())["step"] == last_step - 1
    assert resumed is not None
    logs = [
        [json.loads(line)["step"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert logs[0] == logs[1] == list(range(1, len(logs[0]) + 1))  # every step once
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_other_settings_are_refused(tmp_path: Path) -> None:
    train(config(tokens=1_000), tmp_path, evaluate_every=0)
    with pytest.raises(ValueError, match="other settings"):
        train(config(tokens=2_000), tmp_path)
    with pytest.raises(WrongturnError, match="begun with 1 processes, not 2"):
        train(config(tokens=1_000), tmp_path, machine=Machine(world=2))
    (tmp_path / "config.json").write_text("")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        train(config(tokens=1_000), tmp_path)


def test_a_line_that_was_cut_short_is_taken_out_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    with checkpoints.journal(tmp_path, 2) as opened:
        opened.write('{"step": 3, "again": true}\n')
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "again": true}\n'


def test_one_head_looks_back_once(tmp_path: Path) -> None:
    narrow = ModelConfig(layers=1, heads=1, width=32, ffn=32)
    train(TrainConfig(model=narrow, recipe=RECIPE, tokens=500), tmp_path, evaluate_every=0)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_loss_falls(tmp_path: Path, optimizer: str) -> None:
    records: list[dict[str, float]] = []
    train(config(tokens=150_000, optimizer=optimizer), tmp_path, log_every=20, report=records.append, evaluate_every=0)
    assert records[-1]["loss"] < 0.75 * records[0]["loss"]
    assert records[-1]["tokens"] >= 150_000


def test_exact_trace_is_what_greedy_decoding_gives() -> None:
    torch.manual_seed(0)
    model = Reasoner(TINY)
    assert exact_trace(model, "G6_1,3", n=64)["exact"] == 0
    roles = token_roles(gs.gold(gs.parse_prompt(gs.encode("1,3|2,4|1,2|0,1|0,2|3,4/0,4"))))
    assert roles.count("back") == 3
    assert roles.count("path") == 3
    assert roles.count("node") == 3
    assert roles.count("neighbour") == 5


class Knowing(torch.nn.Module):
    """Has learned the prompt's order of neighbours: knows every next token of these queries' traces."""

    def __init__(self, queries: list[gs.Query]) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(1, 1)
        self.rows = {tuple(gs.prompt_ids(q)): PROMPT.gold(q) for q in queries}

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*ids.shape, 31)
        for row, seen in zip(logits, ids.tolist(), strict=True):
            start = seen.index(gs.OPEN)
            for i, token in enumerate(self.rows[tuple(seen[:start])][: len(seen) - start + 1]):
                row[start - 1 + i, token] = 1
        return logits


def test_a_model_is_measured_in_the_order_it_has_learned() -> None:
    queries = list(islice(gs.Distribution.parse("G9_2,4").queries(0), 100))
    model: Any = Knowing(queries)
    known = forced(model, queries, PROMPT.gold)
    assert set(known.values()) == {1.0}
    other = forced(model, queries)
    same = np.mean([PROMPT.gold(q) == gs.gold(q) for q in queries])
    assert 0 < same == other["exact"] < 1
    assert other["neighbour"] < 1


def test_keeping_positions_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Reasoner(ModelConfig(layers=2, heads=2, width=32, ffn=32))
    ids = torch.randint(0, 31, (3, 20))
    keep = torch.rand(3, 20) > 0.5
    torch.testing.assert_close(model(ids, keep), model(ids)[keep])


def test_heads_are_born_looking_back() -> None:
    torch.manual_seed(0)
    model = Reasoner(ModelConfig(layers=1))
    model.look_back((1, 2))
    block, n = model.blocks[0], 60
    x = model.embed(torch.randint(3, 31, (1, n)))
    qk = block.qkv(block.norm1(x)).view(1, n, 3, 4, 32)[:, :, :2]
    from wrongturn.lab.model import rotate

    q, k = rotate(qk, model.cos[:n], model.sin[:n]).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / 32**0.5
    weights = scores.masked_fill(torch.triu(torch.ones(n, n, dtype=torch.bool), 1), -torch.inf).softmax(-1)[0]
    assert weights[0].diagonal(-1)[5:].mean() > 0.8
    assert weights[1].diagonal(-2)[5:].mean() > 0.8
    assert weights[2].diagonal(-1)[5:].mean() < 0.3


def test_parameter_count() -> None:
    for shape in (ModelConfig(), TINY):
        assert shape.parameters() == sum(p.numel() for p in Reasoner(shape).parameters())


def test_learning_rate() -> None:
    made = TrainConfig(lr=1.0, lr_end=0.02, warmup=0.01)
    assert learning_rate(made, 0.005) == pytest.approx(0.5)
    assert learning_rate(made, 0.01) == pytest.approx(1.0)
    assert learning_rate(made, 1.0) == pytest.approx(0.02)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WrongturnError, match=r"at step \d+; last good: the checkpoint of step (\d+)") as stopped:
        train(config(lr=1e18, optimizer="adamw", clip=1e30, warmup=0.9), tmp_path)
    named = int(str(stopped.value).split("of step ")[1].split(" ")[0])
    assert json.loads((tmp_path / "last" / "state.json").read_text())["step"] == named
    kept = load_file(tmp_path / "last" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_too_little_memory_says_what_would_fit() -> None:
    model = ModelConfig()
    with pytest.raises(WrongturnError, match=r"batches of (\d+) would fit") as refused:
        check_memory(model, 512, 300, "cpu", free=10**9)
    fits = int(str(refused.value).split("batches of ")[2].split(" ")[0])
    assert bytes_needed(model, fits, 300) <= 10**9 < bytes_needed(model, fits + 1, 300)
    check_memory(model, fits, 300, "cpu", free=10**9)
    with pytest.raises(WrongturnError, match="not even one example"):
        check_memory(model, 32, 300, "cpu", free=10**6)


def test_memory_that_caches_would_give_back_counts_as_free(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal: 16000000 kB\nMemFree:          120000 kB\nMemAvailable:    9000000 kB\n")
    assert room("cpu", told) == 9_000_000 * 1024
    told.unlink()
    check_memory(ModelConfig(), 32, 300, "cpu", free=room("cpu", told))  # nobody knows: it is tried


def test_the_estimate_of_memory_is_near_the_truth() -> None:
    """Bytes kept for the backward pass, counted by torch itself; within a factor of 1.5."""
    model, batch, tokens = Reasoner(ModelConfig()), 8, 192
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randint(3, 23, (batch, tokens)))
    estimated = bytes_needed(model.config, batch, tokens) - bytes_needed(model.config, 0, tokens)
    assert 1 / 1.5 < estimated / sum(kept.values()) < 1.5


def test_devices() -> None:
    assert here("cpu") == Machine("cpu")
    with pytest.raises(WrongturnError, match="unknown device 'tpu'"):
        here("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(WrongturnError, match="'cuda' is not there"):
            here("cuda")
    assert peak_flops("cpu", 0.02) > 1e8


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    """Both see other batches, and what they leave is one checkpoint on which both go on."""
    script = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "sys.path.insert(0, sys.argv[2]); from test_train import config, train, here\n"
        "machine = here('cpu'); model = train(config(), Path(sys.argv[1]), machine=machine, evaluate_every=0)\n"
        "print(machine.rank, sum(p.double().sum().item() for p in model.parameters()))\n"
    )
    (tmp_path / "go.py").write_text(script)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "go.py"), str(tmp_path / "out"), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    sums = dict(line.split() for line in done.stdout.splitlines() if line[:2] in ("0 ", "1 "))
    assert sums["0"] == sums["1"]
    assert json.loads((tmp_path / "out" / "last" / "state.json").read_text())["tokens"] >= 20_000
    alone = train(config(), tmp_path / "alone", evaluate_every=0)
    assert sum(p.double().sum().item() for p in alone.parameters()) != float(sums["0"])
