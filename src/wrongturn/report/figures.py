"""Numbers as people read them: from a study's plain values to text, and the small pictures beside them.

Everything that comes from outside goes through :func:`esc`. Numbers are set with a narrow space before their unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

THIN = "\u202f"

_PICTURES = {c: chr(0x2400 + c) for c in range(0x20)} | {0x7F: "␡"}
_PICTURES |= {0x80 + c: f"␛{chr(0x40 + c)}" for c in range(0x20)}  # what a C1 control is short for (ECMA-48, 5.3)


def esc(value: object) -> str:
    """The value as HTML text, also safe inside a quoted attribute."""
    return escape(str(value), quote=True)


def visible(text: str, keep: str = "") -> str:
    """The text with its control characters as pictures, but for those to ``keep``: it commands no terminal."""
    return text.translate({c: picture for c, picture in _PICTURES.items() if chr(c) not in keep})


@dataclass(frozen=True, slots=True)
class Figure:
    """A number to print, with its interval and the number of independent units where they are known."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def percent(self) -> str:
        """``69 % (65–72 %)``."""
        return percent(self.value) + (f" ({percent_range(self.low, self.high)})" if self.bounded else "")

    def plain(self) -> str:
        """``0.38 (0.31 to 0.45)``."""
        return decimal(self.value) + (f" ({decimal(self.low)} to {decimal(self.high)})" if self.bounded else "")

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None


def figure(source: Any) -> Figure | None:
    """The figure in a plain number or an estimate's dict; None where there is none or it is NaN."""
    if isinstance(source, Mapping):
        value = finite(source.get("value"))
        count = finite(source.get("n"))
        if value is not None:
            n = None if count is None else int(count)
            return Figure(value, finite(source.get("low")), finite(source.get("high")), n)
        return None
    value = finite(source)
    return None if value is None else Figure(value)


def figure_value(source: Any) -> float | None:
    """The value alone."""
    found = figure(source)
    return found.value if found else None


def dig(source: Any, *path: str) -> Any:
    """``source[a][b]…``, None where any of it is missing."""
    for key in path:
        source = source.get(key) if isinstance(source, Mapping) else None
    return source


def finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.0f}{THIN}%"


def percent_range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "?"
    return f"{100 * low:.0f}–{100 * high:.0f}{THIN}%"


def points(share: float | None) -> str:
    """A signed difference of shares, in percentage points."""
    return "?" if share is None else f"{100 * share:+z.1f}".replace("-", "−")


def decimal(value: float | None) -> str:
    """A measured number, with the decimals that can matter."""
    if value is None:
        return "?"
    if abs(value) >= 100:
        return count(round(value))
    return (f"{value:z.1f}" if abs(value) >= 10 else f"{value:z.2f}").replace("-", "−")


def number(value: float | None) -> str:
    """The same, but whole numbers are counts."""
    return count(int(value)) if value is not None and value == int(value) else decimal(value)


def count(n: int) -> str:
    return f"{n:,}".replace(",", THIN).replace("-", "−")


def absent(what: str) -> str:
    return f'<p class="absent">{esc(what)}</p>'


def plus(share: float | None, *between: float | None) -> str:
    """``+4.8 points (+1.7 to +7.9)``."""
    low, high = (*between, None, None)[:2]
    return f"{points(share)} points" + (f" ({points(low)} to {points(high)})" if low is not None else "")


# -- pictures ----------------------------------------------------------------------------------------------------------


def interval_bar(f: Figure, low: float = 0.0, high: float = 1.0, origin: float | None = None) -> str:
    """A dot on its interval, on a scale from ``low`` to ``high`` with a tick at ``origin``."""

    def at(value: float) -> str:
        return f"{min(max(100 * (value - low) / (high - low), 0.0), 100.0):.2f}%"

    zero = ""
    if origin is not None:
        zero = f'<line class="zero" x1="{at(origin)}" x2="{at(origin)}" y1="1" y2="17"/>'
    whisker = ""
    if f.low is not None and f.high is not None:
        whisker = f'<line class="whisker" x1="{at(f.low)}" x2="{at(f.high)}" y1="9" y2="9"/>'
    return (
        f'<svg class="bar" aria-hidden="true"><line class="axis" x1="0" x2="100%" y1="9" y2="9"/>{zero}{whisker}'
        f'<circle cx="{at(f.value)}" cy="9" r="3.5"/></svg>'
    )


def sample(kind: str) -> str:
    """A piece of a line as the charts draw it, for their legends."""
    band = '<rect class="band" y="3" width="28" height="10"/>' if kind == "band" else ""
    line = '<line x1="0" x2="28" y1="8" y2="8"/>'
    return f'<svg class="sample {kind}" viewBox="0 0 28 16" aria-hidden="true">{band}{line}</svg>'


# -- tables ------------------------------------------------------------------------------------------------------------


def cells(f: Figure | None, label: str, low: float = 0.0, high: float = 1.0, kind: str = "percent") -> str:
    """Two table cells: the picture and the number. ``kind``: "percent", "points" (signed) or "plain" (AUROC)."""
    if f is None:
        return f'<td class="pic"></td><td class="val muted" data-label="{esc(label)}">–</td>'
    write = {"percent": percent, "points": points, "plain": decimal}[kind]
    text = write(f.value)
    if f.bounded:
        ends = percent_range(f.low, f.high) if kind == "percent" else f"{write(f.low)} to {write(f.high)}"
        text += f' <span class="ci">{ends}</span>'
    origin = {"percent": None, "points": 0.0, "plain": 0.5}[kind]
    picture = interval_bar(f, low, high, origin) if low <= f.value <= high else ""
    return f'<td class="pic">{picture}</td><td class="val" data-label="{esc(label)}">{text}</td>'


def table(heads: Sequence[tuple[str, str]], rows: Sequence[str], kind: str = "cards") -> str:
    """A table that scrolls in a narrow window, or with ``kind`` "cards" becomes a list there.

    ``heads`` are (text, kind of column): "name", "figure" (picture and number), "num" (right-aligned) or "text".
    """
    marks = {"figure": ' colspan="2"', "num": ' class="num"'}
    head = "".join(f'<th scope="col"{marks.get(column, "")}>{esc(text)}</th>' for text, column in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    rows_html = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{rows_html}</table></div>'


def name_cell(text: object, note: str = "") -> str:
    """The cell that names a row."""
    return f'<th scope="row">{esc(text)}{f" <span class=ci>{esc(note)}</span>" if note else ""}</th>'


def num_cell(text: str, label: str = "") -> str:
    """A right-aligned cell of a number already set as text."""
    return f'<td class="num" data-label="{esc(label)}">{text}</td>'


def section(name: str, title: str, *parts: str) -> str:
    """A section of the page under its heading; empty parts are left out."""
    body = "\n".join(part for part in parts if part)
    head = f'<h2 id="{name}-title">{esc(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{head}\n{body}\n</section>'
