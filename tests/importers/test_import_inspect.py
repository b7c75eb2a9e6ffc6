"""Inspect logs, written by Inspect itself (files/README.md), and read with its own library."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from wrongturn.errors import WrongturnError
from wrongturn.importers import load
from wrongturn.importers.inspect import _said
from wrongturn.store import Run

pytestmark = pytest.mark.extras
FILES = Path(__file__).with_name("files")


@pytest.fixture(scope="module")
def samples():
    """What the zip holds, without the library: one JSON a sample."""
    import zipfile_zstd  # noqa: F401  # teaches zipfile the compression; comes with Inspect

    with zipfile.ZipFile(FILES / "sums.eval") as file:
        names = [name for name in file.namelist() if name.startswith("samples/")]
        return {Path(name).stem: json.loads(file.read(name)) for name in names}


def test_samples_scores_and_log_probabilities(tmp_path, samples):
    facts = load("inspect", FILES / "sums.eval", tmp_path / "run").dict()
    run = Run.open(tmp_path / "run")
    assert (facts["traces"], facts["problems"], facts["skipped"]) == (6, 3, {})
    texts = run.vocabulary()
    outcomes = set()
    for trace in run.traces():
        told = samples[f"{trace.problem.removeprefix('sums/')}_epoch_{trace.provenance['epoch']}"]
        choice = told["output"]["choices"][0]
        assert "".join(trace.pieces) == trace.text == choice["message"]["content"]
        assert trace.correct is (told["scores"]["match"]["value"] == "C")
        assert trace.answer == told["scores"]["match"]["answer"]
        assert trace.finish == ("length" if choice["stop_reason"] == "max_tokens" else "stop")
        assert trace.usage.kept == told["output"]["usage"]["output_tokens"]
        assert (trace.provenance["model"], trace.provenance["metric"]) == ("mockllm/model", "match")
        content = choice["logprobs"]["content"]
        np.testing.assert_allclose(-trace.signals.nll, [entry["logprob"] for entry in content], rtol=1e-6)
        for row, chances, entry in zip(trace.top_ids.tolist(), trace.top_logprobs, content, strict=True):
            assert [texts[token] for token in row] == [top["token"] for top in entry["top_logprobs"]]
            np.testing.assert_allclose(chances, [top["logprob"] for top in entry["top_logprobs"]], rtol=1e-6)
        outcomes.add((trace.correct, trace.finish))
        assert run.problems()[trace.problem].reference == told["target"]
    assert len(outcomes) >= 2


def test_reasoning_is_part_of_what_was_said():
    """The log-probabilities are of both, so that a text without it would not be what the tokens wrote."""
    from inspect_ai.model import ChatMessageAssistant, ContentReasoning, ContentText

    hidden = ContentReasoning(reasoning="c2VjcmV0", redacted=True)
    parts = [ContentReasoning(reasoning="2 + 3\n"), hidden, ContentText(text="5")]
    assert _said(ChatMessageAssistant(content=parts)) == "2 + 3\n5"
    assert _said(ChatMessageAssistant(content="5")) == "5"


def test_json_logs_too(tmp_path):
    facts = load("auto", FILES / "sums.json", tmp_path / "run").dict()
    assert (facts["traces"], facts["skipped"]) == (1, {})
    trace = next(Run.open(tmp_path / "run").traces())
    assert (trace.text, trace.pieces, trace.correct) == ("5.", ["5", "."], True)


@pytest.mark.parametrize("data", [b"", b"PK", b"{}", b"\xff" * 99])
@pytest.mark.parametrize("name", ["x.eval", "x.json"])
def test_damaged_logs_are_one_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WrongturnError, match="not a readable Inspect log") as caught:
        load("inspect", tmp_path / name, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_damaged_sample_is_left_out(tmp_path):
    with zipfile.ZipFile(FILES / "sums.eval") as source, zipfile.ZipFile(tmp_path / "x.eval", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, b'{"id": 3}' if name == "samples/add-0_epoch_1.json" else data)
    facts = load("inspect", tmp_path / "x.eval", tmp_path / "run").dict()
    assert (facts["traces"], facts["skipped"]) == (5, {"malformed row": 1})
