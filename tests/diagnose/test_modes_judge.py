"""Our method: what it lets pass, what it finds, and what it says where it cannot tell."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_tables import made_columns, published_table, write_csv

from made_traces import made, made_problem
from wrongturn.diagnose.modes import failure_modes, features, judge
from wrongturn.diagnose.modes.features import SOUND, Features
from wrongturn.diagnose.modes.gate import exchangeable, gate, gate_statistics, permuted
from wrongturn.diagnose.modes.judge import decide
from wrongturn.diagnose.modes.judgement import Prefix, Skill
from wrongturn.diagnose.modes.measure import group_index
from wrongturn.diagnose.modes.refit import drawn_rows
from wrongturn.diagnose.modes.ridge import group_folds, logistic, out_of_fold, prepare
from wrongturn.diagnose.modes.scoring import plain_precision, random_precision
from wrongturn.errors import WrongturnError
from wrongturn.store import Run

FAST = {"repeats": 2, "n_boot": 200, "permutations": 39}


def made_features(n: int = 300, early: float = 0.0, full: float = 0.0, seed: int = 0, samples: int = 1) -> Features:
    """30 % failures whose features are higher by ``early`` in two prefixes and by ``full`` in whole traces, which share
    most of their noise; completions of one problem have it in common, label included."""
    rng = np.random.default_rng(seed)
    problems = n // samples
    failed = np.repeat(rng.permutation(np.arange(problems) < 0.3 * problems), samples)
    common = np.repeat(rng.normal(size=(problems, len(SOUND))), samples, axis=0)
    tables = [
        0.9 * common + 0.45 * rng.normal(size=(n, len(SOUND))) + effect * failed[:, None] / 2
        for effect in (early, early, full)
    ]
    groups = np.repeat(np.arange(problems), samples).astype(str) if samples > 1 else None
    lengths = rng.integers(600, 2000, n).astype(np.float64)
    return Features("made", failed, SOUND, tables[2], (128.0, 256.0), np.stack(tables[:2]), "regular", lengths, groups)


@pytest.mark.extras
def test_planted_modes_are_found() -> None:
    early = judge(made_features(early=1.5, full=0.5), **FAST)
    assert early.verdict == "committed"
    assert early.commitment is not None
    value, low, high = early.commitment
    assert 128 <= low <= value <= high <= 256
    assert early.relative_commitment is not None
    assert early.relative_commitment[0] == pytest.approx(value / np.median(made_features().lengths))
    late = judge(made_features(early=0.5, full=1.5), **FAST)
    assert (late.verdict, late.commitment) == ("persistent", None)
    assert json.loads(json.dumps(late.dict(), allow_nan=False))["verdict"] == "persistent"


@pytest.mark.extras
def test_noise_gets_no_verdict() -> None:
    verdicts = [judge(made_features(100, seed=seed), **FAST) for seed in range(6)]
    assert sum(found.verdict != "undetermined" for found in verdicts) <= 1
    assert any("permuted labels" in found.reason for found in verdicts)


def test_repeated_samples_of_a_problem_are_not_independent() -> None:
    """Ten copies of 30 problems of noise: told apart by problem they look like signal, kept whole they do not."""
    alone, whole = [], []
    for seed in range(10):
        found = made_features(300, samples=10, seed=seed)
        alone.append(gate(found.failed, np.arange(300), [found.full], 19, seed))
        whole.append(gate(found.failed, group_index(found), [found.full], 19, seed))
    assert max(alone) == pytest.approx(1 / 20)
    assert sum(p <= 0.05 for p in whole) <= 2


def test_the_gate_is_exact() -> None:
    """Without a signal the labels rank evenly among their permutations."""
    ranks = []
    for seed in range(60):
        found = made_features(60, seed=seed)
        best = gate_statistics(found.failed, np.arange(60), [found.full], 19, seed)
        ranks.append(np.mean(best >= best[0]))
    assert 0.35 < np.mean(ranks) < 0.7
    assert np.mean(np.array(ranks) <= 0.05) <= 0.15


def test_groups_swap_labels_as_wholes() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(24), [2] * 12 + [3] * 12)
    failed = rng.random(60) < 0.4
    strata = exchangeable(groups, rng)
    assert sorted(rows.shape for rows in strata) == [(12, 2), (12, 3)]
    found = permuted(failed, strata, 50, rng)
    assert np.array_equal(found[:, 0], failed)
    for k in range(51):
        for rows in strata:
            assert sorted(map(tuple, found[rows, k])) == sorted(map(tuple, failed[rows].astype(float)))
    assert len({tuple(column) for column in found.T}) == 51


def test_groups_of_all_different_size_swap_with_those_of_similar_size() -> None:
    sizes = np.arange(1, 26)
    groups = np.repeat(np.arange(25), sizes)
    strata = exchangeable(groups, np.random.default_rng(0))
    assert [rows.shape for rows in strata] == [(10, 1), (15, 11)]  # 5 that are left join the last ten
    for rows in strata:
        assert all(len(set(groups[row])) == 1 for row in rows)
        assert len(np.unique(rows)) == rows.size
    few = exchangeable(np.array([0, 0, 1]), np.random.default_rng(0))
    assert [rows.shape for rows in few] == [(2, 1)]
    common = exchangeable(np.repeat(np.arange(15), [4] * 12 + [1, 2, 3]), np.random.default_rng(0))
    assert sorted(rows.shape for rows in common) == [(3, 1), (12, 4)]  # the many keep all their rows


def uneven(seed: int, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """40 problems with 1 to 40 samples, alike in noise and nearly in label; failures higher by ``effect``."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(40), np.arange(1, 41))
    hard = rng.random(40) < 0.4
    failed = np.where(rng.random(len(groups)) < 0.1, rng.random(len(groups)) < 0.4, hard[groups])
    shared = rng.normal(size=(40, 4))[groups] + 0.3 * rng.normal(size=(len(groups), 4))
    return groups, failed, shared + effect * failed[:, None]


def test_the_gate_works_with_groups_of_all_different_size() -> None:
    """It opens where there is a signal, and its ranks are even where there is none, though samples are alike."""
    opened, ranks = [], []
    for seed in range(30):
        groups, failed, table = uneven(seed, 0.0)
        best = gate_statistics(failed, groups, [table], 19, seed)
        ranks.append(np.mean(best >= best[0]))
    for seed in range(5):
        groups, failed, table = uneven(seed, 2.0)
        opened.append(gate(failed, groups, [table], 39, seed))
    assert max(opened) <= 0.05
    assert 0.35 < np.mean(ranks) < 0.7
    assert np.mean(np.array(ranks) <= 0.05) <= 0.2


def test_folds_keep_groups_whole_and_spread_failures() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 3)
    share = (np.arange(50) < 10).astype(float)
    fold = group_folds(groups, share, rng)
    assert all(len(set(fold[groups == g])) == 1 for g in range(50))
    assert np.bincount(fold).tolist() == [30] * 5
    assert np.bincount(fold, share[groups]).tolist() == [6] * 5


def test_nothing_of_a_test_fold_is_in_its_imputation() -> None:
    train, test = np.array([[1.0, np.nan], [np.nan, np.nan], [5.0, np.nan]]), np.array([[np.nan, 7.0], [100.0, 8.0]])
    fitted, held = prepare(train, test)
    assert fitted[:, 0].tolist() == [1, 1, 1]
    assert fitted[:, 1].mean() == pytest.approx(0)
    assert held[0, 1] == fitted[1, 1] == pytest.approx(0)  # the median of training, 3, is its mean as well
    assert not held[:, 2].any()  # unknown in training


def test_regression_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    y = np.stack([rng.random(200) < 1 / (1 + np.exp(-x[:, 0])), rng.random(200) < 0.3], axis=1).astype(float)
    found = logistic(np.column_stack([np.ones(200), x]), y)
    for k in range(2):
        model = linear.LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x, y[:, k])
        np.testing.assert_allclose(found[1:, k], model.coef_[0], atol=1e-4)
        assert found[0, k] == pytest.approx(model.intercept_[0], abs=1e-3)


def test_label_vectors_fitted_together_or_alone() -> None:
    found = made_features(100, full=1.0)
    labels = permuted(found.failed, [np.arange(100)[:, None]], 3, np.random.default_rng(0))
    fold = group_folds(np.arange(100), np.zeros(100), np.random.default_rng(0))
    together = out_of_fold(found.full, labels, fold)
    for k in range(4):
        np.testing.assert_allclose(together[:, k], out_of_fold(found.full, labels[:, [k]], fold)[:, 0], atol=1e-6)


def test_a_resample_is_fitted_as_if_its_rows_stood_there_as_often() -> None:
    found = made_features(100, full=1.0)
    rng = np.random.default_rng(0)
    drawn = drawn_rows(np.arange(100), 2, rng)
    assert drawn.sum(axis=0).tolist() == [100, 100]
    label, design = found.failed[:, None].astype(float), np.column_stack([np.ones(100), found.full])
    weighted = logistic(design, label, weights=drawn)
    for b in range(2):
        rows = np.repeat(np.arange(100), drawn[:, b].astype(int))
        np.testing.assert_allclose(weighted[:, [b]], logistic(design[rows], label[rows]), atol=1e-5)


def test_a_random_order_has_a_little_more_than_the_base_rate() -> None:
    rng = np.random.default_rng(0)
    failed = np.arange(20) < 5
    expected = np.mean([plain_precision(failed, rng.random(20)) for _ in range(4000)])
    assert random_precision(20, 5) == pytest.approx(expected, abs=0.01)
    assert random_precision(20, 20) == pytest.approx(1)
    assert random_precision(10**6, 3 * 10**5) == pytest.approx(0.3, abs=1e-4)
    assert math.isnan(random_precision(20, 0))


def skill(lift: float, low: float) -> Skill:
    return Skill(0.3 + lift, lift, (low, 2 * lift - low), 0.6, 0.0)


def prefix(T: float, low: float, upper: float, going_on: float = 1.0, ci: float = 0.05) -> Prefix:
    return Prefix(T, skill(0.2 + T / 1e5, ci), (low + upper) / 2, (low, upper + 0.02), upper, 0.01, going_on)


def test_decisions() -> None:
    good, bad = skill(0.2, 0.1), skill(0.2, -0.1)
    worse, unclear, better = prefix(128, -0.2, -0.1), prefix(256, -0.1, 0.1), prefix(512, 0.01, 0.2)
    for p, full, windows, verdict, reason in [
        (0.2, good, (better,), "undetermined", "no signal"),
        (math.nan, good, (better,), "undetermined", "no signal"),
        (0.01, good, (replace(better, going_on=0.4),), "undetermined", "no window is early"),
        (0.01, bad, (worse, better), "committed", "512"),
        (0.01, good, (replace(better, skill=bad),), "undetermined", "by up to"),
        (0.01, bad, (worse,), "undetermined", "no better than chance"),
        (0.01, good, (worse, unclear), "undetermined", "the first 256 tokens may be better"),
        (0.01, good, (worse, replace(better, going_on=0.1)), "persistent", "by 0.05 or more"),
    ]:
        found = decide(p, full, windows, 0.05)
        assert found[0] == verdict
        assert reason in found[1]
        assert found[2] == (512 if verdict == "committed" else None)


@pytest.mark.parametrize("failures", [0, 9, 111, 120])
def test_too_few_of_either_is_said(tmp_path: Path, failures: int) -> None:
    columns = made_columns(failures=failures) | made_columns(failures=failures, suffix="")
    found = failure_modes(write_csv(tmp_path / "t.csv", columns))
    assert found.verdict == "undetermined"
    assert "fewer than 10" in found.reason
    assert found.dict()["full"] is None
    assert (found.mode, found.warnings) == ("prefinal", ())


def test_outcomes_are_counted_before_anything_else(tmp_path: Path) -> None:
    columns = made_columns(failures=40)
    wrong = [i for i, right in enumerate(columns["correct"]) if not right]
    columns["hit_max_tokens"][wrong[0]] = 1
    columns["predicted_answer"][wrong[1]] = ""
    columns["correct"][wrong[2]] = ""
    found = features(write_csv(tmp_path / "t.csv", columns), answered=True)
    assert found.outcomes == {"correct": 80, "wrong": 37, "truncated": 1, "unparsed": 1, "missing": 1}
    assert (len(found), int(found.failed.sum())) == (117, 37)
    assert "margin_max" not in found.names
    columns["correct"][5] = 3
    with pytest.raises(WrongturnError, match="row 7, column 'correct': '3' is not 0 or 1"):
        features(write_csv(tmp_path / "t.csv", columns), answered=True)


def test_empty_windows_are_left_out_with_a_word() -> None:
    found = made_features()
    found.early[0][:] = np.nan
    seen = judge(found, **FAST)
    assert [row.T for row in seen.windows] == [256]
    assert seen.warnings == ("the window 128 tokens is empty: left out",)
    found.early[1][:] = np.nan
    assert judge(found, **FAST).reason == "no window has any features"
    assert judge(replace(found, full=found.full * np.nan), **FAST).reason == "whole traces have no features"
    holes = made_features(full=1.0)
    holes.full[:, 2] = np.nan
    holes.full[::3, 4] = np.nan
    assert judge(holes, **FAST).full is not None


def test_grouped_columns_and_runs(tmp_path: Path) -> None:
    columns = made_columns()
    columns["question_id"] = [f"q{i // 4}" for i in range(120)]
    assert failure_modes(write_csv(tmp_path / "t.csv", columns), group="question_id").groups == 30
    with Run.create(tmp_path / "run", {}) as run:
        run.add_problems([made_problem(i) for i in range(13)])
        run.append([made(i, correct=i % 3 == 0, strategy="sample", answer="1", group="G") for i in range(48)])
        run.append(
            [
                made(48, correct=False, answer=None),
                made(49, correct=False, answer=None, finish="length"),
                made(51, correct=None),
            ]
        )
        found = failure_modes(run)
    assert found.outcomes == {"correct": 16, "wrong": 32, "truncated": 1, "unparsed": 1, "missing": 1}
    assert (found.n, found.groups, found.relative) == (48, 12, True)
    assert found.dict()["windows"][0]["T"] == 0.1


@pytest.mark.extras
def test_a_published_table_that_is_noise_once_judged() -> None:
    """Published as committed at T=256."""
    found = failure_modes(published_table("math500_gemini2.5.final.csv"))
    assert found.verdict == "undetermined"
    assert "no signal" in found.reason
    assert found.outcomes["truncated"] == 189
