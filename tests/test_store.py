"""Runs on disk: what goes in comes out, whatever is killed, full, foreign or damaged."""

import errno
import gc
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_traces import assert_same, made, made_problem
from test_trace import from_0, old_record, traces
from wrongturn import folder, store
from wrongturn.columns import TRACES
from wrongturn.errors import WrongturnError
from wrongturn.store import Failure, Run
from wrongturn.trace import MIGRATIONS, TRACE_VERSION, Problem, Trace

SETTINGS = {"engine": "embedded", "sampling": {"temperature": 1.0, "top_p": 0.9}, "strategies": ["sample", "guard"]}
CHILD = Path(__file__).with_name("store_child.py")
ENV = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run"


def parts(path: Path) -> list[Path]:
    return sorted((path / "traces").glob("*.parquet"))


def leftovers(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.name.endswith(".tmp")]


def stored(path: Path, *batches: list[Trace]) -> Path:
    """A closed run of these parts."""
    with Run.create(path, SETTINGS) as run:
        for batch in batches:
            run.append(batch)
    return path


def rewrite(part: Path, change) -> None:
    """Put another table in the place of a part."""
    table = change(pq.read_table(part))
    pq.write_table(table, part)


def refusal(action, *args, **options) -> str:
    """The one line with which an action is refused."""
    with pytest.raises(WrongturnError) as caught:
        action(*args, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


# -- what goes in comes out --------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.lists(traces(), max_size=6, unique_by=lambda trace: trace.id), st.integers(1, 6), st.booleans())
def test_any_traces_come_back_in_order(tmp_path_factory, batch, size, compacted):
    with Run.create(tmp_path_factory.mktemp("any") / "run", {}) as run:
        for start in range(0, len(batch), size):
            run.append(batch[start : start + size])
        if compacted:
            run.compact()
    found = list(Run.open(run.path).traces())
    assert len(found) == len(batch)
    for trace, expected in zip(found, batch, strict=True):
        assert_same(trace, expected)


def test_every_field_of_a_record_has_a_column():
    assert set(made(1).to_record()) == set(TRACES.names)


def test_bounds_that_equal_the_entropy_take_no_room_and_come_back(path):
    batch = [made(i) for i in range(4)] + [made(6, tokens=0)]
    for trace in batch[:2]:
        trace.signals.entropy[3] = np.nan
        trace.signals.entropy_low[:] = trace.signals.entropy_high[:] = trace.signals.entropy
    run = Run.open(stored(path, batch))
    assert pq.read_table(parts(path)[0])["signal.entropy_low"].null_count == 3  # the empty one too
    for trace, expected in zip(run.traces(), batch, strict=True):
        assert_same(trace, expected)
    low = run.table(["signal.entropy_low"])["signal.entropy_low"].combine_chunks()
    np.testing.assert_array_equal(low.flatten(), np.concatenate([trace.signals.entropy_low for trace in batch]))


def test_nothing_appended_is_no_part(path):
    with Run.create(path, {}) as run:
        run.append([])
        assert parts(path) == []
        assert (len(run), run.done(), list(run.traces()), run.summary()) == (0, set(), [], [])
        assert run.table().schema.equals(TRACES)


def test_a_created_run_reads_what_it_writes(path):
    with Run.create(path, {}) as run:
        run.append([made(0), made(1)])
        run.append([made(2)])
        assert run.done() == {"p0/sample/0", "p0/sample/1", "p0/sample/2"}
        assert [trace.id for trace in run.traces()] == ["p0/sample/0", "p0/sample/1", "p0/sample/2"]


def test_an_open_run_sees_later_parts(path):
    with Run.create(path, {}) as run:
        run.append([made(0)])
        reader = Run.open(path)
        run.append([made(1)])
        assert len(reader) == 2
        run.compact()
        assert len(list(reader.traces())) == len(reader) == 2


def test_a_stored_id_is_not_stored_again(path):
    with Run.create(path, {}) as run:
        run.append([made(0, text="first"), made(0, text="second")])
        run.append([made(0, text="third"), made(1)])
        run.append([made(1)])
    with Run.create(path, {}) as run:
        run.append([made(0), made(1)])
    assert [(trace.id, trace.text) for trace in Run.open(path).traces()] == [
        ("p0/sample/0", "first"),
        ("p0/sample/1", "«0,(1)»"),
    ]
    assert len(parts(path)) == 2


def test_arrays_are_ordinary(path):
    trace = next(Run.open(stored(path, [made(1), made(2)])).traces())
    trace.signals.entropy[0] = 5
    trace.ids[0] = 5
    assert trace.ids.flags.writeable


def test_filters_and_columns(path):
    batch = [made(i) for i in range(12)]
    run = Run.open(stored(path, batch[:6], batch[6:]))
    assert [t.id for t in run.traces(group="G1", correct=True)] == [
        t.id for t in batch if t.group == "G1" and t.correct
    ]
    assert [t.id for t in run.traces(id="p2/sample/0")] == ["p2/sample/0"]
    assert list(run.traces(strategy="guard")) == []
    assert run.table(["id", "usage.kept"], sample=1).column_names == ["id", "usage.kept"]
    assert run.table(["id"], problem="p1")["id"].to_pylist() == [f"p1/sample/{i}" for i in range(4)]
    light = next(run.traces(top_k=False, id="p0/sample/1"))
    assert light.top_ids.shape == light.top_logprobs.shape == (20, 0)
    np.testing.assert_array_equal(light.signals.nll, made(1).signals.nll)
    with pytest.raises(ValueError, match="no colour"):
        run.table(["colour"])
    with pytest.raises(ValueError, match="no colour"):
        list(run.traces(colour="red"))


def test_summary(path):
    batch = [made(i, group="A" if i < 4 else "B", correct=i != 1 if i < 5 else None) for i in range(8)]
    batch[7].error = "truncated"
    common = {"strategy": "sample", "traces": 4, "problems": 1}
    decoded = [sum(trace.usage.decoded for trace in batch[start : start + 4]) for start in (0, 4)]
    assert Run.open(stored(path, batch[:3], batch[3:])).summary() == [
        common | {"group": "A", "graded": 4, "correct": 3, "failed": 0, "decoded": decoded[0]},
        common | {"group": "B", "graded": 1, "correct": 1, "failed": 1, "decoded": decoded[1]},
    ]


def test_half_a_surrogate_pair_does_not_lose_a_batch(path):
    run = Run.open(stored(path, [made(0, text="a\ud83d", answer=None), made(1, text="\ud83d\ude00")]))
    assert [trace.text for trace in run.traces()] == ["a\ufffd", "\U0001f600"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ids": np.zeros(3, np.int32)}, "3 tokens, but signals"),
        ({"answer": 5}, "field 'answer' cannot be stored"),
        ({"events": [object()]}, "field 'events' cannot be stored: object is not JSON"),
    ],
)
def test_what_cannot_be_stored_is_refused_whole(path, fields, message):
    with Run.create(path, {}) as run:
        with pytest.raises(ValueError, match=message):
            run.append([made(0), made(1, **fields)])
        assert len(run) == 0
        assert leftovers(path) == parts(path) == []


def test_events_hold_numpy_numbers(path):
    run = Run.open(
        stored(path, [made(1, events=[{"entropy": np.float32(0.5), "at": np.int64(3), "ids": np.arange(2)}])])
    )
    assert next(run.traces()).events == [{"entropy": 0.5, "at": 3, "ids": [0, 1]}]


def test_problems(path):
    with Run.create(path, {}) as run:
        assert run.problems() == {}
        run.add_problems([made_problem(i) for i in range(3)])
        written = (path / "problems.parquet").stat().st_mtime_ns
        run.add_problems([made_problem(1)])
        assert (path / "problems.parquet").stat().st_mtime_ns == written
        run.add_problems([made_problem(i) for i in (2, 3)])
        assert run.problems() == Run.open(path).problems() == {f"p{i}": made_problem(i) for i in range(4)}
        with pytest.raises(ValueError, match="field 'prompt_ids' cannot be stored"):
            run.add_problems([Problem("long", "graph", "", (2**31,))])
        assert "problem 'p1' is not the stored one" in refusal(
            run.add_problems, [Problem("p1", "graph", "another", ())]
        )
    (path / "problems.parquet").write_bytes(b"PAR1")
    assert "problems.parquet is truncated or no Parquet file" in refusal(run.problems)


@dataclass
class Found:
    value: float
    at: np.ndarray


def test_artefacts(path):
    run = Run.open(stored(path))
    assert run.write("report.html", "<p>ü</p>") == path / "report.html"
    assert (path / "report.html").read_text("utf-8") == "<p>ü</p>"
    run.write("diagnosis/figure.png", b"\x00")
    assert (path / "diagnosis/figure.png").read_bytes() == b"\x00"
    run.write(
        "diagnosis/study.json", {"a": Found(float("nan"), np.array([1.0, np.inf])), "b": (path,), "c": np.float32(0.5)}
    )
    found = json.loads((path / "diagnosis/study.json").read_text(), parse_constant=pytest.fail)
    assert found == {"a": {"value": None, "at": [1.0, None]}, "b": [str(path)], "c": 0.5}
    run.write("report.html", "again")
    assert (path / "report.html").read_text() == "again"
    assert leftovers(path) == []


@pytest.mark.parametrize(
    "name", ["", ".", "../x", "/tmp/x", "run.json", "traces/part-1.parquet", "a/../traces/x", ".lock"]
)
def test_no_artefact_takes_the_place_of_the_run(path, name):
    with pytest.raises(ValueError, match="no place for an artefact"):
        Run.open(stored(path)).write(name, "x")


# -- the same run again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "vllm"}, 'engine = "embedded", not "vllm"'),
        ({"sampling": {"temperature": 0.5, "top_p": 0.9}}, "sampling.temperature = 1.0, not 0.5"),
        ({"sampling": {"temperature": 1.0}}, "sampling.top_p = 0.9, not (not set)"),
        ({"budget": 100}, "budget = (not set), not 100"),
        ({"strategies": ["sample"]}, 'strategies = ["sample", "guard"], not ["sample"]'),
        ({"sampling": None}, 'sampling = {"temperature": 1.0, "top_p": 0.9}, not null'),
        ({"engine": "x" * 100}, f'engine = "embedded", not "{"x" * 58}…'),
    ],
)
def test_other_settings_are_refused(path, change, message):
    stored(path, [made(0)])
    before = (path / "run.json").read_bytes()
    line = refusal(Run.create, path, SETTINGS | change)
    assert f"{path} holds a run with {message}: use that, or give another --out" == line
    assert (path / "run.json").read_bytes() == before


def test_equal_settings_are_the_same_run(path):
    stored(path, [made(0)])
    again = {
        "strategies": ("sample", "guard"),
        "sampling": {"top_p": np.float64(0.9), "temperature": 1.0},
        "engine": "embedded",
    }
    with Run.create(path, again) as run:
        assert len(run) == 1
        assert run.settings == SETTINGS
    for _ in range(2):
        Run.create(path.with_name("unknown"), {"limit": float("nan")}).close()


def test_without_resume_a_run_is_not_touched(path):
    stored(path, [made(0)])
    assert "holds a run already: resume it, or give another --out" in refusal(Run.create, path, SETTINGS, resume=False)
    Run.create(path.with_name("new"), SETTINGS, resume=False).close()


def test_versions_are_recorded_not_refused(path, monkeypatch):
    manifest = Run.open(stored(path)).manifest
    assert manifest["versions"][0]["trace"] == manifest["trace_version"] == TRACE_VERSION
    assert manifest["versions"][0]["numpy"] == np.__version__
    assert {"since", "wrongturn", "python", "onnxruntime", "pyarrow"} < manifest["versions"][0].keys()
    assert manifest["created"].endswith("+00:00")
    assert Run.open(stored(path)).manifest == manifest
    monkeypatch.setattr(folder.platform, "python_version", lambda: "4.0")
    again = Run.open(stored(path)).manifest
    assert [entry["python"] for entry in again["versions"]] == [manifest["versions"][0]["python"], "4.0"]
    assert again["created"] == manifest["created"]


def test_a_folder_that_is_no_run_is_not_touched(path):
    path.mkdir()
    (path / "thesis.tex").write_text("x")
    for action in (Run.open, lambda path: Run.create(path, {})):
        assert refusal(action, path) == f"{path} is not a run: it holds 'thesis.tex', but no run.json"
    assert os.listdir(path) == ["thesis.tex"]


def test_traces_without_their_manifest_are_not_touched(path):
    (stored(path, [made(0)]) / "run.json").unlink()
    assert "is not a run: it holds 'traces', but no run.json" in refusal(Run.create, path, SETTINGS)


def test_no_run_to_open(path):
    assert refusal(Run.open, path) == f"{path} is not a run: it has no run.json"
    path.write_text("x")
    for action in (Run.open, lambda path: Run.create(path, {})):
        assert refusal(action, path).endswith("Not a directory")
    assert path.read_text() == "x"


def test_an_empty_folder_becomes_a_run(path):
    path.mkdir()
    Run.create(path, {}).close()
    (path / "run.json").rename(path / ".run.json.0123.tmp")  # killed before it had a manifest
    (path / "traces").rmdir()
    Run.create(path, {}).close()
    assert leftovers(path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[1]", "is not the manifest of a run: it needs 'format'"),
        (b'{"name": "wandb"}', "is not the manifest of a run: it needs 'format', a str"),
    ],
)
def test_a_damaged_manifest_is_named(path, content, message):
    (stored(path) / "run.json").write_bytes(content)
    for action in (Run.open, lambda path: Run.create(path, SETTINGS)):
        assert refusal(action, path).startswith(f"{path / 'run.json'} {message}")
    assert (path / "run.json").read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": None}, "it needs 'settings', a dict"),
        ({"format": "sweep"}, "its format is 'sweep', not 'wrongturn run'"),
        ({"trace_version": TRACE_VERSION + 1}, f"this wrongturn reads up to {TRACE_VERSION}: upgrade it"),
    ],
)
def test_a_foreign_or_newer_manifest_is_refused(path, change, message):
    file = stored(path) / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    for action in (Run.open, lambda path: Run.create(path, SETTINGS)):
        assert message in refusal(action, path)


# -- damaged, foreign, old and new parts -------------------------------------------------------------------------------


def truncate(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-100])


def retype(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("ids"), "ids", table["text"])


DAMAGE = {
    "truncated": (truncate, " is truncated or no Parquet file ("),
    "empty": (lambda part: part.write_bytes(b""), " is truncated or no Parquet file ("),
    "garbage": (lambda part: part.write_bytes(b"x" * 500), " is truncated or no Parquet file ("),
    "foreign": (
        lambda part: pq.write_table(pa.table({"a": [1]}), part),
        " is not from wrongturn: column 'id' is missing",
    ),
    "column": (lambda part: rewrite(part, lambda t: t.drop(["top_k"])), "column 'top_k' is missing"),
    "type": (lambda part: rewrite(part, retype), ": column 'ids' holds string, expected list<"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_part_is_named_and_moving_it_away_helps(path, kind):
    damage, message = DAMAGE[kind]
    bad = parts(stored(path, [made(0)], [made(1)], [made(2)]))[1]
    damage(bad)
    content = bad.read_bytes()
    for action in (Run.open, lambda path: Run.create(path, SETTINGS)):
        line = refusal(action, path)
        assert line.startswith(str(bad))
        assert message in line
        assert line.endswith(f"(the other 2 parts are intact: to go on without it, move it out of {path / 'traces'})")
    assert bad.read_bytes() == content
    assert len(parts(path)) == 3
    bad.rename(path / "bad")
    assert [trace.id for trace in Run.open(path).traces()] == ["p0/sample/0", "p0/sample/2"]
    stored(path, [made(1)])  # resuming fills the gap
    assert len(Run.open(path)) == 3


def test_all_damaged_parts_are_named_at_once(path):
    files = parts(stored(path, [made(0)], [made(1)], [made(2)]))
    for bad in files[:2]:
        truncate(bad)
    line = refusal(Run.open, path)
    assert str(files[0]) in line
    assert str(files[1]) in line
    assert "the other 1 parts are intact: to go on without them, move them" in line


def test_damage_found_while_reading_names_file_and_row(path):
    part = parts(stored(path, [made(0), made(1)]))[0]
    rewrite(part, lambda t: t.set_column(t.column_names.index("events"), "events", pa.array(["[]", "["])))
    line = refusal(list, Run.open(path).traces())
    assert line.startswith(f"{part}: row 1: column 'events' is not JSON")


def test_rows_that_are_no_traces_are_named(path):
    part = parts(stored(path, [made(0), made(1)]))[0]
    rewrite(part, lambda t: t.set_column(t.column_names.index("top_k"), "top_k", pa.array([0, 2])))
    assert refusal(list, Run.open(path).traces()).startswith(f"{part}: trace 'p0/sample/1': cannot reshape")


def test_damage_by_others_does_not_stop_a_writer(path):
    with Run.create(path, SETTINGS) as run:
        run.append([made(0)])
        (path / "traces" / "mine.parquet").write_bytes(b"x")
        run.append([made(1)])
        assert "mine.parquet is truncated" in refusal(run.done)
        (path / "traces" / "mine.parquet").unlink()
        assert len(run) == 2


def test_somebody_elses_part_is_read_and_kept(path):
    other = parts(stored(path.with_name("other"), [made(5)]))[0]
    stored(path, [made(0)], [made(1)])
    other.rename(path / "traces" / "added.parquet")
    with Run.create(path, SETTINGS) as run:
        run.append([made(5), made(2)])
        run.compact()
    assert {trace.id for trace in Run.open(path).traces()} == {made(i).id for i in (0, 1, 2, 5)}
    assert len(Run.open(path)) == 4
    assert (path / "traces" / "added.parquet").exists()


def test_an_id_in_two_parts_is_refused(path):
    copy = parts(stored(path, [made(0), made(1)]))[0]
    copy.with_name("part-000007-copy.parquet").write_bytes(copy.read_bytes())
    assert "part-000007-copy.parquet holds traces that are stored in another part too" in refusal(Run.open, path)


def test_a_newer_trace_is_refused_with_file_and_row(path):
    part = parts(stored(path, [made(0), made(1)]))[0]
    versions = pa.array([TRACE_VERSION, TRACE_VERSION + 1])
    rewrite(part, lambda t: t.set_column(t.column_names.index("version"), "version", versions))
    assert refusal(Run.open, path).startswith(
        f"{part}, row 1: field 'version' is {TRACE_VERSION + 1}; this wrongturn reads up to {TRACE_VERSION}: upgrade it"
    )


def test_an_older_part_is_migrated(path, monkeypatch):
    monkeypatch.setitem(MIGRATIONS, 0, from_0)
    part = parts(stored(path, [made(1)], [made(2)]))[0]

    def older(table: pa.Table) -> pa.Table:
        names = ["tokens" if name == "ids" else name for name in table.column_names]
        table = table.rename_columns(names).drop(["draft"])
        table = table.set_column(table.column_names.index("version"), "version", pa.array([0]))
        return table.replace_schema_metadata({b"wrongturn.trace_version": b"0"})

    rewrite(part, older)
    assert set(pq.read_schema(part).names) == set(old_record())
    with Run.create(path, SETTINGS) as run:
        for _ in range(2):
            first, second = run.traces()
            assert_same(first, made(1, draft=7))
            assert_same(second, made(2))
            assert run.table(["id", "draft"])["draft"].to_pylist() == [7, 0]
            run.compact()  # and the same again from the merged part
    assert len(parts(path)) == 1


def test_a_damaged_migration_names_the_file(path, monkeypatch):
    part = parts(stored(path, [made(1)]))[0]
    rewrite(part, lambda t: t.replace_schema_metadata({b"wrongturn.trace_version": b"0"}))
    rewrite(part, lambda t: t.set_column(t.column_names.index("version"), "version", pa.array([0])))
    assert refusal(list, Run.open(path).traces()) == (
        f"{part}: trace 'p0/sample/1' has version 0, which was never published"
    )


# -- merging parts -----------------------------------------------------------------------------------------------------


def test_compact_merges_and_keeps_the_order(path, monkeypatch):
    with Run.create(path, {}) as run:
        for i in range(10):
            run.append([made(i)])
        run.compact()
        assert len(parts(path)) == 1
        run.append([made(10)])
        run.compact()
        run.compact()
        assert len(parts(path)) == 1
        run.append([made(11), made(3)])
    found = list(Run.open(path).traces())
    for trace, i in zip(found, range(12), strict=True):
        assert_same(trace, made(i))


def test_compact_stops_at_a_size(path, monkeypatch):
    with Run.create(path, {}) as run:
        for i in range(6):
            run.append([made(i + 1)])
        monkeypatch.setattr(store, "_COMPACT", 2.5 * max(part.size for part in run._parts.values()))
        run.compact()
        assert len(parts(path)) == 3
        assert [trace.id for trace in run.traces()] == [made(i + 1).id for i in range(6)]


def test_merged_parts_left_by_a_kill_count_once_and_are_cleaned_up(path, monkeypatch):
    with monkeypatch.context() as patch, Run.create(path, SETTINGS) as run:
        patch.setattr(Run, "_delete_superseded", lambda self: None)
        for i in range(3):
            run.append([made(i)])
        run.compact()
    assert len(parts(path)) == 4
    assert len(Run.open(path)) == len(list(Run.open(path).traces())) == 3
    stored(path)
    assert len(parts(path)) == 1
    assert len(Run.open(path)) == 3


# -- full and unwritable disks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_loses_nothing(path, monkeypatch, function, number):
    def full(*_):
        raise OSError(number, os.strerror(number))

    with Run.create(path, SETTINGS) as run:
        run.append([made(0)])
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            lines = [refusal(run.append, [made(1)]), refusal(run.write, "report.html", "x")]
            assert refusal(run.add_problems, [made_problem(1)]) == lines[0]
        if number == errno.EIO:
            assert lines[0] == f"cannot use {path}: {os.strerror(number)}"
        else:
            assert lines[0].startswith(f"no space left to write to {path} (")
            assert lines[0].endswith(
                "everything stored so far is intact; make room and run the same command again to resume"
            )
        assert leftovers(path) == []
        assert run.done() == Run.open(path).done() == {made(0).id}
        run.append([made(1)])
    stored(path, [made(1), made(2)])
    assert [trace.id for trace in Run.open(path).traces()] == [made(i).id for i in range(3)]


LIMITED = """
import resource, sys
from made_traces import made
from wrongturn.errors import WrongturnError
from wrongturn.store import Run
run = Run.create(sys.argv[1], {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
run.append([made(0)])
try:
    run.append([made(i, tokens=2000) for i in range(1, 9)])
except WrongturnError as problem:
    print(problem)
run.append([made(9)])
"""


def test_a_file_that_really_may_not_grow(path):
    command = [sys.executable, "-W", "error", "-c", LIMITED, str(path)]
    done = subprocess.run(command, cwd=CHILD.parent, env=ENV, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"no space left to write to {path} (File too large)")
    assert Run.open(path).done() == {made(0).id, made(9).id}
    assert leftovers(path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_may_not_be_written(path):
    path.mkdir()
    os.seteuid(65534)
    try:
        line = refusal(Run.create, path, {})
    finally:
        os.seteuid(0)
    assert line.startswith("cannot use ")
    assert line.endswith("Permission denied")


def test_leftovers_of_a_killed_process_are_ignored_then_removed(path):
    stored(path, [made(0)])
    left = [path / "traces" / ".part-000001-abc.parquet.0123.tmp", path / "diagnosis" / ".study.json.0123.tmp"]
    left[1].parent.mkdir()
    for file in left:
        file.write_bytes(b"PAR1")
    assert len(Run.open(path)) == 1
    assert all(file.exists() for file in left)
    stored(path, [made(1)])
    assert leftovers(path) == []
    assert len(Run.open(path)) == 2


# -- one writer at a time ----------------------------------------------------------------------------------------------


def child(*args: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=ENV)


def test_another_process_is_refused_until_it_is_killed(path):
    with child("hold", path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        line = refusal(Run.create, path, {})
        assert line.startswith(f"{path}: another process (pid {holder.pid}) is writing to this run")
        assert len(Run.open(path)) == 0
        holder.kill()
        holder.wait()
    Run.create(path, {}).close()


def test_the_lock_ends_with_the_run(path):
    run = Run.create(path, {})
    assert "this process itself is writing to this run" in refusal(Run.create, path, {})
    run.close()
    run.close()
    again = Run.create(path, {})
    for action in (lambda: run.append([made(0)]), lambda: run.add_problems([]), run.compact):
        assert "is open for reading only" in refusal(action)
    assert "is open for reading only" in refusal(Run.open(path).append, [made(0)])
    del again
    gc.collect()
    Run.create(path, {}).close()


def test_a_refused_create_leaves_no_lock(path):
    stored(path)
    refusal(Run.create, path, {})
    Run.create(path, SETTINGS).close()


def test_threads_may_append_at_once(path):
    with Run.create(path, {}) as run:
        threads = [threading.Thread(target=run.append, args=([made(i), made(100)],)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(t.id for t in Run.open(path).traces()) == sorted(made(i).id for i in (*range(8), 100))


def test_a_file_is_on_disk_before_its_name_and_the_name_before_the_return(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(handle):
        fsync(handle)
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")

    def seen_replace(source, target):
        assert calls == ["file"]
        assert source.parent == target.parent
        assert source.name.startswith(".")
        replace(source, target)
        calls.append("name")

    with Run.create(path, {}) as run:
        monkeypatch.setattr(os, "fsync", seen_fsync)
        monkeypatch.setattr(os, "replace", seen_replace)
        run.append([made(0)])
        assert calls == ["file", "name", "folder"]


# -- kill -9 -----------------------------------------------------------------------------------------------------------


def killed_at(process: subprocess.Popen[str], begun: int, delay: float) -> list[str]:
    """Let the child collect, kill -9 it so long after it began so many appends and merges; all that it said."""
    said: list[str] = []

    def listen() -> str:
        assert process.stdout is not None
        said.append(process.stdout.readline().strip())
        assert said[-1] not in ("", "end"), "it was over before the kill"
        return said[-1]

    print("go", file=process.stdin, flush=True)
    pid = int(listen().removeprefix("pid "))
    while begun:
        begun -= listen().startswith(("append", "compact"))
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    while not listen().startswith("over"):
        pass
    assert said[-1] == f"over {signal.SIGKILL}"
    return said


def acknowledged(said: list[str]) -> set[str]:
    return {line.split()[1] for line in said if line.startswith("ack ")}


@pytest.mark.extras
def test_kill_9_loses_nothing_and_doubles_nothing(path):
    total, batch, chance = 280, 5, random.Random(0)
    acked: set[str] = set()
    halfway = 0
    with child("serve", path, total, batch) as process:
        for _ in range(20):
            acked |= acknowledged(killed_at(process, chance.randint(0, 5), chance.uniform(0.0, 0.04)))
            if not (path / "run.json").exists():
                assert not acked
                continue
            halfway += len(leftovers(path)) > 0
            ids = Run.open(path).table(["id"])["id"].to_pylist()
            assert len(ids) == len(set(ids))
            assert acked <= set(ids)
        said, complaint = process.communicate("go\n")
    assert complaint == ""
    assert said.endswith("end\nover 0\n")
    assert halfway >= 2, "no kill fell inside a write: this proves nothing"
    found = list(Run.open(path).traces())
    assert sorted(trace.id for trace in found) == sorted(made(i).id for i in range(total))
    expected = {made(i).id: made(i) for i in range(total)}
    for trace in found:
        assert_same(trace, expected[trace.id])
    assert leftovers(path) == []


# -- what could not be made, and what tokens mean ----------------------------------------------------------------------


def test_failures_are_kept_until_they_are_made_good(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        run.add_failures(
            [Failure("p0/sample/0", "p0", "timeout", "no answer"), Failure("p1/a", "p1", "timeout", "none")]
        )
        run.add_failures([Failure("p1/a", "p1", "connection", "refused")])
        assert [(f.id, f.reason) for f in run.failures()] == [("p0/sample/0", "timeout"), ("p1/a", "connection")]
        run.append([made(0)])
        assert [f.id for f in Run.open(run.path).failures()] == ["p1/a"]


def test_a_journal_outlives_a_line_cut_short(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        run.add_vocabulary({1: "a", 2: "\n"})
        with open(run.path / "vocabulary.jsonl", "a") as file:
            file.write('[3, "half')
        run.add_vocabulary({1: "a", 4: "é"})
        assert run.vocabulary() == {1: "a", 2: "\n", 4: "é"}
        assert (run.path / "vocabulary.jsonl").read_text().count('"a"') == 1


def test_problems_keep_their_messages(tmp_path):
    asked = Problem(
        "q", "math", "2+2", messages=({"role": "system", "content": "be brief"}, {"role": "user", "content": "2+2"})
    )
    with Run.create(tmp_path / "run", {}) as run:
        run.add_problems([asked, made_problem(1)])
        run.add_problems([asked])
        assert run.problems() == {"q": asked, "p1": made_problem(1)}


def test_problems_of_version_1_had_no_messages(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        run.add_problems([made_problem(1)])
        path = run.path / "problems.parquet"
        pq.write_table(pq.read_table(path).drop_columns(["messages"]), path)
        assert run.problems() == {"p1": made_problem(1)}
