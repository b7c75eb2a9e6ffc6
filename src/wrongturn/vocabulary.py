"""Text to token ids and back: what a model's tokenizer does for the rest of the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

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

    def containing(self, marks: Sequence[str]) -> Sequence[int]:
        """The tokens whose text contains one of ``marks``; a :class:`Marked` where tokens are still being met."""
        ...


@runtime_checkable
class Meeting(Protocol):
    """A vocabulary that knows only the tokens it has met in this process."""

    def meet(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        """Know the tokens of an earlier trace, whose texts are on record (none, where they are not).

        Raises ``ValueError`` where one of them means something else here.
        """
        ...


class Marked(Sequence[int]):
    """The tokens whose text contains one of ``marks``, always as of now: ``texts`` (by id) may be added to.

    NumPy takes it for an array. ``also`` are tokens known beforehand.
    """

    def __init__(self, texts: dict[int, str], marks: Sequence[str], also: Sequence[int] = ()) -> None:
        self._texts, self._marks, self._read = texts, tuple(marks), 0
        self._ids = np.array(also, np.int32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if len(self._texts) > self._read:
            new = list(self._texts)[self._read :]  # at one blow: another thread may be adding some
            self._read += len(new)
            found = [token for token in new if any(mark in self._texts[token] for mark in self._marks)]
            self._ids = np.concatenate((self._ids, np.array(found, np.int32)))
        return np.array(self._ids, dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.__array__())

    def __getitem__(self, place: Any) -> Any:
        found = self.__array__()[place].tolist()
        return tuple(found) if isinstance(place, slice) else found


def meet(pairs: Iterable[tuple[int, str]], texts: dict[int, str], ids: dict[str, int]) -> None:
    """Add tokens of another process to ``texts`` by id and ``ids`` by text; see :meth:`Meeting.meet`."""
    for token, text in pairs:
        if texts.setdefault(token, text) != text:
            raise ValueError(f"token id {token} stands for {texts[token]!r} here, and for {text!r} there")
        ids.setdefault(text, token)


class Interned:
    """A vocabulary made of the texts a server has sent, for servers that tell no token ids.

    The id of a text is a hash of it, so that all processes agree on it; where two texts meet, the second takes the next
    free id. A conversation is *one* token, whose text is the JSON of its messages.
    """

    stop_ids: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._ids: dict[str, int] = {}

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

    def containing(self, marks: Sequence[str]) -> Marked:
        """See :meth:`Vocabulary.containing`."""
        return Marked(self._texts, marks)

    def meet(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        """See :meth:`Meeting.meet`."""
        meet(zip(ids, texts, strict=False), self._texts, self._ids)
