"""The report of a run: one HTML file that needs no network, no server and no other file."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from wrongturn.compare import outcomes
from wrongturn.diagnose.intervals import share
from wrongturn.report import sections
from wrongturn.report.data import Pieces, pack, pieces_of
from wrongturn.report.figures import dig, esc
from wrongturn.trace import Problem, Trace

LIMIT = 10_000_000
"""Bytes a report has at most."""
POINTS = 400  # of a curve


def write(
    path: str | os.PathLike[str],
    *,
    traces: Sequence[Trace],
    problems: Mapping[str, Problem],
    study: Mapping[str, Any] | None = None,
    comparison: Sequence[Mapping[str, Any]] | None = None,
    meta: Mapping[str, Any] | None = None,
    pieces: Pieces = pieces_of,
    limit: int = LIMIT,
) -> Path:
    """Write the report of a run and return its path.

    Args:
        path: the file; it appears complete or not at all.
        traces: what the viewer shows.
        problems: by id; a trace whose problem is not there is shown without its prompt.
        study: a diagnosis as plain values (``Study.dict()``). Sections of what is missing say so.
        comparison: one row a strategy: ``strategy``, ``accuracy``, ``decoded_tokens``, ``difference``, ``budget``.
        meta: ``title``, ``engine``, ``model``, ``sampling``, ``seed``, ``versions``, ``command``, ``created``; what is
            missing is read from the traces' provenance where it is there.
        pieces: the text of token ids; default: by the trace's task.
        limit: bytes. What does not fit is left out, and the page says what.
    """
    study, comparison = study or {}, [row for row in comparison or [] if row]
    facts = _facts(traces, meta or {})
    charts = {"onset": _onset_chart(study), "entropy": _entropy_chart(study)}
    body = "\n".join(
        (
            sections.lead(study, comparison, facts),
            sections.strategies(comparison),
            sections.groups(study, facts),
            sections.onset(study, charts),
            sections.claims(study),
            sections.further(study),
        )
    )
    app, uplot = _asset("app.js"), f"/*\n{_asset('vendor/uPlot.LICENSE')}\n*/\n{_asset('vendor/uPlot.iife.min.js')}"
    parts = {
        "title": esc(facts["title"]),
        "style": _asset("vendor/uPlot.min.css") + _asset("style.css"),
        "policy": _policy(app, uplot),
        "sections": body,
        "footer": sections.footer(facts),
        "app": app,
        "uplot": uplot,
    }
    template = Template(_asset("template.html"))
    page = template.substitute(parts, payload="", left_out="")
    payload = pack(traces, problems, {"charts": charts}, limit - len(page.encode()) - 2000, pieces)
    blocks, left_out = _blocks(payload.index, payload.blocks), _left_out(payload.left_out, limit)
    return _replace(Path(path), template.substitute(parts, payload=blocks, left_out=left_out))


def _asset(name: str) -> str:
    return (files("wrongturn.report") / name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """Nothing from anywhere, and no script but these two: not even one that slipped through the escaping."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    rest = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"


def _blocks(index: str, blocks: Sequence[str]) -> str:
    named = [("index", index), *((f"block-{i}", block) for i, block in enumerate(blocks))]
    return "\n".join(f'<script type="application/octet-stream" id="{name}">{data}</script>' for name, data in named)


def _left_out(said: Sequence[str], limit: int) -> str:
    if not said:
        return ""
    what = f"Left out to keep this file below {limit / 1e6:.3g} MB: {'; '.join(said)}."
    return f'<p class="left-out" id="left-out">{esc(what)}</p>'


def _replace(path: Path, page: str) -> Path:
    """Write aside, then rename: a reader never sees half a report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_text(page, encoding="utf-8", newline="\n")
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return path


def _facts(traces: Sequence[Trace], meta: Mapping[str, Any]) -> dict[str, Any]:
    """What is known about the run: ``meta`` (a run's manifest will do), or else the first trace's provenance."""
    found = dict(traces[0].provenance) if traces else {}
    facts = {name: found.get(name) for name in ("engine", "model", "sampling", "seed", "versions")}
    facts |= {"task": traces[0].task if traces else None, "traces": len(traces)}
    facts["outcomes"] = outcomes(traces)
    named = {**(meta.get("settings") or {}), **meta}
    facts |= {name: value for name, value in named.items() if value is not None}
    return {"title": "Where the reasoning took a wrong turn", **_overall(traces), **facts}


def _overall(traces: Sequence[Trace]) -> dict[str, Any]:
    """Share of right answers, and of traces without a wrong token, among the plain samples (or all, without those)."""
    ended = [trace for trace in traces if trace.finish != "until"]
    plain = [trace for trace in ended if trace.strategy == "sample"] or ended
    problems = [trace.problem for trace in plain]
    right = [math.nan if trace.correct is None else float(trace.correct) for trace in plain]
    exact = [math.nan if trace.onset is None else float(trace.onset < 0) for trace in plain]
    return {"accuracy": share(right, problems).dict(), "exact": share(exact, problems).dict()}


# -- curves ------------------------------------------------------------------------------------------------------------


def _onset_chart(study: Mapping[str, Any]) -> dict[str, Any] | None:
    return _curve(dig(study, "onset", "curves", "token"), "r", "value", ("low", "high"), "null")


def _entropy_chart(study: Mapping[str, Any]) -> dict[str, Any] | None:
    return _curve(dig(study, "entropy", "aligned"), "offsets", "onset", ("onset_low", "onset_high"), "control")


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
