"""Numbers as people and models write them: ``$1,234.50``, ``\\frac{3}{4}``, ``12 %``, ``3.2\\times 10^4``, ``5 km``."""

from __future__ import annotations

import re
from dataclasses import dataclass

TOLERANCE = 1e-6
"""Two numbers are equal where they differ by at most this share of the larger one; two integers only where equal."""

_LONGEST = 1000  # characters: what is longer is no number anybody wants compared


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, an integer where it was written as one. Units and currencies are dropped, ``percent`` is remembered."""

    value: int | float
    percent: bool = False

    def __str__(self) -> str:
        return f"{self.value}{'%' if self.percent else ''}"

    def equals(self, other: Quantity) -> bool:
        """Equal within :data:`TOLERANCE`. Symmetric. ``50 %`` equals both ``50`` and ``0.5``."""
        if self.percent == other.percent:
            return _close(self.value, other.value)
        share, plain = (self, other) if self.percent else (other, self)
        return _close(share.value, plain.value) or _close(share.value / 100, plain.value)


def _close(a: int | float, b: int | float) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def parse(text: str) -> Quantity | None:
    """The number a text consists of (a unit may follow, ``x =`` may stand before); None where it is anything else."""
    if re.fullmatch(r"-?\d{1,18}", text):  # the usual case, a hundred times faster
        return Quantity(int(text))
    match = _WHOLE.fullmatch(_cleaned(text)) if len(text) <= _LONGEST else None
    return _quantity(match) if match else None


def leading(text: str) -> Quantity | None:
    """The number a text begins with, or that stands behind its last ``=``: ``12 + 5 = 17, so …`` gives 17."""
    text = text[:_LONGEST].rpartition("=")[2]
    match = _BEGIN.match(_cleaned(text))
    return _quantity(match) if match else None


_DIGITS = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)(?:\.\d+)?|\d{1,3}(?:[ ]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_VALUE = rf"""
    (?:(?:about|approximately|roughly|around|exactly|only|equal\ to|≈)\s*)?
    (?P<sign>[+-]?)\s*
    (?: (?P<whole>\d+)\s+(?P<over>\d+)\s*/\s*(?P<under>\d+)
      | (?P<top>{_DIGITS})\s*/\s*(?P<bottom>{_DIGITS})
      | (?P<plain>{_DIGITS})(?:e(?P<exponent>[+-]?\d{{1,3}})\b|\s*[×x*]\s*10\^\{{?(?P<power>[+-]?\d{{1,3}})\}}?)?
    )
    \s*(?P<percent>%|percent\b)?
"""
_UNIT = r"(?:\s*(?:[A-Za-z°µμΩ²³'\"(][^\d+*=<>^\\{}]*|\^?\\circ\s*\w?)(?:(?<=[A-Za-z])\^?\{?[23]\}?)?)?"
_WHOLE = re.compile(rf"\s*(?:[A-Za-z]\w{{0,15}}\s*=)?\s*{_VALUE}{_UNIT}\s*\.?\s*", re.VERBOSE | re.IGNORECASE)
_BEGIN = re.compile(rf"\s*{_VALUE}(?!\s*[+*/^×=-]|\d)", re.VERBOSE | re.IGNORECASE)

_REWRITE = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"[−–]", "-"),  # minus signs that are none
        (r"\\[dt]frac", r"\\frac"),
        (r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
        (r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1/\2"),
        (r"\\frac\s*(\d)\s*(\d)", r" \1/\2"),
        (r"\{,\}", ","),
        (r"\\(?:left|right|displaystyle)(?![A-Za-z])", ""),
        (r"\\(?:times|cdot)(?![A-Za-z])", "×"),
        (r"\\approx(?![A-Za-z])", "≈"),
        (r"\\!", ""),
        (r"\\[,;: ]|[~   ]", " "),
        (r"\\?([%$])", r"\1"),
        (r"[$€£¥₹`]|\*\*", ""),
    )
)


def _cleaned(text: str) -> str:
    for pattern, by in _REWRITE:
        text = pattern.sub(by, text)
    return text.strip()


def _quantity(match: re.Match[str]) -> Quantity | None:
    part = {name: value.replace(",", "").replace(" ", "") for name, value in match.groupdict().items() if value}
    try:
        if "under" in part:
            value = int(part["whole"]) + int(part["over"]) / int(part["under"])
        elif "bottom" in part:
            top, bottom = _decimal(part["top"]), _decimal(part["bottom"])
            value = (
                top // bottom
                if isinstance(top, int) and isinstance(bottom, int) and top % bottom == 0
                else top / bottom
            )
        else:
            value = _decimal(part["plain"])
            exponent = part.get("exponent") or part.get("power")
            if exponent:
                value = float(f"{value}e{int(exponent)}")
        if part.get("sign") == "-":
            value = -value
        if isinstance(value, float):
            if value in (float("inf"), float("-inf")):
                return None
            if value.is_integer() and abs(value) < 2**53:
                value = int(value)
    except (ArithmeticError, ValueError):
        return None
    return Quantity(value, "percent" in part)


def _decimal(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)
