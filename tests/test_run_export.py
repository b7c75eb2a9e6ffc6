"""Runs as other tools read them."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from made_traces import made, made_problem
from wrongturn import export
from wrongturn.errors import WrongturnError
from wrongturn.importers import load
from wrongturn.signals import from_topk
from wrongturn.store import Run
from wrongturn.trace import Problem
from wrongturn.vocabulary import Interned

TURNS = ({"role": "system", "content": "Add."}, {"role": "user", "content": "2 + 3? é"})


def texty(words: Interned, i: int):
    """A trace whose tokens and alternatives have texts, of which one alternative is absent."""
    pieces = ["So", " 🙂", ":\n\n", f"{i}"]
    tops = np.log(np.array([[0.6, 0.3], [0.9, 0.05], [0.5, 0.4], [0.99, np.nan]], np.float32))
    trace = made(i, tokens=4, k=2, text="".join(pieces), offsets=np.cumsum([len(p) for p in pieces]).astype(np.int32))
    trace.problem, trace.id, trace.sample = "p", f"p/sample/{i}", i
    trace.ids = np.array([words.intern(piece) for piece in pieces], np.int32)
    trace.top_ids = np.array([[words.intern(p), words.intern("x")] for p in pieces], np.int32)
    trace.top_ids[3, 1] = -1
    trace.top_logprobs, trace.signals = tops, from_topk(tops, tops[:, 0])
    trace.answer, trace.correct = str(i), i == 1
    return trace


@pytest.fixture
def run(tmp_path):
    words = Interned()
    with Run.create(tmp_path / "run", {}) as run:
        run.add_problems([Problem("p", "exact", "2 + 3? é", reference="1", group="sums", messages=TURNS)])
        run.append([texty(words, 1), texty(words, 2)])
        known = {int(token) for trace in run.traces() for token in trace.top_ids.flat if token >= 0}
        run.add_vocabulary(dict(zip(known, words.pieces(known), strict=True)))
    return run


def same_tokens(found, expected, names, before):
    """Texts, log-probabilities and alternatives agree to a float32."""
    assert found.pieces == expected.pieces
    np.testing.assert_allclose(found.signals.nll, expected.signals.nll, rtol=1e-6)
    np.testing.assert_allclose(found.top_logprobs, expected.top_logprobs, rtol=1e-6)
    np.testing.assert_allclose(found.signals.entropy, expected.signals.entropy, rtol=1e-5)
    for one, other in zip(found.top_ids.flat, expected.top_ids.flat, strict=True):
        assert names.get(int(one)) == before.get(int(other))


def test_parquet_is_flat_and_null_where_nothing_is_known(run, tmp_path):
    assert export.write(run, "parquet", tmp_path / "x.parquet") == 2
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.equals(export.SCHEMA)
    for row, trace in zip(table.to_pylist(), run.traces(), strict=True):
        assert row["tokens"] == trace.pieces
        np.testing.assert_allclose(row["logprobs"], -trace.signals.nll, rtol=1e-6)
        assert row["top_tokens"] == [["So", "x"], [" 🙂", "x"], [":\n\n", "x"], [trace.pieces[3]]]
        assert row["entropy_high"] == [None] * 4  # nobody knows how many tokens there are
        assert (row["completion"], row["correct"], row["outcome"]) == (trace.text, trace.correct, trace.outcome)
        assert row["messages"] == list(TURNS)


def test_traces_without_texts_or_problems_can_be_exported(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        run.append([made(i) for i in range(4)])
        run.add_problems([made_problem(0)])
    assert export.write(run, "parquet", tmp_path / "x.parquet") == 4
    assert export.write(run, "jsonl", tmp_path / "x.jsonl") == 4
    row = pq.read_table(tmp_path / "x.parquet").to_pylist()[0]
    assert (row["tokens"], row["top_tokens"]) == (None, None)
    assert row["logprobs"][:2] == [None, pytest.approx(-next(run.traces()).signals.nll[1])]


def test_chat_lines_come_back_as_they_were(run, tmp_path):
    assert export.write(run, "jsonl", tmp_path / "x.jsonl") == 2
    assert load("chat", tmp_path / "x.jsonl", tmp_path / "back").dict()["traces"] == 2
    back = Run.open(tmp_path / "back")
    for found, expected in zip(back.traces(), run.traces(), strict=True):
        same_tokens(found, expected, back.vocabulary(), run.vocabulary())
        for name in ("text", "answer", "correct", "finish", "problem", "outcome"):
            assert getattr(found, name) == getattr(expected, name), name
        assert back.problems()["p"] == run.problems()["p"]


def test_refusals(run, tmp_path):
    with pytest.raises(WrongturnError, match="there are: parquet, inspect, jsonl"):
        export.write(run, "csv", tmp_path / "x.csv")
    with pytest.raises(WrongturnError, match="is a folder"):
        export.write(run, "jsonl", tmp_path)
    with pytest.raises(WrongturnError, match="No such file"):
        export.write(run, "jsonl", tmp_path / "none" / "x.jsonl")


def test_a_failed_export_leaves_the_old_file(run, tmp_path, monkeypatch):
    (tmp_path / "x.jsonl").write_text("old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_line", fail)
    with pytest.raises(KeyboardInterrupt):
        export.write(run, "jsonl", tmp_path / "x.jsonl")
    assert [(path.name, path.read_text()) for path in tmp_path.glob("*.jsonl")] == [("x.jsonl", "old")]


@pytest.mark.extras
def test_datasets_loads_the_parquet(run, tmp_path):
    datasets = pytest.importorskip("datasets")
    export.write(run, "parquet", tmp_path / "x.parquet")
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "x.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 2
    assert loaded[0]["tokens"] == next(run.traces()).pieces
    assert loaded[0]["messages"] == list(TURNS)


@pytest.mark.extras
@pytest.mark.parametrize("suffix", ["eval", "json"])
def test_inspect_reads_its_log_and_so_do_we(run, tmp_path, suffix):
    log = pytest.importorskip("inspect_ai.log")
    path = tmp_path / f"x.{suffix}"
    assert export.write(run, "inspect", path) == 2
    read = log.read_eval_log(str(path))
    assert [(sample.id, sample.epoch) for sample in read.samples] == [("p", 1), ("p", 2)]
    content = read.samples[0].output.choices[0].logprobs.content
    assert [entry.token for entry in content] == next(run.traces()).pieces
    assert [score.value for sample in read.samples for score in sample.scores.values()] == ["C", "I"]
    load("inspect", path, tmp_path / "back")
    back = Run.open(tmp_path / "back")
    for found, expected in zip(back.traces(), run.traces(), strict=True):
        same_tokens(found, expected, back.vocabulary(), run.vocabulary())
        assert (found.correct, found.answer, found.text) == (expected.correct, expected.answer, expected.text)


@pytest.mark.extras
def test_unknown_log_probabilities_survive_inspect(tmp_path):
    words = Interned()
    with Run.create(tmp_path / "run", {}) as run:
        trace = texty(words, 1)
        trace.signals.nll[1] = np.nan
        run.append([trace])
    export.write(run, "inspect", tmp_path / "x.eval")
    load("inspect", tmp_path / "x.eval", tmp_path / "back")
    found = next(Run.open(tmp_path / "back").traces())
    np.testing.assert_allclose(found.signals.nll, trace.signals.nll, rtol=1e-6)


def test_lines_are_json_others_can_read(run, tmp_path):
    export.write(run, "jsonl", tmp_path / "x.jsonl")
    for line in (tmp_path / "x.jsonl").read_text().splitlines():
        row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
