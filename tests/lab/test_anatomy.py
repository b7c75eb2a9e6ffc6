"""The anatomy of failed searches, on traces made by hand: what is counted, and the published observations."""

from __future__ import annotations

import json
import math
import xml.dom.minidom
from collections.abc import Iterable

import numpy as np
import pytest

from wrongturn import tasks
from wrongturn.errors import WrongturnError
from wrongturn.lab import anatomy as an
from wrongturn.lab import graph_anatomy as ga
from wrongturn.lab import picture
from wrongturn.signals import Signals
from wrongturn.tasks import Problem
from wrongturn.tasks import graph_orders as go
from wrongturn.tasks import graphs as gs
from wrongturn.trace import Trace

QUERY = gs.parse_prompt(gs.encode("1,3|2,4|1,2|0,1|0,2|3,4/0,4"))
GOLD = "<0,(1,2),1,(2,3),2,(4)-4,2,0>0,2,4"
HEADLESS = "<0,(1,2),1,(2,3),2,(4)-4,2>2,4"


def trace(text: str, problem: Problem, sample: int = 0) -> Trace:
    task = tasks.get(problem.task)
    ids = np.array([*task.encode(text), gs.EOS], np.int32)
    answer = task.answer(ids)
    return Trace(
        f"{problem.id}/{sample}",
        problem.id,
        problem.task,
        np.array(problem.prompt_ids, np.int32),
        ids,
        Signals.empty(len(ids)),
        "stop",
        group=problem.group,
        answer=answer,
        correct=task.grade(problem, answer),
    )


def problems(group: str, n: int, task: str = "graph_search") -> list[Problem]:
    asked = tasks.get(task)
    assert isinstance(asked, tasks.GraphSearch)
    return [asked.problem(QUERY, f"{task}/{group}/{i}", group) for i in range(n)]


def dissect(traces: Iterable[Trace], asked: Iterable[Problem]) -> an.Anatomy:
    return an.anatomy(traces, {p.id: p for p in asked})


def test_every_error_has_a_class() -> None:
    assert sorted(ga.CLASS) == sorted(gs.ERRORS | go.ERRORS)


def test_failed_steps_are_read_off_the_parse_tree() -> None:
    # 0, 1 and 2 were expanded; the path is 0,2,4
    assert ga.failed_step_fraction(QUERY, [*gs.encode(GOLD), gs.EOS]) == pytest.approx(1 / 3)
    assert ga.failed_step_fraction(QUERY, [*gs.encode(HEADLESS), gs.EOS]) == pytest.approx(2 / 3)
    assert math.isnan(ga.failed_step_fraction(QUERY, gs.encode("<0,(1,2),1")))
    (problem,) = problems("G15_2,4", 1)
    found = ga.search(trace(GOLD, problem), problem)
    assert found.failed_steps == ga.failed_step_fraction(QUERY, [*gs.encode(GOLD), gs.EOS])
    assert (found.listings, found.choices, found.headless) == (3, 3, False)


def test_what_is_counted_ends_with_the_first_error() -> None:
    (problem,) = problems("G15_2,4", 1)
    cases = {  # text: lists, node choices
        "<0,(1,2),2,(4)-4,2,0>0,2,4": (1, 2),  # fifo at the second choice
        "<0,(1,2),1,(2),2,(4)-4,2,0>0,2,4": (2, 2),  # the second list lacks a neighbour
        "<0,(1,3),1,(2,3),2,(4)-4,2,0>0,2,4": (1, 1),
        "<0,(1,2),1,(2,3),2,(4)-4,1,0>0,1,4": (3, 3),
    }
    for text, counted in cases.items():
        found = ga.search(trace(text, problem), problem)
        assert (found.listings, found.choices) == counted, text


def test_groups_and_shares() -> None:
    asked = problems("G15_2,4", 4)
    wrong = "<0,(1,2),2,(4)-4,2,0>0,2,4"
    made = [trace(GOLD, p) for p in asked[:3]] + [trace(wrong, asked[3])]
    (group,) = dissect(made, asked).groups
    assert (group.traces, group.problems, group.failed) == (4, 4, 1)
    assert group.first_errors == {"fifo": 1}
    assert group.shares["queue"].value == 0.25
    assert group.shares["neighbours"].value == 0
    assert 0 < group.shares["neighbours"].high < 1
    assert sum(share.value for share in group.shares.values()) == 0.25


def test_published_observations() -> None:
    """Planted: the queue is kept, large graphs are mislisted, heads of long paths are dropped; and the reverse."""
    small, large, long = (problems(group, 60) for group in ("G15_2,4", "G20_2,4", "G15_5,6"))
    mislisted = "<0,(1,3),1,(2,3),2,(4)-4,2,0>0,2,4"
    made = [trace(GOLD, p) for p in small]
    made += [trace(mislisted if i % 2 else GOLD, p) for i, p in enumerate(large)]
    made += [trace(HEADLESS if i % 2 else GOLD, p) for i, p in enumerate(long)]
    verdicts = {c.name: c.verdict for c in dissect(made, small + large + long).claims}
    assert verdicts["queue_rules_kept"] == "holds"
    assert verdicts["neighbours_mislisted_as_graphs_grow"] == "holds"
    assert verdicts["head_of_long_paths_dropped"] == "holds"

    broken, otherwise = "<0,(1,2),2,(4)-4,2,0>0,2,4", "<0,(1,2),1,(2,3),2,(4)-4,1,0>0,1,4"
    long = problems("G15_5,6", 90)
    made = [trace(broken, p) for p in small] + [trace(otherwise, p) for p in long]
    verdicts = {c.name: c.verdict for c in dissect(made, small + long).claims}
    assert verdicts["queue_rules_kept"] == "does not hold"
    assert verdicts["neighbours_mislisted_as_graphs_grow"] == "cannot be told"
    assert verdicts["head_of_long_paths_dropped"] == "does not hold"


def test_failed_steps_within_problems() -> None:
    asked = problems("G15_2,4", 30)
    made = [trace(text, p, k) for p in asked for k, text in enumerate((GOLD, GOLD, HEADLESS))]
    steps = dissect(made, asked).failed_steps
    assert steps.right.value == pytest.approx(1 / 3)
    assert steps.wrong.value == pytest.approx(2 / 3)
    assert steps.within.value == 1
    assert steps.within.n == 30
    assert steps.length_within.value == 0  # the wrong ones are shorter


def test_plain_values_and_picture() -> None:
    asked = problems("G15_2,4", 2)
    facts = dissect([trace(GOLD, p) for p in asked], asked).dict()
    json.dumps(facts, allow_nan=False)
    assert facts["failed_steps"]["wrong"]["value"] is None
    drawn = xml.dom.minidom.parseString(picture.errors("a <b>", facts["groups"]))
    assert "0 of 2" in "".join(t.firstChild.data for t in drawn.getElementsByTagName("text"))  # type: ignore[union-attr]


# depth-first, the node listed last comes first: 2 is expanded next only as 1 listed it again
IN_ORDER, OUT_OF_ORDER = "<0,(1,2),1,(2,3),2,(4)-4,2,1,0>0,1,2,4", "<0,(1,2),2,(4)-4,2,0>0,2,4"


def test_other_orders_are_judged_by_their_own_checker() -> None:
    asked = [p for g in ("G15_2,4", "G20_2,4") for p in problems(g, 20, "graph_search_dfs")]
    made = [trace(OUT_OF_ORDER if i % 4 == 0 else IN_ORDER, p) for i, p in enumerate(asked)]
    found = dissect(made, asked)
    assert found.task == "graph_search_dfs"
    assert [g.first_errors for g in found.groups] == [{"order": 5}, {"order": 5}]
    assert found.groups[0].shares["queue"].value == 0.25
    rules, grows = found.claims
    assert (rules.verdict, rules.published) == (ga.UNPUBLISHED, ga.UNPUBLISHED)
    assert rules.text.startswith("The rules of the order")
    assert rules.estimate.value == pytest.approx(1 - 10 / (30 * 3 + 10 * 2))
    assert grows.estimate.value == 0


def test_best_first_lists_in_any_order() -> None:
    (problem,) = problems("G15_2,4", 1, "graph_search_best")
    cases = {
        "<0,(2,1),1,(3,2),": "syntax",  # right as far as it goes: the end token comes too early
        "<0,(2,1),2,": "order",
        "<0,(2,3),": "halluc_nbr",
    }
    for text, error in cases.items():
        (group,) = dissect([trace(text, problem)], [problem]).groups
        assert group.first_errors == {error: 1}, text


def test_groups_that_are_no_distribution_are_compared_with_none() -> None:
    asked = problems("my own", 3)
    found = dissect([trace(GOLD, p) for p in asked], asked)
    assert found.groups[0].distribution == "my own"
    verdicts = {c.name: (c.n, c.verdict) for c in found.claims}
    assert verdicts["queue_rules_kept"][0] == 3
    assert verdicts["neighbours_mislisted_as_graphs_grow"] == (0, "cannot be told")
    assert verdicts["head_of_long_paths_dropped"] == (0, "cannot be told")


def test_one_anatomy_for_each_task() -> None:
    asked = [p for task in ("graph_search_dfs", "graph_search") for p in problems("G15_2,4", 2, task)]
    made = [trace(GOLD, p) for p in asked]
    other = trace(GOLD, asked[0])
    other.task = "numeric"
    found = an.anatomies([other, *made], {p.id: p for p in asked})
    assert [(a.task, a.groups[0].traces, a.groups[0].failed) for a in found] == [
        ("graph_search_dfs", 2, 2),
        ("graph_search", 2, 0),
    ]
    assert found[0].failed_steps.right.value == pytest.approx(1 / 3)  # any real path is right
    with pytest.raises(WrongturnError, match="several tasks"):
        dissect(made, asked)
    with pytest.raises(WrongturnError, match="no traces of a task whose every token is checked"):
        an.anatomies([other], {})


def test_pictures_are_stacked() -> None:
    asked = problems("G15_2,4", 2)
    one = picture.errors("a", dissect([trace(GOLD, p) for p in asked], asked).dict()["groups"])
    assert picture.stack([one]) == one
    whole, *inner = xml.dom.minidom.parseString(picture.stack([one, one])).getElementsByTagName("svg")
    height = float(inner[0].getAttribute("height"))
    assert [float(part.getAttribute("y")) for part in inner] == [0, height]
    assert whole.getAttribute("viewBox").split()[-1] == f"{2 * height:g}"
