"""Find where a language model's reasoning takes a wrong turn, what kind of failure it is, and what rescues it."""

from __future__ import annotations

from importlib.metadata import version as _version

from wrongturn import tasks
from wrongturn.engines import Sampling, open
from wrongturn.errors import WrongturnError
from wrongturn.pipeline import collect, diagnose, report, run, solve
from wrongturn.routing import Policy
from wrongturn.store import Run
from wrongturn.strategies import strategy
from wrongturn.trace import TRACE_VERSION, Problem, Trace

__version__ = _version("wrongturn")

__all__ = [
    "TRACE_VERSION",
    "Policy",
    "Problem",
    "Run",
    "Sampling",
    "Trace",
    "WrongturnError",
    "collect",
    "diagnose",
    "open",
    "report",
    "run",
    "solve",
    "strategy",
    "tasks",
]
