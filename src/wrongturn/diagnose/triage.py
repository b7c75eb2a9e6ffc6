"""Self-consistency triage: which problems need no further samples, and what uncertainty tells that agreement does not.

Two decisions, both taken without the reference, which is used only to see how good they are:

1. *After one sample*: sample again, or keep its answer? Told from the uncertainty of that sample alone. Each sample of
   a problem is taken as the first in turn, so a problem with k samples tells k times, and stays one unit.
2. *After all samples*: can the voted answer be trusted? Told from agreement (the share of samples that gave it), and
   from agreement and uncertainty together.

All scores are out of fold, problems whole, averaged over repeated splits. Intervals resample problems and fit again in
each resample, so they contain what fitting adds; those of a decision take its threshold as given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wrongturn.diagnose.intervals import Resamples, share
from wrongturn.diagnose.modes.features import SOUND
from wrongturn.diagnose.modes.refit import Scored
from wrongturn.diagnose.modes.ridge import logistic, out_of_fold, prepare
from wrongturn.diagnose.votes import Samples, Votes, read_samples, vote
from wrongturn.folder import to_json
from wrongturn.stats import Estimate
from wrongturn.store import Run

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Index = NDArray[np.intp]

RECALL = 0.95
FEWEST = 10  # problems with a failure, and without one
SHARES = tuple(round(0.05 * i, 2) for i in range(21))
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Skill:
    """How well one score tells failures."""

    score: str
    auroc: Estimate
    ap: Estimate


@dataclass(frozen=True, slots=True)
class Lift:
    """How much better ``score`` tells failures than ``over``, on the same rows."""

    score: str
    over: str
    auroc: Estimate
    ap: Estimate


@dataclass(frozen=True, slots=True)
class Curve:
    """Recall of failures where the ``skipped`` share with the lowest scores is not sampled again.

    ``low`` and ``high``: a band that holds the whole curve in 95 % of cases. ``failure``: "first", the answer that
    would be kept is wrong; "voted", the voted answer of all samples is (which sampling again would not mend).
    """

    score: str
    failure: str
    skipped: tuple[float, ...]
    recall: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Sample again where ``intercept + sum(weights * features)`` of the first sample reaches ``threshold``; and always
    where it has no answer.

    The threshold is meant to keep ``target`` of the wrong first answers from being skipped. All else is what came of
    rules made the same way on other folds: share of first samples kept, ``recall`` of wrong ones, ``gain`` (recall
    above that of skipping as many at random), share of right final answers (``once``: the first sample alone,
    ``voted``: all samples always, ``triaged``), of answers ``lost`` and ``won`` by not voting, and tokens as a share of
    all.
    """

    target: float
    intercept: float
    weights: dict[str, float]
    threshold: float
    skipped: Estimate
    recall: Estimate
    gain: Estimate
    once: Estimate
    voted: Estimate
    triaged: Estimate
    lost: Estimate
    won: Estimate
    tokens: Estimate


@dataclass(frozen=True, slots=True)
class Triage:
    """``outcomes`` counts the plain samples of the ``problems`` with two or more. ``agreement``: mean share of samples
    that gave the voted answer. ``first`` and ``lifts_first``: after one sample; ``voted`` and ``lifts_voted``: after
    all. Where something cannot be told, ``reasons`` says why and it is empty or None."""

    source: str
    problems: int
    samples: float
    outcomes: dict[str, int]
    agreement: Estimate
    first: tuple[Skill, ...]
    lifts_first: tuple[Lift, ...]
    curves: tuple[Curve, ...]
    rule: Rule | None
    voted: tuple[Skill, ...]
    lifts_voted: tuple[Lift, ...]
    reasons: tuple[str, ...]

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON: estimates become objects, NaN ``None``."""
        return json.loads(to_json(self))


def triage(run: Run, *, recall: float = RECALL, seed: int = 0) -> Triage:
    """Triage of the plain samples of a run.

    Args:
        recall: of wrong first answers, that must not be skipped.

    Raises:
        WrongturnError: no problem has two graded plain samples. ValueError: a recall that is not between 0 and 1.
    """
    if not 0 < recall < 1:
        raise ValueError(f"recall must be between 0 and 1, got {recall}")
    samples = read_samples(run)
    votes = vote(samples)
    boot = Resamples(samples.problems, seed=seed)
    first, lifts_first, curves, rule, why_first = _after_one(samples, votes, recall, boot, seed)
    voted, lifts_voted, why_voted = _after_all(samples, votes, seed)
    return Triage(
        source=str(run.path),
        problems=samples.problems,
        samples=len(samples.right) / samples.problems,
        outcomes=samples.outcomes,
        agreement=boot.mean(np.arange(samples.problems), votes.agreement),
        first=first,
        lifts_first=lifts_first,
        curves=curves,
        rule=rule,
        voted=voted,
        lifts_voted=lifts_voted,
        reasons=tuple(reason for reason in (why_first, why_voted) if reason),
    )


# -- after one sample --------------------------------------------------------------------------------------------------


def _after_one(
    samples: Samples, votes: Votes, recall: float, boot: Resamples, seed: int
) -> tuple[tuple[Skill, ...], tuple[Lift, ...], tuple[Curve, ...], Rule | None, str]:
    """One row for each sample with an answer; one without is sampled again whatever its signals say."""
    rows = np.flatnonzero(samples.answered)
    problem, failed = samples.problem[rows], ~samples.right[rows]
    if reason := _too_few(problem, failed, "first answers"):
        return (), (), (), None, reason
    groups = np.unique(problem, return_inverse=True)[1]
    features, length = samples.features[rows], np.log1p(samples.tokens[rows])[:, None]
    scored = Scored(failed, groups, {"uncertainty": features, "length": length}, repeats=_REPEATS, seed=seed)
    wrong_vote = ~votes.right[problem]
    curves = [
        _curve(name, failure, scored.scores[name], hits, problem, boot)
        for failure, hits in (("first", failed), ("voted", wrong_vote))
        for name in ("uncertainty", "length")
        if hits.any()
    ]
    rule = _rule(samples, votes, rows, scored.folds, recall, boot)
    return _skills(scored), (_lift(scored, "uncertainty", "length"),), tuple(curves), rule, ""


def _curve(score: str, failure: str, values: Array, failed: Bools, problem: Index, boot: Resamples) -> Curve:
    """Rows with equal scores share what is left to skip."""
    _, place, size = np.unique(values, return_inverse=True, return_counts=True)
    below = (np.cumsum(size) - size)[place]
    kept = 1.0 - np.clip((np.array(SHARES) * len(values) - below[:, None]) / size[place][:, None], 0.0, 1.0)
    mean, low, high = boot.curve(problem[failed], kept[failed], even=True)
    low, high = np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
    return Curve(score, failure, SHARES, *(tuple(map(float, line)) for line in (mean, low, high)))


def _rule(samples: Samples, votes: Votes, rows: Index, folds: Sequence[Index], recall: float, boot: Resamples) -> Rule:
    features, failed = samples.features[rows], ~samples.right[rows]
    labels = failed.astype(np.float64)[:, None]
    skip = np.zeros(len(samples.right))
    thresholds = []
    for fold in folds:
        scores = out_of_fold(features, labels, fold)[:, 0]
        thresholds.append(_threshold(scores, failed, recall))
        for k in range(int(fold.max()) + 1):
            test = fold == k
            others = np.unique(fold[~test], return_inverse=True)[1]
            inner = out_of_fold(features[~test], labels[~test], others)[:, 0]
            skip[rows[test]] += scores[test] < _threshold(inner, failed[~test], recall)
    skip /= len(folds)
    intercept, weights = _linear(features, labels)
    problem, right = samples.problem, samples.right.astype(np.float64)
    voted = votes.right[problem].astype(np.float64)
    everything = np.bincount(problem, samples.tokens)[problem]
    spent = samples.tokens + (1 - skip) * (everything - samples.tokens)
    wrong = np.zeros(len(right))
    wrong[rows[failed]] = 1.0
    ones = np.ones(len(right))
    return Rule(
        target=recall,
        intercept=intercept,
        weights=dict(zip(SOUND, weights, strict=True)),
        threshold=float(np.mean(thresholds)),
        skipped=boot.mean(problem, skip),
        recall=share((1 - skip)[wrong > 0], problem[wrong > 0]),
        gain=boot.estimate(
            problem,
            (wrong * (1 - skip), wrong, skip, ones),
            lambda s: s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3] - 1,
        ),
        once=boot.mean(problem, right),
        voted=boot.mean(problem, voted),
        triaged=boot.mean(problem, skip * right + (1 - skip) * voted),
        lost=share(skip * (voted > right), problem),
        won=share(skip * (voted < right), problem),
        tokens=boot.ratio(problem, spent, everything),
    )


def _threshold(scores: Array, failed: Bools, recall: float) -> float:
    """The highest score at which sampling again from there on keeps ``recall`` of the failures."""
    found = np.sort(scores[failed])[::-1]
    return float(found[math.ceil(recall * len(found) - 1e-9) - 1])


def _linear(features: Array, labels: Array) -> tuple[float, list[float]]:
    """The score of a fit on all rows, as intercept and weights of the features as they are."""
    width = features.shape[1]
    train, probes = prepare(features, np.vstack([np.zeros(width), np.eye(width)]))
    beta = logistic(train, labels)[:, 0]
    fitted = train @ beta
    at = (probes @ beta - fitted.mean()) / (fitted.std() or 1.0)
    return float(at[0]), [float(value) for value in at[1:] - at[0]]


# -- after all samples -------------------------------------------------------------------------------------------------


def _after_all(samples: Samples, votes: Votes, seed: int) -> tuple[tuple[Skill, ...], tuple[Lift, ...], str]:
    """One row for each problem with a voted answer."""
    rows = np.flatnonzero(votes.agreement > 0)
    failed = ~votes.right[rows]
    if reason := _too_few(rows, failed, "voted answers"):
        return (), (), reason
    start = np.unique(samples.problem, return_index=True)[1]  # samples are in order: the first of each problem
    agreement = votes.agreement[rows, None]
    first = samples.features[start][rows]
    every = _means(samples.problem, samples.features)[rows]
    length = _means(samples.problem, np.log1p(samples.tokens)[:, None])[rows]
    tables = {
        "uncertainty": every,
        "agreement + length": np.hstack([agreement, length]),
        "agreement + first": np.hstack([agreement, first]),
        "agreement + uncertainty": np.hstack([agreement, every]),
    }
    scored = Scored(
        failed, np.arange(len(rows)), tables, {"agreement": -votes.agreement[rows]}, repeats=_REPEATS, seed=seed
    )
    lifts = [_lift(scored, name, "agreement") for name in tables if name.startswith("agreement")]
    return _skills(scored), (*lifts, _lift(scored, "agreement + uncertainty", "agreement + length")), ""


def _means(problem: Index, values: Array) -> Array:
    """Mean of known values per problem ``[problems, F]``, NaN without one."""
    known = ~np.isnan(values)
    n = int(problem.max()) + 1
    sums = np.stack([np.bincount(problem, column, minlength=n) for column in np.where(known, values, 0.0).T], axis=1)
    count = np.stack([np.bincount(problem, column, minlength=n) for column in known.T], axis=1)
    return np.divide(sums, count, out=np.full(sums.shape, math.nan), where=count > 0)


def _too_few(problem: Index, failed: Bools, what: str) -> str:
    wrong, right = (len(np.unique(problem[failed == kind])) for kind in (True, False))
    if min(wrong, right) >= FEWEST:
        return ""
    return f"{what}: wrong in {wrong} problems, right in {right}; fewer than {FEWEST} of either tell nothing"


def _skills(scored: Scored) -> tuple[Skill, ...]:
    return tuple(Skill(name, scored.auroc(name), scored.ap(name)) for name in scored.scores)


def _lift(scored: Scored, score: str, over: str) -> Lift:
    return Lift(score, over, scored.auroc(score, over), scored.ap(score, over))
