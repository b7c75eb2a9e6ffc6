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

from wrongturn.compare import outcomes
from wrongturn.diagnose.intervals import share
from wrongturn.folder import disk, write_aside
from wrongturn.report import sections
from wrongturn.report.charts import curves, onset
from wrongturn.report.figures import esc
from wrongturn.report.groups import groups
from wrongturn.report.lead import lead
from wrongturn.report.payload import pack
from wrongturn.report.traces import Pieces, pieces_of
from wrongturn.trace import Problem, Trace

LIMIT = 10_000_000
"""Bytes a report has at most."""


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

    Raises:
        WrongturnError: the file cannot be written.
        ValueError: ``limit`` is too small for the page without any trace.
    """
    study, comparison = study or {}, [row for row in comparison or [] if row]
    facts = _facts(traces, meta or {})
    charts = curves(study)
    body = "\n".join(
        (
            lead(study, comparison, facts),
            sections.strategies(comparison),
            groups(study, facts),
            onset(study, charts),
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
    target = Path(path)
    with disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_aside(target, template.substitute(parts, payload=blocks, left_out=left_out).encode())
    return target


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
    """Of the plain samples (or all, without those): the share of right answers and how many are graded, and the share
    of traces without a wrong token."""
    ended = [trace for trace in traces if trace.finish != "until"]
    plain = [trace for trace in ended if trace.strategy == "sample"] or ended
    problems = [trace.problem for trace in plain]
    right = [math.nan if trace.correct is None else float(trace.correct) for trace in plain]
    exact = [math.nan if trace.onset is None else float(trace.onset < 0) for trace in plain]
    ungraded = sum(map(math.isnan, right))
    return {
        "accuracy": share(right, problems).dict(),
        "exact": share(exact, problems).dict(),
        "graded": len(right) - ungraded,
        "ungraded": ungraded,
    }
