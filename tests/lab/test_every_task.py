"""Every task end to end, tiny: trained, killed and gone on with, measured, exported, evaluated, trained further."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnx")

from wrongturn import Run  # noqa: E402
from wrongturn.cli import app  # noqa: E402
from wrongturn.cli_lab import lab  # noqa: E402
from wrongturn.engines.base import Request  # noqa: E402
from wrongturn.engines.embedded import Embedded  # noqa: E402
from wrongturn.errors import WrongturnError  # noqa: E402
from wrongturn.lab import recipes  # noqa: E402
from wrongturn.lab.checkpoints import ancestor  # noqa: E402
from wrongturn.lab.countdown_examples import CountdownRecipe  # noqa: E402
from wrongturn.lab.data import batches  # noqa: E402
from wrongturn.lab.decoding import decoded  # noqa: E402
from wrongturn.lab.evaluate import evaluate, sample  # noqa: E402
from wrongturn.lab.export import write  # noqa: E402
from wrongturn.lab.folders import layout  # noqa: E402
from wrongturn.lab.graph_examples import GraphRecipe  # noqa: E402
from wrongturn.lab.model import ModelConfig, Reasoner  # noqa: E402
from wrongturn.lab.train import TrainConfig, train  # noqa: E402

TASKS = ("graph_search_dfs", "graph_search_best", "countdown_search")


def config(task: str, tokens: int = 4_000) -> TrainConfig:
    recipe = (
        CountdownRecipe(numbers=(2, 3), batch=4)
        if task == "countdown_search"
        else GraphRecipe(task=task, nodes=6, start_nodes=(4, 5), batch=4)
    )
    model = ModelConfig(len(recipes.words(task)), layers=1, heads=2, width=32, ffn=32, context=recipe.context)
    return TrainConfig(model=model, recipe=recipe, tokens=tokens, save_seconds=0)


class Killed(Exception):
    pass


@pytest.fixture(scope="module", params=TASKS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed after 5 steps, and gone on with."""
    folder = tmp_path_factory.mktemp(request.param)

    def report(record: dict[str, float]) -> None:
        if record["step"] == 5:
            raise Killed

    with pytest.raises(Killed):
        train(config(request.param), folder, log_every=1, evaluate_every=0, report=report)
    train(config(request.param), folder, log_every=1, evaluate_every=0)
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    done = CliRunner().invoke(lab, ["export", str(trained), "--out", str(trained / "export"), "--json"])
    assert done.exit_code == 0, done.output
    return Path(json.loads(done.stdout)["export"])


@pytest.mark.parametrize("task", TASKS)
def test_trained_by_the_command_line(task: str, tmp_path: Path) -> None:
    small = ["--layers", "1", "--heads", "2", "--width", "32", "--ffn", "32", "--batch", "4", "--threads", "1"]
    done = CliRunner().invoke(lab, ["train", task, "--out", str(tmp_path), "--tokens", "3k", *small, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["tokens"] >= 3_000
    assert 0 <= told["exact"] <= 1
    found = layout(Path(told["export"]))
    assert (found.task, found.model["vocab"]) == (task, len(recipes.words(task)))
    assert found.model["context"] == recipes.recipe(task).context


def test_resumed_is_as_uninterrupted(trained: Path, tmp_path: Path) -> None:
    whole = train(config(layout(trained).task), tmp_path, evaluate_every=0)
    _, state, _ = ancestor(trained)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_the_folder_says_what_was_learned(trained: Path, exported: Path) -> None:
    settings = json.loads((trained / "config.json").read_text())
    task = settings["recipe"]["task"]
    assert layout(trained).task == layout(exported).task == task in TASKS
    assert recipes.RECIPES[task](**settings["recipe"]).longest() == config(task).recipe.longest()
    assert json.loads((exported / "config.json").read_text())["wrongturn_task"] == task


def test_the_tokenizer_is_the_tasks(exported: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    task = layout(exported).task
    known, recipe = recipes.own_tokens(task), config(task).recipe
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    for example in recipe.examples(np.random.default_rng(0), 1.0, 20):
        for ids in (example.prompt.tolist(), example.trace):  # together, two numbers of Countdown would be one
            text = "".join(known.pieces(ids))
            assert tokenizer(text).input_ids == [1, *known.encode(text)]
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
    with pytest.raises(Exception, match="WordLevel"):
        tokenizer("1 hello")


def test_transformers_and_the_engine_compute_the_same(exported: Path) -> None:
    task = layout(exported).task
    llama = transformers.AutoModelForCausalLM.from_pretrained(exported)
    engine = Embedded(exported)
    problem = recipes.recipe(task).fresh(recipes.recipe(task).distributions[0], 1, 1)[0]
    prompt = np.array(problem.prompt_ids, np.int32)
    assert engine.vocabulary is not None
    assert engine.vocabulary.prompt([{"role": "user", "content": problem.prompt}]) == list(problem.prompt_ids)
    chunk = asyncio.run(engine.generate(Request(prompt, 12, start=len(prompt), top_k=8)))
    with torch.no_grad():
        logits = llama(torch.tensor(np.concatenate((prompt, chunk.ids))[None])).logits[0, len(prompt) - 1 : -1]
    expected = np.take_along_axis(torch.log_softmax(logits, -1).numpy(), chunk.top_ids.astype(int), 1)
    np.testing.assert_allclose(chunk.top_logprobs, expected, atol=2e-4, rtol=0)


def test_evaluated_by_the_command_line(trained: Path, exported: Path, tmp_path: Path) -> None:
    """A checkpoint and its export alike, on problems of the model's own task."""
    task = layout(trained).task
    name = "C3" if task == "countdown_search" else "G6_1,3"
    found = []
    for folder in (trained, exported):
        picture = ["--plot", str(tmp_path / "e.svg")]
        done = CliRunner().invoke(lab, ["eval", str(folder), "--graphs", name, "-n", "6", *picture, "--json"])
        assert done.exit_code == 0, done.output
        found.append(json.loads(done.stdout))
        assert (found[-1]["task"], found[-1]["distribution"], found[-1]["path_accuracy"]["n"]) == (task, name, 6)
    assert found[0]["first_errors"] == found[1]["first_errors"]
    shown = CliRunner().invoke(lab, ["eval", str(exported), "--graphs", name, "-n", "3"])
    assert shown.exit_code == 0, shown.output
    assert "Published:" not in shown.output
    defaults = [row["distribution"] for row in evaluate(exported, n=1)["results"]]
    assert defaults == list(recipes.recipe(task).distributions)
    traces, asked = sample(exported, [name], n=2, samples=2)
    assert {t.task for t in traces} == {task} == {p.task for p in asked.values()}


def test_a_model_is_asked_what_it_has_learned(exported: Path, tmp_path: Path) -> None:
    """Without a file and --task, a run's problems are of the model's own task; the run has an anatomy as well."""
    task = layout(exported).task
    name = "C3" if task == "countdown_search" else "G6_1,3"
    run = tmp_path / "run"
    options = ["-m", f"embedded:{exported}", "--graphs", name, "-n", "3", "--out", str(run), "--json"]
    done = CliRunner().invoke(app, ["collect", *options])
    assert done.exit_code == 0, done.output
    assert {problem.task for problem in Run.open(run).problems().values()} == {task}
    done = CliRunner().invoke(lab, ["anatomy", str(run), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["task"] == task


def test_accuracy_is_logged(tmp_path: Path) -> None:
    decoded_keys, forced_keys = {"exact", "right"}, {"exact", "neighbour", "node", "exact_long"}
    for task in TASKS:
        records: list[dict[str, float]] = []
        train(config(task, 1_000), tmp_path / task, evaluate_every=1, log_every=10**6, report=records.append)
        keys = forced_keys if task == "graph_search_dfs" else decoded_keys
        assert keys < records[-1].keys()
        assert all(0 <= records[-1][key] <= 1 for key in keys)


def test_decoding_counts_what_the_checker_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine replaced by one that writes a known share of right traces."""
    import random

    from wrongturn.lab import evaluate as evaluation
    from wrongturn.tasks import countdown as cd
    from wrongturn.tasks import get

    recipe = config("countdown_search").recipe

    def solve(engine: object, problems: list, **options: object) -> list:
        made = []
        for i, problem in enumerate(problems):
            ids = cd.write(cd.parse_prompt(problem.prompt), problem.reference.split(","), random.Random(i))
            if i % 4 == 1:  # a wrong token, and the right answer all the same
                ids = [*cd.encode("1+1=3;"), *ids]
            elif i % 4 == 2:  # no answer
                ids = ids[: ids.index(cd.ANSWER)]
            task = get("countdown_search")
            checked = task.check(problem, ids)
            made.append(_Made(checked.error if checked else None, task.grade(problem, task.answer(ids))))
        return made

    monkeypatch.setattr(evaluation, "solve", solve)
    found = decoded(Reasoner(config("countdown_search").model), recipe, "C3", 40)
    assert found == {"exact": 0.5, "right": 0.75}


class _Made:
    def __init__(self, error: str | None, correct: bool | None) -> None:
        self.error, self.correct = error, correct


def test_trained_further(trained: Path, tmp_path: Path) -> None:
    """Supervised and reinforced, by the command line."""
    task = layout(trained).task
    name = "C3" if task == "countdown_search" else "G6_1,3"
    args = ["posttrain", "sft", str(trained), "--graphs", name, "--tokens", "3k", "--out", str(tmp_path / "sft")]
    done = CliRunner().invoke(lab, [*args, "--json"])
    assert done.exit_code == 0, done.output
    assert layout(Path(json.loads(done.stdout)["export"])).task == task
    rounds = ["--steps", "2", "--prompts", "2", "--samples", "2", "--threads", "1", "--json"]
    args = ["posttrain", "grpo", str(trained), "--graphs", name, "--out", str(tmp_path / "grpo"), *rounds]
    done = CliRunner().invoke(lab, args)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["step"] == 2
    assert {"right", "exact", "right_goal", "exact_goal"} < told.keys()
    assert layout(tmp_path / "grpo").task == layout(Path(told["export"])).task == task


def test_a_task_takes_its_own_words_and_room(trained: Path, tmp_path: Path) -> None:
    task, found = layout(trained).task, config(layout(trained).task)
    with pytest.raises(WrongturnError, match=r"a context of 64 tokens; the recipe needs \d+"):
        train(replace(found, model=replace(found.model, context=64)), tmp_path / "short")
    other = replace(found.model, vocab=40)
    state = {name: tensor.numpy() for name, tensor in Reasoner(other).state_dict().items()}
    with pytest.raises(ValueError, match=f"a vocabulary of 40, but {task} has"):
        write(other, state, tmp_path, task)


def test_a_folder_from_before_there_were_tasks_goes_on(tmp_path: Path) -> None:
    """Settings that came later take their defaults, which is what was done then; others are still refused."""
    recipe = GraphRecipe(nodes=6, start_nodes=(4, 5), batch=4)
    model = ModelConfig(layers=1, heads=2, width=32, ffn=32)
    made = TrainConfig(model=model, recipe=recipe, tokens=1_000)
    train(made, tmp_path, evaluate_every=0)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["recipe"]["task"], settings["ancestor"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert layout(tmp_path).task == "graph_search"
    train(made, tmp_path, evaluate_every=0)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="other settings"):
        train(replace(made, recipe=replace(recipe, task="graph_search_dfs")), tmp_path)


def test_batches_of_every_task_feed_a_model() -> None:
    for task in TASKS:
        made = config(task)
        ids, weights = next(batches(made.recipe, 0, 0, 1.0))
        assert ids.max() < made.model.vocab
        assert ids.shape[1] <= made.model.context
        assert (weights > 0).sum() > 0
