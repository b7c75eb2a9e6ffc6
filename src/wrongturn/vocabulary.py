"""Text to token ids and back: what a model's tokenizer does for the rest of the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

Message = Mapping[str, str]
"""One turn of a chat: ``{"role": "user", "content": "…"}``."""


class Vocabulary(Protocol):
    """The token ids of one model, as text."""

    stop_ids: tuple[int, ...]
    """Tokens that end a completion."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a plain text; nothing is added. Raises ``ValueError`` where the tokens cannot say it."""
        ...

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each token; joined, they are the decoded text."""
        ...

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation under the model's chat template, ready for the answer."""
        ...

    def containing(self, marks: Sequence[str]) -> tuple[int, ...]:
        """The tokens whose text contains one of ``marks``."""
        ...


LINE_ENDS = tuple(before + "\n" * n for before in ("", *".:!?,;)]}") for n in (1, 2, 3))


class Interned:
    """A vocabulary made of the texts a server has sent, for servers that tell no token ids.

    The id of a text is a hash of it, so that all processes agree on it; where two texts meet, the second takes the next
    free id. A conversation is *one* token, whose text is the JSON of its messages.
    """

    stop_ids: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        for text in LINE_ENDS:  # strategies ask which tokens end a line before one has been seen
            self.intern(text)

    def intern(self, text: str) -> int:
        """The id of one token's text."""
        found = self._ids.get(text)
        if found is None:
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest()
            found = int.from_bytes(digest, "little") >> 1
            while found in self._texts:
                found = (found + 1) & 0x7FFFFFFF
            self._texts[found], self._ids[text] = text, found
        return found

    def encode(self, text: str) -> list[int]:
        """The text as one token."""
        return [self.intern(text)] if text else []

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """See :meth:`Vocabulary.pieces`. Raises ``ValueError`` for an id that was never handed out."""
        try:
            return [self._texts[int(token)] for token in ids]
        except KeyError as unknown:
            raise ValueError(f"token id {unknown} stands for no text seen here") from None

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """One token for the whole conversation; :meth:`messages` reads it back."""
        return [self.intern(json.dumps([dict(m) for m in messages], ensure_ascii=False, sort_keys=True))]

    def messages(self, token: int) -> list[dict[str, str]]:
        """The conversation behind the token of a prompt."""
        return json.loads(self.pieces([token])[0])

    def containing(self, marks: Sequence[str]) -> tuple[int, ...]:
        """See :meth:`Vocabulary.containing`; of the texts known so far, the usual line ends among them."""
        return tuple(token for token, text in self._texts.items() if any(mark in text for mark in marks))
