"""Triage: what it finds where something was planted, what it leaves open where nothing was, and whom it never skips."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_traces import made
from wrongturn.cli_triage import triage as command
from wrongturn.diagnose import triage as module
from wrongturn.diagnose.modes.features import SOUND
from wrongturn.diagnose.modes.refit import Scored
from wrongturn.diagnose.modes.ridge import logistic, prepare
from wrongturn.diagnose.triage import Triage, triage
from wrongturn.diagnose.votes import read_samples, vote
from wrongturn.errors import WrongturnError
from wrongturn.stats import auroc, average_precision
from wrongturn.store import Run

PROBLEMS, SAMPLES = 60, 4


def make_run(path: Path, signal: float, problems: int = PROBLEMS, hard: float = 0.4, silent: int = 0) -> Run:
    """Problems whose samples all agree; those of the ``hard`` share are wrong, their entropy higher by ``signal``. The
    first ``silent`` samples have no answer."""
    rng = np.random.default_rng(0)
    wrong = rng.permutation(np.arange(problems) < hard * problems)
    traces = []
    for i in range(problems * SAMPLES):
        p = i // SAMPLES
        trace = made(i, tokens=12, strategy="sample", correct=not wrong[p], answer="no" if wrong[p] else "yes")
        trace.signals.entropy[:] += signal * wrong[p]
        trace.sample, trace.group = i % SAMPLES, ""
        if i < silent:
            trace.answer, trace.correct = None, False
        traces.append(trace)
    with Run.create(path, {}) as run:
        run.append(traces)
        return run


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Triage]:
    run = make_run(tmp_path_factory.mktemp("told") / "run", signal=1.0, silent=3)
    return run, triage(run)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Triage:
    return triage(make_run(tmp_path_factory.mktemp("noise") / "run", signal=0.0))


def test_what_was_planted_is_found(told: tuple[Run, Triage]) -> None:
    _, found = told
    skills = {skill.score: skill for skill in found.first}
    assert skills["uncertainty"].auroc.low > 0.9
    assert skills["length"].auroc.low < 0.5 < skills["length"].auroc.high + 0.01
    assert found.lifts_first[0].auroc.low > 0
    assert found.rule is not None
    assert found.rule.recall.low <= 0.95
    assert found.rule.recall.value > 0.85
    assert found.rule.skipped.value > 0.4
    assert found.rule.gain.low > 0.2
    assert found.rule.tokens.value < 0.8


def test_noise_promises_nothing(noise: Triage) -> None:
    assert noise.rule is not None
    assert noise.rule.gain.low < 0.05
    assert noise.first[0].auroc.low < 0.55
    assert noise.agreement.value == 1
    assert {skill.score: skill.auroc.value for skill in noise.voted}["agreement"] == 0.5  # all alike: it tells nothing


def test_uncertainty_adds_where_agreement_is_blind(told: tuple[Run, Triage], noise: Triage) -> None:
    """All samples agree on wrong answers: only uncertainty can tell."""
    lifts = [{(lift.score, lift.over): lift for lift in found.lifts_voted} for found in (told[1], noise)]
    pair = "agreement + uncertainty", "agreement"
    assert lifts[0][pair].auroc.low > 0.2
    assert lifts[1][pair].auroc.low < 0.1
    assert lifts[0]["agreement + length", "agreement"].auroc.low < 0.1


def test_curves_fall_from_all_to_none(told: tuple[Run, Triage]) -> None:
    for curve in told[1].curves:
        assert (curve.recall[0], curve.recall[-1]) == (1, 0)
        assert all(a >= b for a, b in zip(curve.recall, curve.recall[1:], strict=False))
        assert all(a <= b <= c for a, b, c in zip(curve.low, curve.recall, curve.high, strict=True))
    assert {(curve.score, curve.failure) for curve in told[1].curves} == {
        (score, failure) for score in ("uncertainty", "length") for failure in ("first", "voted")
    }


def test_without_an_answer_nothing_is_skipped(told: tuple[Run, Triage]) -> None:
    _, found = told
    assert found.outcomes["unparsed"] == 3
    rows = PROBLEMS * SAMPLES
    assert found.rule is not None
    assert found.rule.skipped.value <= (rows - 3) / rows
    assert found.agreement.value == pytest.approx(1 - 3 / SAMPLES / PROBLEMS)


def test_the_rule_in_plain_features_is_the_score(told: tuple[Run, Triage]) -> None:
    run, found = told
    assert found.rule is not None
    samples = read_samples(run)
    rows = samples.answered
    assert list(found.rule.weights) == list(SOUND)
    plain = found.rule.intercept + samples.features[rows] @ np.array(list(found.rule.weights.values()))
    design, _ = prepare(samples.features[rows], samples.features[:1])
    fitted = design @ logistic(design, (~samples.right[rows]).astype(float)[:, None])[:, 0]
    np.testing.assert_allclose(plain, (fitted - fitted.mean()) / fitted.std(), atol=1e-9)
    again = plain >= found.rule.threshold
    assert again[~samples.right[rows]].mean() > 0.85


def test_votes(tmp_path: Path) -> None:
    answers = ["a", "b", "b", None], ["a", "b", "a", "b"], [None] * 4, ["a", "a", None, None]
    with Run.create(tmp_path / "run", {}) as run:
        for p, given_answers in enumerate(answers):
            for s, answer in enumerate(given_answers):
                trace = made(4 * p + s, strategy="sample", answer=answer, correct=answer == "a")
                trace.sample = s
                run.append([trace])
        votes = vote(read_samples(run))
    assert votes.right.tolist() == [False, True, False, True]  # of equals the first seen
    assert votes.agreement.tolist() == [0.5, 0.5, 0, 0.5]


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1), st.floats(0.05, 0.99))
def test_the_threshold_keeps_what_it_must(rows: list[tuple[int, bool]], recall: float) -> None:
    scores, failed = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    failed[0] = True
    threshold = module._threshold(scores, failed, recall)
    assert (scores[failed] >= threshold).mean() >= recall - 1e-9
    assert (scores[failed] > threshold).mean() < recall


def test_scores_are_those_of_the_plain_measures() -> None:
    rng = np.random.default_rng(0)
    failed, groups = rng.random(90) < 0.4, np.repeat(np.arange(30), 3)
    score = rng.integers(0, 6, 90).astype(float)  # with ties
    found = Scored(failed, groups, {"x": rng.normal(size=(90, 2)) + failed[:, None]}, {"given": score}, n_boot=50)
    for name in ("x", "given"):
        assert found.auroc(name).value == pytest.approx(auroc(failed, found.scores[name]))
        assert found.ap(name).value == pytest.approx(average_precision(failed, found.scores[name]))
    lift = found.auroc("x", "given")
    assert lift.value == pytest.approx(found.auroc("x").value - found.auroc("given").value)
    assert lift.low < lift.value < lift.high
    assert math.isnan(lift.base_rate)


def test_noise_that_samples_share_is_no_signal() -> None:
    """Samples of a problem alike in noise and in label: told by sample they would give each other away."""
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(40), 6)
        failed = np.repeat(rng.random(40) < 0.4, 6)
        shared = rng.normal(size=(40, 8))[groups] + 0.1 * rng.normal(size=(240, 8))
        found.append(
            [Scored(failed, g, {"x": shared}, n_boot=2, repeats=2).auroc("x").value for g in (groups, np.arange(240))]
        )
    whole, apart = np.mean(found, axis=0)
    assert whole < 0.6
    assert apart > 0.65


def test_too_few_of_either_is_said(tmp_path: Path) -> None:
    found = triage(make_run(tmp_path / "run", 1.0, problems=20, hard=0.2))
    assert found.reasons == (
        "first answers: wrong in 4 problems, right in 16; fewer than 10 of either tell nothing",
        "voted answers: wrong in 4 problems, right in 16; fewer than 10 of either tell nothing",
    )
    assert (found.rule, found.first, found.curves, found.voted) == (None, (), (), ())
    json.dumps(found.dict(), allow_nan=False)
    with pytest.raises(WrongturnError, match="nothing to draw"):
        command(tmp_path / "run", plot=tmp_path / "t.svg")


def test_one_sample_a_problem_is_refused(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {}) as run:
        run.append([made(4 * i, strategy="sample", correct=True, answer="a") for i in range(5)])
        run.append([made(21, strategy="guard"), made(22, correct=None)])
        with pytest.raises(WrongturnError, match="no problem has two graded plain samples"):
            triage(run)


def test_the_command(told: tuple[Run, Triage], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = told[0].path
    command(folder, plot=tmp_path / "t.svg", as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts == told[1].dict()
    texts = [e.text for e in ET.parse(tmp_path / "t.svg").getroot().iter() if e.tag.endswith("text")]
    assert {"uncertainty", "length", "at random", "rule for 95 %"} <= set(texts)
    command(folder, recall=0.8)
    shown = capsys.readouterr().out
    assert "keep 80 % of wrong first answers" in shown
    assert "uncertainty over length" in shown
    for options, expected in [({"recall": 1.0}, "--recall 1"), ({"plot": tmp_path / "t.png"}, "must end in .svg")]:
        with pytest.raises(WrongturnError, match=expected):
            command(folder, **options)
