"""Numbers as people and models write them: ``$1,234.50``, ``\\frac{3}{4}``, ``12 %``, ``3.2\\times 10^4``, ``5 km``,
``1.5 million``.
"""

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
    """The number a text states at its beginning; None where it states none, or more than one.

    Of an equation it is the last side: ``12 + 5 = 17, so …`` gives 17. Of what comes later only another answer counts:
    ``5 (n = 4)`` and ``5, where n = 4`` give 5; ``5 or 6``, ``5, 6``, ``x = 5, y = 6`` and ``5 to 6`` give None.
    """
    text = _cleaned(text[:_LONGEST])
    match = _BEGIN.match(text)
    while (sign := text.find("=", match.end() if match else 0)) >= 0:
        if match and _ASIDE.search(text, match.end(), sign):
            break
        text = text[sign + 1 :]
        match = _BEGIN.match(text)
    if match is None or _GOES_ON.match(text, match.end()) or (found := _quantity(match)) is None:
        return None
    while match := _ANOTHER.match(text, match.end()):
        other = _quantity(match)
        if other is None or not found.equals(other):
            return None
    return found


_DIGITS = (
    r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)(?:\.\d+)?|\d{1,3}(?:[ ]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+|\.(?!\s))?|\.\d+)"
)
_VALUE = rf"""
    (?:(?:about|approximately|roughly|around|exactly|only|equal\ to|≈)\s*)?
    (?P<sign>[+-]?)\s*
    (?: (?P<whole>\d+)\s+(?P<over>\d+)\s*/\s*(?P<under>\d+)
      | (?P<top>{_DIGITS})\s*/\s*(?P<bottom>{_DIGITS})
      | (?P<plain>{_DIGITS})(?:e(?P<exponent>[+-]?\d{{1,3}})\b|\s*[×x*]\s*10\^\{{?(?P<power>[+-]?\d{{1,3}})\}}?)?
    )
    \s*(?P<percent>%|percent\b)?(?:(?P<scale>hundred|thousand|million|billion|trillion)s?\b)?
"""
_UNIT = r"(?:\s*(?:[A-Za-z°µμΩ²³'\"(][^\d+*=<>^\\{}]*|\^?\\circ\s*\w?)(?:(?<=[A-Za-z])\^?\{?[23]\}?)?)?"
_WHOLE = re.compile(rf"\s*(?:[A-Za-z]\w{{0,15}}\s*=)?\s*{_VALUE}{_UNIT}\s*\.?\s*", re.VERBOSE | re.IGNORECASE)
_BEGIN = re.compile(rf"\s*{_VALUE}", re.VERBOSE | re.IGNORECASE)
_GOES_ON = re.compile(  # 2 + …, 5\pi, 10:30; but 5 - because …
    r"\s*(?:[+*/×=±√π]|x\s*\d|-\s*(?:[^\sA-Za-z]|[A-Za-z]\b)|\^(?!\{?\\circ)|\\(?!circ)[a-zA-Z]|\d)|[:.]\d"
)
_ASIDE = re.compile(  # between a number and "=": the equation is about something else
    r"[,;.]\s|\([^()]*\Z|\b(?:where|when|while|if|for|with|since|because|given|so|as|at|but|which|and|or|not)\b",
    re.IGNORECASE,
)
_WORD = r"[A-Za-z°µμΩ²³]++(?:/[A-Za-z]++|(?:\.[A-Za-z])+\.?)?(?:\^\{?-?\d\}?)?"
_ANOTHER = re.compile(
    rf"""(?:\s*{_WORD}(?:\s+{_WORD}){{0,2}}?)?? \s*(?:\([^()]*\)\s*)?
    (?:(?:[,;/&|+*×±-]|\b(?:or|and|to|maybe|perhaps)\b)\s*)+ (?:[A-Za-z]\w{{0,15}}\s*=)?\s*
    (?:{_VALUE}|an?\s+(?:half|third|quarter)\b)""",
    re.VERBOSE | re.IGNORECASE,
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

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
        (r"\\pm(?![A-Za-z])", "±"),
        (r"\\approx(?![A-Za-z])", "≈"),
        (r"\\[!()\[\]]", ""),
        (r"\\[,;: ]|[~   ]", " "),
        (r"\\?([%$])", r"\1"),
        (r"[$€£¥₹`]|\*\*", ""),
        (r"^\s*[(\[]([^()\[\]]*)[)\]]\s*\.?\s*$", r"\1"),
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
        elif "plain" in part:
            value = _decimal(part["plain"])
            exponent = part.get("exponent") or part.get("power")
            if exponent:
                value = float(f"{value}e{int(exponent)}")
        else:  # "and a half"
            return None
        if scale := part.get("scale"):
            value = float(f"{value}e{_SCALES[scale.lower()]}")
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
