"""The picture of a table's failure modes: early curve with its interval, whole trace, chance. One SVG, no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 56, 52
BLUE, RED, DARK, GREY = "#2166ac", "#b2182b", "#333333", "#888888"


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
    parts = [
        *head(curve.title, curve.subtitle),
        *_ticks_y(curve, y),
        *_ticks_x(curve, x),
        band(upper, lower),
        _level(y(curve.chance), "chance", GREY, dash="3 4"),
        _level(y(curve.full), "whole trace", DARK, dash="8 4"),
        f'<polyline points="{line}" fill="none" stroke="{BLUE}" stroke-width="2"/>',
        *(f'<circle cx="{x(curve.T[i]):.1f}" cy="{y(curve.value[i]):.1f}" r="3" fill="{BLUE}"/>' for i in known),
        *_mark(curve, x),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def head(title: str, subtitle: str, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """The opening of a picture: frame, ground, title."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        text(LEFT, 22, title, size=15),
        text(LEFT, 40, subtitle, colour=GREY),
    ]


def band(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], colour: str = BLUE) -> str:
    """The area between two lines of points."""
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*upper, *reversed(lower)])
    return f'<polygon points="{points}" fill="{colour}" fill-opacity="0.15"/>' if points else ""


def _axis_x(T: Sequence[float]):
    low, high = math.log(min(T)), math.log(max(T))
    scale = (WIDTH - LEFT - RIGHT - 24) / (high - low) if high > low else 0.0
    return lambda t: LEFT + 12 + (math.log(t) - low) * scale


def _axis_y(curve: Curve):
    low, high = _range(curve)
    scale = (HEIGHT - TOP - BOTTOM) / (high - low)
    return lambda v: HEIGHT - BOTTOM - (v - low) * scale


def _range(curve: Curve) -> tuple[float, float]:
    """Lower and upper end of the vertical axis, rounded outwards to 0.05."""
    values = [v for v in (*curve.value, *curve.low, *curve.high, curve.full, curve.chance) if math.isfinite(v)]
    return math.floor(min(values) * 20 - 0.2) / 20, math.ceil(max(values) * 20 + 0.2) / 20


def _ticks_y(curve: Curve, y) -> list[str]:
    low, high = _range(curve)
    step = 0.05 if high - low <= 0.4 else 0.1
    ticks = [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    lines = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}" stroke="#eeeeee"/>'
        + text(LEFT - 8, y(t) + 4, f"{t:.2f}", anchor="end")
        for t in ticks
    ]
    middle = (HEIGHT - BOTTOM + TOP) / 2
    label = text(0, 0, "average precision", anchor="middle", colour=GREY)
    return [*lines, f'<g transform="translate(16 {middle:.1f}) rotate(-90)">{label}</g>']


def _ticks_x(curve: Curve, x) -> list[str]:
    bottom = HEIGHT - BOTTOM
    labels, last = [], -math.inf
    for t in curve.T:
        if x(t) - last >= 28:  # windows close together would print over each other
            labels.append(text(x(t), bottom + 18, f"{100 * t:g} %" if curve.relative else f"{t:g}", anchor="middle"))
            last = x(t)
    what = "first part of the trace" if curve.relative else "first tokens of the trace"
    axis = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}" stroke="{DARK}"/>'
    return [axis, *labels, text((LEFT + WIDTH - RIGHT) / 2, bottom + 38, what, anchor="middle", colour=GREY)]


def _mark(curve: Curve, x) -> list[str]:
    if curve.mark is None:
        return []
    at = f"{x(curve.mark):.1f}"
    return [f'<line x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{BLUE}" stroke-dasharray="2 3"/>']


def _level(at: float, label: str, colour: str, dash: str) -> str:
    """A horizontal line; its label is on the left, since on the right the early curve always comes near the whole."""
    line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{colour}" '
    return line + f'stroke-dasharray="{dash}"/>' + text(LEFT + 4, at + 14, label, colour=colour)


def text(x: float, y: float, words: str, size: int = 12, anchor: str = "start", colour: str = DARK) -> str:
    """A line of text."""
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {where}>{escape(words)}</text>"
