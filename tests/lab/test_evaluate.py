"""Evaluation of a folder or the packaged model, and folders that do not fit together."""

from __future__ import annotations

import json
import shutil
import xml.dom.minidom
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wrongturn.cli_lab import lab
from wrongturn.engines.embedded import model_folder
from wrongturn.errors import WrongturnError
from wrongturn.lab import published
from wrongturn.lab.evaluate import evaluate, fresh, sample
from wrongturn.lab.folders import layout
from wrongturn.lab.split import held_out
from wrongturn.tasks import Distribution
from wrongturn.tasks import graphs as gs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the packaged model."""
    original = model_folder()
    return Path(shutil.copytree(original, tmp_path / "model"))


def told(*args: str) -> dict:
    done = CliRunner().invoke(lab, [*args, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_one_distribution_is_one_object(tmp_path: Path) -> None:
    found = told("eval", "--graphs", "G15_2,4", "-n", "12", "--seed", "3", "--plot", str(tmp_path / "e.svg"))
    assert found["distribution"] == "G15_2,4"
    for name in ("path_accuracy", "trace_accuracy"):
        assert set(found[name]) == {"value", "low", "high", "n"}
        assert found[name]["n"] == 12
    wrong = round(12 * (1 - found["trace_accuracy"]["value"]))
    assert sum(found["first_errors"].values()) == wrong
    assert found["path_accuracy"]["value"] >= 0.75  # 98 % on 500
    assert (found["layers"], found["heads"], found["decoding"]) == (4, 4, "greedy")
    xml.dom.minidom.parse(str(tmp_path / "e.svg"))


def test_several_distributions_and_sampling() -> None:
    found = told("eval", "--graphs", "G15_2,4", "--graphs", "G6_1,3", "-n", "4", "--sampled")
    assert [row["distribution"] for row in found["results"]] == ["G15_2,4", "G6_1,3"]
    assert found["decoding"] == "sampled"


def test_several_models_are_asked_the_same(tmp_path: Path) -> None:
    asked = ["eval", "graph_search", "ancestor", "--graphs", "G15_2,4", "--graphs", "G6_1,3", "-n", "4"]
    found = told(*asked, "--plot", str(tmp_path / "e.svg"))["models"]
    assert [one["model"] for one in found] == ["graph_search", "ancestor"]
    assert found[1]["results"] == told(*asked[:1], *asked[2:])["results"]
    xml.dom.minidom.parse(str(tmp_path / "e.svg"))
    shown = CliRunner().invoke(lab, asked).output
    lines = [line.split()[:3] for line in shown.splitlines() if " 4x4 " in line]
    models = (["graph_search", "4x4"], ["ancestor", "4x4"])
    assert lines == [[name, *model] for name in ("G15_2,4", "G6_1,3") for model in models]


def test_problems_are_of_test_classes_and_repeat() -> None:
    made = fresh(Distribution.parse("G15_2,4"), 8, 1)
    assert held_out([gs.parse_prompt(p.prompt_ids) for p in made]).all()
    assert [p.prompt for p in fresh(Distribution.parse("G15_2,4"), 4, 1)] == [p.prompt for p in made[:4]]
    with pytest.raises(ValueError, match="too few problems are held out"):
        fresh(Distribution.parse("G2_1,1"), 8, 1)


def test_samples_differ() -> None:
    traces, asked = sample(None, ["G15_5,6"], n=3, samples=2)
    assert len(traces) == 6
    assert {t.problem for t in traces} == set(asked)


def spoil_config(folder: Path, change: Callable[[dict], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_folder_that_does_not_fit_its_config_is_named(folder: Path) -> None:
    assert layout(folder).exported
    spoil_config(folder, lambda c: c.update(intermediate_size=300))
    with pytest.raises(WrongturnError, match=r"model.safetensors: tensor '.*gate_proj.weight' is \(256, 128\), but"):
        evaluate(folder, ["G15_2,4"], n=1)
    spoil_config(folder, lambda c: c.update(intermediate_size=256, num_hidden_layers=5))
    with pytest.raises(WrongturnError, match=r"'model.layers.4.*' is missing"):
        layout(folder)
    spoil_config(folder, lambda c: c.update(wrongturn_task="count"))
    with pytest.raises(WrongturnError, match=r"config.json: unknown task 'count' \(expected one of graph_search, "):
        layout(folder)
    spoil_config(folder, lambda c: c.update(wrongturn_task="countdown_search"))
    with pytest.raises(WrongturnError, match=r"config.json: a vocabulary of 31, but countdown_search has 216 words"):
        layout(folder)
    spoil_config(folder, lambda c: c.pop("wrongturn_task", None))
    spoil_config(folder, lambda c: c.update(num_hidden_layers=3))
    with pytest.raises(WrongturnError, match="is not part of the model"):
        layout(folder)
    spoil_config(folder, lambda c: c.pop("hidden_size"))
    with pytest.raises(WrongturnError, match=r"config.json: 'hidden_size' is missing"):
        layout(folder)


def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongturnError, match="nowhere: no such folder"):
        evaluate("nowhere", ["G15_2,4"], n=1)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(WrongturnError, match="was a copy cut short"):
        layout(folder)
    weights.write_bytes(b"no weights")
    with pytest.raises(WrongturnError, match="not a safetensors file"):
        layout(folder)
    weights.write_bytes(whole)
    (folder / "graph.onnx").unlink()
    with pytest.raises(WrongturnError, match=r"no graph\.onnx"):
        evaluate(folder, ["G15_2,4"], n=1)
    (folder / "config.json").write_text("{")
    with pytest.raises(WrongturnError, match=r"config.json: not JSON"):
        layout(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(WrongturnError, match="expected the settings of a model, found list"):
        layout(folder)
    (tmp_path / "config.json").write_text(json.dumps({"model": {}}))
    with pytest.raises(WrongturnError, match="'vocab' is missing"):
        layout(tmp_path)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["eval", "--graphs", "G15-2,4"], "not a graph distribution: 'G15-2,4'"),
        (["eval", "--graphs", "G99_2,4"], "nodes must be between 2 and 20"),
        (["eval", "--plot", "picture.png"], "must end in .svg"),
        (["anatomy", "--plot", "picture.png"], "must end in .svg"),
        (["train", "graph_serch", "--out", "x"], "did you mean 'graph_search'"),
        (["train", "countdown", "--out", "x"], "did you mean 'countdown_search'"),
        (["train", "graph_search", "--out", "x", "--width", "100"], "multiple of 16"),
        (["posttrain", "grpo", "nowhere", "--out", "x", "--reward", "style"], "unknown reward 'style'"),
    ],
)
def test_bad_input_is_one_clear_line(args: list[str], says: str) -> None:
    done = CliRunner().invoke(lab, args)
    assert isinstance(done.exception, (WrongturnError, ValueError)), done.output
    assert says in str(done.exception)
    assert "\n" not in str(done.exception)


def test_published_figures() -> None:
    assert published.accuracy("G15_2,4", 3, 4) == (89.21, 89.21)
    assert published.accuracy("G20_5,6", 4, 4) == (23.65, 28.02)
    assert published.accuracy("G9_2,4", 3, 4) is None


def test_anatomy_of_the_packaged_model() -> None:
    found = told("anatomy", "--graphs", "G15_5,6", "-n", "6", "--samples", "2")
    assert found["groups"][0]["traces"] == 12
    assert {c["name"] for c in found["claims"]} == {
        "queue_rules_kept",
        "neighbours_mislisted_as_graphs_grow",
        "head_of_long_paths_dropped",
    }
