"""What one process collected from a server, continued by another: an engine of its own, which has met no token yet."""

from __future__ import annotations

import re
from pathlib import Path

import misbehaving
import pytest
from misbehaving import KEY, MODEL, SIZE, WORDS, Manners, Server

import wrongturn as wt
from wrongturn.engines._http import Patience
from wrongturn.engines._words import Mapped
from wrongturn.engines.openai import OpenAI
from wrongturn.engines.pool import Pool
from wrongturn.locating import locate, planner
from wrongturn.pipeline import wait
from wrongturn.rescuing import described, rescue
from wrongturn.trace import Trace

TIERS = {
    "ids": Manners(),
    "text": Manners(ids=False, chat=False, tokenize=False),
    "chat": Manners(ids=False, completions=False),
}
HASTY = Patience(1, 0.001, 0.01)


def opened(server: Server, like: OpenAI | None = None) -> OpenAI:
    """A new engine; it need not ask what the server can do where another one ``like`` it has."""
    engine = OpenAI(MODEL, server.url, KEY, retries=HASTY, vocab_size=SIZE)
    if like is not None and like.report is not None:
        engine.adopt(like.report)
    return engine


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some words end a step."""
    monkeypatch.setattr(misbehaving, "WORDS", [*WORDS[:4], *(f"{word}*\n\n" for word in WORDS[4:14]), *WORDS[14:]])
    monkeypatch.setattr(misbehaving, "_PIECE", re.compile(r" w\d+\*\n\n|" + misbehaving._PIECE.pattern))


def questions(n: int) -> list[wt.Problem]:
    return [wt.Problem(f"q{i}", "numeric", f" w{5 + i}", reference="none is right") for i in range(n)]


@pytest.mark.parametrize("tier", TIERS)
def test_traces_are_continued(tier: str, tmp_path: Path, steps: None) -> None:
    with Server(TIERS[tier]) as server:
        first = opened(server)
        run = wt.collect(first, questions(2), out=tmp_path / "run", samples=2, max_tokens=8, top_k=1)
        parents = {trace.id: trace for trace in run.traces()}
        assert any(len(trace) > 1 for trace in parents.values())
        with wt.Run.create(run.path, run.settings) as again:
            wait(locate(opened(server, first), again, planner("curve", 4)))
            engine = opened(server, first)
            with wt.Run.create(run.path / "rescue", described(engine, run)) as tries:
                wait(rescue(engine, run, tries, ["rewind:where=random"], tries=2))
        assert run.failures() == tries.failures() == []
        resumed = [t for t in again.traces() if t.strategy.startswith("resample:")]
        retried = list(tries.traces())
        assert all(any(t.lineage and t.lineage.at > 0 for t in traces) for traces in (resumed, retried))
        for trace in [*resumed, *retried]:
            assert trace.lineage is not None
            assert written(trace, trace.lineage.at) == written(parents[trace.lineage.parent], trace.lineage.at)


def written(trace: Trace, at: int) -> str:
    assert trace.pieces is not None
    return "".join(trace.pieces[:at])


@pytest.mark.parametrize("tier", ["ids", "text"])
def test_steps_end_where_they_did(tier: str, tmp_path: Path, steps: None) -> None:
    with Server(TIERS[tier]) as server:
        used = opened(server)
        wt.collect(used, questions(3), out=tmp_path / "run", max_tokens=40)
        one, two = (
            wt.solve(engine, questions(3), strategy="guard:q=0.2,horizon=4", max_tokens=40)
            for engine in (opened(server, used), used)
        )
        assert [trace.ids.tolist() for trace in one] == [trace.ids.tolist() for trace in two]
        spikes = [(trace.pieces or [])[e["at"] - 1] for trace in one for e in trace.events if e["event"] == "spike"]
        assert any("*" in piece for piece in spikes)


@pytest.mark.parametrize("gone", [0, 1])
def test_a_pool_goes_on_without_a_server(gone: int, tmp_path: Path) -> None:
    with Server() as one, Server() as two:
        first = opened(one)
        wait(first.ready())
        pool = Pool([first, opened(two, first)])
        wait(pool.ready())
        server = (one, two)[gone]
        server._call(server._shut())
        run = wt.collect(pool, questions(8), out=tmp_path / "run", max_tokens=8, top_k=2)
        assert (len(run), run.failures()) == (8, [])
        assert len(run.vocabulary()) > 8


class Characters:
    """A local tokenizer that knows some letters."""

    stop_ids = ()

    def encode(self, text: str) -> list[int]:
        return ["abc\n".index(letter) if letter in "abc\n" else 9 for letter in text]

    def pieces(self, ids) -> list[str]:
        return ["abc\n"[i] for i in ids]

    def containing(self, marks) -> tuple[int, ...]:
        return tuple(i for i, text in enumerate("abc\n") if any(mark in text for mark in marks))


def test_texts_that_a_local_tokenizer_lacks_are_met_too() -> None:
    there, here = (Mapped(Characters()) for _ in range(2))  # type: ignore[arg-type]
    marked = here.containing("\n")
    texts = ["a", "$\n\n", "\n", "bc"]
    ids = [there.intern(text) for text in texts]
    here.meet(ids, texts)
    assert here.pieces(ids) == texts
    assert [here.intern(text) for text in texts] == ids
    assert set(marked) == {ids[1], ids[2]}
