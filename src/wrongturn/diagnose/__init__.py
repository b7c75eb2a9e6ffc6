"""Diagnosis: traces in, frozen figures out. Pure: no engine, no file, no model.

``study`` tells everything there is to tell; ``plan`` says which prefixes to resample so that it can tell more.
"""

from __future__ import annotations

from wrongturn.diagnose.claims import Claim
from wrongturn.diagnose.recovery import Cut, Recovery, plan
from wrongturn.diagnose.segments import blank_lines, segments
from wrongturn.diagnose.study import Study, study

__all__ = ["Claim", "Cut", "Recovery", "Study", "blank_lines", "plan", "segments", "study"]
