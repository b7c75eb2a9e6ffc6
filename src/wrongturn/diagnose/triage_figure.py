"""The picture of a triage: recall of wrong first answers against the share not sampled again. One SVG, no library."""

from __future__ import annotations

from wrongturn.diagnose.modes.figure import (
    BLUE,
    BOTTOM,
    DARK,
    GREY,
    HEIGHT,
    LEFT,
    RED,
    RIGHT,
    TOP,
    WIDTH,
    band,
    head,
    text,
)
from wrongturn.diagnose.triage import Curve, Triage

_COLOURS = {"uncertainty": BLUE, "length": RED}


def svg(title: str, found: Triage) -> str:
    """The curves for wrong first answers, the diagonal of chance, and where the rule stands."""
    curves = [curve for curve in found.curves if curve.failure == "first"]
    subtitle = f"{found.problems} problems, {found.samples:.3g} samples each; bands hold a whole curve in 95 % of cases"
    chance = f'<line x1="{x(0):.1f}" y1="{y(1):.1f}" x2="{x(1):.1f}" y2="{y(0):.1f}" stroke="{GREY}" '
    parts = [
        *head(title, subtitle),
        *_axes(),
        chance + 'stroke-dasharray="3 4"/>' + text(x(0.16), y(0.78), "at random", anchor="end", colour=GREY),
        *(part for i, curve in enumerate(curves) for part in _line(curve, i)),
    ]
    if found.rule is not None:
        at, kept = x(found.rule.skipped.value), y(found.rule.recall.value)
        parts.append(f'<circle cx="{at:.1f}" cy="{kept:.1f}" r="5" fill="none" stroke="{DARK}" stroke-width="2"/>')
        parts.append(text(at + 9, kept - 6, f"rule for {100 * found.rule.target:g} %"))
    return "\n".join((*parts, "</svg>")) + "\n"


def x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def y(recall: float) -> float:
    return HEIGHT - BOTTOM - recall * (HEIGHT - TOP - BOTTOM)


def _line(curve: Curve, place: int) -> list[str]:
    colour = _COLOURS[curve.score]
    points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(curve.skipped, curve.recall, strict=True))
    low, high = ([(x(a), y(b)) for a, b in zip(curve.skipped, line, strict=True)] for line in (curve.low, curve.high))
    return [
        band(high, low, colour),
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
        text(LEFT + 12, HEIGHT - BOTTOM - 14 - 18 * place, curve.score, colour=colour),
    ]


def _axes() -> list[str]:
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    across = [text(x(t), HEIGHT - BOTTOM + 18, f"{100 * t:g} %", anchor="middle") for t in ticks]
    along = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}" stroke="#eeeeee"/>'
        + text(LEFT - 8, y(t) + 4, f"{100 * t:g} %", anchor="end")
        for t in ticks
    ]
    turned = text(0, 0, "wrong first answers sampled again", anchor="middle", colour=GREY)
    below = text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 38, "not sampled again", anchor="middle", colour=GREY)
    return [*along, *across, below, f'<g transform="translate(16 {(y(0) + y(1)) / 2:.1f}) rotate(-90)">{turned}</g>']
