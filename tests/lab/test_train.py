"""Training: it learns, it resumes exactly, and what it is fed is right."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from wrongturn.lab import data  # noqa: E402
from wrongturn.lab.data import GROUP, Recipe, batches  # noqa: E402
from wrongturn.lab.model import ModelConfig, Reasoner  # noqa: E402
from wrongturn.lab.train import TrainConfig, exact_trace, learning_rate, token_roles, train  # noqa: E402
from wrongturn.tasks import graphs as gs  # noqa: E402

TINY = ModelConfig(layers=1, heads=2, width=32, ffn=32)
RECIPE = Recipe(nodes=6, start_nodes=(4, 5), batch=4)


def config(tokens: int = 20_000, **changes) -> TrainConfig:
    return TrainConfig(model=TINY, recipe=RECIPE, tokens=tokens, save_seconds=0, **changes)


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = train(config(), tmp_path / "whole", log_every=1)

    resumed = None
    for last_step in (7, 21, 10**9):  # killed in the middle of a group, in the middle of the next one, and not at all

        def report(record: dict[str, float], last_step: int = last_step) -> None:
            if record["step"] == last_step:
                raise Killed

        try:
            resumed = train(config(), tmp_path / "cut", log_every=1, report=report)
        except Killed:  # the step that was reported had not been saved yet
            assert json.loads((tmp_path / "cut" / "last" / "state.json").read_text())["step"] == last_step - 1
    assert resumed is not None
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_other_settings_are_refused(tmp_path: Path) -> None:
    train(config(tokens=1_000), tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        train(config(tokens=2_000), tmp_path)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_loss_falls(tmp_path: Path, optimizer: str) -> None:
    records: list[dict[str, float]] = []
    train(config(tokens=150_000, optimizer=optimizer), tmp_path, log_every=20, report=records.append)
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
    q, k, _ = block.qkv(block.norm1(x)).view(1, n, 3, 4, 32).permute(2, 0, 3, 1, 4)
    from wrongturn.lab.model import rotate

    scores = (
        rotate(q, model.cos[:n], model.sin[:n]) @ rotate(k, model.cos[:n], model.sin[:n]).transpose(-1, -2)
    ) / 32**0.5
    weights = scores.masked_fill(torch.triu(torch.ones(n, n, dtype=torch.bool), 1), -torch.inf).softmax(-1)[0]
    assert weights[0].diagonal(-1)[5:].mean() > 0.8
    assert weights[1].diagonal(-2)[5:].mean() > 0.8
    assert weights[2].diagonal(-1)[5:].mean() < 0.3


def test_parameter_count() -> None:
    for shape in (ModelConfig(), TINY):
        assert shape.parameters() == sum(p.numel() for p in Reasoner(shape).parameters())


def test_searches_and_drills_are_right() -> None:
    rng = random.Random(0)
    for _ in range(50):
        prompt, trace, _ = data.search(rng, 12, (2, 4))
        assert gs.check(gs.parse_prompt(prompt), trace).exact
        prompt, trace, free = data.listing_drill(rng, 8)
        assert gs.VOCAB[prompt[-1]] == "/"
        assert all(gs.VOCAB[trace[i + 1]] == ",(" for i in free)
        prompt, trace, _ = data.traversal_drill(rng, 8)
        # given its last node as the target, a traversal is a search but for where it stopped
        last = trace[trace.index(gs.FOUND) + 1] - gs.FIRST_LABEL
        query = gs.parse_prompt([*prompt, gs.COMMA, last + gs.FIRST_LABEL])
        checked = gs.check(query, trace)
        assert checked.error in (None, "late_stop", "early_stop")


def test_batches_weigh_the_trace_alone() -> None:
    ids, weights = next(batches(RECIPE, 0, 0, 1.0))
    assert ids.shape == weights.shape
    for row, weight in zip(ids, weights, strict=True):
        opening = row.tolist().index(gs.OPEN)
        assert not weight[:opening].any()
        assert not weight[row == gs.PAD].any()
        labels = (row >= gs.FIRST_LABEL) & (row < gs.FIRST_LABEL + gs.LABELS) & (np.arange(len(row)) > opening)
        assert set(weight[labels].tolist()) <= {0.0, RECIPE.label_weight}


def test_batches_depend_on_their_number_alone() -> None:
    whole = list(batches(RECIPE, 0, 0, 0.5))
    tail = list(islice(batches(RECIPE, 0, 5, 0.5), GROUP))
    assert len(whole) == GROUP
    assert len(tail) == GROUP - 5
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(whole[5:], tail, strict=True))


def test_learning_rate() -> None:
    made = TrainConfig(lr=1.0, lr_end=0.02, warmup=0.01)
    assert learning_rate(made, 0.005) == pytest.approx(0.5)
    assert learning_rate(made, 0.01) == pytest.approx(1.0)
    assert learning_rate(made, 1.0) == pytest.approx(0.02)
