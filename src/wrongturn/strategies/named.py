"""How a strategy is named and its options are given: ``guard:q=0.8,width=3``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from wrongturn.strategies.base import Context, Draft

Strategy = Callable[..., Coroutine[Any, Any, Draft]]

_STRATEGIES: dict[str, Strategy] = {}


@dataclass(frozen=True, slots=True)
class Between:
    """An option's range, ends included: ``q: Annotated[float, Between(0, 1)] = 0.9``."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"between {self.low} and {self.high}" if self.high < float("inf") else f"at least {self.low}"


class OneOf(tuple[str, ...]):
    """The words an option may be: ``rule: Annotated[str, OneOf(("paper", "repo"))] = "paper"``."""

    def __str__(self) -> str:
        return "one of " + ", ".join(self)


Count = Annotated[int, Between(1, float("inf"))]
Share = Annotated[float, Between(0, 1)]


def strategy(function: Strategy) -> Strategy:
    """Register a strategy under its function's name; its keyword parameters become options."""
    _STRATEGIES[function.__name__] = function
    return function


def names() -> list[str]:
    """The strategies there are."""
    return sorted(_STRATEGIES)


@dataclass(frozen=True, slots=True)
class Named:
    """A strategy with its options, as written: ``guard:q=0.8,width=3``."""

    name: str
    function: Strategy
    options: dict[str, Any]

    async def __call__(self, ctx: Context) -> Draft:
        return await self.function(ctx, **self.options)


def parse(spec: str) -> Named:
    """``"guard:q=0.8,width=3"`` -> the strategy with those options.

    Raises ``ValueError`` naming an unknown strategy, an unknown option, or a value that the option cannot take.
    """
    name, _, rest = spec.partition(":")
    if name not in _STRATEGIES:
        raise ValueError(f"unknown strategy {name!r} (expected one of {', '.join(names())})")
    function = _STRATEGIES[name]
    known = {p.name: p.default for p in list(inspect.signature(function).parameters.values())[1:]}
    hints = get_type_hints(function, include_extras=True)
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            expected = ", ".join(f"{k}={v}" for k, v in known.items()) or "none"
            raise ValueError(f"strategy {name!r} has no option {part!r} (options and defaults: {expected})")
        where = f"strategy {name!r}, option {key!r}"
        options[key] = _convert(value, known[key], where)
        for allowed in getattr(hints[key], "__metadata__", ()):
            if options[key] not in allowed:
                raise ValueError(f"{where}: {value} is not {allowed}")
    return Named(spec, function, options)


def _convert(value: str, default: Any, where: str) -> Any:
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        return kind(value)
    except (KeyError, ValueError):
        raise ValueError(f"{where}: {value!r} is no {kind.__name__} (default {default!r})") from None
