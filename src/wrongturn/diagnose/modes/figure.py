"""The picture of a table's failure modes: early curve with its interval, whole trace, chance. One SVG, no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 56, 52
_BLUE, _DARK, _GREY = "#2166ac", "#333333", "#888888"


@dataclass(frozen=True, slots=True)
class Curve:
    """W windows ``T`` with value, lower and upper limit (NaN: not known), against two horizontal lines.

    ``relative``: windows are fractions of the trace. ``mark`` is the window to point at, if any.
    """

    title: str
    subtitle: str
    T: Sequence[float]
    value: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    full: float
    chance: float
    relative: bool = False
    mark: float | None = None


def svg(curve: Curve) -> str:
    """The picture, as the text of an SVG file. The horizontal axis is logarithmic."""
    known = [i for i, value in enumerate(curve.value) if math.isfinite(value)]
    x, y = _axis_x(curve.T), _axis_y(curve)
    line = " ".join(f"{x(curve.T[i]):.1f},{y(curve.value[i]):.1f}" for i in known)
    upper = [(x(curve.T[i]), y(curve.high[i])) for i in known if math.isfinite(curve.high[i])]
    lower = [(x(curve.T[i]), y(curve.low[i])) for i in known if math.isfinite(curve.low[i])]
    band = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*upper, *reversed(lower)])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(curve.title)}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 22, curve.title, size=15),
        _text(_LEFT, 40, curve.subtitle, colour=_GREY),
        *_ticks_y(curve, y),
        *_ticks_x(curve, x),
        f'<polygon points="{band}" fill="{_BLUE}" fill-opacity="0.15"/>' if band else "",
        _level(y(curve.chance), "chance", _GREY, dash="3 4"),
        _level(y(curve.full), "whole trace", _DARK, dash="8 4"),
        f'<polyline points="{line}" fill="none" stroke="{_BLUE}" stroke-width="2"/>',
        *(f'<circle cx="{x(curve.T[i]):.1f}" cy="{y(curve.value[i]):.1f}" r="3" fill="{_BLUE}"/>' for i in known),
        *_mark(curve, x),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _axis_x(T: Sequence[float]):
    low, high = math.log(min(T)), math.log(max(T))
    scale = (_WIDTH - _LEFT - _RIGHT - 24) / (high - low) if high > low else 0.0
    return lambda t: _LEFT + 12 + (math.log(t) - low) * scale


def _axis_y(curve: Curve):
    low, high = _range(curve)
    scale = (_HEIGHT - _TOP - _BOTTOM) / (high - low)
    return lambda v: _HEIGHT - _BOTTOM - (v - low) * scale


def _range(curve: Curve) -> tuple[float, float]:
    """Lower and upper end of the vertical axis, rounded outwards to 0.05."""
    values = [v for v in (*curve.value, *curve.low, *curve.high, curve.full, curve.chance) if math.isfinite(v)]
    return math.floor(min(values) * 20 - 0.2) / 20, math.ceil(max(values) * 20 + 0.2) / 20


def _ticks_y(curve: Curve, y) -> list[str]:
    low, high = _range(curve)
    step = 0.05 if high - low <= 0.4 else 0.1
    ticks = [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    lines = [
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}" stroke="#eeeeee"/>'
        + _text(_LEFT - 8, y(t) + 4, f"{t:.2f}", anchor="end")
        for t in ticks
    ]
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    label = _text(0, 0, "average precision", anchor="middle", colour=_GREY)
    return [*lines, f'<g transform="translate(16 {middle:.1f}) rotate(-90)">{label}</g>']


def _ticks_x(curve: Curve, x) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    labels, last = [], -math.inf
    for t in curve.T:
        if x(t) - last >= 28:  # windows close together would print over each other
            labels.append(_text(x(t), bottom + 18, f"{100 * t:g} %" if curve.relative else f"{t:g}", anchor="middle"))
            last = x(t)
    what = "first part of the trace" if curve.relative else "first tokens of the trace"
    axis = f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}" stroke="{_DARK}"/>'
    return [axis, *labels, _text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 38, what, anchor="middle", colour=_GREY)]


def _mark(curve: Curve, x) -> list[str]:
    if curve.mark is None:
        return []
    at = f"{x(curve.mark):.1f}"
    return [f'<line x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{_BLUE}" stroke-dasharray="2 3"/>']


def _level(at: float, label: str, colour: str, dash: str) -> str:
    line = f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{colour}" '
    return line + f'stroke-dasharray="{dash}"/>' + _text(_WIDTH - _RIGHT, at - 5, label, anchor="end", colour=colour)


def _text(x: float, y: float, text: str, size: int = 12, anchor: str = "start", colour: str = _DARK) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {where}>{escape(text)}</text>"
