"""Routing: from the features of a failed problem to the operator that is worth its tokens, and what that gains.

``compare`` says what routers rescue within a budget, ``fit_policy`` makes one a file, ``deploy`` says what is left of
it where nobody grades.
"""

from __future__ import annotations

from wrongturn.routing import follow
from wrongturn.routing.choosing import Kinds, choose
from wrongturn.routing.comparison import Comparison, compare, largest_budget
from wrongturn.routing.deployment import Deployment, deploy, fit_policy
from wrongturn.routing.playing import play
from wrongturn.routing.policy import Policy, Trigger
from wrongturn.routing.rules import Fixed, Lessons, Linear, Reference, Standardised, Threshold
from wrongturn.routing.spending import all_plans, spend

__all__ = [
    "Comparison",
    "Deployment",
    "Fixed",
    "Kinds",
    "Lessons",
    "Linear",
    "Policy",
    "Reference",
    "Standardised",
    "Threshold",
    "Trigger",
    "all_plans",
    "choose",
    "compare",
    "deploy",
    "fit_policy",
    "follow",
    "largest_budget",
    "play",
    "spend",
]
