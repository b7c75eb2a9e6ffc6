"""The picture of failed problems: two features, a colour for each regime. One SVG, no library."""

from __future__ import annotations

import math

import numpy as np

from wrongturn.diagnose.modes.figure import BLUE, BOTTOM, DARK, GREY, HEIGHT, LEFT, RIGHT, TOP, WIDTH, head, text
from wrongturn.diagnose.recoverability.features import Array, Features
from wrongturn.diagnose.recoverability.regimes import Regimes

COLOURS = (BLUE, "#b2182b", "#1b7837", "#e08214", "#762a83", "#35978f")


def svg(title: str, features: Features, regimes: Regimes, x: str, y: str) -> str:
    """The problems whose two features are known; in grey those that are in no regime."""
    points = features.columns((x, y))
    shown = np.flatnonzero(~np.isnan(points).any(axis=1))
    across, along = _Axis(points[shown, 0], LEFT, WIDTH - RIGHT), _Axis(points[shown, 1], HEIGHT - BOTTOM, TOP + 8)
    regime = "no regimes" if regimes.k is None else f"{regimes.k} regimes"
    if regimes.k is not None:
        regime += f" (one cloud as likely: p = {regimes.p_one:.2f}; back after resampling: "
        regime += f"{regimes.stability_bootstrap:.2f})"
    parts = [*head(title, f"{len(shown)} failed problems, {regime}"), *_ticks(across, along, x, y)]
    for i in shown:
        member = int(regimes.member[i])
        colour = GREY if member < 0 else COLOURS[member % len(COLOURS)]
        at = f'cx="{across.place(points[i, 0]):.1f}" cy="{along.place(points[i, 1]):.1f}"'
        parts.append(f'<circle {at} r="3.5" fill="{colour}" fill-opacity="0.65"/>')
    for j, size in enumerate(regimes.sizes):
        place = HEIGHT - BOTTOM - 12 - 16 * (len(regimes.sizes) - 1 - j)
        parts.append(text(LEFT + 10, place, f"regime {j + 1}: {size}", colour=COLOURS[j % len(COLOURS)]))
    return "\n".join((*parts, "</svg>")) + "\n"


class _Axis:
    """Linear, from round number to round number."""

    def __init__(self, values: Array, start: float, stop: float) -> None:
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        wide = high - low if high > low else max(abs(high), 1.0)
        power = 10.0 ** math.floor(math.log10(wide / 4))
        self.step = next(power * m for m in (1, 2, 5, 10) if wide / (power * m) <= 5)
        self.low, self.high = (math.floor(low / self.step) * self.step, math.ceil(high / self.step) * self.step)
        self.high = self.high if self.high > self.low else self.low + self.step
        self.start, self.scale = start, (stop - start) / (self.high - self.low)

    def place(self, value: float) -> float:
        return self.start + (value - self.low) * self.scale

    @property
    def ticks(self) -> list[float]:
        return [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]


def _ticks(across: _Axis, along: _Axis, x: str, y: str) -> list[str]:
    bottom, middle = HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2
    lines = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{along.place(t):.1f}" y2="{along.place(t):.1f}" stroke="#eeeeee"/>'
        + text(LEFT - 8, along.place(t) + 4, f"{t:z.4g}", anchor="end")
        for t in along.ticks
    ]
    below = [text(across.place(t), bottom + 18, f"{t:z.4g}", anchor="middle") for t in across.ticks]
    axis = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}" stroke="{DARK}"/>'
    named = text((LEFT + WIDTH - RIGHT) / 2, bottom + 38, x, anchor="middle", colour=GREY)
    turned = text(0, 0, y, anchor="middle", colour=GREY)
    return [*lines, axis, *below, named, f'<g transform="translate(16 {middle:.1f}) rotate(-90)">{turned}</g>']
