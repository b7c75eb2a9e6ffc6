import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import child, crowd, planted, problems_of, searches

from wrongturn.diagnose import plan
from wrongturn.diagnose.recovery import CONDITIONS, summarise
from wrongturn.diagnose.table import tabulate


def test_where_a_lost_trace_is_cut():
    """Five segments of ten; the onset is token 23, in the third."""
    trace = planted("t", "p", 5, wrong=(23,))
    cuts = {cut.condition: cut for cut in plan([trace], problems_of([trace]), per_trace=3)}
    assert tuple(cuts) == CONDITIONS
    assert (cuts["before_onset"].at, cuts["after_onset"].at, cuts["restart"].at) == (20, 30, 0)
    assert cuts["random_boundary"].at in (10, 30, 40)
    assert all((cut.parent, cut.samples) == ("t", 3) for cut in cuts.values())


def test_an_onset_in_the_last_segment_leaves_nothing_after_it():
    trace = planted("t", "p", 2, wrong=(13,))
    assert [cut.condition for cut in plan([trace], problems_of([trace]))] == ["before_onset", "restart"]


def test_only_lost_traces_are_cut():
    traces = [
        planted("right", "p", 3),
        planted("slip", "p", 3, wrong=(12,), right=True),
        planted("odd", "p", 3, right=False),
        planted("cut", "p", 3, right=False, finish="length"),
        planted("lost", "p", 3, wrong=(12,)),
    ]
    assert {cut.parent for cut in plan(traces, problems_of(traces))} == {"lost"}


def test_a_limit_takes_as_many_problems_as_it_can():
    traces = [planted(f"{p}-{s}", f"p{p}", 3, wrong=(12,)) for p in range(8) for s in range(5)]
    for limit in (5, 8, 12):
        parents = {cut.parent for cut in plan(traces, problems_of(traces), max_traces=limit)}
        assert len(parents) == limit
        assert len({parent.split("-")[0] for parent in parents}) == min(limit, 8)


def test_a_plan_is_its_seed():
    traces = crowd(0, problems=30)
    first, again, other = (plan(traces, problems_of(traces), max_traces=10, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_a_plan_needs_sensible_numbers():
    with pytest.raises(ValueError, match="per_trace"):
        plan([], {}, per_trace=0)
    assert plan([], {}) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_cuts_stand_at_boundaries(seed):
    traces, problems = searches(seed, n=6)
    table = tabulate(traces, problems)
    number = {trace.id: i for i, trace in enumerate(traces)}
    for cut in plan(traces, problems, seed=seed):
        i = number[cut.parent]
        assert table.lost[i]
        starts = table.start[table.first_segment[i] : table.first_segment[i + 1]].tolist()
        assert cut.at in starts
        if cut.condition == "before_onset":
            assert cut.at <= traces[i].onset
        if cut.condition == "after_onset":
            assert cut.at > traces[i].onset


def family(chances, parents=40, samples=4, seed=0):
    """Lost traces, and children of them that succeed by chance, per condition."""
    rng = np.random.default_rng(seed)
    traces = [planted(f"t{i}", f"p{i // 2}", 5, wrong=(23,)) for i in range(parents)]
    children = [
        child(trace, 20, condition, bool(rng.random() < chance), k)
        for trace in traces
        for condition, chance in chances.items()
        for k in range(samples)
    ]
    return traces, children


def test_planted_chances_are_found():
    chances = {"before_onset": 0.4, "after_onset": 0.1, "restart": 0.4, "random_boundary": 0.25}
    recovery = summarise(*family(chances, parents=150))
    for condition, chance in chances.items():
        found = recovery.conditions[condition]
        assert (found.n_parents, found.n_children, found.m) == (150, 600, 4)
        assert found.mean.low < chance < found.mean.high
        assert found.any_of.low < 1 - (1 - chance) ** 4 < found.any_of.high
        assert found.decoded == 5
    assert recovery.contrasts["before_minus_after"].low > 0.2
    assert recovery.contrasts["before_minus_restart"].low < 0 < recovery.contrasts["before_minus_restart"].high
    assert recovery.contrasts["before_minus_random"].low > 0
    assert recovery.contrasts["before_minus_after"].n == 75  # problems


def test_a_contrast_is_paired_on_traces_that_have_both():
    """Half the parents have no child after the onset; they would succeed more before it, and must not count."""
    traces = [planted(f"t{i}", f"p{i}", 5, wrong=(23,)) for i in range(20)]
    children = [child(trace, 20, "before_onset", i >= 10, 0) for i, trace in enumerate(traces)]
    children += [child(trace, 30, "after_onset", False, 0) for trace in traces[:10]]
    recovery = summarise(traces, children)
    assert recovery.conditions["before_onset"].mean.value == 0.5
    assert recovery.contrasts["before_minus_after"].value == 0
    assert recovery.contrasts["before_minus_after"].n == 10


def test_any_of_m_is_unbiased_where_parents_have_more_children():
    traces = [planted(f"t{i}", f"p{i}", 5, wrong=(23,)) for i in range(2)]
    children = [child(traces[0], 20, "restart", k == 0, k) for k in range(4)]  # one of four
    children += [child(traces[1], 20, "restart", False, k) for k in range(2)]
    condition = summarise(traces, children).conditions["restart"]
    assert condition.m == 2
    assert condition.any_of.value == pytest.approx((0.5 + 0) / 2)  # any of two out of the four


def test_strangers_and_ungraded_children_are_left_out():
    traces = [planted("t", "p", 5, wrong=(23,))]
    ungraded = child(traces[0], 20, "restart", True, 0)
    ungraded.correct = None
    stranger = child(planted("x", "q", 5, wrong=(23,)), 20, "restart", True, 0)
    foreign = child(traces[0], 20, "guard", True, 0)
    assert summarise(traces, [ungraded, stranger, foreign, traces[0]]) is None
    assert summarise([], []) is None
