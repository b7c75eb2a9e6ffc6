"""Reinforcement: advantages, the direction of an update, and a killed run that goes on as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

torch = pytest.importorskip("torch")

from wrongturn.engines.embedded import model_folder  # noqa: E402
from wrongturn.lab import checkpoints, grpo  # noqa: E402
from wrongturn.lab.model import ModelConfig, Reasoner  # noqa: E402
from wrongturn.tasks import countdown as cd  # noqa: E402
from wrongturn.tasks import graphs as gs  # noqa: E402

QUERY = gs.parse_prompt(gs.encode("1,3|2,4|1,2|0,1|0,2|3,4/0,4"))


def test_advantages() -> None:
    assert grpo.advantages([1, 1, 1]) == [0, 0, 0]
    assert grpo.advantages([1, 0, 0, 0]) == pytest.approx([3**0.5, *[-(3**-0.5)] * 3])
    assert np.std(grpo.advantages([0.2, 0.7, 0.9])) == pytest.approx(1)


def test_rewards() -> None:
    task = gs.GraphSearch()
    asked, puzzle = task.problem(QUERY, "q"), cd.Countdown().problem(cd.Puzzle((25, 3, 4), 88), ["25-3=22"], "p")
    for own, problem, text, wanted in (
        (task, asked, "<0,(1,2),1,(2,3),2,(4)-4,2,0>0,2,4", (1, 1)),
        (task, asked, "<0,(1,2),2,(4)-4,2,0>0,2,4", (1, 0)),  # 1 was never expanded
        (task, asked, "<0,(1,2),1,(2,3),2,(4)-4,2,0>0,1,2,4", (0, 0)),
        (cd.Countdown(), puzzle, "25-3=22;22*4=88;88!88;>25-3=22,22*4=88", (1, 1)),
        (cd.Countdown(), puzzle, "25-3=23;22*4=88;88!88;>25-3=22,22*4=88", (1, 0)),
        (cd.Countdown(), puzzle, "25-3=22;22*4=88;88!88;>25-3=22", (0, 0)),
    ):
        ids = np.array([*own.encode(text), gs.EOS])
        assert tuple(grpo.reward(own, problem, ids, kind) for kind in ("answer", "trace")) == wanted, text


def test_an_update_makes_good_traces_likelier_and_bad_ones_less() -> None:
    torch.manual_seed(0)
    config = grpo.GrpoConfig(model=ModelConfig(layers=1, heads=2, width=32, ffn=32))
    model = Reasoner(config.model)
    prompt, good, bad = gs.prompt_ids(QUERY), np.array(gs.gold(QUERY)), np.array(gs.encode("<0,(2,1),1"))

    def logprobs(ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            whole = torch.tensor([[*prompt, *ids.tolist()]])
            found = torch.log_softmax(model(whole[:, :-1])[0], -1).gather(-1, whole[0, 1:, None])[:, 0]
        return found[len(prompt) - 1 :].numpy()

    rows = [grpo.Rollout(prompt, good, logprobs(good), 1, 1.0), grpo.Rollout(prompt, bad, logprobs(bad), 0, -1.0)]
    before = logprobs(good).sum(), logprobs(bad).sum()
    loss = grpo.surrogate(model, rows, config)
    assert loss.item() == pytest.approx(len(bad) - len(good), abs=1e-3)  # on policy every ratio is 1
    loss.backward()
    torch.optim.SGD(model.parameters(), 1e-3).step()
    after = logprobs(good).sum(), logprobs(bad).sum()
    assert after[0] - after[1] > before[0] - before[1] + 0.1
    assert after[0] > before[0]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    folder = model_folder()
    model, start, sha = checkpoints.ancestor(folder)
    config = grpo.GrpoConfig(
        model=model,
        distribution="G20_5,6",
        steps=3,
        prompts=4,
        samples=4,
        batch=8,
        lr=1e-3,
        save_seconds=0,
        ancestor=sha,
    )
    whole = grpo.train(config, tmp_path / "whole", start=start, evaluate_every=0)
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert any(record["mixed"] for record in log)
    assert any(not torch.equal(start[name], tensor) for name, tensor in whole.state_dict().items())

    class Killed(Exception):
        pass

    def report(record: dict[str, float]) -> None:
        if record["step"] == 2:
            raise Killed

    with pytest.raises(Killed):
        grpo.train(config, tmp_path / "cut", start=start, report=report, evaluate_every=0)
    resumed = grpo.train(config, tmp_path / "cut", start=start, evaluate_every=0)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
