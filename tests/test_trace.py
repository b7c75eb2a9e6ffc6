"""Traces to rows and back, across versions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from made_traces import assert_same, made
from wrongturn import trace as module
from wrongturn.signals import FIELDS, Signals
from wrongturn.trace import FINISH, MIGRATIONS, OUTCOMES, TRACE_VERSION, Lineage, Trace, Usage

TEXT = st.text(max_size=8)
COUNT = st.integers(0, 2**40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)


def ids(*shape: int):
    return arrays.arrays(np.int32, shape)


def floats(*shape: int):
    return arrays.arrays(np.float32, shape, elements=st.floats(width=32))  # NaN and infinities too


@st.composite
def traces(draw) -> Trace:
    """Any trace; half of the time each optional field is left at its default."""
    n, k = draw(st.integers(0, 6)), draw(st.integers(0, 3))
    optional = {
        "group": TEXT,
        "sample": COUNT,
        "draft": COUNT,
        "strategy": TEXT,
        "text": TEXT,
        "offsets": ids(n),
        "answer": TEXT,
        "correct": st.booleans(),
        "onset": st.integers(-1, 6),
        "error": TEXT,
        "lineage": st.builds(Lineage, TEXT, COUNT, TEXT),
        "events": st.lists(OBJECT, max_size=3),
        "usage": st.builds(Usage, *[COUNT] * 7, st.floats(0, 1e6)),
        "top_ids": ids(n, k),
        "provenance": OBJECT,
    }
    given = {name: draw(values) for name, values in optional.items() if draw(st.booleans())}
    if "top_ids" in given:
        given["top_logprobs"] = draw(floats(n, k))
    return Trace(
        draw(st.text(min_size=1, max_size=8)),
        problem=draw(TEXT),
        task=draw(TEXT),
        prompt_ids=draw(ids(draw(st.integers(0, 4)))),
        ids=draw(ids(n)),
        signals=Signals(*draw(floats(len(FIELDS), n))),
        finish=draw(st.sampled_from(FINISH)),
        **given,
    )


@given(traces())
def test_a_trace_survives_its_record(trace):
    record = trace.to_record()
    found = Trace.from_record(record)
    assert_same(found, trace)
    assert found.top_ids.shape == found.top_logprobs.shape == (len(trace), record["top_k"])


@given(traces())
def test_a_record_is_flat(trace):
    for name, value in trace.to_record().items():
        if isinstance(value, np.ndarray):
            assert value.ndim == 1, name
        else:
            assert name in ("events", "provenance") or value is None or isinstance(value, str | int | float), name


def test_lists_become_typed_arrays():
    record = made(1).to_record()
    lists = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in record.items()}
    assert_same(Trace.from_record(lists), made(1))


@pytest.mark.parametrize("name", sorted(made(1).to_record().keys() - {"version"}))
def test_a_missing_field_is_named(name):
    record = made(1).to_record()
    del record[name]
    with pytest.raises(ValueError, match=f"'p0/sample/1'.*'{name}' is missing" if name != "id" else "'id' is missing"):
        Trace.from_record(record)


def test_from_record_leaves_the_record_alone():
    record = made(1).to_record()
    names = list(record)
    Trace.from_record(record)
    assert list(record) == names


@pytest.mark.parametrize(
    "fields",
    [
        {"signals": Signals.empty(19)},
        {"signals": Signals.empty(0)},
        {"ids": np.zeros(3, np.int32)},
        {"top_ids": np.zeros((19, 3), np.int32), "top_logprobs": np.zeros((19, 3), np.float32)},
        {"top_logprobs": np.zeros((20, 2), np.float32)},
        {"top_ids": np.zeros(60, np.int32), "top_logprobs": np.zeros(60, np.float32)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(fields):
    with pytest.raises(ValueError, match=r"trace 'p0/sample/1': \d+ tokens, but"):
        made(1, **fields).to_record()


@pytest.mark.parametrize("name", ["ids", "signal.nll", "top_ids", "top_logprobs"])
def test_stored_arrays_that_do_not_fit_are_refused(name):
    record = made(1).to_record()
    record[name] = record[name][:-1]
    with pytest.raises(ValueError, match="trace 'p0/sample/1': "):
        Trace.from_record(record)


# -- versions ----------------------------------------------------------------------------------------------------------


def old_record() -> dict:
    """What a version 0 might have written: ``tokens`` for ``ids``, no drafts."""
    record = made(1).to_record()
    record["tokens"] = record.pop("ids")
    del record["draft"]
    return record | {"version": 0}


def from_0(record: dict) -> dict:
    return record | {"ids": record["tokens"], "draft": 7}


def test_an_old_record_is_migrated(monkeypatch):
    monkeypatch.setitem(MIGRATIONS, 0, from_0)
    record = old_record()
    found = Trace.from_record(record)
    assert found.version == TRACE_VERSION
    assert_same(found, made(1, draft=7))
    assert record["version"] == 0
    assert "ids" not in record


def test_migrations_are_applied_one_after_the_other(monkeypatch):
    monkeypatch.setattr(module, "TRACE_VERSION", 2)
    monkeypatch.setitem(MIGRATIONS, 0, from_0)
    monkeypatch.setitem(MIGRATIONS, 1, lambda record: record | {"draft": record["draft"] + 1})
    assert Trace.from_record(old_record()).draft == 8
    assert Trace.from_record(made(1, draft=3).to_record() | {"version": 1}).draft == 4
    assert Trace.from_record(made(1, draft=3).to_record() | {"version": 2}).draft == 3


def test_a_version_without_migration_is_refused():
    with pytest.raises(ValueError, match="version 0, which was never published"):
        Trace.from_record(old_record())


def test_a_newer_version_is_refused():
    record = made(1).to_record() | {"version": TRACE_VERSION + 1, "new": 1}
    with pytest.raises(
        ValueError, match=f"'p0/sample/1' has version {TRACE_VERSION + 1}.*up to {TRACE_VERSION}: upgrade"
    ):
        Trace.from_record(record)


# -- small things ------------------------------------------------------------------------------------------------------


def test_usage_adds_up():
    total = Usage(prompt=1, kept=2, dropped=3, seconds=0.5) + Usage(prompt=10, kept=20, judge=4, seconds=0.25)
    assert total == Usage(prompt=11, kept=22, dropped=3, judge=4, seconds=0.75)
    assert total.decoded == 25


def test_traces_can_be_compared_and_collected():
    one, other = made(1), made(1)
    assert one == one
    assert one != other
    assert one in [other, one]
    assert len({one, other}) == 2


def test_a_version_1_trace_has_no_offsets():
    record = made(1).to_record() | {"version": 1}
    del record["offsets"]
    found = Trace.from_record(record)
    assert found.version == TRACE_VERSION
    assert found.pieces is None


def test_pieces_are_cut_at_the_offsets():
    trace = made(1, tokens=3, text="a, é!", offsets=np.array([1, 1, 5], np.int32))
    assert trace.pieces == ["a", "", ", é!"]
    assert made(1, tokens=3).pieces is None


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"answer": "7", "correct": True}, "right"),
        ({"answer": "7", "correct": False}, "wrong"),
        ({"answer": None, "correct": True}, "right"),  # a log that tells the grade, not the answer
        ({"answer": "7", "correct": None}, "ungraded"),
        ({"answer": None, "correct": False, "finish": "length"}, "truncated"),
        ({"answer": None, "correct": False, "finish": "budget"}, "truncated"),
        ({"answer": "7", "correct": False, "finish": "length"}, "wrong"),
        ({"answer": None, "correct": False, "finish": "stop"}, "unparsed"),
    ],
)
def test_a_failure_is_not_always_a_wrong_answer(fields, outcome):
    assert made(1, **fields).outcome == outcome
    assert outcome in OUTCOMES


def test_no_tokens_are_missing():
    assert made(0, tokens=0).outcome == "missing"
