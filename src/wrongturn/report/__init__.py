"""Reports people read: one HTML file of a run, one trace in a notebook, one trace in a terminal."""

from __future__ import annotations

from wrongturn.report.html import write
from wrongturn.report.inline import trace_html, trace_text
from wrongturn.report.traces import Pieces, pieces_of

__all__ = ["Pieces", "pieces_of", "trace_html", "trace_text", "write"]
