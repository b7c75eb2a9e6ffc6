"""For all tests: no deadline on single Hypothesis examples, which on a busy machine measures the machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("wrongturn", deadline=None)
settings.load_profile("wrongturn")
