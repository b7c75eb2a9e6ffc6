"""The models that come with the package: whole, of one descent, and small enough."""

from __future__ import annotations

import json

import pytest

import wrongturn as wt
from wrongturn.engines.embedded import model_folder
from wrongturn.lab.folders import layout

NAMES = ("graph_search", "ancestor", "sft", "grpo")


def test_all_weights_together_are_small() -> None:
    files = [file for file in model_folder().parent.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6


@pytest.mark.parametrize("name", NAMES)
def test_a_model_opens_by_its_name_and_solves_something(name: str) -> None:
    assert layout(model_folder(name)).exported
    engine = wt.open(f"embedded:{name}")
    assert engine.model == name
    solved = wt.solve(engine, wt.tasks.GraphSearch().problems("G15_2,4", 8), strategy="greedy")
    assert sum(bool(trace.correct) for trace in solved) >= 5


@pytest.mark.torch
def test_the_specialists_descend_from_the_ancestor() -> None:
    pytest.importorskip("torch")
    from wrongturn.lab.checkpoints import ancestor

    *_, fingerprint = ancestor(model_folder("ancestor"))
    for name in ("sft", "grpo"):
        assert json.loads((model_folder(name) / "training.json").read_text())["ancestor"] == fingerprint
