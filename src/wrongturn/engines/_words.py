"""Vocabularies of models behind a server: its own tokenizer asked over HTTP, or a local one for a server of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from wrongturn.engines._completion import Token
from wrongturn.engines._http import Patience, Server
from wrongturn.engines._tokenizer import HFVocabulary
from wrongturn.errors import EngineError
from wrongturn.vocabulary import Marked, Message, meet

_BATCH = 256  # token ids asked about at once
_APART = "\x1e"  # stands between them; hardly ever part of a token
_ODD = 1 << 30  # ids from here on are of texts that a local tokenizer has no token for


class Served:
    """The vocabulary of a server with ``/tokenize`` and ``/detokenize`` (as vLLM's), remembered as it is learned.

    A text is asked for once; the asking blocks, for these calls cannot await. Give the engine a tokenizer to avoid it.
    ``servers`` of the same model may be added: whichever answers is asked.
    """

    stop_ids: tuple[int, ...] = ()  # the server knows when to stop

    def __init__(self, server: Server, model: str, patience: Patience) -> None:
        self.servers = [server]
        self._model, self._patience = model, patience
        self._texts: dict[int, str] = {}
        self._ids: dict[str, list[int]] = {}
        self._apart: list[int] | None = None

    def learn(self, token: int, text: str) -> None:
        """What a token of the stream said. A piece with half a character in it teaches nothing."""
        if text and "\ufffd" not in text and token not in self._texts:
            self._texts[token] = text

    def learn_end(self, token: Token) -> None:
        """The last token of a completion that stopped: one without text is an end token."""
        if token.id is not None and not token.text:
            self._texts.setdefault(token.id, "")

    def encode(self, text: str) -> list[int]:
        """See :meth:`Vocabulary.encode`."""
        if text not in self._ids:
            body = {"prompt": text, "add_special_tokens": False}
            ids = self._ask("/tokenize", body, "tokens") if text else []
            self.pieces(ids)  # so that whether they end a step is known as of all others
            self._ids[text] = ids
        return list(self._ids[text])

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """See :meth:`Vocabulary.pieces`. A character over several tokens is the text of the last of them."""
        tokens = [int(token) for token in ids]
        unknown = [token for token in dict.fromkeys(tokens) if token not in self._texts]
        for start in range(0, len(unknown), _BATCH):
            self._fetch(unknown[start : start + _BATCH])
        pieces, run = [], []
        for token in tokens:
            text = self._texts[token]
            if "\ufffd" not in text:
                run = []
                pieces.append(text)
                continue
            run.append(token)
            whole = self._ask("/detokenize", {"tokens": run}, "prompt")
            done = "\ufffd" not in whole
            pieces.append(whole if done else "")
            run = [] if done else run
        return pieces

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See :meth:`Vocabulary.prompt`; the engine asks without blocking."""
        return self._ask("/tokenize", chat(messages), "tokens")

    def containing(self, marks: Sequence[str]) -> Marked:
        """See :meth:`Vocabulary.containing`."""
        return Marked(self._texts, marks)

    def meet(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        """See :meth:`wrongturn.vocabulary.Meeting.meet`; the server knows better, so it is asked."""
        self.pieces(ids)

    def _fetch(self, ids: list[int]) -> None:
        """The texts of tokens: all in one request, with something between them; where that fails, one by one."""
        if self._apart is None:
            apart: list[int] = []  # for good, where a tokenizer knows only the words of its task
            with suppress(EngineError):
                apart = self._ask("/tokenize", {"prompt": _APART, "add_special_tokens": False}, "tokens")
            self._apart = apart
        spread = [part for token in ids for part in (token, *self._apart)]
        texts = self._ask("/detokenize", {"tokens": spread}, "prompt").split(_APART) if self._apart else []
        if len(texts) != len(ids) + 1:
            texts = [self._ask("/detokenize", {"tokens": [token]}, "prompt") for token in ids]
        self._texts |= dict(zip(ids, texts, strict=False))

    def _ask(self, path: str, body: dict[str, Any], what: str) -> Any:
        servers = self.servers
        for at, server in enumerate(servers):
            last = at == len(servers) - 1
            try:
                told = server.ask_now(path, {"model": self._model} | body, self._patience if last else Patience(0))
                self.servers = servers[at:] + servers[:at]  # one that is gone is asked last from now on
                return told[what]
            except EngineError:
                if last:
                    raise
            except (KeyError, TypeError):
                raise EngineError(f"{server.url}: {path} told no {what}; give the engine a tokenizer") from None


def chat(messages: Sequence[Message]) -> dict[str, Any]:
    """The body that tokenizes a conversation, ready for the answer."""
    return {"messages": [dict(m) for m in messages], "add_generation_prompt": True}


class Mapped:
    """A local tokenizer's ids for a server that tells texts only.

    A text that is no single token (half a character, an end token's empty text) gets an id that no tokenizer has.
    """

    def __init__(self, tokenizer: HFVocabulary) -> None:
        self.stop_ids = tokenizer.stop_ids
        self._tokenizer = tokenizer
        self._ids: dict[str, int] = {}
        self._odd: dict[int, str] = {}

    def intern(self, text: str) -> int:
        """The id of one token's text."""
        if text not in self._ids:
            ids = self._tokenizer.encode(text)
            self._ids[text] = ids[0] if len(ids) == 1 else self._odd_id(text)
        return self._ids[text]

    def encode(self, text: str) -> list[int]:
        """See :meth:`Vocabulary.encode`."""
        return self._tokenizer.encode(text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """See :meth:`Vocabulary.pieces`."""
        pieces, run = [], []
        for token in map(int, ids):
            if token in self._odd:
                pieces += [*self._tokenizer.pieces(run), self._odd[token]]
                run = []
            else:
                run.append(token)
        return pieces + self._tokenizer.pieces(run)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The conversation under the tokenizer's chat template, as one token: its text is what the server is sent."""
        ids = self._tokenizer.prompt(messages)
        return [self.intern(self._tokenizer.decode(ids, special=True))]

    def containing(self, marks: Sequence[str]) -> Marked:
        """See :meth:`Vocabulary.containing`."""
        return Marked(self._odd, marks, self._tokenizer.containing(marks))

    def meet(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        """See :meth:`wrongturn.vocabulary.Meeting.meet`."""
        odd = ((token, text) for token, text in zip(ids, texts, strict=False) if token >= _ODD)
        meet(odd, self._odd, self._ids)

    def _odd_id(self, text: str) -> int:
        digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
        found = _ODD | (int.from_bytes(digest, "little") >> 2)
        while found in self._odd:
            found = _ODD | (found + 1)
        self._odd[found] = text
        return found
