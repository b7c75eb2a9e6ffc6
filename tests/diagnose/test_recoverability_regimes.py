"""Regimes where there are some, none where there are none, and methods told apart without leakage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from wrongturn.diagnose.recoverability import regimes as module
from wrongturn.diagnose.recoverability.clusters import adjusted_rand, chi_square, distances, kmeans, silhouette
from wrongturn.diagnose.recoverability.features import PUBLISHED, Features, Rows
from wrongturn.diagnose.recoverability.figure import svg
from wrongturn.diagnose.recoverability.regimes import Regimes, regimes
from wrongturn.diagnose.recoverability.topography import topography

NAMES = (*PUBLISHED, "tokens")


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, n in (("_BOOTSTRAPS", 20), ("_HALVES", 5), ("_CLOUDS", 19), ("_PERMUTATIONS", 199)):
        monkeypatch.setattr(module, name, n)


def planted(apart: float, problems: int = 60, traces: int = 4) -> tuple[Features, Rows, np.ndarray]:
    """Problems around three centres so far apart, with noise of their own and of each trace."""
    rng = np.random.default_rng(7)
    kind = rng.integers(0, 3, problems)
    of = np.repeat(np.arange(problems), traces)
    centres = np.column_stack((np.eye(3)[kind] * apart + rng.normal(size=(problems, 3)) * 0.6, np.full(problems, 50)))
    values = centres[of] + rng.normal(size=(len(of), 4)) * 0.8
    ids, groups = tuple(f"p{i}" for i in range(problems)), tuple(f"G{i % 2}" for i in range(problems))
    rows = Rows(ids, groups, of, NAMES, values)
    return Features(ids, groups, NAMES, rows.mean(), rows.failed), rows, kind


def test_planted_regimes_are_found_and_stable() -> None:
    features, rows, kind = planted(4.0)
    found = regimes(features, PUBLISHED, rows, ["abc"[k] for k in kind])
    assert found.k == 3
    assert adjusted_rand(found.member, kind) > 0.95
    assert found.p_one == 0.05
    assert found.stability_bootstrap > 0.9
    assert found.stability_rollouts > 0.9
    assert found.p == pytest.approx(1 / 200)
    assert found.table is not None
    assert found.table.sum() == 60
    assert list(found.sizes) == sorted(found.sizes, reverse=True)


def test_one_cloud_has_no_regimes() -> None:
    features, rows, kind = planted(0.0)
    found = regimes(features, PUBLISHED, rows, ["abc"[k] for k in kind])
    assert found.p_one > 0.05
    assert found.stability_bootstrap < 0.8
    assert found.p > 0.05


def test_labels_are_permuted_within_groups() -> None:
    """A label that only says which group a problem is of has nothing to do with regimes, though they differ too."""
    features, rows, _ = planted(0.0)
    groups = tuple("G0" if x < 0 else "G1" for x in features.values[:, 0] - np.median(features.values[:, 0]))
    by_group = replace(features, groups=groups)
    assert regimes(features, PUBLISHED[:1], rows, groups).p < 0.05
    assert regimes(by_group, PUBLISHED[:1], rows, groups).p == 1.0


def test_few_or_unknown_problems_are_not_divided() -> None:
    features, rows, _ = planted(4.0, problems=1)
    found = regimes(features, PUBLISHED, rows)
    assert found.k is None
    assert "1 problems with these features" in found.reason
    features, rows, _ = planted(4.0, problems=30)
    features.values[:5, 0] = math.nan
    assert regimes(features, PUBLISHED).member[:5].tolist() == [-1] * 5
    features.values[:] = 1.0
    assert regimes(features, PUBLISHED).reason == "all problems look the same"


def test_silhouette_as_defined() -> None:
    rng = np.random.default_rng(0)
    points, member = rng.normal(size=(12, 2)), np.array([0] * 5 + [1] * 6 + [2])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.testing.assert_allclose(distances(points), apart, atol=1e-6)
    scores = []
    for i, own in enumerate(member):
        mean = [apart[i, (member == k) & (np.arange(12) != i)] for k in range(3)]
        if len(mean[own]) == 0:
            scores.append(0.0)
            continue
        a, b = mean[own].mean(), min(mean[k].mean() for k in range(3) if k != own)
        scores.append((b - a) / max(a, b))
    assert silhouette(apart, member) == pytest.approx(np.mean(scores))


def test_agreement_of_divisions() -> None:
    a = np.array([0, 0, 0, 1, 1, 1])
    assert adjusted_rand(a, 1 - a) == 1
    assert adjusted_rand(a, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx((2 - 1.2) / (4.5 - 1.2))
    rng = np.random.default_rng(0)
    by_chance = [adjusted_rand(rng.integers(0, 3, 50), rng.integers(0, 3, 50)) for _ in range(200)]
    assert np.mean(by_chance) == pytest.approx(0, abs=0.01)
    assert chi_square(a, a) == pytest.approx(6)


def test_kmeans_finds_the_least_squares() -> None:
    points = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 9.0])[:, None]
    centres, member, cost = kmeans(points, 3, 20, np.random.default_rng(0))
    assert sorted(centres[:, 0].tolist()) == pytest.approx([0.1, 5.05, 9.0])
    assert cost == pytest.approx(0.02 + 0.005)
    assert len(set(member.tolist())) == 3


def test_picture() -> None:
    features, rows, _ = planted(4.0)
    found = regimes(features, PUBLISHED, rows)
    picture = svg("<run>", features, found, *PUBLISHED[:2])
    assert picture.count("<circle") == 60
    assert "&lt;run&gt;" in picture
    assert "regime 3" in picture
    nothing = svg("run", features, Regimes(PUBLISHED, np.full(60, -1)), *PUBLISHED[:2])
    assert "no regimes" in nothing


def failures(shift: float, ids: list[str], seed: int) -> Features:
    rng = np.random.default_rng(seed)
    values = np.column_stack((rng.normal(size=(len(ids), 3)) + shift, rng.lognormal(3, 0.2, len(ids))))
    groups = tuple(f"G{i % 3}" for i in range(len(ids)))
    return Features(tuple(ids), groups, NAMES, values, rng.integers(1, 4, len(ids)))


def test_methods_that_differ_are_told_apart_and_others_are_not() -> None:
    ids = [f"p{i}" for i in range(90)]
    for shift, better in ((2.0, True), (0.0, False)):
        found = topography([("sft", failures(0.0, ids, 1)), ("grpo", failures(shift, ids[:45], 2))])
        assert found.methods == {"sft": 90, "grpo": 45}
        told = found.dict()
        assert set(told) >= {"accuracy", "majority", "length_only", "failures_only"}
        assert told["majority"]["raw"]["value"] == pytest.approx(90 / 135)
        assert told["majority"]["balanced"]["value"] == pytest.approx(0.5)
        for name in ("majority", "length_only", "failures_only"):
            assert (told[name]["lift_balanced"]["low"] > 0) == better, name
        assert (told["accuracy"]["balanced"]["low"] > 0.5) == better


def test_a_problem_that_failed_twice_does_not_leak() -> None:
    """Features that only name the problem, with two rows of each of one method: seen in training they give it away."""
    names = tuple(f"is p{i}" for i in range(40))
    runs = []
    for method, first in (("sft", 0), ("grpo", 20)):
        ids = [f"p{i}" for i in range(first, first + 20)] * 2
        values = np.column_stack((np.tile(np.eye(40)[first : first + 20], (2, 1)), np.full(40, 50.0)))
        runs.append((method, Features(tuple(ids), ("G",) * 40, (*names, "tokens"), values, np.ones(40, np.intp))))
    found = topography(runs, names)
    assert found.folds == "problems"
    assert found.accuracies[0].raw.value < 0.7


def test_a_method_with_one_task_distribution_cannot_be_told() -> None:
    ids = [f"p{i}" for i in range(9)]
    other = replace(failures(0.0, ids, 2), groups=("G0",) * 9)
    found = topography([("sft", failures(0.0, ids, 1)), ("grpo", other)])
    assert "a method has no other failed problem" in found.reason


def test_one_method_cannot_be_told() -> None:
    found = topography([("sft", failures(0.0, ["a", "b"], 1)), ("sft", failures(0.0, ["c"], 2))])
    assert found.accuracies == ()
    assert "all runs are of one method, sft" in found.reason
