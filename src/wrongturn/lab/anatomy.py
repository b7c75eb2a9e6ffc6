"""The anatomy of failed searches: what the first wrong token does, and how much of a search was in vain.

Pure functions of graph-search traces. The published observations they are held against are those of "Learning to
search" (H. N. Nguyen, 2025); the failed-step fraction is that of "What Characterizes Effective Reasoning?" (2025), here
read off the parse tree instead of judged by a model.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from wrongturn import stats
from wrongturn.diagnose.claims import Claim, verdict
from wrongturn.errors import WrongturnError
from wrongturn.stats import Estimate
from wrongturn.tasks import Distribution, Problem
from wrongturn.tasks import graphs as gs
from wrongturn.trace import Trace

CLASSES: dict[str, tuple[str, ...]] = {  # the published taxonomy, and what it has no name for
    "neighbours": ("halluc_nbr", "missing_nbr", "skip_nbr", "dup_nbr"),
    "queue": ("not_in_queue", "fifo"),
    "revisit": ("revisit",),
    "trace back": ("backtrack_node", "backtrack_short", "backtrack_long", "path_node", "path_short", "path_long"),
    "stop, form": ("early_stop", "late_stop", "syntax", "truncated"),
}
CLASS = {error: name for name, errors in CLASSES.items() for error in errors}

_AT_LIST = (*CLASSES["neighbours"], "early_stop", "late_stop")  # the list they stand in, or close, counts as well

RULES_KEPT, SOMETIMES = 0.99, 0.05
"""What counts as keeping the rules of the queue (of node choices), and as happening sometimes (of wrong answers)."""


@dataclass(frozen=True, slots=True)
class Search:
    """One trace as a search: what it did up to its first wrong token, and what of it was in vain.

    ``listings`` and ``choices`` count closed neighbour lists and nodes taken from the queue, up to and including the
    one with the first error. ``failed_steps`` is the share of expansions off the path that the trace ends with (NaN
    where it ends with none); ``headless``: the answer is a real path to the target that does not begin at the source.
    """

    problem: str
    group: str
    error: str | None
    correct: bool
    listings: int
    choices: int
    failed_steps: float
    headless: bool


@dataclass(frozen=True, slots=True)
class Group:
    """First errors of one distribution: counts by checker class, and the share of traces by published class."""

    distribution: str
    traces: int
    problems: int
    failed: int
    first_errors: dict[str, int]
    shares: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class FailedSteps:
    """Failed-step fraction: means over right and wrong traces, and how well it tells wrong from right.

    ``within`` compares traces of the same problem only (AUROC, .5 is chance); ``pooled`` all traces, where it also
    tells hard problems from easy ones. ``length_within`` is the same for the number of tokens, for comparison.
    """

    right: Estimate
    wrong: Estimate
    pooled: float
    within: Estimate
    length_within: Estimate


@dataclass(frozen=True, slots=True)
class Anatomy:
    groups: list[Group]
    claims: list[Claim]
    failed_steps: FailedSteps

    def dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "base_rate"}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def anatomy(traces: Iterable[Trace], problems: Mapping[str, Problem], trained: str = "G15_2,4") -> Anatomy:
    """What went wrong in graph-search traces; ``trained`` is the distribution the model was trained on.

    Raises :class:`wrongturn.errors.WrongturnError` where there is no such trace.
    """
    kept = [t for t in traces if t.task == "graph_search"]
    if not kept:
        raise WrongturnError("no graph-search traces here: the anatomy needs a task whose every token is checked")
    searches = [search(t, problems[t.problem]) for t in kept]
    by_group: dict[str, list[Search]] = defaultdict(list)
    for s in searches:
        by_group[s.group].append(s)
    lengths = [len(t) for t in kept]
    return Anatomy(
        [_group(name, found) for name, found in by_group.items()],
        [_queue(searches), _neighbours(by_group), _head(searches, Distribution.parse(trained))],
        _failed_steps(searches, lengths),
    )


def search(trace: Trace, problem: Problem) -> Search:
    """Read one trace. O(tokens)."""
    query = gs.parse_prompt(problem.prompt_ids)
    ids = [int(i) for i in trace.ids]
    checked = gs.check(query, ids)
    end = len(ids) if checked.index < 0 else checked.index
    written = [segment for segment in checked.segments if segment.kind == "expand"]
    sound = [segment for segment in written if segment.start <= end]  # the first error may stand in the last one
    nodes = [v for segment in written if (v := _expanded(ids, segment.start)) is not None]
    path = _nodes(trace.answer)
    failed = math.nan if not path or not nodes else float(np.mean([v not in path for v in nodes]))
    headless = bool(path) and path[0] != query.source and path[-1] == query.target and _connected(query, path)
    listed = sum(s.stop <= end for s in sound) + (checked.error in _AT_LIST)
    return Search(trace.problem, trace.group, checked.error, bool(trace.correct), listed, len(sound), failed, headless)


def failed_step_fraction(query: gs.Query, ids: Sequence[int]) -> float:
    """The share of a completion's expansions that are not on the path it ends with; NaN where it ends with none."""
    path = _nodes(gs.answer(ids))
    segments = gs.check(query, ids).segments
    nodes = [v for s in segments if s.kind == "expand" and (v := _expanded(ids, s.start)) is not None]
    return float(np.mean([v not in path for v in nodes])) if path and nodes else math.nan


def _expanded(ids: Sequence[int], start: int) -> int | None:
    """The node an expansion beginning at ``start`` is of."""
    token = ids[start + 1] if ids[start] == gs.OPEN and start + 1 < len(ids) else ids[start]
    return token - gs.FIRST_LABEL if gs.FIRST_LABEL <= token < gs.FIRST_LABEL + gs.LABELS else None


def _nodes(answer: str | None) -> list[int]:
    parts = (answer or "").split(",")
    return [int(v) for v in parts] if all(v.isdigit() for v in parts) else []


def _connected(query: gs.Query, path: Sequence[int]) -> bool:
    edges = set(query.edges)
    return all(edge in edges for edge in pairwise(path))


# -- per distribution --------------------------------------------------------------------------------------------------


def _group(name: str, found: list[Search]) -> Group:
    problems = [s.problem for s in found]
    errors = Counter(s.error for s in found if s.error is not None)
    shares = {kind: _share([CLASS.get(s.error or "") == kind for s in found], problems) for kind in CLASSES}
    return Group(name, len(found), len(set(problems)), errors.total(), dict(errors.most_common()), shares)


def _share(hits: Sequence[bool], problems: Sequence[str]) -> Estimate:
    """A share of traces; whole problems are resampled where they have several."""
    if len(set(problems)) == len(problems) or len(set(hits)) < 2:  # the bootstrap has no width at 0 and 1
        n = len(set(problems))
        share = sum(hits) / len(hits) if hits else 0.0
        return stats.proportion(round(share * n), n)
    return stats.bootstrap(np.asarray(hits, float), np.mean, clusters=problems)


# -- published observations --------------------------------------------------------------------------------------------


def _queue(searches: Sequence[Search]) -> Claim:
    broken = [CLASS.get(s.error or "") in ("queue", "revisit") for s in searches]
    kept = _rate(
        [s.choices - b for s, b in zip(searches, broken, strict=True)], [s.choices for s in searches], searches
    )
    return Claim(
        "queue_rules_kept",
        f"The rules of the queue are kept (at least {RULES_KEPT:.0%} of node choices)",
        "kept",
        verdict(kept, RULES_KEPT),
        kept,
        kept.n,
        f"{sum(broken)} of {sum(s.error is not None for s in searches)} first errors break one",
    )


def _neighbours(by_group: Mapping[str, Sequence[Search]]) -> Claim:
    """The largest graphs against the smallest of the same path lengths, every pair of them counting by its traces."""
    sizes: dict[tuple[int, int], list[Distribution]] = defaultdict(list)
    for name in by_group:
        distribution = Distribution.parse(name)
        sizes[distribution.hops].append(distribution)
    larger: list[Search] = []
    smaller: list[Search] = []
    for same in sizes.values():
        same.sort(key=lambda d: d.nodes)
        if same[0].nodes < same[-1].nodes:
            smaller += by_group[str(same[0])]
            larger += by_group[str(same[-1])]
    both = [*larger, *smaller]
    missed = np.array([CLASS.get(s.error or "") == "neighbours" for s in both], float)
    listed = np.array([s.listings for s in both], float)
    large = np.arange(len(both)) < len(larger)

    def gap(missed: np.ndarray, listed: np.ndarray, large: np.ndarray) -> float:
        rates = [missed[of].sum() / listed[of].sum() if listed[of].sum() else math.nan for of in (large, ~large)]
        return rates[0] - rates[1]

    grows = stats.bootstrap([missed, listed, large], gap, clusters=[s.problem for s in both])
    if not missed.any():  # resamples of no error at all know nothing of how rare errors are
        grows = Estimate(grows.value, math.nan, math.nan, grows.n)
    rates = [f"{m.sum():.0f} of {n.sum():.0f}" for m, n in ((missed[of], listed[of]) for of in (large, ~large))]
    return Claim(
        "neighbours_mislisted_as_graphs_grow",
        "Neighbours are mislisted more often in larger graphs (errors a list, largest minus smallest)",
        "yes",
        verdict(grows, 0.0),
        grows,
        grows.n,
        f"lists with the first error: {rates[0]} in the largest graphs, {rates[1]} in the smallest",
    )


def _head(searches: Sequence[Search], trained: Distribution) -> Claim:
    """Wrong answers on paths longer than those trained on: how many are real paths that lack the beginning."""
    wrong = [s for s in searches if not s.correct and Distribution.parse(s.group).hops[0] > trained.hops[1]]
    dropped = _share([s.headless for s in wrong], [s.problem for s in wrong])
    return Claim(
        "head_of_long_paths_dropped",
        f"On longer paths than trained the head is sometimes dropped (more than {SOMETIMES:.0%} of wrong answers)",
        "sometimes",
        verdict(dropped, SOMETIMES),
        dropped,
        dropped.n,
        f"{sum(s.headless for s in wrong)} of {len(wrong)} wrong answers",
    )


def _rate(hits: Sequence[int], trials: Sequence[int], searches: Sequence[Search]) -> Estimate:
    """Hits a trial, both counted per trace; Wilson where every trial is one outcome, else problems are resampled."""
    if sum(hits) in (0, sum(trials)):
        one = stats.proportion(sum(hits), sum(trials))
        return Estimate(one.value, one.low, one.high, len({s.problem for s in searches}))

    def ratio(hits: np.ndarray, trials: np.ndarray, axis: int = -1) -> np.ndarray:
        return hits.sum(axis=axis) / trials.sum(axis=axis)

    clusters = [s.problem for s in searches]
    return stats.bootstrap([np.asarray(hits, float), np.asarray(trials, float)], ratio, clusters=clusters)


# -- failed steps ------------------------------------------------------------------------------------------------------


def _failed_steps(searches: Sequence[Search], lengths: Sequence[int]) -> FailedSteps:
    known = [(s, n) for s, n in zip(searches, lengths, strict=True) if not math.isnan(s.failed_steps)]
    fraction = np.array([s.failed_steps for s, _ in known])
    wrong = np.array([not s.correct for s, _ in known], bool)
    problems = np.array([s.problem for s, _ in known])

    def mean(of: np.ndarray) -> Estimate:
        return stats.bootstrap(fraction[of], np.mean, clusters=problems[of])

    tokens = np.array([n for _, n in known], float)
    return FailedSteps(
        mean(~wrong),
        mean(wrong),
        stats.auroc(wrong, fraction),
        stats.within_auroc(wrong, fraction, problems),
        stats.within_auroc(wrong, tokens, problems),
    )
