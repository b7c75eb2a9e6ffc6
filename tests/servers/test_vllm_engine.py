"""The vllm engine, in a process of vLLM's own Python, against the embedded engine: the same tokens and logprobs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wrongturn.engines.base import Chunk, Request, Sampling
from wrongturn.engines.embedded import Embedded, packaged
from wrongturn.tasks import graphs as gs

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

PROMPTS = [p.prompt_ids for p in gs.GraphSearch().problems("G15_2,4", 20, seed=11)]
GREEDY = [{"prefix": [*p], "max_tokens": 120, "stop_ids": [gs.EOS], "start": len(p)} for p in PROMPTS]
OTHERS: list[dict[str, Any]] = [
    *({"prefix": [*PROMPTS[0]], "max_tokens": 40, "temperature": 1.0, "seed": s, "chunk": 7} for s in (3, 3, 4)),
    {"prefix": [*PROMPTS[0]], "max_tokens": 60, "until": True},
    *({"prefix": [*PROMPTS[i]], "max_tokens": 30, "meter": True} for i in range(3)),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the engine said, in one process: starting it takes most of a minute."""
    python = os.environ.get("WRONGTURN_VLLM_PYTHON", ".venv-vllm/bin/python")
    if not Path(python).exists():
        pytest.fail(f"{python}: no vLLM there; `make test-servers` installs it")
    folder = tmp_path_factory.mktemp("vllm_engine")
    (folder / "asked.json").write_text(json.dumps([GREEDY, OTHERS], default=int))
    root = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, [str(root / "src"), os.environ.get("PYTHONPATH")]))
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    command = [python, str(root / "tests/servers/vllm_child.py")]
    command += [str(folder / "asked.json"), str(folder / "answers.json"), str(packaged())]
    child = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, timeout=540)
    assert child.returncode == 0, child.stderr[-4000:]
    return json.loads((folder / "answers.json").read_text())


def embedded(asked: list[dict[str, Any]]) -> list[Chunk]:
    async def together() -> list[Chunk]:
        engine = Embedded()
        requests = [
            Request(np.array(a["prefix"], np.int32), a["max_tokens"], Sampling(0.0), stop_ids=(gs.EOS,), top_k=3)
            for a in asked
        ]
        return await asyncio.gather(*map(engine.generate, requests))

    return asyncio.run(together())


def test_greedy_traces_are_those_of_the_embedded_engine(answers: dict[str, Any]) -> None:
    for ours, theirs in zip(answers["batches"][0], embedded(GREEDY), strict=True):
        assert ours["ids"] == theirs.ids.tolist()
        assert ours["finish"] == theirs.finish
        assert [top[0] for top in ours["top_ids"]] == theirs.top_ids[:, 0].tolist()
        for name in ("nll", "entropy", "entropy_low", "entropy_high", "margin"):
            np.testing.assert_allclose(ours[name], getattr(theirs.signals, name), atol=1e-3, rtol=0)


def test_seeds_prefixes_stops_and_budgets(answers: dict[str, Any]) -> None:
    first, again, other, stopped, *metered = answers["batches"][1]
    assert first["ids"] == again["ids"] != other["ids"]
    assert first["reused"] >= 64  # its prompt was computed before
    assert first["reused"] + first["prompt"] == len(PROMPTS[0])
    assert stopped["finish"] == "until"
    assert 4 < len(stopped["ids"]) < 60
    assert sum(len(chunk["ids"]) for chunk in metered) == answers["spent"] == 50
    assert {chunk["finish"] for chunk in metered} == {"budget"}


def test_closing_a_stream_frees_its_place(answers: dict[str, Any]) -> None:
    assert answers["left"] == 0


def test_its_capabilities_are_stamped(answers: dict[str, Any]) -> None:
    stamp = answers["provenance"]
    assert (stamp["engine"], stamp["model"]) == ("vllm", "graph_search")
    assert stamp["capabilities"]["prefix_caching"]
    assert (stamp["capabilities"]["top_k"], stamp["capabilities"]["context"]) == (31, 384)
