"""Inference-time interventions, one file a family. Importing this package registers them all."""

from __future__ import annotations

from wrongturn.strategies import guard, operators, votes
from wrongturn.strategies.base import Context, Draft
from wrongturn.strategies.named import Named, names, parse, strategy

__all__ = ["Context", "Draft", "Named", "guard", "names", "operators", "parse", "strategy", "votes"]
