"""The lab's pictures as SVG text: accuracies with intervals, first errors by class, learning curves. No library."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 720
LEFT, RIGHT, TOP, ROW = 92, 30, 74, 44
BLUE, ORANGE, DARK, GREY, PALE = "#2166ac", "#d6604d", "#333333", "#888888", "#dddddd"
SHADES = ("#2166ac", "#67a9cf", "#8073ac", "#d6604d", "#fdae61", "#1b7837")


def accuracy(title: str, rows: Sequence[Mapping[str, Any]], published: Sequence[tuple[float, float] | None]) -> str:
    """One row per distribution: answer and trace accuracy with their intervals, over the published range (percent)."""
    x = _percent_axis()
    parts = [_legend([("answer", BLUE), ("whole trace", ORANGE), *([("published", PALE)] if any(published) else [])])]
    for i, (row, known) in enumerate(zip(rows, published, strict=True)):
        y = TOP + ROW * i + ROW / 2
        parts.append(_text(LEFT - 10, y + 4, row["distribution"], anchor="end"))
        if known is not None:
            low, high = x(known[0]), x(known[1])
            parts.append(_box(low - 2, y - 16, high - low + 4, 32, PALE))
        for shift, name, colour in ((-7, "path_accuracy", BLUE), (7, "trace_accuracy", ORANGE)):
            e = row[name]
            parts.append(_interval(x, y + shift, e["value"], e["low"], e["high"], colour))
    return _page(title, len(rows), parts)


def errors(title: str, groups: Sequence[Mapping[str, Any]]) -> str:
    """One row per distribution: the share of traces whose first error is of each class (percent of all traces)."""
    kinds = list(groups[0]["shares"])
    shades = (*SHADES[: len(kinds) - 1], "#bbbbbb")  # the last class is what has no better name
    x = _percent_axis()
    parts = [_legend(list(zip(kinds, shades, strict=True)))]
    for i, group in enumerate(groups):
        y, at = TOP + ROW * i + ROW / 2, 0.0
        parts.append(_text(LEFT - 10, y + 4, group["distribution"], anchor="end"))
        for kind, colour in zip(kinds, shades, strict=True):
            share = 100 * group["shares"][kind]["value"]
            parts.append(_box(x(at), y - 12, x(at + share) - x(at), 24, colour, f"{kind}: {share:.1f} %"))
            at += share
        failed, inside = f"{group['failed']} of {group['traces']}", at > 85  # no room beside a bar as long as that
        parts.append(
            _text(x(at) - 6, y + 4, failed, "end", "white") if inside else _text(x(at) + 6, y + 4, failed, colour=GREY)
        )
    return _page(title, len(groups), parts, "share of traces with a wrong token, %")


def habits(title: str, groups: Sequence[Mapping[str, Any]]) -> str:
    """One row per distribution and habit, right and wrong traces in it: how many show the habit, and how often."""
    names, kinds = list(groups[0]["habits"]), (("right", -4, BLUE), ("wrong", 4, ORANGE))
    rows, left, middle, end = len(groups) * len(names) / 2, LEFT + 130, 440, WIDTH - RIGHT  # two habits to a row
    counts = [group["habits"][name][kind]["count"] for group in groups for name in names for kind, *_ in kinds]
    most = max((count["high"] or count["value"] or 0.0 for count in counts), default=0.0) or 1.0
    panels = (
        ("share", "traces that show it, %", left, middle - 20, 1.0, 0.2, 100),
        ("count", "such lines in a trace", middle + 20, end, most, _step(most), 1),
    )
    parts = [_legend([("right answers", BLUE), ("wrong answers", ORANGE)])]
    for what, text, begin, stop, top, step, unit in panels:
        x = _axis(begin, stop, 100 * top)
        parts += [
            _rule(x(100 * at), TOP, x(100 * at), TOP + rows * ROW)
            + _text(x(100 * at), TOP + rows * ROW + 18, f"{unit * at:g}", "middle")
            for at in (step * k for k in range(int(top / step + 1e-9) + 1))
        ]
        parts.append(_text((begin + stop) / 2, TOP + rows * ROW + 38, text, "middle", GREY))
        for i, (group, name) in enumerate((group, name) for group in groups for name in names):
            y = TOP + ROW / 2 * (i + 0.5)
            for kind, shift, colour in kinds:
                e = group["habits"][name][kind][what]
                if e["value"] is not None:  # there may be no wrong trace
                    at, low, high = (e["value"] if e[of] is None else e[of] for of in ("value", "low", "high"))
                    parts.append(_interval(x, y + shift, at, low, high, colour))
    for i, group in enumerate(groups):
        y = TOP + ROW / 2 * len(names) * i
        answers = f"{group['traces']['right']} of {group['traces']['all']}"
        parts += [_rule(LEFT - 70, y, end, y), _text(LEFT - 70, y + ROW / 4 + 4, group["distribution"])]
        parts.append(_text(LEFT - 70, y + ROW * 3 / 4 + 4, f"{answers} right", colour=GREY))
        parts += [
            _text(left - 10, y + ROW / 2 * (k + 0.5) + 4, name.replace("_", " "), "end") for k, name in enumerate(names)
        ]
    return _page(title, rows, parts, "", axis=False)


def stack(pictures: Sequence[str]) -> str:
    """Pictures under each other as one."""
    heights = [float(re.findall(r'viewBox="0 0 \S+ (\S+)"', picture)[0]) for picture in pictures]
    places = [f'<svg y="{sum(heights[:i]):g}" width="{WIDTH}" height="{h:g}"' for i, h in enumerate(heights)]
    inner = [picture.replace("<svg", place, 1) for picture, place in zip(pictures, places, strict=True)]
    whole = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {sum(heights):g}">\n'
    return whole + "".join(inner) + "</svg>\n" if len(pictures) > 1 else pictures[0]


def curves(title: str, series: Mapping[str, Sequence[tuple[float, float]]], xlabel: str) -> str:
    """Lines of points (x, share in [0, 1]) over a common linear axis from 0."""
    rows, colours = 6, (BLUE, ORANGE, "#1b7837", "#8073ac", GREY, DARK)
    bottom = TOP + rows * ROW
    top_x = max((px for line in series.values() for px, _ in line), default=1.0)
    step = _step(top_x)

    def x(v: float) -> float:
        return LEFT + v / top_x * (WIDTH - LEFT - RIGHT)

    def y(v: float) -> float:
        return bottom - v * (bottom - TOP)

    parts = [_legend(list(zip(series, colours, strict=False)))]
    for k in range(0, 101, 20):
        parts += [_rule(LEFT, y(k / 100), WIDTH - RIGHT, y(k / 100)), _text(LEFT - 8, y(k / 100) + 4, f"{k}", "end")]
    parts += [_text(x(step * k), bottom + 18, f"{step * k:g}", "middle") for k in range(int(top_x / step) + 1)]
    for line, colour in zip(series.values(), colours, strict=False):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return _page(title, rows, parts, xlabel, axis=False)


# -- pieces ------------------------------------------------------------------------------------------------------------


def _page(title: str, rows: float, parts: Sequence[str], xlabel: str = "accuracy, %", axis: bool = True) -> str:
    bottom = TOP + rows * ROW
    height = bottom + 46
    x = _percent_axis()
    ticks = [_rule(x(t), TOP, x(t), bottom) + _text(x(t), bottom + 18, f"{t}", "middle") for t in range(0, 101, 20)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(LEFT, 24, title, size=15),
        *(ticks if axis else []),
        *parts,
        *([_text((LEFT + WIDTH - RIGHT) / 2, bottom + 38, xlabel, "middle", GREY)] if xlabel else []),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _percent_axis() -> Callable[[float], float]:
    return _axis(LEFT, WIDTH - RIGHT, 100)


def _axis(low: float, high: float, top: float) -> Callable[[float], float]:
    """Where between ``low`` and ``high`` a value from 0 to ``top`` stands."""
    return lambda v: low + v / top * (high - low)


def _step(top: float) -> float:
    """A round distance of ticks: about six of them up to ``top``."""
    scale = 10 ** math.floor(math.log10(top / 6))
    return next(m * scale for m in (1, 2, 5, 10) if m * scale >= top / 6)


def _interval(x, y: float, value: float, low: float, high: float, colour: str) -> str:
    line = (
        f'<line x1="{x(100 * low):.1f}" x2="{x(100 * high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
    )
    return line + f'<circle cx="{x(100 * value):.1f}" cy="{y}" r="4" fill="{colour}"/>'


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    parts, at = [], float(LEFT)
    for name, colour in entries:
        parts.append(_box(at, 40, 12, 12, colour) + _text(at + 17, 50, name, colour=DARK))
        at += 34 + 6.6 * len(name)
    return "".join(parts)


def _box(x: float, y: float, width: float, height: float, colour: str, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    where = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="{colour}"'
    return f"<rect {where}>{inside}</rect>" if inside else f"<rect {where}/>"


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#eeeeee"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = DARK, size: int = 12) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {where}>{escape(text)}</text>"
