"""Policies: what is written is what is read, and anything else is refused in a line that says where."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_outcomes import base_of, planted

from wrongturn.errors import WrongturnError
from wrongturn.routing import Fixed, Linear, Policy, Reference, Standardised, Threshold, Trigger, fit_policy

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
SPECS = st.text("abc:=.é", min_size=1, max_size=8)
PLANS = st.lists(SPECS, min_size=1, max_size=2).map(tuple)


@st.composite
def rules(draw):
    names = tuple(draw(st.lists(st.text('xyz_ "', max_size=5), min_size=1, max_size=3, unique=True)))

    def each(values):
        return tuple(draw(st.lists(values, min_size=len(names), max_size=len(names))))

    reference = Reference(names, each(NUMBERS), each(st.floats(0, 1e3)))
    kind = draw(st.sampled_from(("fixed", "standardised", "threshold", "linear")))
    if kind == "fixed":
        return Fixed(Reference(), draw(PLANS))
    if kind == "standardised":
        return Standardised(reference, each(SPECS), draw(SPECS))
    if kind == "threshold":
        first = Reference(*(part[:1] for part in (reference.names, reference.mean, reference.sd)))
        return Threshold(first, draw(NUMBERS), draw(PLANS), draw(PLANS))
    plans = tuple(draw(st.lists(PLANS, min_size=1, max_size=3)))
    intercepts = tuple(draw(NUMBERS) for _ in plans)
    return Linear(reference, plans, intercepts, tuple(each(NUMBERS) for _ in plans), draw(st.floats(0, 1)))


@settings(max_examples=60, deadline=None)
@given(rules(), st.floats(1, 1e9), st.none() | st.builds(Trigger, st.integers(1, 99), st.floats(0, 1)), SPECS)
def test_a_policy_reads_as_it_was_written(rule, budget, trigger, told) -> None:
    named = Policy(rule, budget).operators
    costs = {name: float(i + 1) for i, name in enumerate(named[1:])}
    policy = Policy(rule, budget, "two-model", trigger, {"model": told}, costs)
    again = Policy.of(json.loads(policy.to_json()))
    assert again == policy
    features = dict.fromkeys(policy.features, 0.5)
    assert again.plan(features) == policy.plan(features)
    assert set(again.plan({})) <= set(again.operators)


def fitted() -> Policy:
    return fit_policy(*planted(80), budget=60, signals="two-model", provenance={"model": "m"})


def test_a_fitted_policy_routes_what_was_planted(tmp_path: Path) -> None:
    policy = fitted()
    policy.save(tmp_path / "policy.json")
    again = Policy.load(tmp_path / "policy.json")
    assert again == policy
    assert isinstance(policy.rule, (Linear, Threshold))
    assert "dense" in again.plan({"spread": 2.0, "noise": 0.0})
    assert "steer" in again.plan({"spread": -2.0, "noise": None})
    assert policy.provenance["problems"] == 80
    assert fitted() == policy
    assert "date" not in policy.to_json()


def test_a_policy_says_which_signals_it_lacks() -> None:
    policy = fitted()
    policy.check(["spread", "noise", "more"])
    with pytest.raises(WrongturnError, match=r"two-model signals and needs spread.*name the model's ancestor"):
        policy.check(["noise"])
    replace(policy, rule=Fixed(Reference(), ("retry",))).check([])


def test_a_policy_for_where_nobody_grades_has_a_trigger() -> None:
    features, outcomes = planted(60)
    base = base_of(outcomes, np.full(60, 0.3), 4)
    policy = fit_policy(features, outcomes, budget=60, base=base, samples=4)
    assert policy.trigger is not None
    assert policy.trigger.samples == 4
    assert 0 < policy.trigger.agreement_below <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "x"}, "is no policy: its format is 'x'"),
        ({"version": 2}, "version is 2; this wrongturn reads policies of version 1"),
        ({"version": None}, "version must be a whole number"),
        ({"signals": "x-ray"}, "signals must be one of plain, two-model, not 'x-ray'"),
        ({"operators": ["ban"]}, "operators must be an object"),
        ({"operators": {"ban": {"tokens": "few"}}}, "operators.ban.tokens must be a number, not 'few'"),
        ({"budget": 0}, "budget must be above 0"),
        ({"budget": "much"}, "budget must be a number, not 'much'"),
        ({"features": {"spread": {"mean": 1}}}, "features.spread.sd must be a number, not 'None'"),
        ({"features": {"spread": 3}}, "features.spread must be an object"),
        ({"rule": {"kind": "neural"}}, "rule.kind must be one of fixed, standardised, threshold, linear, not 'neural'"),
        ({"rule": {"kind": "fixed"}}, r"rule.plan is missing \(a list\)"),
        ({"rule": {"kind": "fixed", "plan": []}}, "rule.plan must be a list of operators"),
        ({"rule": {"kind": "linear", "margin": 0, "plans": []}}, "rule.plans must be a list of one or more"),
        ({"rule": {"kind": "threshold", "cut": 0}}, "a threshold is on one feature, not on 2"),
        (
            {"rule": {"kind": "standardised", "operators": {"x": "dense"}, "fallback": "y"}},
            "rule.operators.x is not one",
        ),
        ({"trigger": {"samples": 0, "agreement_below": 0.5}}, "trigger.samples must be 1 or more"),
        ({"trigger": {"agreement_below": 0.5}}, "trigger.samples is missing"),
    ],
)
def test_what_is_no_policy_is_refused_in_one_line(tmp_path: Path, change, said: str) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(json.loads(fitted_once().to_json()) | change))
    with pytest.raises(WrongturnError, match=said) as failed:
        Policy.load(file)
    assert str(failed.value).startswith(str(file))
    assert "\n" not in str(failed.value)


def test_files_that_are_not_there_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(WrongturnError, match="No such file"):
        Policy.load(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(WrongturnError, match="is not JSON"):
        Policy.load(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(WrongturnError, match="it must be an object"):
        Policy.load(tmp_path / "x.json")


def fitted_once() -> Policy:
    reference = Reference(("spread", "noise"), (0.0, 0.0), (1.0, 1.0))
    return Policy(Linear(reference, (("dense",),), (0.0,), ((1.0, 0.0),)), 60.0)
