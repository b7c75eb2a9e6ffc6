"""A whole collection from a server of which every fifth answer is a fault, and which restarts now and then."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from misbehaving import EOS, FAULTS, KEY, MODEL, WORDS, Manners, Server

import wrongturn
from wrongturn import Problem
from wrongturn.engines._http import Patience
from wrongturn.engines.base import Capabilities
from wrongturn.engines.openai import OpenAI
from wrongturn.strategies.base import mix_seed

TIERS = {
    "ids": Manners(cached=True),
    "text": Manners(ids=False, chat=False, tokenize=False),
    "chat": Manners(ids=False, completions=False, thinks=True),
}
DOOMED = " w39"  # prompts that begin so are never answered
LENGTH, SAMPLES = 6, 2


def fault(number: int, body: Mapping[str, Any]) -> str | None:
    prompt = body.get("prompt") or body["messages"][0]["content"]
    if (prompt[:4] if isinstance(prompt, str) else WORDS[prompt[0]]) == DOOMED:
        return "500"
    rng = random.Random(number)
    fault = rng.choice(FAULTS) if rng.random() < 0.2 else None
    return "cut" if fault == "hang" and number % 4 else fault  # each costs the whole timeout


def collect_through_faults(folder: Path, tier: str, problems: int, restarts: int) -> Server:
    manners = TIERS[tier]
    with Server(manners) as server:
        engine = OpenAI(MODEL, server.url, KEY, retries=Patience(9, 0.005, 0.5), timeout=2.0, logprobs=5)
        wrongturn.pipeline.wait(engine.ready())
        manners.fault = fault
        asked = [
            Problem(f"p{i}", "exact", f" w{4 + i % 36} w{4 + i // 36 % 36}", reference="42") for i in range(problems)
        ]
        over = threading.Event()

        def restart() -> None:
            for _ in range(restarts):
                if not over.wait(0.5):
                    server.restart(0.05)

        thread = threading.Thread(target=restart)
        thread.start()
        options: dict[str, Any] = {"samples": SAMPLES, "max_tokens": LENGTH, "top_k": 2, "seed": 7}
        try:
            run = wrongturn.collect(engine, asked, out=folder, **options)
        finally:
            over.set()
            thread.join()
        check(server, run, asked, tier)
        manners.fault = lambda number, body: None
        wrongturn.collect(engine, asked, out=folder, **options)  # resumed: what had failed, and nothing else
        assert Counter(trace.id for trace in run.traces()) == Counter(names(asked))
        return server


def names(asked: list[Problem]) -> list[str]:
    return [f"{problem.id}/sample/{k}" for problem in asked for k in range(SAMPLES)]


def check(server: Server, run: wrongturn.Run, asked: list[Problem], tier: str) -> None:
    """Every job has its trace, token for token, or a recorded reason."""
    doomed = {name for name in names(asked) if asked[int(name[1:].partition("/")[0])].prompt.startswith(DOOMED)}
    failures = {failure.id: failure.reason for failure in run.failures()}
    assert failures.keys() == doomed
    assert set(failures.values()) <= {"server error", "connection", "timeout"}  # the last thing that happened
    stored = {trace.id: trace for trace in run.traces()}
    assert len(stored) == len(list(run.traces()))
    assert stored.keys() == set(names(asked)) - doomed
    sent = {body.get("seed"): body for body in server.bodies}
    for name in stored.keys() - doomed:
        trace, seed = stored[name], mix_seed(mix_seed(7, name), 0)
        ids = server.drawn(sent[seed if tier == "ids" else seed % 2**31])[1]
        words = [WORDS[i] for i in ids]
        if tier == "chat":
            words = [f"<think>{words[0]}", *words[1:3], *(f"</think>{w}" for w in words[3:4]), *words[4:]]
        if tier == "ids":
            assert trace.ids.tolist() == ids
        assert trace.text == "".join(words) or (ids[-1] == EOS and trace.text == "".join(words[:-1]))
        assert trace.usage.kept in (len(trace.ids), len(ids))  # an end token without text is counted, and not shown
        known = trace.signals.nll[~np.isnan(trace.signals.nll)]
        assert (known >= 0).all()


@pytest.mark.extras
@pytest.mark.parametrize("tier", TIERS)
def test_nothing_is_lost_and_nothing_double(tier: str, tmp_path: Path) -> None:
    server = collect_through_faults(tmp_path / "run", tier, problems=40, restarts=1)
    assert len(server.faults) >= 8


@pytest.mark.servers
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the toy server drops some in its eight restarts
def test_ten_thousand_requests_of_which_a_fifth_meet_a_fault(tmp_path: Path) -> None:
    server = collect_through_faults(tmp_path / "run", "ids", problems=3700, restarts=8)
    assert len(server.bodies) >= 10_000
    assert set(server.faults) == set(FAULTS)
    assert sum(server.faults.values()) > 0.18 * len(server.bodies)
    gc.collect()  # here, not in another test


def test_an_expired_key_is_said_once(tmp_path: Path) -> None:
    with Server(Manners(expired=True)) as server:
        engine = OpenAI(MODEL, server.url, KEY, capabilities=Capabilities(top_k=5), mode="completions")
        asked = [Problem(f"p{i}", "exact", " w5", reference="1") for i in range(300)]
        with pytest.raises(wrongturn.WrongturnError) as failed:
            wrongturn.collect(engine, asked, out=tmp_path / "run", max_tokens=4)
        assert "401" in str(failed.value)
        assert KEY not in str(failed.value)
        assert not any(KEY.encode() in file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())
