"""Problems from files, datasets and generators."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from wrongturn.errors import WrongturnError
from wrongturn.tasks import graders, gym, quantity, registry
from wrongturn.tasks.base import Task
from wrongturn.tasks.records import Numbered, first_line, rows
from wrongturn.tasks.sets import SETS, Set
from wrongturn.tasks.text import TextTask
from wrongturn.trace import Problem
from wrongturn.vocabulary import Message

FIELDS: dict[str, tuple[str, ...]] = {
    "prompt": ("question", "problem", "prompt", "input", "messages", "instruction"),
    "reference": ("answer", "target", "solution", "reference", "label", "ground_truth", "gold", "final_answer"),
    "id": ("id", "problem_id", "question_id", "unique_id", "task_id", "doc_id"),
    "group": ("group", "level", "subject", "category", "difficulty"),
}
"""Field names looked for, in this order and in any case, where the caller names none."""


def read_problems(
    source: str | Path,
    task: str | Task | None = None,
    *,
    prompt: str | None = None,
    reference: str | None = None,
    id: str | None = None,
    group: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Problem]:
    """Problems of a file, a dataset, a named set or a generator.

    Args:
        source: ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet``; a folder; ``hf:NAME[/CONFIG][@SPLIT]``; the
            name of a set (``gsm8k``); ``gym:NAME``.
        task: how it is asked and graded. None: the set's own, else by what the references are (numbers: "numeric",
            letters A to J: "choice", formulas: "math", tests: "code", anything else: "exact").
        prompt, reference, id, group: names of fields; None looks for the usual ones. A field that is named must be
            there. Without a reference a problem is not graded; without an id it is called by its row.
        limit: the first so many rows (a generator makes so many, 100 by default).
        seed: for shuffled choices and generators.

    Raises:
        WrongturnError: one line that names file, row and field, and what was expected; or what the task needs.
    """
    if limit is not None and limit < 1:
        raise WrongturnError(f"limit must be at least 1, not {limit}")
    name, label = str(source), str(source).removeprefix("hf:")
    if name.startswith("gym:"):
        gym.needs()
        return gym.problems(name.removeprefix("gym:"), limit or 100, seed)
    if name in SETS and SETS[name].source:
        task, source = task or name, SETS[name].source or ""
    if isinstance(task, str):
        task = registry.get(task)
    wanted = {"prompt": prompt, "reference": reference, "id": id, "group": group}
    numbered = islice(rows(source), limit)
    head = next(numbered, None)
    if head is None:
        raise WrongturnError(f"{source}: there are no problems in it")
    numbered = chain((head,), numbered)
    if task is None:
        numbered = list(numbered)
        task = registry.get(_guess(numbered, _fields(wanted, head[1])))
    if not isinstance(task, TextTask):
        raise WrongturnError(f"{source}: task {task.name!r} makes its own problems and cannot take them from a file")
    task.needs()
    named = prompt is not None or reference is not None
    label = label if label in SETS or name.startswith("hf:") else Path(source).stem
    known = Set() if named else SETS.get(task.name, Set())
    usual = {role: field for role, field in (("id", known.id), ("group", known.group)) if field in head[1]}
    fields = _fields(usual | {role: field for role, field in wanted.items() if field}, head[1])
    return _Rows(str(source), label, task, fields, seed, known).problems(numbered)


def _guess(numbered: list[Numbered], fields: Mapping[str, str | None]) -> str:
    """The task for these rows, by their first row's fields and all references."""
    row = numbered[0][1]
    if fields["reference"] is None or not isinstance(fields["prompt"], str):
        return "code" if {"tests", "test_cases", "input_output", "private_test_cases"} & row.keys() else "exact"
    if {"choices", "options"} & row.keys():
        return "choice"
    known = [str(row[fields["reference"]]) for _, row in numbered if row.get(fields["reference"]) not in (None, "")]
    if known and all(graders.letter(text) for text in known):
        return "choice"
    if known and all(quantity.parse(text) for text in known):
        return "numeric"
    return "math" if any("\\" in text or "####" in text for text in known) else "exact"


def _fields(wanted: Mapping[str, str | None], row: Mapping[str, Any]) -> dict[str, str | None]:
    """The name of each field, as wanted or as found in the first row."""
    there = {str(name).lower(): str(name) for name in reversed(list(row))}
    return {
        role: wanted.get(role) or next((there[name] for name in names if name in there), None)
        for role, names in FIELDS.items()
    }


@dataclass(frozen=True, slots=True)
class _Rows:
    source: str
    label: str  # what ids begin with that the rows do not have
    task: TextTask
    fields: Mapping[str, str | None]
    seed: int
    set: Set

    def problems(self, numbered: Iterable[Numbered]) -> list[Problem]:
        first: dict[str, int] = {}
        made = []
        for number, row in numbered:
            problem = self._problem(number, row)
            if first.setdefault(problem.id, number) != number:
                raise self._wrong(number, self.fields["id"], f"{problem.id!r} is row {first[problem.id]} already")
            made.append(problem)
        return made

    def _problem(self, number: int, row: Mapping[str, Any]) -> Problem:
        fields = self.fields
        id = self._scalar(number, row, fields["id"]) or f"{self.label}/{number}"
        group = self._scalar(number, row, fields["group"]) or ""
        messages: tuple[Message, ...] = ()
        read = self._read(number, row)
        if read is not None:
            prompt, reference = read
        else:
            prompt, messages = self._prompt(number, row, fields["prompt"])
            reference = self._scalar(number, row, fields["reference"])
        for role, text in (("prompt", prompt), ("reference", reference or ""), ("id", id), ("group", group)):
            self._whole(number, fields[role], text)
        if not prompt.strip():
            raise self._wrong(number, fields["prompt"], "the prompt is empty")
        if reference is not None and not self.task.slow and self.task.grader(reference, reference) is None:
            raise self._wrong(
                number, fields["reference"], f"task {self.task.name!r} cannot grade by {reference[:40]!r}"
            )
        return Problem(id, self.task.name, prompt, (), reference, group, messages)

    def _read(self, number: int, row: Mapping[str, Any]) -> tuple[str, str | None] | None:
        if self.set.read is None:
            return None
        try:
            return self.set.read(row, random.Random(f"{self.seed}/{number}"))
        except KeyError as missing:
            raise self._wrong(number, str(missing.args[0]), "the field is missing") from None
        except (ValueError, TypeError, AttributeError, RecursionError) as problem:
            raise WrongturnError(f"{self.source}: row {number}: {first_line(problem)}") from None

    def _prompt(self, number: int, row: Mapping[str, Any], field: str | None) -> tuple[str, tuple[Message, ...]]:
        """A prompt, or the conversation whose last turn it is."""
        if field is None:
            raise WrongturnError(
                f"{self.source}: row {number}: which field is the prompt? (it has {', '.join(map(str, row))}; "
                f"expected {', '.join(FIELDS['prompt'])}, or name it with prompt=)"
            )
        value = self._value(number, row, field)
        if isinstance(value, str) and field.lower() == "messages":
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise self._wrong(number, field, "expected a list of messages") from None
        if isinstance(value, list):
            return self._messages(number, field, value)
        return self._text(number, field, value) or "", ()

    def _messages(self, number: int, field: str, value: list[Any]) -> tuple[str, tuple[Message, ...]]:
        messages = []
        for turn in value:
            role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, Mapping) else (None, None)
            if not isinstance(role, str) or not isinstance(content, str):
                raise self._wrong(number, field, "expected messages with a 'role' and a 'content' of text")
            self._whole(number, field, role + content)
            messages.append({"role": role, "content": content})
        if not messages or messages[-1]["role"] != "user":
            raise self._wrong(number, field, "expected the last message to be the user's")
        return messages[-1]["content"], tuple(messages)

    def _scalar(self, number: int, row: Mapping[str, Any], field: str | None) -> str | None:
        return None if field is None else self._text(number, field, self._value(number, row, field))

    def _value(self, number: int, row: Mapping[str, Any], field: str) -> Any:
        if field not in row:
            raise self._wrong(number, field, f"the field is missing (the row has {', '.join(map(str, row)) or 'none'})")
        return row[field]

    def _text(self, number: int, field: str, value: Any) -> str | None:
        """A text or number as text; None where the cell says nothing."""
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, (list, dict, bytes)):
            raise self._wrong(number, field, f"expected a text or a number, not {str(value)[:40]!r}")
        try:
            return str(value)
        except ValueError:  # an integer of thousands of digits
            raise self._wrong(number, field, "the number is too long") from None

    def _whole(self, number: int, field: str | None, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self._wrong(number, field, "half a character (a lone surrogate) cannot be stored") from None

    def _wrong(self, number: int, field: str | None, what: str) -> WrongturnError:
        where = f", field {field!r}" if field else ""
        return WrongturnError(f"{self.source}: row {number}{where}: {what}")
