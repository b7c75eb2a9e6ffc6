"""The two charts of a report: where failures begin, and what the entropy does there.

The page's script draws them from the curves made here; the values also stand in a table, for readers without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from wrongturn.report.figures import (
    THIN,
    Figure,
    absent,
    count,
    dig,
    esc,
    figure,
    num_cell,
    number,
    percent,
    sample,
    section,
    table,
)

POINTS = 400  # of a curve


def curves(study: Mapping[str, Any]) -> dict[str, Any]:
    """The curves the script draws, ``onset`` and ``entropy``; None for one that the study does not have."""
    return {
        "onset": _curve(dig(study, "onset", "curves", "token"), "r", "value", ("low", "high"), "null"),
        "entropy": _curve(dig(study, "entropy", "aligned"), "offsets", "onset", ("onset_low", "onset_high"), "control"),
    }


def _curve(source: Any, x: str, y: str, band: tuple[str, str], other: str) -> dict[str, Any] | None:
    """``x``, ``y``, ``low``, ``high`` and ``other`` of a curve, thinned to ``POINTS``; None where there is no curve."""
    if not isinstance(source, Mapping):
        return None
    names = {"x": x, "y": y, "low": band[0], "high": band[1], other: other}
    columns = {name: _floats(source[key]) for name, key in names.items() if _listed(source.get(key))}
    if "x" not in columns or "y" not in columns or not np.isfinite(columns["y"]).any():
        return None
    n = min(len(columns["x"]), len(columns["y"]))
    picked = np.unique(np.linspace(0, n - 1, min(n, POINTS)).round().astype(int))
    return {name: _plain(v[picked]) for name, v in columns.items() if len(v) >= n and np.isfinite(v).any()}


def _listed(values: Any) -> bool:
    return isinstance(values, Sequence | np.ndarray) and not isinstance(values, str) and len(values) > 0


def _floats(values: Any) -> np.ndarray:
    return np.array([math.nan if v is None else v for v in values], np.float64)


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(v), 5) if math.isfinite(v) else None for v in values]


# -- what stands around them -------------------------------------------------------------------------------------------


def onset_figure(study: Mapping[str, Any], name: str) -> Figure | None:
    """A figure of the onset study, which holds it itself or in its curve of token positions."""
    return figure(dig(study, "onset", name)) or figure(dig(study, "onset", "curves", "token", name))


def onset(study: Mapping[str, Any], charts: Mapping[str, Any]) -> str:
    """Where failures begin, and what the entropy does there."""
    curve, picture = charts.get("onset"), charts.get("entropy")
    drawn = (_onset_figure(study, curve) if curve else "") + (_entropy_figure(study, picture) if picture else "")
    return section(
        "onset",
        "Onset",
        f'<div class="figures">{drawn}</div>' if drawn else "",
        "" if curve else absent("There is no onset curve: no failure has a known first wrong token."),
        "" if picture else absent("There is no entropy picture in this study."),
    )


def _onset_figure(study: Mapping[str, Any], curve: Mapping[str, Any]) -> str:
    text = "Share of failures whose first wrong step begins at or before a position in the trace."
    early, chance = onset_figure(study, "share_30"), onset_figure(study, "null_30")
    if early:
        text += f" At 30{THIN}% it stands at {early.percent()}{f', {count(early.n)} problems' if early.n else ''}"
        text += f"; onsets placed by chance come to {percent(chance.value)}." if chance else "."
    key = [("band", f"failures, with a 95{THIN}% band"), ("dotted", "evenly spread")]
    if curve.get("null"):
        key.insert(1, ("dashed", "onsets placed by chance in a trace of typical length"))
    names = {"x": "position", "y": "share of failures", "low": "low", "high": "high", "null": "by chance"}
    return _chart("onset", "Where failures begin", text, key, names, curve)


def _entropy_figure(study: Mapping[str, Any], picture: Mapping[str, Any]) -> str:
    text = "Mean entropy of the tokens around the first wrong token, which stands at 0, in nats."
    n = figure(dig(study, "entropy", "aligned", "n_onset"))
    text += f" n{THIN}={THIN}{number(n.value)} failures." if n else ""
    key = [("band", f"failures, with a 95{THIN}% band")]
    if picture.get("control"):
        key.append(("dashed", "control: like tokens of traces in which nothing is wrong"))
    names = {"x": "offset", "y": "entropy", "low": "low", "high": "high", "control": "control"}
    return _chart("entropy", "Entropy at the wrong turn", text, key, names, picture)


def _chart(
    name: str, title: str, text: str, key: Iterable[tuple[str, str]], names: Mapping[str, str], curve: Mapping[str, Any]
) -> str:
    """A figure: the script draws into it; its values are also there as a table."""
    columns = {head: curve[column] for column, head in names.items() if curve.get(column)}
    n, most = len(curve["x"]), 13
    picked = sorted({round(i * (n - 1) / (most - 1)) for i in range(most)}) if n > most else list(range(n))
    rows = ["".join(num_cell(number(column[i])) for column in columns.values()) for i in picked]
    samples = "".join(f"<li>{sample(kind)}{esc(meaning)}</li>" for kind, meaning in key)
    return (
        f'<figure><h3>{esc(title)}</h3><div class="chart" id="chart-{name}" role="img" aria-label="{esc(text)}"></div>'
        f'<ul class="key">{samples}</ul><figcaption>{esc(text)}</figcaption><details><summary>Values</summary>'
        f"{table([(head, 'num') for head in columns], rows, 'plain')}</details></figure>"
    )
