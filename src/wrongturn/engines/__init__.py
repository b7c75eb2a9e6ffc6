"""Engines: whatever continues token ids."""

from __future__ import annotations

from wrongturn.engines.base import Capabilities, Chunk, Engine, Meter, Request, Sampling, Until, Watch

__all__ = ["Capabilities", "Chunk", "Engine", "Meter", "Request", "Sampling", "Until", "Watch", "open"]


def open(spec: str = "embedded") -> Engine:
    """The engine of a spec, ``NAME`` or ``NAME:MODEL``: ``embedded`` (the packaged reasoner) or ``embedded:FOLDER``.

    Raises ``ValueError`` for an engine there is none of.
    """
    from pathlib import Path

    name, _, model = spec.partition(":")
    if name == "embedded":
        from wrongturn.engines.embedded import Embedded

        try:
            return Embedded(Path(model) if model else None)
        except FileNotFoundError as missing:
            raise ValueError(f"engine {spec!r}: {missing}") from None
    raise ValueError(f"unknown engine {name!r} (expected 'embedded' or 'embedded:FOLDER')")
