"""The vocabulary of a Hugging Face tokenizer: text to ids and back, token by token."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from wrongturn.errors import EngineError, extra
from wrongturn.vocabulary import Message

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # SentencePiece's byte tokens
_HALF = "\ufffd"  # what a decoder writes for bytes that are no character (yet)
_STRIDE = 4096  # tokens decoded at once


class HFVocabulary:
    """A :class:`~wrongturn.vocabulary.Vocabulary` over a tokenizer of transformers.

    Special tokens (the end of a turn, padding) have no text, as in the text a server sends.
    """

    def __init__(self, tokenizer: Any, stop_ids: Iterable[int] = ()) -> None:
        own = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((*stop_ids, *own)))
        self._tokenizer = tokenizer
        self._text: dict[int, str] = {}  # of tokens that are whole characters, anywhere but at the beginning
        self._halves: set[int] = set()  # tokens whose text depends on their neighbours
        self._context: list[int] | None = None

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self._tokenizer)

    @classmethod
    def load(cls, path_or_name: str | Path, *, trust_remote_code: bool = False) -> HFVocabulary:
        """The tokenizer of a checkpoint (a folder or a name on the hub) or of a ``tokenizer.json``.

        What ends a completion is what its ``generation_config.json`` says, and the tokenizer's own end token.
        Raises ``EngineError`` where there is none, ``WrongturnError`` where transformers is not installed.
        """
        with extra("local", f"the tokenizer {path_or_name}"):
            from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
        source = Path(path_or_name).expanduser()
        try:
            if source.is_file():
                return cls(PreTrainedTokenizerFast(tokenizer_file=str(source)))
            name = str(source) if source.exists() else str(path_or_name)
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        except Exception as error:  # whatever a broken file makes its parser raise
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise EngineError(f"no tokenizer can be loaded from {path_or_name}: {first}", fatal=True) from None
        try:
            ends = GenerationConfig.from_pretrained(name).eos_token_id
        except OSError:  # there is no such file
            ends = None
        return cls(tokenizer, [] if ends is None else [ends] if isinstance(ends, int) else ends)

    @property
    def tokens(self) -> list[str | None]:
        """The tokens as the tokenizer names them, by their ids."""
        return self._tokenizer.convert_ids_to_tokens(list(range(len(self._tokenizer))))

    @property
    def begin_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts in front of a text that is not a chat."""
        return tuple(token for token in self._tokenizer.encode("") if token not in self.stop_ids)

    def encode(self, text: str) -> list[int]:
        """See :meth:`~wrongturn.vocabulary.Vocabulary.encode`."""
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # the Rust library has no class of its own
            raise ValueError(f"the tokens of this model cannot say {text[:40]!r}: {error}") from None

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of a sequence; with its ``special`` tokens, as a server reads a prompt."""
        return self._decode([int(token) for token in ids], special)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The text of each token; joined, they are :meth:`decode`.

        A character made of several tokens is in the last of them, and the others are empty.
        """
        tokens = [int(token) for token in ids]
        self._learn(tokens)
        found: list[str] = []
        at = 0
        while at < len(tokens):
            if at > 0 and tokens[at] not in self._halves:
                found.append(self._text[tokens[at]])
                at += 1
                continue
            stop = at + 1  # a run of bytes, or the first token, which may lose a space
            while stop < len(tokens) and tokens[stop] in self._halves:
                stop += 1
            found += self._shared(tokens[at:stop], self._before() if at else [])
            at = stop
        whole = self._decode(tokens)
        return (
            found if "".join(found) == whole else split(whole, [self._decode(tokens[:i]) for i in range(len(tokens))])
        )

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Under the chat template; without one, the contents one after the other, begun as the model expects it."""
        if self._tokenizer.chat_template is not None:
            given = [dict(message) for message in messages]
            try:
                return self._tokenizer.apply_chat_template(given, add_generation_prompt=True, return_dict=False)
            except Exception as error:  # what a template raises is text of its author
                raise EngineError(f"the chat template does not take these messages: {error}", fatal=True) from None
        ids = self._tokenizer.encode("".join(message["content"] for message in messages))
        while ids and ids[-1] in self.stop_ids:
            ids.pop()
        return ids

    def containing(self, marks: Sequence[str]) -> tuple[int, ...]:
        """See :meth:`~wrongturn.vocabulary.Vocabulary.containing`."""
        every = range(len(self._tokenizer))
        self._learn(every)
        return tuple(i for i in every if i in self._text and any(mark in self._text[i] for mark in marks))

    # -- the text of single tokens -------------------------------------------------------------------------------------

    def _decode(self, ids: list[int], special: bool = False) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False)

    def _before(self) -> list[int]:
        """A token to stand before others, so that they are decoded as in the middle of a text."""
        if self._context is None:
            plain = (token for token in range(len(self._tokenizer)) if self._decode([token]).isalnum())
            self._context = [next(plain, 0)]
        return self._context

    def _learn(self, ids: Iterable[int]) -> None:
        """Find the texts of tokens not met yet."""
        new = sorted(set(ids) - self._text.keys() - self._halves)
        before = self._before()
        cut = len(self._decode(before))
        names = self._tokenizer.convert_ids_to_tokens(new)
        for start in range(0, len(new), _STRIDE):
            some = new[start : start + _STRIDE]
            texts = self._tokenizer.batch_decode(
                [[*before, token] for token in some], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            for token, name, text in zip(some, names[start : start + _STRIDE], texts, strict=True):
                if _HALF in text or (name is not None and _BYTE.fullmatch(name)):
                    self._halves.add(token)
                else:
                    self._text[token] = text[cut:]

    def _shared(self, run: list[int], before: list[int]) -> list[str]:
        """The text of a run, shared out among its tokens."""
        cut = len(self._decode(before)) if before else 0
        whole = self._decode(before + run)[cut:]
        if len(run) == 1:
            return [whole]
        return split(whole, [self._decode(before + run[:i])[cut:] for i in range(len(run))])


def split(whole: str, begun: Sequence[str]) -> list[str]:
    """Share out ``whole`` among tokens: ``begun[i]`` is what the tokens before the i-th decode to by themselves.

    Of that counts what ``whole`` begins with too, so that a character goes to the token that completes it.
    """
    ends = [0]
    for text in begun[1:]:
        common = next(
            (i for i, (a, b) in enumerate(zip(text, whole, strict=False)) if a != b), min(len(text), len(whole))
        )
        ends.append(max(ends[-1], common))
    ends.append(len(whole))
    return [whole[a:b] for a, b in pairwise(ends)]
