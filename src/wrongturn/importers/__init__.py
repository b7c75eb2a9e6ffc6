"""Logs that other tools wrote, as runs: ``load("lm-eval", "samples_gsm8k.jsonl", "run")``."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wrongturn.errors import WrongturnError
from wrongturn.importers._lines import json_lines
from wrongturn.importers._tokens import to_trace
from wrongturn.importers.base import Format, Imported, Log, Skipped, Unusable, read
from wrongturn.importers.conversations import CHAT, SHAREGPT
from wrongturn.importers.inspect import INSPECT
from wrongturn.importers.lighteval import LIGHTEVAL
from wrongturn.importers.lm_eval import LM_EVAL
from wrongturn.importers.openai_batch import OPENAI_BATCH, requests
from wrongturn.importers.verifiers import VERIFIERS
from wrongturn.store import Run
from wrongturn.trace import Problem, Trace
from wrongturn.vocabulary import Interned

FORMATS = {kind.name: kind for kind in (LM_EVAL, INSPECT, OPENAI_BATCH, LIGHTEVAL, VERIFIERS, SHAREGPT, CHAT)}
AUTO = "auto"

_BATCH, _TOKENS = 512, 1 << 18  # traces, and tokens, that are written together at most
_NAMED = 3  # rows left out for one reason that are told one by one
_SOURCES = "imports.json"
_AGAIN = "already stored"
_APART = "completions whose tokens do not join to their text: the text is kept, and where its tokens end is not known"

__all__ = ["AUTO", "FORMATS", "Imports", "guess", "load"]


@dataclass(slots=True)
class Imports:
    """What an import did. ``traces`` are those added; ``skipped`` counts the others by reason."""

    run: Path
    traces: int = 0
    problems: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def dict(self) -> dict[str, Any]:
        return {
            "traces": self.traces,
            "skipped": dict(self.skipped),
            "run": str(self.run),
            "problems": self.problems,
        }


def load(
    format: str,
    path: Path,
    out: Path,
    *,
    task: str = "exact",
    metric: str | None = None,
    filter: str | None = None,
    requests_file: Path | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Imports:
    """Import a log, or all of a folder, into a run; one that holds imported traces already is added to.

    Ids are made of the log's own names and the file's content: the same file again adds nothing, and an import that was
    stopped is finished by the same call. ``warn`` gets a line for the first rows of each kind that are left out.

    Raises:
        WrongturnError: no such format or file, a file that cannot be read, a run that was not imported.
    """
    logs = _logs(format, Path(path))
    asked = requests(requests_file) if requests_file else {}
    with Run.create(out, {"imported": True}) as run:
        into = _Into(run, Imports(Path(out)), warn)
        for kind, file in logs:
            into.read(kind, Log(file, task, metric, filter, asked, warn))
        into.done.problems = len(run.problems())
        return into.done


def guess(path: Path) -> Format | None:
    """The format of a file by its name and its first row, None where it is none of ours."""
    suffix = path.suffix.lower()
    if suffix == ".eval":
        return INSPECT
    if suffix == ".parquet":
        return LIGHTEVAL
    if suffix == ".json" and _is_inspect(path):
        return INSPECT
    try:
        first = next((row for _, row in itertools.islice(json_lines(Log(path)), 100) if isinstance(row, dict)), {})
    except WrongturnError:
        return None
    kinds = (LM_EVAL, OPENAI_BATCH, VERIFIERS, SHAREGPT, CHAT)
    return next((kind for kind in kinds if kind.looks(first)), None)


def _is_inspect(path: Path) -> bool:
    """Whether a JSON file begins as Inspect's logs do; they can be too large to parse for a guess."""
    with open(path, "rb") as file:
        start = file.read(4096)
    return b'"version"' in start and b'"eval"' in start and b'"task"' in start


def _logs(format: str, path: Path) -> list[tuple[Format, Path]]:
    """What is to be read, and how."""
    if format != AUTO and format not in FORMATS:
        raise WrongturnError(f"{format!r} is no format (there are: {AUTO}, {', '.join(FORMATS)})")
    if not path.exists():
        raise WrongturnError(f"{path}: there is no such file or folder")
    if path.is_dir():
        patterns = FORMATS[format].files if format != AUTO else ("*.jsonl", "*.json", "*.eval", "*.parquet")
        files = sorted({file for pattern in patterns for file in path.rglob(pattern) if file.is_file()})
    else:
        files = [path]
    try:
        found = [(FORMATS.get(format) or guess(file), file) for file in files]
    except OSError as problem:
        raise WrongturnError(f"cannot use {problem.filename or path}: {problem.strerror or problem}") from None
    known = [(kind, file) for kind, file in found if kind]
    if not known:
        what = "log of a known format" if format == AUTO else f"{format} log"
        raise WrongturnError(f"{path}: no {what} (known: {', '.join(FORMATS)})")
    return known


class _Into:
    """A run that is being added to."""

    def __init__(self, run: Run, done: Imports, warn: Callable[[str], None]) -> None:
        self.run, self.done, self.warn = run, done, warn
        self.stored = run.done()
        self.asked = run.problems()
        rows = run.table(["id", "problem"])
        self.ids = list(zip(rows["id"].to_pylist(), rows["problem"].to_pylist(), strict=True))
        self.vocabulary = Interned()
        for text in run.vocabulary().values():  # in the order they were first met: ids come out the same
            self.vocabulary.intern(text)

    def read(self, kind: Format, log: Log) -> None:
        """Add one file."""
        source = _hash(log.path)
        mark = f"/{source}/"
        before = Counter(problem for id, problem in self.ids if mark not in id)  # samples of other files
        seen: Counter[str] = Counter()
        skipped: Counter[str] = Counter()
        added = 0
        entries = read(kind, log)
        while batch := list(_batch(entries)):
            problems: dict[str, Problem] = {}
            traces: list[Trace] = []
            for entry in batch:
                try:
                    if isinstance(entry, Skipped):
                        raise Unusable(entry.reason, f"{entry.where}: {entry.message}")
                    trace = self._trace(entry, kind, log, source, before, seen)
                    if trace is None:
                        skipped[_AGAIN] += 1
                        continue
                    traces.append(trace)
                    if entry.problem.id not in self.asked:
                        self.asked[entry.problem.id] = problems[entry.problem.id] = entry.problem
                except Unusable as problem:
                    skipped[problem.reason] += 1
                    if skipped[problem.reason] + self.done.skipped[problem.reason] <= _NAMED:
                        self.warn(f"{log.path}: {problem} ({problem.reason})")
            self._write(problems, traces)
            added += len(traces)
        for what, (count, first) in log.notices.items():
            self.warn(f"{log.path}: {count} {what} (first: {first})")
        self.done.traces += added
        self.done.skipped.update(skipped)
        again = skipped.pop(_AGAIN, 0)
        told = {"file": log.path.name, "format": kind.name, "hash": source}
        self._note(told | {"traces": added + again, "skipped": skipped})

    def _trace(
        self, entry: Imported, kind: Format, log: Log, source: str, before: Counter[str], seen: Counter[str]
    ) -> Trace | None:
        """The trace of an entry, None where it is stored already. Raises :class:`Unusable`."""
        name = entry.problem.id
        number = seen[name]
        seen[name] += 1
        id = f"{name}/{source}/{number}"
        if id in self.stored:
            return None
        where = entry.provenance.get("row", "")
        known = self.asked.get(name)
        if known is not None and known != entry.problem:
            raise Unusable("another problem", f"{where}: problem {name!r} is not the stored one of that id")
        try:
            trace = to_trace(entry, id, before[name] + number, self.vocabulary)
        except Unusable as problem:
            raise Unusable(problem.reason, f"{where}: {problem}") from None
        if entry.tokens and entry.tokens.pieces and not len(trace.offsets):
            log.notice(_APART, where)
        trace.provenance = {"engine": f"import:{kind.name}", "source": log.path.name} | {
            key: value for key, value in trace.provenance.items() if value is not None
        }
        return trace

    def _write(self, problems: dict[str, Problem], traces: list[Trace]) -> None:
        """What a trace refers to is there before it."""
        self.run.add_problems(problems.values())
        ids = {token for trace in traces if trace.top_ids.size for token in (*trace.ids.tolist(), *trace.top_ids.flat)}
        ids.discard(-1)
        known = sorted(int(token) for token in ids)
        self.run.add_vocabulary(dict(zip(known, self.vocabulary.pieces(known), strict=True)))
        self.run.append(traces)
        self.stored.update(trace.id for trace in traces)
        self.ids += [(trace.id, trace.problem) for trace in traces]

    def _note(self, source: dict[str, Any]) -> None:
        """Record the file among the run's artefacts."""
        path = self.run.path / _SOURCES
        told = json.loads(path.read_bytes()) if path.exists() else []
        if not any(known["hash"] == source["hash"] for known in told):
            self.run.write(_SOURCES, [*told, source])


def _batch(entries: Iterator[Imported | Skipped]) -> Iterator[Imported | Skipped]:
    """The next entries, as many as are written together."""
    tokens = 0
    for entry in itertools.islice(entries, _BATCH):
        yield entry
        if isinstance(entry, Imported):
            tokens += len(entry.tokens.logprobs) if entry.tokens else len(entry.text) // 4
        if tokens > _TOKENS:
            return


def _hash(path: Path) -> str:
    """What a file is known by: eight digits of the hash of its content."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=4)).hexdigest()
    except OSError as problem:
        raise WrongturnError(f"{path}: {problem.strerror or problem}") from None
