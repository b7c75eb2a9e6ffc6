"""Reports people read: one HTML file of a run, one trace in a notebook, one trace in a terminal."""

from __future__ import annotations

from wrongturn.report.html import write

__all__ = ["write"]
