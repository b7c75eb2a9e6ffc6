"""Runs on disk: a folder that loses nothing that was acknowledged, and that a killed process simply goes on with.

::

    run.json            the manifest: settings and versions
    problems.parquet    what was asked
    traces/part-*.parquet
    failures.jsonl      requests that failed for good, and why
    vocabulary.jsonl    what token ids mean, where the task does not know
    diagnosis/ …        artefacts, made from the above

Every file is written aside, fsynced and renamed, so it is there as a whole or not at all. A part's name is never used
twice and its content never changes. :meth:`Run.compact` alone replaces parts: the merged one lists the names it
supersedes, so the rename that makes it visible is also what retires them, and deleting them is mere tidying.
"""

from __future__ import annotations

import json
import os
import re
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from wrongturn import columns as parquet
from wrongturn.columns import PROBLEMS, TRACES, Part, naming
from wrongturn.errors import WrongturnError
from wrongturn.folder import Journal, agree, clean, disk, lock, read_manifest, sync, to_json, write_aside
from wrongturn.trace import Problem, Trace, Usage

_OWN = (
    "run.json",
    "problems.parquet",
    "traces",
    "failures.jsonl",
    "vocabulary.jsonl",
    ".lock",
)  # what no artefact may be called
_COMPACT = 256 << 20  # bytes, about what it takes in memory: parts are merged up to this size


@dataclass(frozen=True, slots=True)
class Failure:
    """A trace that could not be made: its id, and why, in a word (to count) and in a line; tokens decoded in vain."""

    id: str
    problem: str
    reason: str
    message: str
    decoded: int = 0


class Run:
    """A run folder. :meth:`create` one to write to it, :meth:`open` one to read; both see parts as they arrive.

    A created run is locked for other writers until it is closed (``with Run.create(...) as run:``), dropped or killed.
    Reading and :meth:`write` need no lock.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Use :meth:`create` or :meth:`open`."""
        self.path = path
        self.manifest = manifest
        self._release: weakref.finalize | None = None
        self._joined = False
        self._mutex = threading.Lock()
        self._parts: dict[str, Part] = {}  # by file name
        self._live: list[str] = []  # those no other supersedes, in order
        self._done: set[str] = set()
        self._asked: dict[str, Problem] | None = None  # what its own writer knows to be stored: nobody else adds to it
        self._texts: dict[int, str] | None = None

    @classmethod
    def create(cls, path: str | os.PathLike[str], settings: dict[str, Any], *, resume: bool = True) -> Self:
        """A new run, or with ``resume`` an earlier one of the same settings (JSON; dataclasses and arrays are fine).

        Raises:
            WrongturnError: the folder holds something else, a run with other settings (or any, without ``resume``) or
                of a newer version; another process is writing to it; a part is damaged; it cannot be written.
        """
        path = Path(path)
        settings = json.loads(to_json(settings))
        with disk(path):
            read_manifest(path)  # refuses what is no run before anything is touched
            path.mkdir(parents=True, exist_ok=True)
            held = lock(path)
            try:
                run = cls(path, agree(path, read_manifest(path), settings, resume))
                (path / "traces").mkdir(exist_ok=True)
                sync(path)
                sync(path.parent)
                clean(path)
                run._refresh()
                run._delete_superseded()
            except BaseException:
                os.close(held)
                raise
            run._release = weakref.finalize(run, os.close, held)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """An existing run, to read. Raises ``WrongturnError`` where it is none, is newer, or a part is damaged."""
        path = Path(path)
        with disk(path):
            manifest = read_manifest(path)
            if manifest is None:
                raise WrongturnError(f"{path} is not a run: it has no run.json")
            run = cls(path, manifest)
            run._refresh()
        return run

    @classmethod
    def join(cls, path: str | os.PathLike[str]) -> Self:
        """An existing run, to add parts to beside others: for the workers of whoever holds its lock.

        Nothing keeps two of them from making the same trace: whoever holds the lock sees to that. Raises as
        :meth:`open`.
        """
        run = cls.open(path)
        run._joined = True
        return run

    @property
    def settings(self) -> dict[str, Any]:
        """What it was created with, as JSON gives it back (tuples are lists)."""
        return self.manifest["settings"]

    def close(self) -> None:
        """Let others write. Reading goes on working."""
        if self._release:
            self._release()
            self._release = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, traces: Sequence[Trace]) -> None:
        """Store traces as one part; when this returns they are on disk.

        A trace whose id is stored already is left out: the first one stays.

        Raises:
            WrongturnError: the disk is full or cannot be written (what was stored is intact), or the run is closed.
            ValueError: a trace that cannot be stored; then none of the call's are.
        """
        with self._writing():
            new: dict[str, Trace] = {}
            for trace in traces:
                if trace.id not in self._done:
                    new.setdefault(trace.id, trace)
            if new:
                number = 1 + max((_place(name)[0] for name in self._live), default=-1)
                self._write_part(number, parquet.to_table([trace.to_record() for trace in new.values()], TRACES))

    def done(self) -> set[str]:
        """Ids of the stored traces."""
        with self._mutex, disk(self.path):
            self._refresh()
            return set(self._done)

    def __len__(self) -> int:
        return len(self.done())

    def traces(self, *, top_k: bool = True, **where: str | int | bool) -> Iterator[Trace]:
        """Stored traces in the order they were appended, one part in memory at a time.

        ``where`` are exact matches of columns: ``run.traces(strategy="sample", correct=False)``. Without ``top_k`` the
        alternatives, the bulk of most runs, are not read.
        """
        columns = TRACES.names if top_k else [name for name in TRACES.names if not name.startswith("top_")]
        absent = {} if top_k else {"top_k": 0, "top_ids": (), "top_logprobs": ()}
        for path, table in self._tables(columns, where):
            with naming(path):
                records = parquet.to_records(table)
            for record in records:
                with naming(path):
                    trace = Trace.from_record(record | absent)
                yield trace

    def table(self, columns: Sequence[str] = TRACES.names, **where: str | int | bool) -> pa.Table:
        """The stored rows, or some columns of them, as one Arrow table (schema ``wrongturn.columns.TRACES``)."""
        _check_names(columns)
        schema = pa.schema([TRACES.field(name) for name in columns])
        tables = [table.replace_schema_metadata() for _, table in self._tables(columns, where)]
        return pa.concat_tables([schema.empty_table(), *tables])

    def summary(self) -> list[dict[str, Any]]:
        """For each strategy and group: how many traces, problems, graded, correct, failed, and tokens decoded."""
        keys = ["strategy", "group"]
        rows = self.table([*keys, "id", "problem", "correct", "error", "usage.kept", "usage.dropped"])
        wanted = [("id", "count"), ("problem", "count_distinct"), ("correct", "count"), ("correct", "sum")]
        wanted += [("error", "count"), ("usage.kept", "sum"), ("usage.dropped", "sum")]
        found = rows.group_by(keys, use_threads=False).aggregate(wanted).sort_by([(key, "ascending") for key in keys])
        return [
            {key: row[key] for key in keys}
            | {"traces": row["id_count"], "problems": row["problem_count_distinct"], "graded": row["correct_count"]}
            | {"correct": row["correct_sum"] or 0, "failed": row["error_count"]}
            | {"decoded": row["usage.kept_sum"] + row["usage.dropped_sum"]}
            for row in found.to_pylist()
        ]

    def add_problems(self, problems: Iterable[Problem]) -> None:
        """Store problems; those stored already are fine. Raises ``WrongturnError`` for another one of the same id."""
        with self._writing():
            known = self._asked = self.problems() if self._asked is None or self._joined else self._asked
            new: dict[str, Problem] = {}
            for problem in problems:
                if (known.get(problem.id) or new.setdefault(problem.id, problem)) != problem:
                    raise WrongturnError(
                        f"{self.path}: problem {problem.id!r} is not the stored one of that id: give another --out"
                    )
            if new:
                path = self.path / "problems.parquet"
                table = parquet.to_table([asdict(problem) for problem in new.values()], PROBLEMS)
                before = [parquet.read_problems(path)] if known else []
                write_aside(path, parquet.encode(pa.concat_tables([*before, table])))
                known |= new

    def problems(self) -> dict[str, Problem]:
        """The stored problems by id, in the order they were added."""
        path = self.path / "problems.parquet"
        try:
            rows = list(parquet.to_records(parquet.read_problems(path)))
        except FileNotFoundError:
            return {}
        for row in rows:
            row["prompt_ids"], row["messages"] = tuple(row["prompt_ids"].tolist()), tuple(row["messages"])
        return {row["id"]: Problem(**row) for row in rows}

    def add_failures(self, failures: Iterable[Failure]) -> None:
        """Record traces that could not be made; the next call with the same settings tries them again."""
        with self._writing():
            Journal(self.path / "failures.jsonl").append(asdict(failure) for failure in failures)

    def failures(self) -> list[Failure]:
        """What could not be made so far, the last reason of each."""
        done = self.done()
        found = {row["id"]: Failure(**row) for row in Journal(self.path / "failures.jsonl").rows()}
        return [failure for id, failure in found.items() if id not in done]

    def usage(self) -> Usage:
        """What all stored traces have cost, and what failed in vain (as dropped)."""
        names = [field.name for field in fields(Usage)]
        rows = self.table([f"usage.{name}" for name in names])
        traces = Usage(**{name: rows[f"usage.{name}"].to_numpy().sum().item() for name in names})
        failed = sum(row.get("decoded", 0) for row in Journal(self.path / "failures.jsonl").rows())
        return traces + Usage(dropped=failed)

    def add_vocabulary(self, texts: Mapping[int, str]) -> None:
        """Record what token ids mean."""
        with self._writing():
            known = self._texts = self.vocabulary() if self._texts is None or self._joined else self._texts
            new = {token: text for token, text in texts.items() if known.get(token) != text}
            Journal(self.path / "vocabulary.jsonl").append(new.items())
            known |= new

    def vocabulary(self) -> dict[int, str]:
        """Texts of token ids as recorded; {} where the task knows them."""
        return dict(Journal(self.path / "vocabulary.jsonl").rows())

    def write(self, name: str, content: Any) -> Path:
        """Store an artefact under a relative path: bytes, text, or what JSON can hold (dataclasses and arrays too).

        In JSON, NaN and infinity become null. An artefact of that name is replaced.
        """
        inside = Path(os.path.normpath(name))
        if inside.is_absolute() or not inside.parts or inside.parts[0] in ("..", *_OWN):
            raise ValueError(f"{name!r} is no place for an artefact of a run")
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else to_json(content)).encode("utf-8", "replace")
        target = self.path / inside
        with disk(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_aside(target, content)
        return target

    def compact(self) -> None:
        """Merge neighbouring small parts: thousands of single-trace parts then read as fast as one."""
        with self._writing():
            folder = self.path / "traces"
            self._delete_superseded()  # once a merged part is itself merged, nothing would retire what it superseded
            for names in self._neighbours():
                table = pa.concat_tables([parquet.read_traces(folder / name) for name in names])
                self._write_part(_place(names[0])[0], table, names)  # the same number keeps the order of traces
            self._delete_superseded()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Under the lock, the known parts are all there are: nothing that others put there can stop an append."""
        with self._mutex, disk(self.path):
            if not (self._release or self._joined):
                raise WrongturnError(f"{self.path} is open for reading only: Run.create opens it for writing")
            yield

    def _write_part(self, number: int, table: pa.Table, supersedes: Sequence[str] = ()) -> None:
        name = f"part-{number:06d}-{uuid4().hex[:8]}.parquet"
        write_aside(self.path / "traces" / name, parquet.encode(table, supersedes))
        self._parts[name] = part = Part(tuple(table["id"].to_pylist()), table.nbytes, tuple(supersedes))
        self._done.update(part.ids)
        self._live = sorted({*self._live, name}.difference(supersedes), key=_place)

    def _neighbours(self) -> Iterator[list[str]]:
        """Groups of two or more consecutive parts that together are small enough to be one."""
        groups: list[list[str]] = [[]]
        size = 0
        for name in self._live:
            if _place(name)[0] < 0:  # somebody else's file stays as it is
                continue
            size += self._parts[name].size
            if size > _COMPACT:
                groups.append([])
                size = self._parts[name].size
            groups[-1].append(name)
        return (group for group in groups if len(group) > 1)

    def _delete_superseded(self) -> None:
        for name in self._parts.keys() - set(self._live):
            (self.path / "traces" / name).unlink()
            del self._parts[name]

    def _tables(self, columns: Sequence[str], where: dict[str, Any]) -> Iterator[tuple[Path, pa.Table]]:
        """Each part that has matching rows, and those."""
        _check_names(where)
        with self._mutex, disk(self.path):
            self._refresh()
            paths = [self.path / "traces" / name for name in self._live]
        for path in paths:
            try:
                table = parquet.read_traces(path, [*columns, *(where.keys() - set(columns))])
            except FileNotFoundError:
                raise WrongturnError(f"{path} is gone, merged by another process: read the run again") from None
            for name, value in where.items():
                table = table.filter(pc.field(name) == value)
            if table.num_rows:
                yield path, table.select(columns)

    def _refresh(self) -> None:
        """Take note of parts that came or went. Raises one error for all that are damaged, and touches none of them."""
        folder = self.path / "traces"
        listed = os.listdir(folder) if folder.exists() else []
        names = {name for name in listed if name.endswith(".parquet") and not name.startswith(".")}
        if names == self._parts.keys():
            return
        found = {name: part for name, part in self._parts.items() if name in names}
        damaged = []
        for name in sorted(names - found.keys()):
            try:
                found[name] = parquet.scan(folder / name)
            except FileNotFoundError:  # merged by another process since it was listed
                return self._refresh()
            except WrongturnError as problem:
                damaged.append(str(problem))
        if damaged:
            them = "it" if len(damaged) == 1 else "them"
            raise WrongturnError(
                f"{'; '.join(damaged)} (the other {len(found)} parts are intact: to go on without {them}, move {them} "
                f"out of {folder})"
            )
        superseded = {name for part in found.values() for name in part.supersedes}
        live = sorted(found.keys() - superseded, key=_place)
        self._done = _distinct(folder, live, found)
        self._parts, self._live = found, live


def _place(name: str) -> tuple[int, str]:
    """What parts are ordered by: the number in the name, -1 for a file that somebody else put there."""
    found = re.match(r"part-(\d+)", name)
    return int(found[1]) if found else -1, name


def _distinct(folder: Path, names: Sequence[str], parts: dict[str, Part]) -> set[str]:
    """The ids of all parts. Raises ``WrongturnError`` where one is in there twice."""
    ids: set[str] = set()
    for name in names:
        before = len(ids)
        ids.update(parts[name].ids)
        if len(ids) < before + len(parts[name].ids):
            raise WrongturnError(f"{folder / name} holds traces that are stored in another part too: move one away")
    return ids


def _check_names(columns: Iterable[str]) -> None:
    unknown = sorted(set(columns) - set(TRACES.names))
    if unknown:
        raise ValueError(f"a trace has no {', '.join(unknown)} (there are: {', '.join(TRACES.names)})")
