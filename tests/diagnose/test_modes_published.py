"""The published procedure: its parts against scikit-learn, its reports number for number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_tables import made_columns, published_table, write_csv

from made_traces import made, made_problem
from wrongturn.diagnose.modes import features, published, published_modes
from wrongturn.diagnose.modes.published import Score, Window, impute, verdict
from wrongturn.diagnose.modes.scoring import compare_again, plain_precision, resampled_precision
from wrongturn.errors import WrongturnError
from wrongturn.store import Run

REPORTS: dict[str, dict[str, Any]] = {
    # what the published reports print: codes in the order of the windows, full AP and AUROC, verdict, its window, the
    # early AP there, and for some windows the mean difference with its interval and share above 0
    "gpqa_gpt4o.final.csv": {
        "codes": "F???N?",
        "full": (0.6349, 0.5354, 0.7505, 0.701),
        "verdict": ("NEAR-COMMITTED / AMBIGUOUS", 1024, 0.6402),
        "deltas": {128: (-0.1126, -0.2127, -0.0163)},
    },
    "gpqa_gemma4-31b.final.xlsx": {
        "codes": "?????N",
        "full": (0.3974, None, None, 0.722),
        "verdict": ("NEAR-COMMITTED / AMBIGUOUS", 512, 0.4465),
        "deltas": {},
    },
    "math500_gemini2.5.final.csv": {
        "codes": "NCCC??",
        "full": (0.1334, None, None, 0.419),
        "verdict": ("TYPE 1 - COMMITTED FAILURE", 256, 0.1864),
        "deltas": {},
    },
    "math500_qwen3.5-122b.final.xlsx": {
        "codes": "??NN??",
        "full": (0.1755, None, None, 0.510),
        "verdict": ("NEAR-COMMITTED / AMBIGUOUS", 400, 0.2109),
        "deltas": {},
    },
    "lcb_gemma4-31B.final.xlsx": {
        "codes": "NCNN??",
        "full": (0.3741, None, None, 0.567),
        "verdict": ("TYPE 1 - COMMITTED FAILURE", 256, 0.4297),
        "deltas": {256: (None, 0.0147, 0.1049)},
    },
    "lcb_gpt-oss-20b_easy.csv": {
        "codes": "CCCCNN",
        "full": (0.4560, None, None, 0.596),
        "verdict": ("TYPE 1 - COMMITTED FAILURE", 128, 0.5544),
        "deltas": {128: (0.0945, 0.0104, 0.1814)},
    },
}


@pytest.mark.extras
@pytest.mark.parametrize("name", REPORTS)
def test_published_reports_are_reproduced(name: str) -> None:
    pytest.importorskip("sklearn")
    if name.endswith("xlsx"):
        pytest.importorskip("openpyxl")
    report = REPORTS[name]
    found = published_modes(published_table(name), n_boot=1000 if "easy" in name else 10_000, curves=False)
    facts = found.dict()
    assert facts["mode"] == "prefinal"
    assert "".join(window["code"] for window in facts["windows"]) == report["codes"]
    full = facts["full"]
    for value, expected in zip((full["ap"], *full["ci"]), report["full"], strict=False):
        assert expected is None or value == pytest.approx(expected, abs=5e-5)
    assert full["auroc"] == pytest.approx(report["full"][-1], abs=5e-4)  # printed with three decimals
    text, T, early = report["verdict"]
    windows = {window["T"]: window for window in facts["windows"]}
    assert (facts["verdict_text"], facts["commitment_window"]) == (text, T)
    assert windows[T]["ap"] == pytest.approx(early, abs=5e-5)
    for T, expected in report["deltas"].items():
        for value, printed in zip((windows[T]["delta"], *windows[T]["delta_ci"]), expected, strict=True):
            assert printed is None or value == pytest.approx(printed, abs=5e-5)


@pytest.mark.extras
def test_a_table_without_prefinal_rows_falls_back() -> None:
    pytest.importorskip("sklearn")
    found = published_modes(published_table("gsm8k_gpt-oss-20b.final.csv"), n_boot=200, curves=False)
    assert (found.mode, found.n, found.failures) == ("regular", 1319, 56)
    assert "too few" in found.warnings[0]


def test_average_precision_is_scikit_learns_in_every_resample() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    failed = rng.random(60) < 0.3
    scores = np.stack([rng.random(60), rng.integers(0, 5, 60), np.zeros(60)])  # without ties, with, nothing else
    found = resampled_precision(failed, scores, 100, seed=42)
    draws = np.random.default_rng(42)
    for b in range(100):
        rows = draws.integers(0, 60, 60)
        for k in range(3):
            expected = metrics.average_precision_score(failed[rows], scores[k][rows])
            assert found[k, b] == pytest.approx(expected, abs=1e-12)
            assert plain_precision(failed[rows], scores[k][rows]) == expected


def test_resamples_of_one_outcome_do_not_count() -> None:
    failed = np.array([True, False])
    found = resampled_precision(failed, np.array([[0.9, 0.1]]), 200, seed=0)[0]
    draws = np.random.default_rng(0).integers(0, 2, (200, 2))
    assert np.array_equal(np.isnan(found), draws[:, 0] == draws[:, 1])
    assert np.all(found[~np.isnan(found)] == 1.0)


def test_equal_precisions_are_compared_in_the_reference_order() -> None:
    rng = np.random.default_rng(3)
    failed = rng.random(80) < 0.6
    whole = rng.random(80)
    swapped = whole.copy()
    first, second = np.flatnonzero(failed)[np.argsort(whole[failed])[-2:]]
    swapped[[first, second]] = whole[[second, first]]  # the ranking of outcomes is the same
    scores = np.stack([whole, swapped])
    found = resampled_precision(failed, scores, 400, seed=42)
    signs = compare_again(failed, scores, found, seed=42)[0]
    draws = np.random.default_rng(42)
    for b in range(400):
        rows = draws.integers(0, 80, 80)
        exact = plain_precision(failed[rows], swapped[rows]) - plain_precision(failed[rows], whole[rows])
        assert abs(exact) < 1e-9 or np.sign(exact) == signs[b]
        if found[1, b] != found[0, b]:
            assert np.sign(exact) == signs[b]


def test_medians_are_over_all_rows() -> None:
    table = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan], [9.0, np.nan]])
    assert impute(table)[:, 0].tolist() == [1, 3, 3, 9]
    assert np.isnan(impute(table)[:, 1]).all()
    assert np.isnan(table[2, 0])


def window(T: float, ap: float, code: str) -> Window:
    return Window(T, Score(ap, (0, 1), 0.5), 0, (0, 0), 0, code)


def test_verdicts() -> None:
    committed = [window(1, 0.2, "C"), window(2, 0.3, "C"), window(3, 0.9, "N")]
    assert verdict(committed) == ("committed", 2)
    assert verdict([window(1, 0.2, "N"), window(2, 0.5, "?"), window(3, math.nan, "N/A")]) == ("near-committed", 2)
    assert verdict([window(1, 0.2, "F"), window(2, 0.5, "?")]) == ("persistent", None)


def test_a_window_that_no_row_has_gets_no_verdict(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    columns = made_columns()
    columns["nll_mean_prefinal_w512"] = [""] * 120
    found = published_modes(write_csv(tmp_path / "t.csv", columns), n_boot=50, curves=False)
    assert [row.code for row in found.windows][1] == "N/A"
    assert found.dict()["windows"][1] == {
        "T": 512, "ap": None, "ci": [None, None], "auroc": None, "delta": None, "delta_ci": [None, None],
        "p": None, "code": "N/A",
    }  # fmt: skip
    assert any("nll_mean at T=512 is empty" in warning for warning in found.warnings)
    columns["nll_mean_prefinal_w128"] = [""] * 120
    with pytest.raises(WrongturnError, match="every window lacks a feature"):
        published_modes(write_csv(tmp_path / "t.csv", columns), n_boot=50, curves=False)
    columns["nll_mean_prefinal"] = [""] * 120
    with pytest.raises(WrongturnError, match="nll_mean is empty in all 120 rows"):
        published_modes(write_csv(tmp_path / "t.csv", columns), n_boot=50, curves=False)


def test_planted_signals_and_keys(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    early = published_modes(write_csv(tmp_path / "e.csv", made_columns(early=1.0)), n_boot=300)
    assert early.verdict == "committed"
    facts = early.dict()
    assert list(facts) == [
        "n", "failures", "base_rate", "mode", "full", "windows", "verdict", "verdict_text", "commitment_window",
        "features",
    ]  # fmt: skip
    assert list(facts["windows"][0]) == ["T", "ap", "ci", "auroc", "delta", "delta_ci", "p", "code"]
    assert [feature["name"] for feature in facts["features"]][-2:] == ["max features", "mean features"]
    late = published_modes(write_csv(tmp_path / "l.csv", made_columns(full=1.0)), n_boot=300, curves=False)
    assert late.verdict == "persistent"
    assert {row.code for row in late.windows} == {"F"}


@pytest.mark.parametrize("failures", [0, 4, 118, 120])
def test_too_few_of_either_outcome(tmp_path: Path, failures: int) -> None:
    columns = made_columns(failures=failures) | made_columns(failures=failures, suffix="")
    with pytest.raises(WrongturnError, match="needs 5 of each"):
        published_modes(write_csv(tmp_path / "t.csv", columns), n_boot=50, curves=False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """48 graded traces of 12 problems, 20 tokens each, and some ungraded ones."""
    with Run.create(tmp_path / "run", {}) as run:
        run.add_problems([made_problem(i) for i in range(13)])
        run.append([made(i, correct=i % 3 == 0, strategy="sample") for i in range(48)])
        run.append([made(48, correct=None), made(49, correct=True, strategy="guard")])
        return run


def test_traces_of_a_run_over_any_grid(run: Run) -> None:
    found = features(run, grid=[4, 10])
    assert found.windows == (4, 10)
    assert not found.relative
    assert len(found) == 48
    assert found.groups is not None
    assert len(set(found.groups)) == 12
    first = next(run.traces())
    assert found.full[0, 0] == pytest.approx(first.signals.entropy.mean(), abs=1e-6)
    assert found.early[0, 0, 1] == pytest.approx(first.signals.entropy[:4].max(), abs=1e-6)
    half = features(run, grid=[0.5])
    assert half.relative
    np.testing.assert_array_equal(half.early[0], found.early[1])
    assert "ungraded" in found.warnings[0]


def test_a_token_of_probability_zero_is_no_number_to_fit(tmp_path: Path) -> None:
    traces = [made(i, correct=i == 1) for i in range(2)]
    traces[1].signals.nll[15] = np.inf
    with Run.create(tmp_path / "run", {}) as run:
        run.add_problems([made_problem(0)])
        run.append(traces)
    found = features(run, grid=[4, 16])
    nll = [name.startswith("nll") for name in found.names]
    assert np.isnan(found.full[-1]).tolist() == np.isnan(found.early[1, -1]).tolist() == nll
    assert np.isfinite(found.early[0]).all()
    assert "infinite nll in 1 traces" in found.warnings[-1]


def test_a_run_has_a_published_report_too(run: Run) -> None:
    pytest.importorskip("sklearn")
    found = published(features(run), n_boot=50, curves=False)
    assert [row["T"] for row in found.dict()["windows"]] == [0.1, 0.2, 0.3, 0.4, 0.6, 0.8]


def test_sources_that_cannot_be(run: Run, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", made_columns())
    for call, expected in [
        (lambda: features(tmp_path / "none.csv"), "no such file"),
        (lambda: features(table, grid=[4]), "a grid is for runs"),
        (lambda: features(table, group="who"), "no column 'who'"),
        (lambda: features(run, group="who"), "for tables"),
        (lambda: features(tmp_path), "not a run"),
    ]:
        with pytest.raises(WrongturnError, match=expected):
            call()
    for grid in ([], [5, 4], [0, 4], [0.5, 2]):
        with pytest.raises(ValueError, match="grid"):
            features(run, grid=grid)
