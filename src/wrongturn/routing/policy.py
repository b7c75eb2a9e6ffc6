"""A policy: a router as a file that people can read, and that says what it was fitted on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np

from wrongturn.errors import WrongturnError
from wrongturn.folder import disk, write_aside
from wrongturn.routing.rules import KINDS, Fixed, Linear, Reference, Rule, Standardised, Threshold
from wrongturn.routing.spending import Plan

FORMAT, VERSION = "wrongturn policy", 1
SIGNALS = {
    "plain": "fit a policy on what is known here",
    "two-model": "name the model's ancestor, or fit a policy on plain signals",
}
"""What the features of a policy are made of, and what to do where they are not known."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a problem is taken for failed where nobody grades: fewer than this share of so many samples agree."""

    samples: int
    agreement_below: float


@dataclass(frozen=True, slots=True)
class Policy:
    """Which plan a problem gets, within ``budget`` decoded tokens. ``trigger`` None: whoever asks knows what failed.

    ``costs``: mean decoded tokens of a try of each operator (missing: not known). ``provenance`` is anything JSON can
    hold that says where it comes from. ``temperature`` is the one at which features that compare two models are taken.
    """

    rule: Rule
    budget: float
    signals: str = "plain"
    trigger: Trigger | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0

    @property
    def operators(self) -> tuple[str, ...]:
        """Those that it may choose."""
        return tuple(dict.fromkeys(name for plan in self.rule.plans for name in plan))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that it looks at."""
        return self.rule.reference.names

    def plan(self, features: Mapping[str, float | None]) -> Plan:
        """Specs of the operators to take in turn. A feature that is missing, None or NaN counts as its mean."""
        found = [features.get(name) for name in self.features]
        row = np.array([[math.nan if value is None else value for value in found]], np.float64)
        return self.rule.plans[int(self.rule.pick(row)[0])]

    def check(self, available: Iterable[str]) -> None:
        """Raise ``WrongturnError`` where a feature that the policy looks at is never known."""
        missing = [name for name in self.features if name not in set(available)]
        if missing:
            raise WrongturnError(
                f"the policy was fitted on {self.signals} signals and needs {', '.join(missing)}, not known here: "
                f"{SIGNALS[self.signals]}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        with disk(Path(path)):
            write_aside(Path(path), (self.to_json() + "\n").encode())

    def to_json(self) -> str:
        reference = self.rule.reference
        told = {
            "format": FORMAT,
            "version": VERSION,
            "signals": self.signals,
            "temperature": self.temperature,
            "operators": {name: {"tokens": self.costs.get(name)} for name in self.operators},
            "budget": self.budget,
            "trigger": self.trigger
            and {"samples": self.trigger.samples, "agreement_below": self.trigger.agreement_below},
            "features": {
                name: {"mean": mean, "sd": sd}
                for name, mean, sd in zip(reference.names, reference.mean, reference.sd, strict=True)
            },
            "rule": _written(self.rule),
            "provenance": self.provenance,
        }
        return json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Raises ``WrongturnError``, naming file and field, for anything that is no policy of this version."""
        with disk(Path(path)):
            text = Path(path).read_bytes()
        try:
            data = json.loads(text)
        except ValueError as problem:
            raise WrongturnError(f"{path} is not JSON ({problem})") from None
        return cls.of(data, str(path))

    @classmethod
    def of(cls, data: Any, source: str = "policy") -> Self:
        """The policy that :meth:`to_json` told of; ``source`` is what errors call it."""
        top = _Object(source, "", data)
        if data.get("format") != FORMAT:
            raise WrongturnError(f"{source} is no policy: its format is {data.get('format')!r}, not {FORMAT!r}")
        version = top.get("version", int)
        if version != VERSION:
            raise WrongturnError(f"{source}: version is {version}; this wrongturn reads policies of version {VERSION}")
        signals = top.get("signals", str)
        if signals not in SIGNALS:
            raise WrongturnError(f"{source}: signals must be one of {', '.join(SIGNALS)}, not {signals!r}")
        told = {name: _Object(source, f"features.{name}.", value) for name, value in top.get("features", dict).items()}
        reference = Reference(
            tuple(told), *(tuple(entry.number(key) for entry in told.values()) for key in ("mean", "sd"))
        )
        rule = _Object(source, "rule.", top.get("rule", dict))
        kind = rule.get("kind", str)
        if kind not in _READ:
            raise WrongturnError(f"{source}: rule.kind must be one of {', '.join(_READ)}, not {kind!r}")
        trigger = None
        if top.data.get("trigger") is not None:
            asked = _Object(source, "trigger.", top.get("trigger", dict))
            trigger = Trigger(asked.get("samples", int), asked.number("agreement_below"))
            if trigger.samples < 1:
                raise WrongturnError(f"{source}: trigger.samples must be 1 or more, not {trigger.samples}")
        budget = top.number("budget")
        if budget <= 0:
            raise WrongturnError(f"{source}: budget must be above 0, not {budget:g}")
        temperature = top.number("temperature") if "temperature" in data else 1.0  # once it was 1 and not told
        if temperature <= 0:
            raise WrongturnError(f"{source}: temperature must be above 0, not {temperature:g}")
        told = {name: _Object(source, f"operators.{name}.", x) for name, x in top.get("operators", dict).items()}
        costs = {name: entry.number("tokens") for name, entry in told.items() if entry.data.get("tokens") is not None}
        provenance = top.get("provenance", dict)
        return cls(_READ[kind](rule, reference), budget, signals, trigger, provenance, costs, temperature)


# -- rules as JSON -----------------------------------------------------------------------------------------------------

_KIND_OF = {kind: name for name, kind in KINDS.items()}
_CALLED = {str: "text", int: "a whole number", dict: "an object", list: "a list"}


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object that names itself in errors."""

    source: str
    at: str
    data: Any

    def __post_init__(self) -> None:
        if not isinstance(self.data, dict):
            self.wrong("", "an object", self.data)

    def wrong(self, name: str, expected: str, found: Any) -> NoReturn:
        where = (self.at + name).rstrip(".") or "it"
        raise WrongturnError(f"{self.source}: {where} must be {expected}, not {str(found)[:40]!r}")

    def get(self, name: str, kind: type) -> Any:
        if name not in self.data:
            raise WrongturnError(f"{self.source}: {self.at}{name} is missing ({_CALLED[kind]})")
        value = self.data[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            self.wrong(name, _CALLED[kind], value)
        return value

    def number(self, name: str) -> float:
        value = self.data.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self.wrong(name, "a number", value)
        return float(value)

    def plan(self, name: str) -> Plan:
        value = self.get(name, list)
        if not value or not all(isinstance(item, str) for item in value):
            self.wrong(name, "a list of operators", value)
        return tuple(value)


def _written(rule: Rule) -> dict[str, Any]:
    names = rule.reference.names
    match rule:
        case Fixed():
            told = {"plan": rule.plan}
        case Standardised():
            told = {"operators": dict(zip(names, rule.operators, strict=True)), "fallback": rule.fallback}
        case Threshold():
            told = {"cut": rule.cut, "below": rule.below, "above": rule.above}
        case Linear():
            rows = zip(rule.plans, rule.intercepts, rule.weights, strict=True)
            plans = [
                {"plan": plan, "intercept": intercept, "weights": dict(zip(names, weights, strict=True))}
                for plan, intercept, weights in rows
            ]
            told = {"margin": rule.margin, "plans": plans}
        case _:
            raise TypeError(f"{type(rule).__name__} is no rule of a policy")
    return {"kind": _KIND_OF[type(rule)]} | told


def _fixed(rule: _Object, reference: Reference) -> Rule:
    return Fixed(reference, rule.plan("plan"))


def _standardised(rule: _Object, reference: Reference) -> Rule:
    told = _Object(rule.source, "rule.operators.", rule.get("operators", dict))
    return Standardised(
        reference, _each(told, reference.names, lambda name: told.get(name, str)), rule.get("fallback", str)
    )


def _threshold(rule: _Object, reference: Reference) -> Rule:
    if len(reference.names) != 1:
        raise WrongturnError(f"{rule.source}: a threshold is on one feature, not on {len(reference.names)} (features)")
    return Threshold(reference, rule.number("cut"), rule.plan("below"), rule.plan("above"))


def _linear(rule: _Object, reference: Reference) -> Rule:
    rows = [_Object(rule.source, f"rule.plans[{i}].", row) for i, row in enumerate(rule.get("plans", list))]
    if not rows:
        rule.wrong("plans", "a list of one or more", "[]")
    weights = [_Object(row.source, f"{row.at}weights.", row.get("weights", dict)) for row in rows]
    return Linear(
        reference,
        tuple(row.plan("plan") for row in rows),
        tuple(row.number("intercept") for row in rows),
        tuple(_each(told, reference.names, told.number) for told in weights),
        rule.number("margin"),
    )


def _each(told: _Object, names: Sequence[str], read: Callable[[str], Any]) -> tuple[Any, ...]:
    """One entry for each feature, and no other."""
    for name in told.data:
        if name not in names:
            raise WrongturnError(f"{told.source}: {told.at}{name} is not one of the features ({', '.join(names)})")
    return tuple(read(name) for name in names)


_READ: dict[str, Callable[[_Object, Reference], Rule]] = {
    "fixed": _fixed,
    "standardised": _standardised,
    "threshold": _threshold,
    "linear": _linear,
}
