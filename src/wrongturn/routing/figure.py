"""Two pictures of a rescue: what each operator did on each problem, and what each router rescued. SVG, no library."""

from __future__ import annotations

import numpy as np

from wrongturn.diagnose.modes.figure import BLUE, GREY, RED, head, text
from wrongturn.diagnose.recoverability.outcomes import Outcomes
from wrongturn.routing.comparison import Comparison, Row

_LABEL, _CELL, _TALL, _TOP = 120, 40, 360, 190
_WIDE, _ROW = 420, 26


def matrix(title: str, outcomes: Outcomes) -> str:
    """Problems (rows: by group, easiest to retry first) by operators; the darker, the more tries were right."""
    rates = outcomes.counts().rates
    group = np.unique(np.array(outcomes.groups), return_inverse=True)[1]
    order = np.lexsort((-np.nan_to_num(rates.mean(axis=1)), -np.nan_to_num(rates[:, 0]), group))
    height = max(1.0, _TALL / len(order))
    width = _LABEL + _CELL * len(outcomes.operators) + 110
    subtitle = f"{len(order)} failed problems, each row one; share of tries that are right: white none, dark all"
    parts = head(title, subtitle, width=width, height=_TOP + _TALL + 30)
    for column, name in enumerate(outcomes.operators):
        at = _LABEL + _CELL * (column + 0.5)
        turned = text(0, 0, f"{name}  {100 * np.nanmean(rates[:, column]):.0f} %")
        parts.append(f'<g transform="translate({at:.1f} {_TOP - 8}) rotate(-45)">{turned}</g>')
        parts += _column(rates[order, column], _LABEL + _CELL * column, height)
    for number in np.unique(group):
        rows = np.flatnonzero(group[order] == number)
        above = _TOP + height * rows[0]
        name = outcomes.groups[int(order[rows[0]])]
        parts.append(text(_LABEL - 8, above + height * len(rows) / 2 + 4, name, anchor="end"))
        parts.append(f'<line x1="{_LABEL - 90}" x2="{width - 110}" y1="{above:.1f}" y2="{above:.1f}" stroke="{GREY}"/>')
    return "\n".join((*parts, "</svg>")) + "\n"


def _column(rates: np.ndarray, left: float, height: float) -> list[str]:
    """Runs of equal rates as one rectangle each."""
    edges = np.flatnonzero(np.append(True, rates[1:] != rates[:-1]))
    found = []
    for start, stop in zip(edges, np.append(edges[1:], len(rates)), strict=True):
        rate = rates[start]
        if rate > 0:
            found.append(
                f'<rect x="{left + 1:.1f}" y="{_TOP + height * start:.2f}" width="{_CELL - 2}" '
                f'height="{height * (stop - start):.2f}" fill="{BLUE}" fill-opacity="{rate:.2f}"/>'
            )
    return found


def routers(title: str, found: Comparison) -> str:
    """What each router rescues of all failures, with its interval; fixed operators in grey."""
    named = {row.router for row in found.rows}
    rows = [*found.rows, *(row for row in found.operators if row.router not in named)]
    rows.sort(key=lambda row: -row.failures.rescued.value)
    height = 90 + _ROW * len(rows) + 30
    subtitle = f"{found.failures} failed problems, {found.budget:.0f} decoded tokens each; 95 % intervals"
    parts = head(title, subtitle, width=_WIDE + 330, height=height)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = _x(share)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="70" y2="{height - 40}" stroke="#eeeeee"/>')
        parts.append(text(at, height - 22, f"{100 * share:g} %", anchor="middle"))
    for i, row in enumerate(rows):
        parts += _bar(row, 84 + _ROW * i, RED if row.router == "router" else BLUE if row.router in named else GREY)
    return "\n".join((*parts, "</svg>")) + "\n"


def _bar(row: Row, y: float, colour: str) -> list[str]:
    e = row.failures.rescued
    return [
        text(220, y + 4, row.router, anchor="end", colour=colour),
        f'<line x1="{_x(e.low):.1f}" x2="{_x(e.high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
        f'<circle cx="{_x(e.value):.1f}" cy="{y}" r="4" fill="{colour}"/>',
        text(_x(1.0) + 12, y + 4, f"{100 * e.value:.1f} %", colour=colour),
    ]


def _x(share: float) -> float:
    return 230 + share * _WIDE
