"""Traces made from a number: the same in every process."""

import numpy as np

from wrongturn.signals import FIELDS, Signals
from wrongturn.trace import Lineage, Problem, Trace, Usage


def made(i: int, tokens: int = 20, k: int = 3, **fields) -> Trace:
    """Trace number ``i``. Every third has nothing optional, so that there are NaN, None and empty lists."""
    rng = np.random.default_rng(i)
    signals = Signals(*rng.random((len(FIELDS), tokens), dtype=np.float32))
    signals.nll[::2] = np.nan
    trace = Trace(
        f"p{i // 4}/sample/{i % 4}",
        problem=f"p{i // 4}",
        task="graph",
        prompt_ids=rng.integers(0, 31, 8, dtype=np.int32),
        ids=rng.integers(0, 31, tokens, dtype=np.int32),
        signals=signals,
        finish="stop",
    )
    if i % 3:
        trace.group, trace.sample, trace.text = f"G{i % 2}", i % 4, "«0,(1)»"
        trace.answer, trace.correct, trace.onset = "0,1", bool(i % 2), i % 7 - 1
        trace.lineage = Lineage("parent", i % tokens, "guard")
        trace.events = [{"kind": "spike", "at": i, "entropy": 0.5}]
        trace.usage = Usage(8, 0, 8, tokens, 1, 2, 3, 0.25)
        trace.top_ids = rng.integers(0, 31, (tokens, k), dtype=np.int32)
        trace.top_logprobs = -rng.random((tokens, k), dtype=np.float32)
        trace.provenance = {"engine": "scripted", "capabilities": {"top_k": 3}}
    for name, value in fields.items():
        setattr(trace, name, value)
    return trace


def made_problem(i: int) -> Problem:
    return Problem(f"p{i}", "graph", f"prompt {i}", tuple(range(i)), "0,1" if i % 2 else None, "G")


def assert_same(found: Trace, expected: Trace) -> None:
    """Equal in every field, types included; NaN equals NaN."""
    found_record, record = found.to_record(), expected.to_record()
    assert found_record.keys() == record.keys()
    for name, value in record.items():
        if isinstance(value, np.ndarray):
            assert found_record[name].dtype == value.dtype, name
            np.testing.assert_array_equal(found_record[name], value, err_msg=name)
        elif name == "top_k":
            continue  # where there are no alternatives, [0, 0] and [tokens, 0] say the same
        else:
            assert type(found_record[name]) is type(value), name
            assert found_record[name] == value, name
