"""Whatever a file holds: traces, a counted reason, or one line. Never a traceback."""

import copy
import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wrongturn.errors import WrongturnError
from wrongturn.importers import FORMATS, load
from wrongturn.importers._tokens import to_trace
from wrongturn.importers.base import Imported, Log, Skipped, Unusable, read
from wrongturn.store import Run
from wrongturn.vocabulary import Interned

FILES = Path(__file__).with_name("files")
LINES = ("lm-eval", "openai-batch", "verifiers", "sharegpt", "chat")
CHAT = {
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "ab"}],
    "logprobs": {
        "content": [
            {"token": t, "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": t, "logprob": -0.5}]} for t in "ab"
        ]
    },
    "correct": 1,
}
SHARE = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"}
COMPLETION = {
    "id": "x",
    "choices": [
        {
            "text": "ab",
            "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1, -2], "top_logprobs": [{"a": -1}, {"c": -1}]},
        }
    ],
    "usage": {"completion_tokens": 2},
}
OLD = {"prompt": [{"role": "user", "content": "q"}], "completion": "a", "reward": 1.0, "example_id": 3}


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (FILES / name).read_text().splitlines()]


SEEDS = {
    "lm-eval": rows("samples_graphs_2026-11-22T08-29-21.155944.jsonl")[:2],
    "openai-batch": [rows("vllm_batch.jsonl")[-1], COMPLETION],
    "verifiers": [*rows("verifiers_traces.jsonl")[:1], OLD],
    "sharegpt": [SHARE],
    "chat": [CHAT],
}
ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1e400,
        float("nan"),
        10**400,
        2**63,
        "",
        "\ud83d",
        "\x00",
        [],
        [[]],
        {},
        [None],
        {"": 0},
        "9" * 30,
    ]
) | st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=3), max_leaves=5
)


def places(value, path=()):
    """The paths to everything inside a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw, seeds):
    """A valid row with up to three of its fields dropped or replaced."""
    row = json.loads(json.dumps(draw(st.sampled_from(seeds))))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(row) if path] or [()]))
        if not path:
            break
        inside = row
        for key in path[:-1]:
            inside = inside[key]
        if draw(st.booleans()):
            inside[path[-1]] = copy.deepcopy(draw(ODD))  # a later mutation may reach into it
        else:
            del inside[path[-1]]
    return row


def outcome(kind: str, path: Path):
    """Everything an import does to a file but writing it down; all that it says is one line."""
    vocabulary, said = Interned(), []
    try:
        for entry in read(FORMATS[kind], Log(path)):
            if isinstance(entry, Skipped):
                said += [entry.reason, entry.message]
                continue
            try:
                to_trace(entry, "id", 0, vocabulary).to_record()
            except Unusable as problem:
                said.append(str(problem))
    except WrongturnError as problem:
        said.append(str(problem))
    assert all(line and "\n" not in line for line in said)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "samples_x.jsonl"


quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(st.binary(max_size=200), st.sampled_from([*LINES, "lighteval"]))
def test_any_bytes(path, data, kind):
    path.write_bytes(data)
    outcome(kind, path)


@pytest.mark.parametrize("kind", LINES)
def test_mutated_rows(path, kind):
    @quick
    @given(mutated(SEEDS[kind]), st.integers(0, 400))
    def check(row, cut):
        line = json.dumps(row)
        path.write_text(f"{line}\n{line[:-cut]}\n")
        outcome(kind, path)

    check()


@pytest.mark.extras
@settings(max_examples=20, deadline=None)
@given(st.lists(mutated(SEEDS["chat"]), min_size=1, max_size=4))
def test_what_is_left_is_stored_and_read_again(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("stored")
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = load("chat", folder / "c.jsonl", folder / "run").dict()
    assert facts["traces"] + sum(facts["skipped"].values()) == len(rows)
    run = Run.open(folder / "run")
    assert len(list(run.traces())) == facts["traces"]
    again = load("chat", folder / "c.jsonl", folder / "run").dict()
    assert (again["traces"], again["skipped"].get("already stored", 0)) == (0, facts["traces"])


def test_a_row_deeper_than_python_goes(path):
    path.write_text("[" * sys.getrecursionlimit() * 50 + "\n" + '{"messages": []}\n')
    outcome("chat", path)
    path.write_text('{"a": ' * 200_000 + "\n" + json.dumps(CHAT) + "\n")
    found = [type(entry) for entry in read(FORMATS["chat"], Log(path))]
    assert found == [Skipped, Imported]
