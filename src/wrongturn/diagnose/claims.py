"""Published statements about how reasoning fails, each held against the traces at hand.

A verdict is read off a 95 % interval and nothing else: the claim *holds* if the whole interval is on its side, *does
not hold* if the whole interval is on the other, and otherwise *cannot be told*, which is also the verdict on fewer
than ``FEWEST`` problems. Verdicts are not corrected for being many: of twenty claims about noise, one would be
decided by luck.

Sources: GUARD (arXiv 2604.14528; 1.5B model, AMC/AIME, language-model judge), and this project's search-trace
prototype.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from wrongturn.diagnose.detectors import Trigger
from wrongturn.diagnose.entropy import EntropyStudy
from wrongturn.diagnose.intervals import UNKNOWN
from wrongturn.diagnose.onset import OnsetStudy
from wrongturn.diagnose.predictors import Predictor
from wrongturn.diagnose.recovery import Recovery
from wrongturn.stats import Estimate

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "cannot be told"
FEWEST = 10
_TOLERANCE = 0.1  # "about 43.5 %" is within ten points of it


@dataclass(frozen=True, slots=True)
class Claim:
    """``published`` is what its source states; ``n`` the problems behind the estimate, ``detail`` what to read beside
    it."""

    name: str
    text: str
    published: str
    verdict: str
    estimate: Estimate
    n: int
    detail: str


def verdict(estimate: Estimate, above: float, below: float = math.inf) -> str:
    """Whether the estimated figure lies in the open interval (``above``, ``below``), as far as its interval tells."""
    if estimate.n < FEWEST or math.isnan(estimate.low) or math.isnan(estimate.high):
        return UNDECIDED
    if above < estimate.low and estimate.high < below:
        return HOLDS
    return FAILS if estimate.high < above or estimate.low > below else UNDECIDED


def claims(
    onset: OnsetStudy,
    entropy: EntropyStudy,
    triggers: list[Trigger],
    predictors: list[Predictor],
    recovery: Recovery | None,
) -> list[Claim]:
    """Every claim with its verdict, in the order a failure unfolds: where, how many, how long, how uncertain, how
    saved."""
    return [*_onset(onset), *_entropy(entropy), *_trigger(triggers), *_recovery(recovery), *_prediction(predictors)]


def _claim(
    name: str, text: str, published: str, estimate: Estimate, above: float, detail: str = "", below: float = math.inf
) -> Claim:
    return Claim(name, text, published, verdict(estimate, above, below), estimate, estimate.n, detail)


def _onset(study: OnsetStudy) -> Iterator[Claim]:
    yield _claim(
        "early_onset",
        "More than 85 % of failures go wrong in the first 30 % of the trace",
        "F(0.30) > 0.85",
        study.share_30,
        0.85,
        f"by the first wrong token itself: {study.curves['exact'].share_30}; median position {study.median}",
    )
    yield _claim(
        "early_onset_beats_null",
        "Onsets are earlier than long tails after the onset make them look",
        "not tested",
        study.excess_30,
        0.0,
        f"F(0.30) minus that of uniform onsets in a trace of typical length ({study.null_30})",
    )
    low, high = 0.435 - _TOLERANCE, 0.435 + _TOLERANCE
    yield _claim(
        "single_error",
        "About 43.5 % of failures have exactly one invalid segment",
        "0.435",
        study.single_invalid,
        low,
        f"holds if the interval is within {low:.3f} to {high:.3f}; mean number {study.invalid_segments}",
        below=high,
    )
    yield _claim(
        "length_expansion",
        "Wrong traces are longer than right ones",
        "E > 1",
        study.expansion_tokens,
        1.0,
        f"in segments: {study.expansion_segments}",
    )
    yield _claim(
        "length_expansion_within_problems",
        "Wrong traces are longer than right traces of the same problem",
        "not tested",
        study.expansion_tokens_within,
        1.0,
        f"in segments: {study.expansion_segments_within}",
    )


def _entropy(study: EntropyStudy) -> Iterator[Claim]:
    auroc = f"AUROC pooled {study.auroc}, within traces {study.auroc_within}"
    yield _claim(
        "invalid_entropy_mean",
        "Invalid segments have a higher mean entropy than valid ones",
        "p < 0.001",
        study.mean_difference,
        0.0,
        auroc,
    )
    yield _claim(
        "invalid_entropy_mean_within_traces",
        "Invalid segments have a higher mean entropy than valid ones of the same trace",
        "not tested",
        study.mean_within,
        0.0,
        auroc,
    )
    yield _claim(
        "invalid_entropy_dispersion",
        "The entropies of invalid segments are more dispersed than those of valid ones",
        "p < 0.001",
        study.spread_difference,
        0.0,
        f"inside a segment, same trace: {study.spread_within}",
    )
    yield _claim(
        "entropy_spike_at_onset",
        "Entropy rises at the onset: its segment is above the mean of those before it",
        "local spike",
        study.spike,
        0.0,
        f"the onset token is the most uncertain so far in {study.highest_so_far}",
    )
    yield _claim(
        "onset_spike_beats_control",
        "The onset token is more uncertain than the same kind of decision in right traces",
        "not tested",
        study.spike_over_control,
        0.0,
        f"{study.aligned.matched:.0%} of onsets have a control",
    )
    yield _claim(
        "spike_precedes_onset",
        "The most uncertain token of a wrong trace comes before the onset more often than a random token does",
        "the prototype found the opposite",
        study.peak_before_excess,
        0.0,
        f"before {study.peak_before}; at {study.peak_at}; after {study.peak_after}",
    )


def _trigger(studies: list[Trigger]) -> Iterator[Claim]:
    study = next(study for study in studies if (study.rule, study.q) == ("paper", 0.9))
    yield _claim(
        "trigger_precision",
        "GUARD's trigger (q = 0.9) stands at the onset more often than random triggers do",
        "not tested",
        study.above_chance,
        0.0,
        f"precision {study.precision}; recall {study.recall}",
    )
    yield _claim(
        "trigger_reads_entropy",
        "GUARD's trigger stands at the onset more often than its preference for early or late boundaries explains",
        "not tested",
        study.above_schedule,
        0.0,
        f"{study.false_per_trace} triggers in a trace without a wrong token",
    )


def _recovery(study: Recovery | None) -> Iterator[Claim]:
    before = study.conditions.get("before_onset") if study else None
    restart = study.conditions.get("restart") if study else None
    contrasts = study.contrasts if study else {}
    yield _claim(
        "recoverable_20",
        "More than 20 % of failures reach a right answer from the prefix before the onset",
        "> 0.20",
        before.any_of if before else UNKNOWN,
        0.20,
        (f"any of {before.m}" if before else "not resampled") + (f"; restart {restart.any_of}" if restart else ""),
    )
    yield _claim(
        "onset_matters",
        "Continuing before the onset succeeds more often than continuing after it",
        "not tested",
        contrasts.get("before_minus_after", UNKNOWN),
        0.0,
        f"before minus another step: {contrasts.get('before_minus_random', UNKNOWN)}",
    )
    yield _claim(
        "prefix_beats_restart",
        "Continuing before the onset succeeds more often than starting again",
        "the prototype found no difference",
        contrasts.get("before_minus_restart", UNKNOWN),
        0.0,
        f"tokens each: {before.decoded:.0f} against {restart.decoded:.0f}" if before and restart else "not resampled",
    )


def _prediction(studies: list[Predictor]) -> Iterator[Claim]:
    study = next(study for study in studies if (study.signal, study.target) == ("entropy_mean", "outcome"))
    yield _claim(
        "entropy_predicts_failure",
        "Mean entropy tells wrong answers from right ones",
        "the prototype: AUROC 0.93 to 0.96",
        study.pooled,
        0.5,
        f"length alone: {study.pooled_length}",
    )
    yield _claim(
        "entropy_predicts_within_problems",
        "Mean entropy tells wrong from right traces of the same problem",
        "the prototype: AUROC 0.61",
        study.within,
        0.5,
        f"length alone: {study.within_length}",
    )
    yield _claim(
        "entropy_adds_to_length",
        "Within a problem and at equal length, higher mean entropy still means more failures",
        "not tested",
        study.adds,
        0.0,
        "change in the failure rate per standard deviation",
    )
