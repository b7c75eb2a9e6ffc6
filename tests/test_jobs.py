"""Collections in which things go wrong, and questions put in words."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest

import wrongturn as wt
from wrongturn.engines import Capabilities, Chunk, Request
from wrongturn.engines.scripted import Scripted
from wrongturn.errors import EngineError, WrongturnError
from wrongturn.jobs import Limits, Settings, carry_out, jobs
from wrongturn.store import Failure
from wrongturn.strategies import Context

WORDS = ("<end>", "<user>", "2+2?", " The", " answer", " is", " 4", " 5", ".\n", "\n\n")


class Words:
    """A vocabulary of ten words."""

    stop_ids = (0,)

    def encode(self, text: str) -> list[int]:
        return [WORDS.index(text)]

    def pieces(self, ids) -> list[str]:
        return ["" if i == 0 else WORDS[i] for i in ids]

    def prompt(self, messages) -> list[int]:
        return [1, *(2 for message in messages if message["content"].startswith("2+2?"))]

    def containing(self, marks) -> tuple[int, ...]:
        return tuple(i for i, word in enumerate(WORDS) if any(mark in word for mark in marks))


class Talker(Scripted):
    """Answers "The answer is 4." or 5; fails as told, by how often a prompt was asked."""

    def __init__(self, failing: set[int] | None = None, fatal: bool = False) -> None:
        super().__init__({(2,): 3, (3,): 4, (4,): 5, (5,): {6: 0.5, 7: 0.5}, (6,): 8, (7,): 8, (8,): 0}, len(WORDS))
        self.vocabulary = Words()
        self.asked, self.failing, self.fatal = 0, failing or set(), fatal

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        self.asked += 1
        if self.asked in self.failing:
            raise EngineError("the server said no", "server error", fatal=self.fatal)
        async for chunk in super().stream(request):
            yield chunk


def questions(n: int) -> list[wt.Problem]:
    return [wt.Problem(f"q{i}", "numeric", "2+2?", reference="4") for i in range(n)]


def test_a_question_in_words_is_asked_and_graded() -> None:
    traces = wt.solve(Talker(), questions(20), seed=1)
    assert {trace.text for trace in traces} == {" The answer is 4.\n", " The answer is 5.\n"}
    for trace in traces:
        assert trace.prompt_ids.tolist() == [1, 2]
        assert trace.answer in ("4", "5")
        assert trace.correct is (trace.answer == "4")
        assert trace.outcome == ("right" if trace.answer == "4" else "wrong")
        assert trace.pieces == [" The", " answer", " is", f" {trace.answer}", ".\n", ""]


def test_messages_are_put_as_they_are() -> None:
    asked = wt.Problem("q", "numeric", "?", reference="4", messages=({"role": "user", "content": "2+2?"},) * 2)
    assert wt.solve(Talker(), [asked])[0].prompt_ids.tolist() == [1, 2, 2]


def test_an_engine_without_words_says_so() -> None:
    engine = Talker()
    engine.vocabulary = None
    with pytest.raises(EngineError, match="scripted: script has no vocabulary of words"):
        wt.solve(engine, questions(1))


def test_a_question_the_model_has_no_words_for_is_named() -> None:
    with pytest.raises(ValueError, match="problem 'q0': embedded:graph_search has no words for it"):
        wt.solve(wt.open("embedded"), questions(1))


def test_alternatives_keep_their_texts(tmp_path: Path) -> None:
    run = wt.collect(Talker(), questions(3), out=tmp_path / "run")
    assert run.vocabulary().items() >= {3: " The", 6: " 4", 7: " 5"}.items()

    summary = wt.report(run)
    assert summary["traces"] == 3


class Asking(Words):
    """Asks a server what alternatives say, which is away for the first ``away`` times; and says who asked."""

    def __init__(self, away: int) -> None:
        self.away = away

    def pieces(self, ids) -> list[str]:
        if threading.current_thread() is not threading.main_thread():  # a trace's own texts are read in that one
            self.away -= 1
            if self.away >= 0:
                raise EngineError("/detokenize: connection refused", "connection")
        return super().pieces(ids)


def test_a_server_that_does_not_say_what_alternatives_are_costs_no_trace(tmp_path: Path) -> None:
    engine = Talker()
    engine.vocabulary = Asking(99)
    with pytest.warns(RuntimeWarning, match="6 alternatives of its traces say is not recorded: /detokenize") as said:
        run = wt.collect(engine, questions(70), out=tmp_path / "run", top_k=1)
    assert len(said) == 1
    assert engine.vocabulary.away == 97  # once more at the end
    assert (len(run), run.vocabulary()) == (70, {})


def test_alternatives_are_asked_for_again(tmp_path: Path) -> None:
    engine = Talker()
    engine.vocabulary = Asking(1)
    run = wt.collect(engine, questions(70), out=tmp_path / "run")
    assert engine.vocabulary.away < 0
    assert run.vocabulary() == wt.collect(Talker(), questions(70), out=tmp_path / "other").vocabulary()


def test_failures_are_recorded_and_tried_again(tmp_path: Path) -> None:
    run = wt.collect(Talker(failing={2, 5}), questions(6), out=tmp_path / "run", samples=2)
    assert len(run) == 10
    assert Counter(failure.reason for failure in run.failures()) == {"server error": 2}
    again = wt.collect(Talker(), questions(6), out=tmp_path / "run", samples=2)
    assert len(again) == 12
    assert again.failures() == []


def test_a_fatal_failure_ends_the_collection_and_keeps_what_there_is(tmp_path: Path) -> None:
    engine = Talker(failing={5}, fatal=True)
    engine.concurrency = 1
    with pytest.raises(EngineError, match="the server said no"):
        wt.collect(engine, questions(9), out=tmp_path / "run")
    assert len(wt.Run.open(tmp_path / "run")) == 4


def test_solve_stops_at_a_failure() -> None:
    with pytest.raises(EngineError, match=r"problem 'q\d': the server said no"):
        wt.solve(Talker(failing={3}), questions(5))


def test_no_problem_begins_beyond_the_limit(tmp_path: Path) -> None:
    engine = Talker()
    engine.concurrency = 1
    run = wt.collect(engine, questions(50), out=tmp_path / "run", limits=Limits(tokens=20))
    assert 20 <= sum(row["decoded"] for row in run.summary()) < 20 + 2 * 6
    again = wt.collect(Talker(), questions(50), out=tmp_path / "run", limits=Limits(tokens=20))
    assert len(again) == len(run)  # what the run holds counts
    assert len(wt.collect(Talker(), questions(50), out=tmp_path / "run")) == 50


def test_tokens_of_failures_count(tmp_path: Path) -> None:
    class Cut(Talker):
        async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
            async for _ in super().stream(request):
                raise EngineError("the stream was cut", "connection")
            yield  # type: ignore[misc]

    engine = Cut()
    engine.concurrency = 1
    run = wt.collect(engine, questions(50), out=tmp_path / "run", limits=Limits(tokens=20))
    failed, before = run.failures(), run.usage()
    assert {failure.decoded for failure in failed} == {6}
    assert 4 <= len(failed) <= 4 + 3  # some may be under way while another is written down
    assert before == wt.trace.Usage(dropped=6 * len(failed))
    wt.collect(engine, questions(50), out=tmp_path / "run", limits=Limits(tokens=before.dropped))
    assert run.usage() == before
    wt.collect(engine, questions(50), out=tmp_path / "run", limits=Limits(tokens=before.dropped + 1))
    assert run.usage().dropped > before.dropped  # tried again, and paid for again
    assert {failure.id for failure in run.failures()} == {failure.id for failure in failed}


def test_the_rest_waits_while_nobody_takes_what_is_ready() -> None:
    engine = Talker()
    engine.concurrency = 4

    async def work() -> int:
        looked_at = 0

        def todo():
            nonlocal looked_at
            for job in jobs(questions(1000), "sample"):
                looked_at += 1
                yield job

        stream = carry_out(engine, todo(), Settings())
        await anext(stream)
        await asyncio.sleep(0.05)
        await stream.aclose()
        return looked_at

    assert asyncio.run(work()) <= 4 * 3


def test_every_job_ends_once_whatever_fails() -> None:
    engine = Talker(failing=set(range(1, 400, 3)))

    async def work() -> list:
        return [made async for made in carry_out(engine, jobs(questions(100), "sample", 2), Settings())]

    ended = [made.id if isinstance(made, Failure) else made[0].id for made in asyncio.run(work())]
    assert sorted(ended) == sorted(job.id for job in jobs(questions(100), "sample", 2))


def test_a_fork_needs_an_engine_that_continues_prefixes() -> None:
    engine = Talker()
    engine.capabilities = Capabilities(vocab_size=len(WORDS), context=4096, prefix=False)
    ctx = Context(engine, wt.tasks.get("numeric").on(engine.vocabulary), [1, 2], name="guard")

    async def work() -> None:
        draft = await ctx.sample()
        await ctx.fork(draft, at=2)

    with pytest.raises(EngineError, match="guard continues a prefix of its own choice, which scripted:script does not"):
        asyncio.run(work())


def test_a_trigger_needs_an_engine_that_tells_probabilities() -> None:
    engine = Talker()
    engine.capabilities = Capabilities(vocab_size=len(WORDS), context=4096, logprobs="none")
    with pytest.raises(EngineError, match="guard watches the uncertainty of tokens, but scripted:script tells no logp"):
        wt.solve(engine, questions(1), strategy="guard")


def test_a_grader_that_fails_costs_no_trace(tmp_path: Path) -> None:
    def grader(reference: str, answer: str) -> bool:
        raise ZeroDivisionError("oh")

    wt.tasks.register(wt.tasks.TextTask("clumsy", grader))
    asked = [wt.Problem("q", "clumsy", "2+2?", reference="4")]
    (trace,) = wt.collect(Talker(), asked, out=tmp_path / "run").traces()
    assert trace.correct is None
    assert trace.events == [{"event": "ungraded", "why": trace.events[0]["why"]}]
    assert "ZeroDivisionError" in trace.events[0]["why"]


def test_a_task_that_cannot_be_graded_here_says_so_before_a_model_is_asked() -> None:
    def missing() -> None:
        raise WrongturnError("no library")

    engine = Talker()
    wt.tasks.register(wt.tasks.TextTask("unable", lambda reference, answer: True, needs=missing))
    with pytest.raises(WrongturnError, match="no library"):
        wt.solve(engine, [wt.Problem("q", "unable", "2+2?", reference="4")])
    assert engine.asked == 0


def test_prices_add_up() -> None:
    usage = wt.trace.Usage(prompt=1_000_000, reused=500_000, kept=200_000, dropped=50_000)
    assert Limits(price=(0.2, 4.0)).cost(usage) == pytest.approx(0.3 + 1.0)
    assert np.isnan(Limits().cost(usage))
