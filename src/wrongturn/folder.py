"""What a run folder rests on: files that are there as a whole or not at all, a lock, a manifest."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

from wrongturn.columns import plain
from wrongturn.errors import WrongturnError
from wrongturn.trace import TRACE_VERSION

_FORMAT = "wrongturn run"
_ASIDE = ".tmp"  # and a leading dot: a file that is still being written
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_aside(target: Path, data: bytes) -> None:
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
    sync(target.parent)


class Journal:
    """A file of JSON lines that is only ever added to; a line that was cut short by a crash is as if never written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, rows: Iterable[Any]) -> None:
        """Add rows; when this returns they are on disk."""
        lines = "".join(json.dumps(row, default=plain) + "\n" for row in rows).encode()
        if not lines:
            return
        new = not self.path.exists()
        with open(self.path, "ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                lines = b"\n" + lines
            file.write(lines)
            os.fsync(file.fileno())
        if new:
            sync(self.path.parent)

    def rows(self) -> Iterator[Any]:
        """The rows in the order they were added."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            with suppress(ValueError):
                yield json.loads(line)


def clean(folder: Path) -> None:
    """Remove what killed processes left half-written (and an artefact in the making: that one fails, and says so)."""
    for left in folder.rglob(f".*{_ASIDE}"):
        left.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Make the entries of a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk(path: Path) -> Iterator[None]:
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


def lock(path: Path) -> int:
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


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a run; None for a folder that is not there, empty, or of a run killed before it had one.

    Raises ``WrongturnError`` for a folder that holds something else, and a manifest that is damaged or newer.
    """
    file = path / "run.json"
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError:
        names = os.listdir(path) if path.exists() else []
        others = sorted(name for name in names if name != ".lock" and not name.startswith(".run.json."))
        if others:
            raise WrongturnError(f"{path} is not a run: it holds {others[0]!r}, but no run.json") from None
        return None
    except ValueError as problem:
        raise WrongturnError(f"{file} is not JSON ({problem})") from None
    expected = {"format": str, "trace_version": int, "versions": list, "settings": dict}
    for key, kind in expected.items():
        if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind):
            raise WrongturnError(f"{file} is not the manifest of a run: it needs {key!r}, a {kind.__name__}")
    if manifest["format"] != _FORMAT:
        raise WrongturnError(
            f"{file} is not the manifest of a run: its format is {manifest['format']!r}, not {_FORMAT!r}"
        )
    if manifest["trace_version"] > TRACE_VERSION:
        raise WrongturnError(
            f"{file}: its traces have version {manifest['trace_version']}; this wrongturn reads up to {TRACE_VERSION}: "
            "upgrade it"
        )
    return manifest


def agree(path: Path, manifest: dict[str, Any] | None, settings: dict[str, Any], resume: bool) -> dict[str, Any]:
    """The manifest of a run with these settings, written if new or if a package has another version than last time."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if manifest is None:
        manifest = {"format": _FORMAT, "created": now, "trace_version": 0, "settings": settings, "versions": []}
    elif not resume:
        raise WrongturnError(f"{path} holds a run already: resume it, or give another --out")
    elif difference := _difference(manifest["settings"], settings):
        name, before, after = difference
        raise WrongturnError(
            f"{path} holds a run with {name} = {_short(before)}, not {_short(after)}: use that, or give another --out"
        )
    last = manifest["versions"][-1] if manifest["versions"] else {}
    versions = {"since": last.get("since", now), "trace": TRACE_VERSION} | _versions()
    if versions != last:
        manifest["versions"].append(versions | {"since": now})
        manifest["trace_version"] = TRACE_VERSION
        write_aside(path / "run.json", to_json(manifest).encode())
    return manifest


def _versions() -> dict[str, str]:
    """What traces may depend on besides the settings."""
    found = {"python": platform.python_version()}
    for name in ("wrongturn", "numpy", "onnxruntime", "pyarrow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _difference(before: Any, after: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first setting that differs: its dotted name and both values, ``...`` where it is not set."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return None if before == after else (name, before, after)
    for key in after | before:
        below = f"{name}.{key}" if name else key
        if difference := _difference(before.get(key, ...), after.get(key, ...), below):
            return difference
    return None


def _short(value: Any) -> str:
    text = "(not set)" if value is ... else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def to_json(value: Any) -> str:
    """JSON that any reader takes: it has no NaN and no infinity, so they become null."""
    lenient = json.dumps(value, default=plain)
    return json.dumps(json.loads(lenient, parse_constant=lambda _: None), indent=1)
