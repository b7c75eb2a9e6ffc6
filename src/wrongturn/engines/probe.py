"""What a server can do, found out by asking it: a few dozen requests of a few tokens, no trust in names and versions.

A question that the server refuses is a finding. Only that it is not there, turns the key down or has no such model is
an error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wrongturn.engines._asking import TEXT, Answer, Asking
from wrongturn.engines._completion import Token
from wrongturn.engines._dialect import PREFILLS, Dialect, Prompt
from wrongturn.engines._http import Refused
from wrongturn.engines.base import Capabilities
from wrongturn.errors import EngineError

if TYPE_CHECKING:
    from wrongturn.engines.openai import OpenAI

MODES = ("auto", "completions", "chat")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found out: a key, the value, and what it means."""

    key: str
    value: Any
    says: str


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a server can do with a model. ``tokenizes``: it turns texts into ids for others."""

    model: str
    url: str
    version: str | None
    capabilities: Capabilities
    dialect: Dialect
    tokenizes: bool
    findings: tuple[Finding, ...]
    requests: int

    def dict(self) -> dict[str, Any]:
        """Plain values by key."""
        return {"model": self.model, "url": self.url, "server": self.version, "requests": self.requests} | {
            finding.key: finding.value for finding in self.findings
        }


async def probe(engine: OpenAI) -> ProbeReport:
    """Ask the engine's server what it can do. Raises a fatal ``EngineError`` where nothing will work."""
    return await _Probe(engine).run()


class _Probe(Asking):
    """The questions in the order they build on each other: each asks in the dialect the ones before it found."""

    def __init__(self, engine: OpenAI) -> None:
        super().__init__(engine)
        self.findings: list[Finding] = []

    def find(self, key: str, value: Any, says: str) -> Any:
        self.findings.append(Finding(key, value, says))
        return value

    async def run(self) -> ProbeReport:
        listed = await self.patiently(self.server.models) or []
        version = await self._version()
        first = await self._endpoint()
        ids, tokenizes = await self._token_ids(first)
        k = await self._top_k()
        mode = await self._logprobs(k)
        if mode == "none":
            k, self.dialect = 0, replace(self.dialect, logprobs=False)
        elif not k:
            self.find("top_k", 0, "only the drawn token's logprob: entropies are unknown")
        streaming = await self._streaming()
        prefix = await self._prefix()
        about = next((m for m in listed if m["id"] == self.model), listed[0] if len(listed) == 1 else {})
        context = about.get("max_model_len")
        capabilities = Capabilities(
            vocab_size=self.engine.vocab_size if ids else None,
            context=self.find("context", context if isinstance(context, int) else None, "tokens of prompt and answer"),
            top_k=k,
            logprobs=mode,
            prefix=prefix,
            token_ids=ids,
            seeds=await self._seeds(),
            echo=await self._echo(),
            prefix_caching=await self._caching(),
            streaming=streaming,
            n=await self._n(),
        )
        await self._tokenizer()
        return ProbeReport(
            self.model, self.server.url, version, capabilities, self.dialect, tokenizes, tuple(self.findings),
            self.requests,
        )  # fmt: skip

    async def _version(self) -> str | None:
        told = await self.fetch("/version")
        version = told.get("version") if isinstance(told, dict) else None
        return version if isinstance(version, str) else None

    async def _endpoint(self) -> Answer:
        """Which endpoint there is; its first answer. Raises what a server says that refuses them all."""
        refusals: list[EngineError] = []
        plain = [Dialect(chat, logprobs=logprobs) for logprobs in (True, False) for chat in (False, True)]
        newer = [
            Dialect(True, limit="max_completion_tokens", logprobs=logprobs, sampling=sampling)
            for sampling in (True, False)
            for logprobs in (True, False)
        ]
        for dialect in (*plain, *newer):
            if self.engine.mode not in ("auto", "chat" if dialect.chat else "completions"):
                continue
            for prompt in (TEXT, list(range(1, 9))) if not dialect.chat else (TEXT,):
                try:
                    first = await self.ask(4, prompt=prompt, dialect=dialect)
                except Refused as refused:
                    if refused.fatal:
                        raise
                    refusals.append(refused)
                    continue
                self.dialect, self.prompt = dialect, prompt
                if not dialect.sampling:
                    self.find("temperature", "own", "it takes none: sampling at 1 is possible, nothing else")
                return first
        said = "; ".join(dict.fromkeys(str(refused).removeprefix(f"{self.server.url} ") for refused in refusals))
        raise EngineError(f"{self.server.url} refuses every request: {said}", fatal=True)

    async def _token_ids(self, first: Answer) -> tuple[bool, bool]:
        """Whether ids go in and come out; whether the server tokenizes for others."""
        tokens = await self.tokenize(special=True)
        tokenizes = bool(tokens) and all(type(token) is int for token in tokens)
        ids = False
        if self.engine.mode != "chat":
            dialect = replace(self.dialect, chat=False, ids=True, limit="max_tokens")
            out = await self.attempt(4, dialect=dialect, prompt=TEXT if self.dialect.chat else None)
            prompt = out.reader.prompt_ids if out is not None else None
            if prompt is None and not isinstance(self.prompt, str):
                prompt = [int(token) for token in self.prompt]  # type: ignore[arg-type]
            if prompt is None and tokenizes:
                prompt = tokens
            if out is not None and prompt and out.tokens and all(token.id is not None for token in out.tokens):
                again = await self.attempt(4, dialect=dialect, prompt=prompt)
                ids = again is not None and again.keys[:1] == out.keys[:1]
            if ids:
                self.dialect, self.prompt = dialect, prompt or []
        if not ids and self.engine.mode == "auto" and self.engine.tokenizer is None and not self.dialect.chat:
            chat = replace(self.dialect, chat=True)
            if await self.attempt(4, dialect=chat, prompt=TEXT) is not None:  # it knows the template, we do not
                self.dialect, self.prompt = chat, TEXT
        says = "prompts are token ids, and ids come back" if ids else "prompts and answers are text"
        self.find("endpoint", self.dialect.path, "where requests go")
        self.find("token_ids", ids, says)
        self.find("tokenize", tokenizes, "the server turns text into ids" if tokenizes else "no /tokenize")
        return ids, tokenizes

    async def _top_k(self) -> int:
        """The most alternatives the server grants."""
        granted, refused = 0, None
        for k in (1, 5, 20, 64, 256):
            listed = await self._listed(k)
            if listed < k:
                refused = k if listed == 0 else None
                granted = max(granted, listed)
                break
            granted = listed
        while refused is not None and refused - granted > 1 and granted:
            k = (granted + refused) // 2
            listed = await self._listed(k)
            granted, refused = (listed, refused) if listed >= k else (granted, k)
        return self.find("top_k", granted, "alternatives per token")

    async def _listed(self, k: int) -> int:
        answer = await self.attempt(1, k=k)
        return len(answer.tokens[0].top) if answer is not None and answer.tokens else 0

    async def _logprobs(self, k: int) -> str:
        """Raw or processed: the spread of the alternatives under two temperatures; with only one they are the same."""
        if self.dialect.logprobs:
            k = min(k, 20)
            one, two = [await self.attempt(1, k=k, temperature=t, seed=1) for t in (1.0, 2.0)]
            spreads = [_spread(answer) for answer in (one, two)]
            if spreads[0] and spreads[1]:
                kept = not self.dialect.sampling or abs(spreads[1] - spreads[0]) <= abs(spreads[1] - spreads[0] / 2)
                mode = "raw" if kept else "processed"
                says = f"they {'do not change' if kept else 'change'} with the temperature"
                says = says if self.dialect.sampling else "at the only temperature both are the same"
                return self.find("logprobs", mode, says)
            if any(t.logprob == t.logprob for answer in (one, two) if answer is not None for t in answer.tokens):
                return self.find("logprobs", "raw", "one alternative at most: taken to be raw, not measured")
        return self.find("logprobs", "none", "no logprobs: what watches uncertainty cannot work")

    async def _streaming(self) -> bool | None:
        """Whether a stream has the logprobs that a whole answer has."""
        whole = await self.attempt(4)
        for usage in (True, False):
            dialect = replace(self.dialect, usage=usage)
            streamed = await self.attempt(4, dialect=dialect, stream=True)
            if streamed is None or not streamed.tokens:
                continue
            self.dialect = dialect
            if not dialect.logprobs:
                return self.find("streaming", None, "streams, but no logprobs in them or elsewhere")
            known = [sum(t.logprob == t.logprob for t in a.tokens) for a in (whole, streamed) if a is not None]
            same = len(known) == 2 and known[0] <= known[1]
            self.dialect = replace(dialect, streams=same)
            says = "a stream tells them too" if same else "a stream lacks them, so answers come whole"
            return self.find("streaming", same, says)
        self.dialect = replace(self.dialect, streams=False)
        return self.find("streaming", False, "no streams: answers come whole, stop conditions are applied afterwards")

    async def _prefix(self) -> bool:
        """Whether an answer cut in half goes on as the whole one did."""
        whole = await self.attempt(12, stream=True)
        if whole is None or len(whole.tokens) < 4:
            return self.find("prefix", not self.dialect.chat, "taken for granted: the answer was too short to see")
        for prefill in PREFILLS if self.dialect.chat else (None,):
            dialect = replace(self.dialect, prefill=prefill)
            for cut in (len(whole.tokens) // 2, len(whole.tokens) // 2 - 1):
                left, begun = whole.tokens[cut:], "".join(token.text for token in whole.tokens[:cut])
                if dialect.chat:
                    rest = await self.attempt(len(left), dialect=dialect, written=begun)
                elif dialect.ids:
                    rest = await self.attempt(len(left), prompt=[*self.prompt, *whole.keys[:cut]])  # type: ignore[list-item]
                else:
                    rest = await self.attempt(len(left), prompt=f"{self.prompt}{begun}")
                if rest is not None and _same(rest, left, by_id=dialect.ids):
                    self.dialect = dialect
                    return self.find("prefix", True, "an answer cut in half goes on as the whole one did")
        if not self.dialect.chat:
            return self.find("prefix", True, "taken for granted: greedy answers differ, but a prompt is a prefix")
        return self.find("prefix", False, "no: a begun answer is not continued; strategies that fork are refused")

    async def _seeds(self) -> bool | None:
        """Whether the seed decides: the same one twice, and others."""
        drawn = [await self.attempt(12, temperature=1.5, seed=seed) for seed in (1, 1, 2, 3)]
        texts = [answer.keys for answer in drawn if answer is not None]
        if len(texts) < 4:
            return self.find("seeds", None, "not known: sampling with a seed was refused")
        if texts[0] != texts[1]:
            return self.find("seeds", False, "the same seed gave different tokens")
        if texts[0] == texts[2] == texts[3]:
            return self.find("seeds", None, "not known: all seeds gave the same tokens")
        return self.find("seeds", True, "the same seed gives the same tokens")

    async def _echo(self) -> bool | None:
        """Whether the prompt's own logprobs can be had."""
        # vLLM's list of ids has only those of the answer
        echo = {"echo": True} | ({"return_token_ids": False} if self.dialect.ids else {})
        answer = None if self.dialect.chat else await self.attempt(1, more=echo)
        echoed = answer is not None and len(answer.tokens) > 2 and answer.tokens[2].logprob == answer.tokens[2].logprob
        return self.find("echo", echoed, "logprobs of the prompt" if echoed else "no logprobs of the prompt")

    async def _caching(self) -> bool | None:
        """Whether a prompt sent twice is found in a cache, where the server tells."""
        long: Prompt = f"{TEXT} " * 20 if isinstance(self.prompt, str) else [*self.prompt] * 20  # type: ignore[assignment]
        told = []
        for _ in range(2):
            answer = await self.attempt(1, prompt=long)
            details = answer.reader.usage.get("prompt_tokens_details") if answer is not None else None
            told.append(details.get("cached_tokens") if isinstance(details, dict) else None)
        if told[1] is None:
            return self.find("prefix_caching", None, "not told")
        says = f"{told[1]} tokens of a repeated prompt were found again"
        return self.find("prefix_caching", told[1] > 0, says)

    async def _n(self) -> bool:
        """Whether one request may ask for several answers."""
        answer = await self.attempt(1, temperature=1.0, more={"n": 2})
        several = answer is not None and answer.raw.get("choices") == 2
        return self.find("n", several, "several answers to one request" if several else "one answer to a request")

    async def _tokenizer(self) -> None:
        """Whether the tokenizer that was given is the server's."""
        if self.engine.tokenizer is None:
            return
        tokens = await self.tokenize(special=False)
        same = None if tokens is None else tokens == self.engine.tokenizer.encode(TEXT)
        said = {None: "not known: no /tokenize", True: "the given one is the server's", False: "not the server's"}
        self.find("tokenizer", same, said[same])


def _spread(answer: Answer | None) -> float | None:
    """How far apart the first and the last listed alternative are, in nats; None where there are not two."""
    if answer is None or not answer.tokens or not answer.tokens[0].top:
        return None
    top = [value for _, value in answer.tokens[0].top if value > -100.0]
    return top[0] - top[-1] if len(top) > 1 else None


def _same(rest: Answer, left: list[Token], *, by_id: bool) -> bool:
    """Whether a continuation begins as the rest of the whole answer does."""
    if by_id:
        return rest.keys[:2] == [token.id for token in left[:2]]
    expected, text = "".join(token.text for token in left), rest.text
    most = min(len(expected), len(text))
    return most > 0 and expected[:most] == text[:most]
