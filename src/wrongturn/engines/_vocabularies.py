"""Whether two models can decode in step: their tokens must be the same, since what is drawn is fed to both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from wrongturn.errors import EngineError

Side = tuple[str, int, Sequence[str | None] | None]
"""A model's name, how many logits it has, and its tokens as its tokenizer names them (None: it has no tokenizer)."""


def check_pair(specialist: Side, ancestor: Side) -> None:
    """Raise a fatal ``EngineError`` that names the first token in which two vocabularies differ."""
    (name, size, tokens), (other, other_size, other_tokens) = specialist, ancestor
    said = f"{other} cannot be the ancestor of {name}: their vocabularies differ"
    if tokens is not None and other_tokens is not None:
        for token, (own, its) in enumerate(zip_longest(tokens, other_tokens)):
            if own != its:
                texts = " and ".join("missing" if text is None else repr(text) for text in (own, its))
                raise EngineError(f"{said}; token {token} is {texts}", fatal=True)
    if size != other_size:
        raise EngineError(f"{said}; one has {size} logits, the other {other_size}", fatal=True)


def words(folder: Path) -> list[str | None] | None:
    """The tokens of a folder's ``tokenizer.json`` by their ids (None: a gap), or None where it has no such file."""
    file = folder / "tokenizer.json"
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    plain = content["model"].get("vocab", {})
    named = plain if isinstance(plain, dict) else {text: i for i, (text, _) in enumerate(plain)}
    texts = {i: text for text, i in named.items()} | {t["id"]: t["content"] for t in content.get("added_tokens") or ()}
    return [texts.get(i) for i in range(max(texts, default=-1) + 1)]
