"""Searches of graphs, read: up to where they keep the rules, and what is published about how they fail.

The observations are those of "Learning to search" (H. N. Nguyen, 2025), which trained breadth-first search alone. What
is measured of other orders is measured in the same way and held against nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from wrongturn import stats, tasks
from wrongturn.diagnose.claims import Claim, verdict
from wrongturn.diagnose.intervals import share
from wrongturn.lab.dissection import Classes, Read, class_of
from wrongturn.stats import Estimate
from wrongturn.tasks import Distribution, GraphSearch, Problem, Segment
from wrongturn.tasks import graphs as gs
from wrongturn.tasks.graph_orders import ORDERS, OrderedSearch
from wrongturn.trace import Trace

TASKS = (GraphSearch.name, *(OrderedSearch(order).name for order in ORDERS))

CLASSES: Classes = {  # the published taxonomy, and what it has no name for
    "neighbours": ("halluc_nbr", "missing_nbr", "skip_nbr", "dup_nbr"),
    "queue": ("not_in_queue", "fifo", "order"),
    "revisit": ("revisit",),
    "trace back": ("backtrack_node", "backtrack_short", "backtrack_long", "path_node", "path_short", "path_long"),
    "stop, form": ("early_stop", "late_stop", "syntax", "truncated"),
}
CLASS = class_of(CLASSES)

_AT_LIST = (*CLASSES["neighbours"], "early_stop", "late_stop")  # the list they stand in, or close, counts as well

RULES_KEPT, SOMETIMES = 0.99, 0.05
"""What counts as keeping the rules of the queue (of node choices), and as happening sometimes (of wrong answers)."""

UNPUBLISHED = "no published figure"


@dataclass(frozen=True, slots=True)
class Search(Read):
    """What a search did up to its first wrong token, and what of it was in vain.

    ``listings`` and ``choices`` count closed neighbour lists and nodes taken from the queue, up to and including the
    one with the first error. ``failed_steps`` is the share of expansions off the path that the trace ends with (NaN
    where it ends with none); ``headless``: the answer is a real path to the target that does not begin at the source.
    """

    listings: int
    choices: int
    headless: bool


def search(trace: Trace, problem: Problem) -> Search:
    """Read one trace, by the checker of its order. O(tokens)."""
    query = gs.parse_prompt(problem.prompt_ids)
    ids = [int(i) for i in trace.ids]
    checked = tasks.get(trace.task).check(problem, ids)
    assert checked is not None  # the checkers of searches judge every trace
    end = len(ids) if checked.index < 0 else checked.index
    written = [segment for segment in checked.segments if segment.kind == "expand"]
    sound = [segment for segment in written if segment.start <= end]  # the first error may stand in the last one
    path = _nodes(trace.answer)
    headless = bool(path) and path[0] != query.source and path[-1] == query.target and _connected(query, path)
    return Search(
        trace.problem,
        trace.group,
        checked.error,
        bool(trace.correct),
        len(ids),
        _failed(ids, checked.segments, path),
        listings=sum(s.stop <= end for s in sound) + (checked.error in _AT_LIST),
        choices=len(sound),
        headless=headless,
    )


def failed_step_fraction(query: gs.Query, ids: Sequence[int]) -> float:
    """The share of a completion's expansions that are not on the path it ends with; NaN where it ends with none."""
    return _failed(ids, gs.check(query, ids).segments, _nodes(gs.answer(ids)))


def _failed(ids: Sequence[int], segments: Sequence[Segment], path: Sequence[int]) -> float:
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


# -- observations ------------------------------------------------------------------------------------------------------


def observations(task: str, by_group: Mapping[str, Sequence[Search]], trained: str) -> list[Claim]:
    """What is published about breadth-first search, with a verdict; of another order the figures that it has, too.

    Groups that are not named as distributions are left out where sizes or path lengths are compared. ``trained`` is
    the distribution the model was trained on.
    """
    searches = [s for found in by_group.values() for s in found]
    sized = {d: by_group[name] for name in by_group if (d := _distribution(name)) is not None}
    rules, grows = _rules(searches), _neighbours(sized)
    if task == GraphSearch.name:
        return [rules, grows, _head(sized, Distribution.parse(trained))]
    return [
        replace(c, text=c.text.replace("the queue", "the order"), published=UNPUBLISHED, verdict=UNPUBLISHED)
        for c in (rules, grows)
    ]


def _distribution(name: str) -> Distribution | None:
    try:
        return Distribution.parse(name)
    except ValueError:
        return None


def _rules(searches: Sequence[Search]) -> Claim:
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


def _neighbours(by_size: Mapping[Distribution, Sequence[Search]]) -> Claim:
    """The largest graphs against the smallest of the same path lengths, every pair of them counting by its traces."""
    sizes: dict[tuple[int, int], list[Distribution]] = defaultdict(list)
    for distribution in by_size:
        sizes[distribution.hops].append(distribution)
    larger: list[Search] = []
    smaller: list[Search] = []
    for same in sizes.values():
        same.sort(key=lambda d: d.nodes)
        if same[0].nodes < same[-1].nodes:
            smaller += by_size[same[0]]
            larger += by_size[same[-1]]
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


def _head(by_size: Mapping[Distribution, Sequence[Search]], trained: Distribution) -> Claim:
    """Wrong answers on paths longer than those trained on: how many are real paths that lack the beginning."""
    longer = [found for d, found in by_size.items() if d.hops[0] > trained.hops[1]]
    wrong = [s for found in longer for s in found if not s.correct]
    dropped = share([s.headless for s in wrong], [s.problem for s in wrong])
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
