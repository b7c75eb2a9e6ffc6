"""Runs on disk: a folder that loses nothing that was acknowledged, and that a killed process simply goes on with.

::

    run.json            the manifest: settings and versions
    problems.parquet    what was asked
    traces/part-*.parquet
    diagnosis/ …        artefacts, made from the above

Every file is written aside, fsynced and renamed, so it is there as a whole or not at all. A part's name is never used
twice and its content never changes. :meth:`Run.compact` alone replaces parts: the merged one lists the names it
supersedes, so the rename that makes it visible is also what retires them, and deleting them is mere tidying.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from wrongturn import columns as stored
from wrongturn.errors import WrongturnError
from wrongturn.trace import Problem, Trace

_FORMAT = "wrongturn run"
_OWN = ("run.json", "problems.parquet", "traces", ".lock")
_ASIDE = ".tmp"  # and a leading dot: a file that is still being written
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_COMPACT = 256 << 20  # bytes in memory: parts are merged up to this size


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
        self._mutex = threading.Lock()
        self._parts: dict[str, stored.Part] = {}  # by name; those in _live are not superseded
        self._live: list[str] = []
        self._done: set[str] = set()

    @classmethod
    def create(cls, path: str | os.PathLike[str], settings: dict[str, Any], *, resume: bool = True) -> Self:
        """A new run, or with ``resume`` an earlier one of the same settings (plain JSON values, dataclasses, arrays).

        Raises:
            WrongturnError: the folder holds something else, a run with other settings (or any, without ``resume``) or
                of a newer version; another process is writing to it; a part is damaged; it cannot be written.
        """
        path = Path(path)
        settings = json.loads(_to_json(settings))
        with _disk(path):
            _read_manifest(path)  # refuses what is no run before anything is touched
            path.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
            try:
                run = cls(path, _agree(path, _read_manifest(path), settings, resume))
                (path / "traces").mkdir(exist_ok=True)
                _sync(path)
                _sync(path.parent)
                run._refresh()
                run._delete_superseded()
                for left in path.rglob(f".*{_ASIDE}"):
                    left.unlink(missing_ok=True)
            except BaseException:
                os.close(lock)
                raise
            run._release = weakref.finalize(run, os.close, lock)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """An existing run, to read. Raises ``WrongturnError`` where it is none, is newer, or a part is damaged."""
        path = Path(path)
        with _disk(path):
            manifest = _read_manifest(path)
            if manifest is None:
                raise WrongturnError(f"{path} is not a run: it has no run.json")
            run = cls(path, manifest)
            run._refresh()
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
                table = stored.to_table([trace.to_record() for trace in new.values()], stored.TRACES)
                number = 1 + max((_place(name)[0] for name in self._live), default=-1)
                self._write_part(number, table)

    def done(self) -> set[str]:
        """Ids of the stored traces."""
        with self._mutex, _disk(self.path):
            self._refresh()
            return set(self._done)

    def __len__(self) -> int:
        return len(self.done())

    def traces(
        self, *, strategy: str | None = None, group: str | None = None, problem: str | None = None, top_k: bool = True
    ) -> Iterator[Trace]:
        """Stored traces in the order they were appended, one part in memory at a time.

        The filters are exact matches. Without ``top_k`` the alternatives, the bulk of most runs, are not read.
        """
        names = stored.TRACES.names if top_k else [n for n in stored.TRACES.names if not n.startswith("top_")]
        absent = {} if top_k else {"top_k": 0, "top_ids": (), "top_logprobs": ()}
        for path, table in self._tables(names, strategy=strategy, group=group, problem=problem):
            with stored.naming(path):
                records = stored.to_records(table)
            for row, record in enumerate(records):
                with stored.naming(path, row):
                    trace = Trace.from_record(record | absent)
                yield trace

    def table(
        self,
        columns: Sequence[str] = stored.TRACES.names,
        *,
        strategy: str | None = None,
        group: str | None = None,
        problem: str | None = None,
    ) -> pa.Table:
        """The stored rows, or some columns of them, as one Arrow table (schema ``columns.TRACES``)."""
        schema = pa.schema([stored.TRACES.field(name) for name in columns])
        parts = self._tables(columns, strategy=strategy, group=group, problem=problem)
        tables = [table.replace_schema_metadata() for _, table in parts]
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
            known = self.problems()
            merged = dict(known)
            for problem in problems:
                if merged.setdefault(problem.id, problem) != problem:
                    raise WrongturnError(
                        f"{self.path}: problem {problem.id!r} differs from the stored one of that id: give another --out"
                    )
            if len(merged) > len(known):
                table = stored.to_table([asdict(problem) for problem in merged.values()], stored.PROBLEMS)
                _write_aside(self.path / "problems.parquet", stored.encode(table))

    def problems(self) -> dict[str, Problem]:
        """The stored problems by id, in the order they were added."""
        path = self.path / "problems.parquet"
        if not path.exists():
            return {}
        rows = stored.to_records(stored.read_problems(path))
        return {row["id"]: Problem(**row | {"prompt_ids": tuple(row["prompt_ids"].tolist())}) for row in rows}

    def write(self, name: str, content: Any) -> Path:
        """Store an artefact under a relative path: bytes, text, or what JSON can hold (dataclasses and arrays too).

        In JSON, NaN and infinity become null. An artefact of that name is replaced.
        """
        target = self.path / name
        inside = Path(os.path.normpath(name))
        if inside.is_absolute() or not inside.parts or inside.parts[0] in ("..", *_OWN):
            raise ValueError(f"{name!r} is no place for an artefact of a run")
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else _to_json(content)).encode("utf-8", "replace")
        with _disk(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_aside(target, content)
        return target

    def compact(self) -> None:
        """Merge neighbouring small parts: thousands of single-trace parts then read as fast as one."""
        with self._writing():
            folder = self.path / "traces"
            for names in self._neighbours():
                table = pa.concat_tables([stored.read_traces(folder / name) for name in names])
                self._write_part(_place(names[0])[0], table, names)  # the same number keeps the order of traces
            self._delete_superseded()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Under the lock, the known parts are all there are: nothing that others put there can stop an append."""
        with self._mutex, _disk(self.path):
            if not self._release:
                raise WrongturnError(f"{self.path} is open for reading only: Run.create opens it for writing")
            yield

    def _write_part(self, number: int, table: pa.Table, supersedes: Sequence[str] = ()) -> None:
        name = f"part-{number:06d}-{uuid4().hex[:8]}.parquet"
        _write_aside(self.path / "traces" / name, stored.encode(table, supersedes))
        self._parts[name] = part = stored.Part(tuple(table["id"].to_pylist()), table.nbytes, tuple(supersedes))
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

    def _tables(self, columns: Sequence[str], **equal: str | None) -> Iterator[tuple[Path, pa.Table]]:
        """Each part that has matching rows, and those."""
        with self._mutex, _disk(self.path):
            self._refresh()
            paths = [self.path / "traces" / name for name in self._live]
        wanted = {name: value for name, value in equal.items() if value is not None}
        for path in paths:
            try:
                table = stored.read_traces(path, [*columns, *(wanted.keys() - set(columns))])
            except FileNotFoundError:
                raise WrongturnError(f"{path} is gone, merged by another process: read the run again") from None
            for name, value in wanted.items():
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
                found[name] = stored.scan(folder / name)
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
        self._parts = found
        superseded = {name for part in found.values() for name in part.supersedes}
        self._live = sorted(found.keys() - superseded, key=_place)
        self._done = _distinct(folder, self._live, found)


def _place(name: str) -> tuple[int, str]:
    """What parts are ordered by: the number in the name, -1 for a file that somebody else put there."""
    found = re.match(r"part-(\d+)", name)
    return int(found[1]) if found else -1, name


def _distinct(folder: Path, names: Sequence[str], parts: dict[str, stored.Part]) -> set[str]:
    """The ids of all parts. Raises ``WrongturnError`` where one is in there twice."""
    ids: set[str] = set()
    for name in names:
        before = len(ids)
        ids.update(parts[name].ids)
        if len(ids) < before + len(parts[name].ids):
            raise WrongturnError(f"{folder / name} holds traces that are stored in another part too: move one away")
    return ids


def _write_aside(target: Path, data: bytes) -> None:
    """All of ``data`` at ``target``, on disk when this returns, or nothing of it."""
    aside = target.with_name(f".{target.name}.{uuid4().hex}{_ASIDE}")
    try:
        with open(aside, "xb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        os.replace(aside, target)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    _sync(target.parent)


def _sync(folder: Path) -> None:
    """Make the entries of a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """One line for what the operating system refuses."""
    try:
        yield
    except OSError as problem:
        if problem.errno in _FULL:
            raise WrongturnError(
                f"no space left to write to {path} ({problem.strerror}): everything stored so far is intact; make room "
                "and run the same command again to resume"
            ) from problem
        where = problem.filename2 or problem.filename or path
        raise WrongturnError(f"cannot use {where}: {problem.strerror or problem}") from problem


def _lock(path: Path) -> int:
    """A handle that locks the run until it is closed, if only by the end of the process."""
    handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(handle, f"{os.getpid():<20}".encode(), 0)
    except BlockingIOError:
        pid = os.pread(handle, 20, 0).decode().strip()
        os.close(handle)
        who = "this process itself" if pid == str(os.getpid()) else f"another process (pid {pid or 'unknown'})"
        raise WrongturnError(f"{path}: {who} is writing to this run; close that one, or give another --out") from None
    except BaseException:
        os.close(handle)
        raise
    return handle


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a run; None for a folder that is not there, empty, or of a run killed before it had one."""
    file = path / "run.json"
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError:
        others = (
            [name for name in os.listdir(path) if name not in _OWN and not name.endswith(_ASIDE)]
            if path.exists()
            else []
        )
        if others:
            raise WrongturnError(f"{path} is not a run: it holds {others[0]!r}, but no run.json") from None
        return None
    except ValueError as problem:
        raise WrongturnError(f"{file} is not JSON ({problem})") from None
    expected = {"format": str, "trace_version": int, "versions": list, "settings": dict}
    for key, kind in expected.items():
        if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind):
            raise WrongturnError(f"{file} is not the manifest of a run: expected {key!r} to be a {kind.__name__}")
    if manifest["trace_version"] > TRACE_VERSION:
        raise WrongturnError(
            f"{file}: traces of version {manifest['trace_version']}; this wrongturn reads up to {TRACE_VERSION}: upgrade it"
        )
    return manifest


def _agree(path: Path, manifest: dict[str, Any] | None, settings: dict[str, Any], resume: bool) -> dict[str, Any]:
    """The manifest of a run with these settings, written where that changes it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    versions = _versions()
    if manifest is None:
        manifest = {"format": _FORMAT, "created": now, "settings": settings, "versions": []}
    elif not resume:
        raise WrongturnError(f"{path} holds a run already: resume it, or give another --out")
    elif difference := _difference(manifest["settings"], settings):
        name, before, after = difference
        raise WrongturnError(
            f"{path} holds a run with {name} = {_short(before)}, not {_short(after)}: give another --out, or the same settings"
        )
    if not manifest["versions"] or manifest["versions"][-1] | {"since": ""} != versions | {"since": ""}:
        manifest["versions"].append({"since": now} | versions)
        manifest["trace_version"] = TRACE_VERSION
        _write_aside(path / "run.json", _to_json(manifest).encode())
    return manifest


def _versions() -> dict[str, str]:
    """What the traces of a session may depend on."""
    found = {"trace": str(TRACE_VERSION), "python": platform.python_version()}
    for name in ("wrongturn", "numpy", "onnxruntime", "pyarrow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _difference(before: Any, after: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first setting that differs: its dotted name and both values (``...`` where it is not set)."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return None if before == after else (name, before, after)
    for key in [*after, *(key for key in before if key not in after)]:
        below = f"{name}.{key}" if name else key
        if difference := _difference(before.get(key, ...), after.get(key, ...), below):
            return difference
    return None


def _short(value: Any) -> str:
    text = "(not set)" if value is ... else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _to_json(value: Any) -> str:
    """JSON any reader takes: it has no NaN and no infinity, so they become null."""
    lenient = json.dumps(value, default=stored.plain)
    return json.dumps(json.loads(lenient, parse_constant=lambda _: None), indent=1)
