"""Other tools' logs as runs. The files were really written by those tools: see files/README.md."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from wrongturn.cli_import import import_
from wrongturn.errors import WrongturnError
from wrongturn.importers import FORMATS, guess, load
from wrongturn.importers._tokens import words
from wrongturn.store import Run

FILES = Path(__file__).with_name("files")
GRAPHS = FILES / "samples_graphs_2026-11-22T08-29-21.155944.jsonl"
TWICE = FILES / "samples_graphs_twice_2026-11-22T08-29-21.155944.jsonl"
CHOICE = FILES / "samples_tiny_choice_2026-11-22T08-27-05.170570.jsonl"
EXPECTED = {
    GRAPHS: "lm-eval",
    FILES / "vllm_batch.jsonl": "openai-batch",
    FILES / "verifiers_traces.jsonl": "verifiers",
    FILES / "details_graphs.parquet": "lighteval",
    FILES / "sums.eval": "inspect",
    FILES / "sums.json": "inspect",
}


def imported(tmp_path, format, path, **options):
    """The facts of an import, and the run."""
    out = tmp_path / "run"
    return load(format, path, out, **options).dict(), Run.open(out)


def lines(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refusal(action, *args, **options) -> str:
    with pytest.raises(WrongturnError) as caught:
        action(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- each format -------------------------------------------------------------------------------------------------------


def test_lm_eval(tmp_path):
    facts, run = imported(tmp_path, "lm-eval", GRAPHS)
    assert facts == {"traces": 4, "skipped": {"another filter": 4}, "run": str(tmp_path / "run"), "problems": 4}
    rows = [json.loads(line) for line in GRAPHS.read_text().splitlines()]
    for trace, row in zip(run.traces(), rows, strict=False):
        problem = run.problems()[trace.problem]
        assert (trace.text, trace.answer) == (row["resps"][0][0], row["filtered_resps"][0])
        assert trace.correct is bool(row["exact_match"])
        assert (problem.prompt, problem.reference) == (row["doc"]["question"], row["target"])
        assert problem.group == trace.group == "graphs"
        assert trace.provenance["model"] == "./model"  # from the file of results beside
        assert trace.provenance["sampling"]["temperature"] == 1.0
        assert trace.provenance["metric"] == "exact_match"
        assert "".join(trace.pieces) == trace.text
        assert np.isnan(trace.signals.nll).all()


def test_lm_eval_with_another_filter(tmp_path):
    facts, run = imported(tmp_path, "lm-eval", GRAPHS, filter="first")
    assert facts["skipped"] == {"another filter": 4}
    assert [trace.correct for trace in run.traces()] == [False] * 4  # the whole text is not the answer


def test_lm_eval_repetitions_are_samples_and_one_metric_does_not_grade_two(tmp_path):
    rows = [json.loads(line) for line in TWICE.read_text().splitlines()][:4]
    rows[0]["resps"][0][1] += "!"  # the others' repetitions are the same
    facts, run = imported(tmp_path, "lm-eval", lines(tmp_path / "samples_twice.jsonl", *rows))
    assert (facts["traces"], facts["problems"]) == (8, 4)
    found = list(run.traces())
    assert [trace.sample for trace in found] == [0, 1] * 4
    assert [trace.text for trace in found] == [text for row in rows for text in row["resps"][0]]
    assert [trace.correct for trace in found] == [None] * 2 + [True] * 6
    assert [trace.answer for trace in found[:3]] == [None, None, rows[1]["filtered_resps"][0]]


def test_lm_eval_log_likelihoods_have_no_text(tmp_path):
    facts, _ = imported(tmp_path, "lm-eval", CHOICE)
    assert (facts["traces"], facts["skipped"]) == (0, {"no text": 4})


def test_openai_batch(tmp_path):
    told: list[str] = []
    options = {"requests_file": FILES / "requests.jsonl", "warn": told.append}
    facts, run = imported(tmp_path, "openai-batch", FILES / "vllm_batch.jsonl", **options)
    assert "max_tokens=100000 cannot be greater" in told[0]
    rows = {row["custom_id"]: row for row in map(json.loads, (FILES / "vllm_batch.jsonl").read_text().splitlines())}
    good = {name: row["response"]["body"] for name, row in rows.items() if row["response"]["status_code"] == 200}
    assert facts["skipped"] == {"request failed": len(rows) - len(good)}
    assert facts["traces"] == sum(len(body["choices"]) for body in good.values())
    for trace in run.traces():
        choice = good[trace.problem]["choices"][trace.sample]
        assert trace.text == choice["message"]["content"] or choice["finish_reason"] == "stop"
        assert trace.finish == ("length" if choice["finish_reason"] == "length" else "stop")
        assert run.problems()[trace.problem].messages[0]["role"] == "user"
        if (choice["logprobs"] or {}).get("content") is None:
            assert np.isnan(trace.signals.nll).all()
            continue
        content = choice["logprobs"]["content"]
        assert "".join(trace.pieces) == trace.text
        told = [entry["logprob"] for entry in content]
        np.testing.assert_allclose(-trace.signals.nll, told, rtol=1e-6)
        texts = run.vocabulary()
        for i, entry in enumerate(content):
            listed = sorted(entry["top_logprobs"], key=lambda top: -top["logprob"])
            known = trace.top_ids[i] >= 0
            assert [texts[token] for token in trace.top_ids[i][known].tolist()][:3] == [t["token"] for t in listed][:3]
        assert (trace.signals.missing >= 0).all()
        assert (trace.signals.entropy_low[trace.signals.missing > 0.01] > 0).all()


def test_verifiers(tmp_path):
    facts, run = imported(tmp_path, "verifiers", FILES / "verifiers_traces.jsonl")
    assert (facts["traces"], facts["skipped"]) == (2, {"no answer": 1})
    right, wrong = run.traces()
    assert (right.text, right.ids.tolist(), right.correct) == ("2 and 3 make 5.\n\n5", [7, 8, 9, 102], True)
    assert (wrong.correct, wrong.finish) == (False, "length")
    np.testing.assert_allclose(right.signals.nll, [0.5, 0.25, 1.0, 0.125])
    problem = run.problems()[right.problem]
    assert (problem.reference, [turn["role"] for turn in problem.messages]) == ("5", ["system", "user"])


def test_lighteval(tmp_path):
    rows = pq.read_table(FILES / "details_graphs.parquet").to_pylist()
    facts, run = imported(tmp_path, "lighteval", FILES / "details_graphs.parquet")
    assert (facts["traces"], facts["skipped"]) == (len(rows), {})
    for trace, row in zip(run.traces(), rows, strict=True):
        assert trace.text == row["model_response"]["text"][0]
        assert trace.usage.kept == len(row["model_response"]["output_tokens"][0])
        assert trace.correct is bool(next(iter(row["metric"].values())))
        assert run.problems()[trace.problem].prompt == row["doc"]["query"]


def test_lighteval_with_the_other_column_names(tmp_path):
    table = pq.read_table(FILES / "details_graphs.parquet")
    pq.write_table(table.rename_columns([f"__{name}__" for name in table.column_names]), tmp_path / "details_x.parquet")
    facts, _ = imported(tmp_path, "lighteval", tmp_path / "details_x.parquet")
    assert (facts["traces"], facts["skipped"]) == (len(table), {})


def test_chat_and_sharegpt(tmp_path):
    turns = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "Five.\n\nSo 5."}]
    chat = {"messages": turns, "reference": 5, "answer": "5", "correct": True, "model": "m", "finish_reason": "length"}
    share = {"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]}
    _, run = imported(tmp_path, "chat", lines(tmp_path / "chat.jsonl", chat, chat))
    first, second = run.traces()
    assert (first.sample, second.sample, first.problem) == (0, 1, second.problem)
    assert (first.answer, first.correct, first.finish, first.outcome) == ("5", True, "length", "right")
    assert run.problems()[first.problem].reference == "5"
    assert first.pieces == ["Five.\n\n", "So", " 5."]
    facts, run = imported(tmp_path, "sharegpt", lines(tmp_path / "share.jsonl", share))
    assert facts["traces"] == 1
    assert [trace.text for trace in run.traces()][-1] == "5"
    array = tmp_path / "share.json"
    array.write_text(json.dumps([share, {"conversations": []}]))
    facts, _ = imported(tmp_path / "b", "auto", array)
    assert (facts["traces"], facts["skipped"]) == (1, {"no answer": 1})


def test_completions_list_the_chosen_token_apart(tmp_path):
    """k + 1 entries where the chosen token is none of the k best: it must not count among them."""
    tops = [{"a": -0.1, "b": -3.0}, {"a": -0.1, "b": -3.0, "z": -6.0}]
    choice = {
        "text": "az",
        "finish_reason": "stop",
        "logprobs": {"tokens": ["a", "z"], "token_logprobs": [-0.1, -6.0], "top_logprobs": tops},
    }
    _, run = imported(tmp_path, "openai-batch", lines(tmp_path / "c.jsonl", {"id": "x", "choices": [choice]}))
    trace = next(run.traces())
    assert (trace.top_ids >= 0).sum(axis=1).tolist() == [2, 2]
    np.testing.assert_allclose(trace.signals.missing, 1 - math.exp(-0.1) - math.exp(-3), rtol=1e-5)
    np.testing.assert_allclose(trace.signals.nll, [0.1, 6.0], rtol=1e-6)


def test_half_characters_join_and_half_surrogates_are_replaced(tmp_path):
    smile = "🙂".encode()
    halves = [{"token": "bytes", "logprob": -1, "bytes": list(part)} for part in (smile[:2], smile[2:])]
    turns = [{"role": "user", "content": "x\ud83d"}, {"role": "assistant", "content": "🙂"}]
    path = lines(tmp_path / "c.jsonl", {"messages": turns, "logprobs": {"content": halves}})
    _, run = imported(tmp_path, "chat", path)
    trace = next(run.traces())
    assert trace.pieces == ["", "🙂"]
    assert run.problems()[trace.problem].prompt == "x\ufffd"
    assert imported(tmp_path, "chat", path)[0]["traces"] == 0


@pytest.mark.parametrize("text", ["", " ", "a", "a b", "\n\n a\n\n\n  b c \n", "x\ty  z", "\r\nq\r\n\r\nw"])
def test_words_join_to_the_text_and_end_with_their_lines(text):
    assert "".join(words(text)) == text
    assert not any("\n" in piece.lstrip().rstrip("\n") and piece.strip() for piece in words(text.replace("\r", "")))


# -- any format --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: path.name)
def test_formats_are_guessed(path):
    assert guess(path).name == EXPECTED[path]


def test_a_folder_is_read_whole_and_twice_is_once(tmp_path):
    facts, run = imported(tmp_path, "lm-eval", FILES)
    assert (facts["traces"], facts["skipped"]) == (12, {"another filter": 8, "no text": 4})
    again, _ = imported(tmp_path, "lm-eval", FILES)
    assert (again["traces"], again["skipped"]["already stored"], len(run)) == (0, 12, 12)
    told = json.loads((run.path / "imports.json").read_text())
    assert [source["traces"] for source in told] == [4, 8, 0]


def test_an_import_that_was_stopped_is_finished_by_the_next(tmp_path, monkeypatch):
    written = Run.append

    def killed(run, traces):
        written(run, traces[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        imported(tmp_path, "lm-eval", TWICE)
    monkeypatch.undo()
    facts, run = imported(tmp_path, "lm-eval", TWICE)
    assert (facts["traces"], facts["skipped"]["already stored"]) == (5, 3)
    assert len({trace.id for trace in run.traces()}) == 8
    assert {trace.problem for trace in run.traces()} <= run.problems().keys()


def test_a_second_file_adds_samples(tmp_path):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    imported(tmp_path, "chat", lines(tmp_path / "one.jsonl", row, row))
    facts, run = imported(tmp_path, "chat", lines(tmp_path / "two.jsonl", row))
    assert (facts["traces"], facts["problems"]) == (1, 1)
    assert [trace.sample for trace in run.traces()] == [0, 1, 2]


def test_a_problem_that_changed_is_left_out(tmp_path):
    row = {"problem": "p", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    other = {"problem": "p", "messages": [{"role": "user", "content": "r"}, {"role": "assistant", "content": "a"}]}
    facts, _ = imported(tmp_path, "chat", lines(tmp_path / "one.jsonl", row, other))
    assert (facts["traces"], facts["skipped"]) == (1, {"another problem": 1})


def test_bad_rows_are_named_the_first_ones(tmp_path):
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\xff\n{\n[1]\n" + json.dumps(good).encode() + b"\n" + b'{"messages": 3}\n' * 9)
    told: list[str] = []
    facts, _ = imported(tmp_path, "chat", path, warn=told.append)
    assert (facts["traces"], facts["skipped"]) == (1, {"not JSON": 2, "malformed row": 10})
    assert len(told) == 5
    assert all(line.startswith(f"{path}: row ") and "\n" not in line for line in told)
    assert "'messages' is 3, expected a list" in told[-1]


def test_what_cannot_be_read_is_one_line(tmp_path):
    out = tmp_path / "run"
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    assert "no such file" in refusal(load, "chat", tmp_path / "none.jsonl", out)
    assert "not one line" in refusal(load, "chat", tmp_path / "empty.jsonl", out)
    assert "not a readable Parquet" in refusal(load, "lighteval", tmp_path / "no.parquet", out)
    assert "no format" in refusal(load, "pickle", GRAPHS, out)
    assert "no log of a known format" in refusal(load, "auto", tmp_path / "empty.jsonl", out)
    assert "'speed' (there are: exact_match)" in refusal(load, "lm-eval", GRAPHS, out, metric="speed")
    other = tmp_path / "other"
    with Run.create(other, {"engine": "embedded"}):
        pass
    assert "give another --out" in refusal(load, "lm-eval", GRAPHS, other)


def test_the_command_prints_one_object(tmp_path, capsys):
    import_("lm-eval", GRAPHS, tmp_path / "run", as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"traces": 4, "skipped": {"another filter": 4}, "run": str(tmp_path / "run"), "problems": 4}
    import_("lm-eval", GRAPHS, tmp_path / "run")
    assert "4 left out: already stored" in capsys.readouterr().out


def test_every_format_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
    assert [name for name in FORMATS if f"`{name}`" not in page] == []
