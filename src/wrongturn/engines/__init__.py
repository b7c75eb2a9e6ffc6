"""Engines: whatever continues token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wrongturn.engines.base import Capabilities, Chunk, Engine, Meter, Request, Sampling, Until, Watch
from wrongturn.engines.edits import Ban, Edit, Mix
from wrongturn.errors import extra

__all__ = [
    "Ban",
    "Capabilities",
    "Chunk",
    "Edit",
    "Engine",
    "Meter",
    "Mix",
    "Request",
    "Sampling",
    "Until",
    "Watch",
    "open",
]

SPECS = ("embedded[:FOLDER or NAME]", "openai:MODEL", "transformers:MODEL", "vllm:MODEL")


def open(
    spec: str = "embedded",
    *,
    base_url: str | Sequence[str] | None = None,
    ancestor: str | None = None,
    **options: Any,
) -> Engine:
    """The engine of a spec, ``NAME`` or ``NAME:MODEL``.

    ``embedded`` is the packaged reasoner, ``embedded:FOLDER`` one that the lab exported; ``openai:MODEL`` any server
    that speaks OpenAI's protocol (``base_url``; several of them share the work), ``transformers:MODEL`` a Hugging Face
    checkpoint (a folder or a name), ``vllm:MODEL`` the same in vLLM. ``ancestor`` is the model that decodes in step
    with an embedded or transformers one, named as that is. ``options`` are those of the engine's class.

    Raises:
        ValueError: there is no such engine, model folder or option.
        WrongturnError: the engine's library is not installed.
    """
    if ancestor is not None:
        options["ancestor"] = ancestor
    engine = _opened(spec, base_url, options)
    engine.opening = spec, options | ({} if base_url is None else {"base_url": base_url})
    return engine


def _opened(spec: str, base_url: str | Sequence[str] | None, options: dict[str, Any]) -> Engine:
    name, _, model = spec.partition(":")
    if name not in {known.partition(":")[0].partition("[")[0] for known in SPECS}:
        raise ValueError(f"unknown engine {name!r} (expected one of {', '.join(SPECS)})")
    if name != "embedded" and not model:
        raise ValueError(f"engine {spec!r} names no model (expected {name}:MODEL)")
    if base_url is not None and name != "openai":
        raise ValueError(f"engine {spec!r} runs here: a base URL is for 'openai:MODEL'")
    if "ancestor" in options and name not in ("embedded", "transformers"):
        raise ValueError(f"engine {spec!r} takes no ancestor: 'embedded' and 'transformers:MODEL' do")
    try:
        if name == "embedded":
            from wrongturn.engines.embedded import Embedded

            return Embedded(model or None, **options)
        if name == "openai":
            with extra("openai", "the engine 'openai'"):
                from wrongturn.engines.openai import OpenAI
                from wrongturn.engines.pool import Pool
            urls = [base_url] if base_url is None or isinstance(base_url, str) else list(base_url)
            engines = [OpenAI(model, base_url=url, **options) for url in urls]
            return engines[0] if len(engines) == 1 else Pool(engines)
        if name == "transformers":
            with extra("local", "the engine 'transformers'"):
                from wrongturn.engines.transformers import Transformers
            return Transformers(model, **options)
        with extra("vllm", "the engine 'vllm'"):
            from wrongturn.engines.vllm import VLLM
        return VLLM(model, **options)
    except FileNotFoundError as missing:
        raise ValueError(f"engine {spec!r}: {missing}") from None
