"""From the row of a published set to prompt and reference, where naming two fields is not enough.

A reader gives None for a row it has nothing to do for (the named fields are then taken), and raises ``KeyError`` for a
field that is missing, ``ValueError`` for one that holds something else.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wrongturn.tasks.extract import marked

Row = Mapping[str, Any]
Reader = Callable[[Row, random.Random], tuple[str, str | None] | None]
"""(row, a generator seeded by the row's place and the caller's seed) -> (prompt, reference)."""

LETTERS = "ABCDEFGHIJ"
_UNPACKED = 1 << 28  # bytes of test cases of one problem


def worked(row: Row, rng: random.Random) -> tuple[str, str | None] | None:
    """A worked solution as reference: the number behind ``####``, or what its last box holds."""
    question, solution = row.get("question", row.get("problem")), row.get("answer", row.get("solution"))
    if not isinstance(question, str) or not isinstance(solution, str) or (found := marked(solution)) is None:
        return None
    return question, found


def gpqa(row: Row, rng: random.Random) -> tuple[str, str | None] | None:
    """The right answer among three wrong ones, in an order drawn from the seed."""
    if "Correct Answer" not in row:
        return options(row, rng)
    names = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
    order = rng.sample(range(4), 4)
    choices = [str(row[names[i]]).strip() for i in order]
    return _lettered(str(row["Question"]), choices), LETTERS[order.index(0)]


def options(row: Row, rng: random.Random) -> tuple[str, str | None] | None:
    """A question with a list of choices; the key may be a letter, an index from 0, or the text of the right one."""
    name = _first(row, "choices", "options", "answers")
    if name is None:
        return None
    choices = row[name]
    labels: Sequence[Any] = LETTERS
    if isinstance(choices, Mapping):  # {"text": [...], "label": [...]} as in ARC, or {"A": "...", "B": "..."}
        labels, choices = choices.get("label", list(choices)), choices.get("text", list(choices.values()))
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"field {name!r}: expected a list of 2 to {len(LETTERS)} choices")
    question = _first(row, "question", "query", "prompt", "problem")
    if question is None:
        raise KeyError("question")
    passage = _first(row, "passage", "context")
    text = "\n\n".join(str(row[field]).strip() for field in (passage, question) if field)
    key = _first(row, "answer", "label", "gold", "target", "answerKey", "answer_index", "correct")
    return _lettered(text, [str(choice).strip() for choice in choices]), _key(row, key, choices, labels)


def _key(row: Row, name: str | None, choices: Sequence[Any], labels: Sequence[Any]) -> str | None:
    value = row[name] if name else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
        return LETTERS[value]
    for known in (labels, LETTERS[: len(choices)], choices):
        if value in list(known):
            return LETTERS[list(known).index(value)]
    raise ValueError(f"field {name!r}: {str(value)[:40]!r} is neither a letter, an index nor one of the choices")


def _lettered(question: str, choices: Sequence[str]) -> str:
    return "\n".join(
        (question.strip(), "", *(f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False)))
    )


def _first(row: Row, *names: str) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


# -- programs ----------------------------------------------------------------------------------------------------------


def tested(row: Row, rng: random.Random) -> tuple[str, str | None] | None:
    """A programming problem; its ``tests`` are a list of ``{"input", "output"}``, or two lists ``inputs``, ``outputs``.

    With ``function`` (or ``fn_name``) the inputs are argument lists of that function and the outputs what it returns;
    without, they are standard input and output. The reference is the JSON that :mod:`wrongturn.tasks.code` grades by.
    """
    if "public_test_cases" in row or "private_test_cases" in row:
        return live_code_bench(row, rng)
    name = _first(row, "tests", "test_cases", "input_output")
    if name is None:
        return None
    question = _first(row, "prompt", "question", "problem", "description")
    if question is None:
        raise KeyError("prompt")
    tests = _parsed(row[name], name)
    function = row.get("function") or row.get("fn_name")
    if isinstance(tests, Mapping):
        function = function or tests.get("fn_name")
        inputs, outputs = tests.get("inputs"), tests.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise ValueError(f"field {name!r}: expected as many 'inputs' as 'outputs'")
        tests = [{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=True)]
    return str(row[question]), reference(tests, function, name)


def live_code_bench(row: Row, rng: random.Random) -> tuple[str, str | None] | None:
    """LiveCodeBench: public and private tests, standard-input and function problems both."""
    tests = [
        case
        for name in ("public_test_cases", "private_test_cases")
        for case in _parsed(row.get(name) or [], name)
        if isinstance(case, Mapping)
    ]
    metadata = _parsed(row.get("metadata") or {}, "metadata")
    kinds = {case.get("testtype", "stdin") for case in tests}
    function = None
    if kinds == {"functional"}:
        function = metadata.get("func_name") if isinstance(metadata, Mapping) else None
        if not function:
            raise ValueError("field 'metadata': expected the 'func_name' of a problem whose tests call a function")
        tests = [
            {"input": _lines(case["input"]), "output": _parsed(case["output"], "private_test_cases")} for case in tests
        ]
    elif kinds != {"stdin"}:
        raise ValueError(f"field 'public_test_cases': tests of kind {sorted(map(str, kinds))} (expected one kind)")
    prompt = str(row["question_content"]).strip()
    if starter := str(row.get("starter_code") or "").strip():
        prompt += f"\n\nComplete this code; keep its names:\n\n```python\n{starter}\n```"
    else:
        prompt += "\n\nThe program reads standard input and prints the answer to standard output."
    return prompt, reference(tests, function, "public_test_cases")


def reference(tests: Any, function: str | None, name: str) -> str:
    """Tests as the JSON that :mod:`wrongturn.tasks.code` grades by; ``name`` is the field they came from."""
    if not isinstance(tests, list) or not tests:
        raise ValueError(f"field {name!r}: expected a list of tests")
    for test in tests:
        if not isinstance(test, Mapping) or not {"input", "output"} <= test.keys():
            raise ValueError(f"field {name!r}: expected tests with 'input' and 'output'")
        if function and not isinstance(test["input"], list):
            raise ValueError(f"field {name!r}: the input of a function's test is the list of its arguments")
        if not function and not (isinstance(test["input"], str) and isinstance(test["output"], str)):
            raise ValueError(f"field {name!r}: expected texts as input and output of a program")
    kept = [{"input": test["input"], "output": test["output"]} for test in tests]
    return json.dumps({"function": function or None, "tests": kept}, ensure_ascii=False)


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _parsed(value: Any, name: str) -> Any:
    """A field as it is, or the JSON it holds, or the JSON that LiveCodeBench pickled, compressed and encoded."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        pass
    try:
        return json.loads(_unpickled(value))
    except (ValueError, binascii.Error, zlib.error):
        raise ValueError(f"field {name!r}: {value[:40]!r} is not JSON") from None


def _unpickled(value: str) -> str:
    """The one text in a compressed pickle, read off its opcodes: nothing in it is executed."""
    data = zlib.decompressobj().decompress(base64.b64decode(value, validate=True), _UNPACKED)
    texts = [arg for opcode, arg, _ in pickletools.genops(data) if "UNICODE" in opcode.name]
    if len(texts) != 1:
        raise ValueError("not one text")
    return str(texts[0])
