"""The public surface, and what importing it must not pull in."""

from __future__ import annotations

import subprocess
import sys

import wrongturn as wt


def test_public_names_are_pinned() -> None:
    assert wt.__all__ == [
        "TRACE_VERSION",
        "Policy",
        "Problem",
        "Run",
        "Sampling",
        "Trace",
        "WrongturnError",
        "collect",
        "diagnose",
        "open",
        "report",
        "run",
        "solve",
        "strategy",
        "tasks",
    ]
    assert all(hasattr(wt, name) for name in wt.__all__)


def test_strategies_are_pinned() -> None:
    from wrongturn import strategies

    assert strategies.names() == [
        "ban",
        "dense",
        "greedy",
        "guard",
        "lift",
        "policy",
        "retry",
        "rewind",
        "sample",
        "self_consistency",
        "steer",
        "switch",
    ]


def test_importing_needs_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "onnx", "onnxruntime", "tokenizers", "pandas", "scipy", "sklearn", "matplotlib")
    code = f"import sys, wrongturn, wrongturn.cli; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"


def test_arrows_point_down() -> None:
    """The ground imports no engine, no task, no strategy."""
    code = (
        "import sys, wrongturn.signals, wrongturn.stats, wrongturn.triggers, wrongturn.trace;"
        "sys.modules.pop('wrongturn')"
    )
    # The package root imports everything, so the ground is loaded here with an empty root in its place.
    root = f"import sys, types; p = types.ModuleType('wrongturn'); p.__path__ = {list(wt.__path__)!r};"
    root += "sys.modules['wrongturn'] = p;"
    listing = "print(sorted(m for m in sys.modules if m.startswith('wrongturn.')))"
    found = subprocess.run(
        [sys.executable, "-c", root + code + ";" + listing], capture_output=True, text=True, check=True
    )
    assert eval_list(found.stdout) == [
        "wrongturn.signals",
        "wrongturn.stats",
        "wrongturn.trace",
        "wrongturn.triggers",
        "wrongturn.vocabulary",
    ]


def eval_list(text: str) -> list[str]:
    import ast

    return ast.literal_eval(text)
