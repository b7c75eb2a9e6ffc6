"""The text of a trace is the log's, and its tokens are placed in it where they wrote it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrongturn.importers import load
from wrongturn.importers._tokens import ends
from wrongturn.store import Run


def imported(tmp_path, format, *rows):
    """The traces, and what was said."""
    path, told = tmp_path / "log.jsonl", []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load(format, path, tmp_path / "run", warn=told.append).dict()["skipped"] == {}
    return list(Run.open(tmp_path / "run").traces()), told


def completion(text, names):
    logprobs = {
        "tokens": names,
        "token_logprobs": [-0.5] * len(names),
        "top_logprobs": [{name: -0.5} for name in names],
    }
    return {"id": text, "choices": [{"text": text, "logprobs": logprobs}]}


def chat(message, *tokens, **further):
    content = [{"token": name, "logprob": -0.5} | ({"bytes": data} if data else {}) for name, data in tokens]
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": message}]
    return {"messages": turns, "logprobs": {"content": content}} | further


def test_names_with_half_characters_are_bytes(tmp_path):
    names = ["It", "bytes:\\xe2\\x80", "bytes:\\x99", "s", "bytes: \\xf0\\x9f", "bytes:\\x99\\x82"]
    [trace], told = imported(tmp_path, "openai-batch", completion("It’s 🙂", names))
    assert (trace.text, trace.pieces, told) == ("It’s 🙂", ["It", "", "’", "s", " ", "🙂"], [])
    assert set(names) <= set(Run.open(tmp_path / "run").vocabulary().values())


def test_names_that_look_like_bytes_are_text_where_the_text_says_so(tmp_path):
    [trace], _ = imported(tmp_path, "openai-batch", completion("bytes:\\xe2!", ["bytes:\\xe2", "!"]))
    assert (trace.text, trace.pieces) == ("bytes:\\xe2!", ["bytes:\\xe2", "!"])


def test_numbered_tokens_are_no_text(tmp_path):
    names = ["token_id:12", "token_id:7", "token_id:5"]
    rows = [completion("It is 5", names), completion("5", ["5"]), completion("It is 6", names)]
    traces, told = imported(tmp_path, "openai-batch", *rows)
    assert [trace.text for trace in traces] == ["It is 5", "5", "It is 6"]
    assert [trace.pieces for trace in traces] == [None, ["5"], None]
    np.testing.assert_allclose(traces[0].signals.nll, [0.5] * 3)
    assert len(told) == 1
    assert "log.jsonl: 2 completions whose tokens do not join to their text" in told[0]
    assert told[0].endswith("(first: row 1)")


def test_log_probabilities_of_a_part_leave_the_text_whole(tmp_path):
    row = chat("long thought Final answer: 5", ("Final", None), (" answer", None))
    [trace], told = imported(tmp_path, "chat", row)
    assert (trace.text, trace.pieces, len(trace)) == ("long thought Final answer: 5", None, 2)
    assert "1 completions whose tokens do not join" in told[0]


def test_one_token_without_bytes_does_not_spoil_the_others(tmp_path):
    smile = list("🙂".encode())
    [trace], told = imported(tmp_path, "chat", chat("🙂 5", ("x", smile[:2]), ("y", smile[2:]), (" 5", None)))
    assert (trace.pieces, told) == (["", "🙂", " 5"], [])


def test_reasoning_that_stands_apart_is_placed_without_its_marks(tmp_path):
    row = chat("x", *((name, None) for name in ("<think>", "2+3", "</think>", "\n\n", "5", "<|im_end|>")))
    row["messages"][-1] = {"role": "assistant", "content": "5", "reasoning_content": "2+3"}
    [trace], told = imported(tmp_path, "chat", row)
    assert (trace.pieces, trace.text, told) == (["", "2+3", "", "", "5", ""], "2+35", [])


@pytest.mark.parametrize(
    ("pieces", "text", "expected"),
    [
        (["a", "b"], "ab", [1, 2]),
        (["a", "b", "</s>"], "ab", [1, 2, 2]),
        (["a", "\n\nUser", ":"], "a", [1, 1, 1]),  # cut off by a stop condition
        (["a", " b\n"], "a b", [1, 3]),
        ([" a", "b"], "ab", [1, 2]),  # trimmed
        (["a", "<b>"], "a<b>", [1, 4]),
        (["a"], "ab", []),
        (["a", "x", "b"], "ab", []),
        (["a"], "", []),
        (["</s>"], "", [0]),
        ([], "a", []),
        ([], "", []),
    ],
)
def test_ends(pieces, text, expected):
    assert ends(pieces, text) == expected


@given(st.lists(st.text("ab <>\n", max_size=4), max_size=8))
def test_pieces_end_where_they_end_in_what_they_join_to(pieces):
    expected = np.cumsum([len(piece) for piece in pieces]).tolist()
    assert ends(pieces, "".join(pieces)) == expected


def test_a_reply_of_tool_calls_has_no_text(tmp_path):
    row = completion("", ["{"])
    row["choices"][0] = {
        "message": {"content": None, "tool_calls": [{}]},
        "logprobs": {"content": [{"token": "{", "logprob": -1}]},
    }
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n")
    assert load("openai-batch", tmp_path / "c.jsonl", tmp_path / "run").skipped == {"no answer": 1}


@pytest.mark.parametrize("part", [{"mask": [False, True]}, {"logprobs": [-0.5]}, {"mask": []}, {"token_ids": []}])
def test_tokens_of_verifiers_that_do_not_fit_are_told(tmp_path, part):
    rows = [
        json.loads(line)
        for line in (Path(__file__).with_name("files") / "verifiers_traces.jsonl").read_text().splitlines()
    ][:2]
    rows[0]["traces"][0]["nodes"][2] |= part
    (broken, whole), told = imported(tmp_path, "verifiers", *rows)
    assert broken.pieces is not None
    assert "".join(broken.pieces) == broken.text == "2 and 3 make 5.\n\n5"
    assert np.isnan(broken.signals.nll).all()
    assert not np.isnan(whole.signals.nll).any()
    assert len(told) == 1
    assert "1 completions whose 'token_ids', 'mask' and 'logprobs' do not fit" in told[0]


def test_a_log_without_log_probabilities_is_nothing_to_tell(tmp_path):
    rows = [
        json.loads(line)
        for line in (Path(__file__).with_name("files") / "verifiers_traces.jsonl").read_text().splitlines()
    ][:2]
    rows[0]["traces"][0]["nodes"][2]["logprobs"] = []
    assert imported(tmp_path, "verifiers", *rows)[1] == []
